import io
from collections.abc import Callable

import matplotlib
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from acidburn_assets.adapters import pictures
from acidburn_assets.core import projection, schemas
from acidburn_assets_tests.core.cluster_samples import id_array, random_ids

EDGES = (16, 32, 64, 128, 256)
MAX_PICTURE_BYTES = 150_000


def pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def share_of(png: bytes, colour: str) -> float:
    """Share of the pixels that are nearly of that colour."""
    wanted = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)])
    return float(np.mean(np.abs(pixels(png) - wanted).max(axis=2) < 12))


def map_table(n: int = 600, n_clusters: int = 40) -> pa.Table:
    random = np.random.default_rng(0)
    clusters = random.integers(0, n_clusters, size=n).astype(np.int32)
    centres = random.uniform(-1, 1, size=(n_clusters, 2))
    points = centres[clusters] + 0.05 * random.normal(size=(n, 2))
    columns = {
        "chunk_id": id_array(random_ids(n)),
        "dataset": ["papers"] * n,
        "shard": ["000000"] * n,
        "cluster_id": clusters,
        "is_noise": random.random(n) < 0.2,
        "x": points[:, 0].astype(np.float32),
        "y": points[:, 1].astype(np.float32),
    }
    return pa.table(columns, schema=schemas.PROJECTION)


TITLES = {cluster: f"topic number {cluster}" for cluster in range(40)}

DRAWN: dict[str, Callable[[], bytes]] = {
    "lengths": lambda: pictures.chunk_lengths([0, 3, 900, 12_000, 4, 0], EDGES),
    "no lengths": lambda: pictures.chunk_lengths([0] * 6, EDGES),
    "throughput": lambda: pictures.shard_throughput({f"{i:06d}": 400.0 + i for i in range(30)}),
    "much throughput": lambda: pictures.shard_throughput(
        {f"{i:06d}": 400.0 + i for i in range(1_001)}
    ),
    "no throughput": lambda: pictures.shard_throughput({}),
    "sizes": lambda: pictures.cluster_sizes(range(1, 90), [f"topic {i}" for i in range(89)]),
    "one size": lambda: pictures.cluster_sizes(np.array([7]), ["only"]),
    "no size": lambda: pictures.cluster_sizes([], []),
    "map": lambda: pictures.pool_map(map_table(), titles=TITLES, title="science: papers"),
    "large map": lambda: pictures.pool_map(
        map_table(projection.MAP_POINTS), titles=TITLES, title="science: papers"
    ),
    "empty map": lambda: pictures.pool_map(map_table(0), titles={}, title="science"),
    "one point": lambda: pictures.pool_map(map_table(1), titles=TITLES, title="science"),
}


@pytest.mark.parametrize("name", DRAWN)
def test_a_picture_is_900_wide_small_and_the_same_each_time(name: str) -> None:
    png = DRAWN[name]()
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.width == 900
        assert picture.format == "PNG"
        assert not set(picture.info) & {"Software", "date", "Creation Time"}
    assert (pixels(png)[:2] == 255).all()  # white to the edge
    assert len(png) < MAX_PICTURE_BYTES
    assert DRAWN[name]() == png


def test_longer_bars_have_more_ink() -> None:
    few = pictures.cluster_sizes([100, 1, 1], ["a", "b", "c"])
    many = pictures.cluster_sizes([100, 99, 98], ["a", "b", "c"])
    assert share_of(many, "#4c78a8") > 2 * share_of(few, "#4c78a8") > 0


def test_noise_is_grey_and_clusters_are_not() -> None:
    table = map_table()
    all_noise = table.set_column(4, table.schema.field("is_noise"), pa.array([True] * 600))
    grey = pictures.pool_map(all_noise, titles=TITLES, title="science")
    image = pixels(grey)
    saturation = image.max(axis=2) - image.min(axis=2)
    assert share_of(grey, "#d5d9de") > 0
    assert saturation.max() < 40
    colourful = pixels(pictures.pool_map(table, titles=TITLES, title="science"))
    assert (colourful.max(axis=2) - colourful.min(axis=2)).max() > 60


def test_titles_are_written_on_the_map() -> None:
    table = map_table()
    blank = pictures.pool_map(table, titles={}, title="science")
    named = pictures.pool_map(table, titles=TITLES, title="science")
    assert share_of(named, "#2f3640") > 1.5 * share_of(blank, "#2f3640")


@pytest.mark.parametrize(
    "title", ["$5 and $x_2^2", "漢字 ℵ ؟", "tab\tand\nline", "a" * 400, "\x07"]
)
def test_titles_of_any_characters_are_drawn(title: str) -> None:
    """Warnings are errors here: a missing glyph or a formula in a title must not raise one."""
    assert pictures.pool_map(map_table(), titles={0: title}, title=title)
    assert pictures.cluster_sizes([3], [title])


def test_a_glyph_that_the_font_lacks_becomes_a_box() -> None:
    assert pictures._legible("漢 é") == "□ é"


def test_a_long_title_is_cut() -> None:
    assert pictures._legible("x" * 31) == "x" * 29 + "…"
    assert pictures._legible("x" * 30) == "x" * 30


def test_drawing_leaves_matplotlib_as_it_was() -> None:
    before = dict(matplotlib.rcParams)
    pictures.cluster_sizes([3], ["a"])
    assert dict(matplotlib.rcParams) == before
