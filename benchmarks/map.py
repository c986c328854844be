"""The page of a pool's map at several sizes: its file, how it loads, and how it moves and finds.

Made-up points with passages of the Python documentation, in a headless Chromium that draws without
a graphics card. A frame is one step of the wheel, with every label placed anew; a search is one
word that thousands of passages hold.
"""

import tempfile
import time
from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa

from acidburn_assets.adapters import map_page as adapter
from acidburn_assets.core import map_page
from acidburn_assets_tests import browser, map_samples
from benchmarks import evaluation, report

POINTS_PER_CLUSTER = 100
WORD = "array"

_ZOOM = """async () => {
    const map = document.querySelector("#map");
    const middle = {clientX: innerWidth * 0.6, clientY: innerHeight / 2, cancelable: true};
    const laps = [];
    for (let step = 0; step < 80; step += 1) {
        const began = performance.now();
        map.dispatchEvent(new WheelEvent("wheel", {...middle, deltaY: step < 40 ? -60 : 60}));
        await new Promise(requestAnimationFrame);
        laps.push(performance.now() - began);
    }
    return laps;
}"""

_SEARCH = """word => {
    document.querySelector("#search").value = word;
    const began = performance.now();
    document.querySelector("#form").requestSubmit();
    return performance.now() - began;
}"""

_HOVER = """() => {
    const map = document.querySelector("#map");
    const began = performance.now();
    for (let step = 0; step < 100; step += 1) {
        map.dispatchEvent(new PointerEvent("pointermove", {clientX: 400 + 8 * step, clientY: 400}));
    }
    return (performance.now() - began) / 100;
}"""


@click.command()
@click.option("--points", "sizes", multiple=True, type=click.IntRange(1))
@click.option("--json", "is_json", is_flag=True, help="End with one JSON object.")
def command(sizes: Sequence[int], is_json: bool) -> None:
    """Measure a map's page: bytes, loading, frames, search; of 5, 20 and 100 thousand points."""
    texts = [document.text for document in evaluation.documents()]
    rows = []
    facts: dict[str, Any] = {"word": WORD}
    with browser.running() as chromium, tempfile.TemporaryDirectory() as folder:
        facts["chromium"] = chromium.version
        for n_points in sizes or (5_000, 20_000, 100_000):
            page, made = make(n_points, texts)
            path = Path(folder) / "map.html"
            path.write_bytes(page)
            rows.append({"points": n_points, **made, **measure(chromium, path)})
    report.show("map", rows, facts=facts, is_json=is_json)


def make(n_points: int, texts: Sequence[str]) -> tuple[bytes, Mapping[str, float]]:
    """A page, its size and the CPU seconds that it took.

    Args:
        n_points: on the map.
        texts: of its passages, again from the first where they are too few.
    """
    n_clusters = max(1, n_points // POINTS_PER_CLUSTER)
    table = map_samples.table(n_points, n_clusters=n_clusters)
    chunks = map_samples.chunks(table)
    position = chunks.schema.get_field_index("text")
    passages = pa.array(islice(cycle(texts), n_points), pa.string())
    chunks = chunks.set_column(position, chunks.schema.field("text"), passages)
    clusters = map_samples.cluster_map(n_clusters)
    began = time.process_time()
    content = map_page.describe(
        table, chunks, clusters, map_samples.TERMS, n_chunks=n_points, n_laid_out=n_points
    )
    page = adapter.render(content, title="map")
    return page, {"MB": len(page) / 1e6, "CPU s to make": time.process_time() - began}


def measure(chromium: "browser.Browser", path: Path) -> dict[str, float]:
    """Loads a page and uses it.

    Args:
        chromium: in which.
        path: of the page.
    """
    context = chromium.new_context(viewport=browser.SIZE, reduced_motion="reduce")
    try:
        window = browser.Window(context.new_page())
        began = time.perf_counter()
        page = window.open(path)
        loaded = time.perf_counter() - began
        frames = np.array(page.evaluate(_ZOOM))
        hovering = float(page.evaluate(_HOVER))
        searching = float(page.evaluate(_SEARCH, WORD))
    finally:
        context.close()
    return {
        "s to load": loaded,
        "frames a second": 1000 / float(frames.mean()),
        "ms a frame, p95": float(np.percentile(frames, 95)),
        "ms to find a word": searching,
        "ms to find a point": hovering,
    }


if __name__ == "__main__":
    command()
