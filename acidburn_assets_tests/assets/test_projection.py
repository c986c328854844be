"""`P/projection`: beside the table lie a picture and a page, of the same chunks."""

import base64
import json
import re
import zlib

import dagster as dg
import numpy as np
import pyarrow.parquet as pq
import pytest

from acidburn_assets.core.cluster_map import ClusterMap
from acidburn_assets.definitions import build_defs
from acidburn_assets.io_managers import versions
from acidburn_assets_tests import samples
from acidburn_assets_tests.worlds import World

PROJECTION = dg.AssetKey(["library", "projection"])


def test_the_page_shows_the_chunks_of_the_table_under_the_names_of_the_map(world: World) -> None:
    table = pq.read_table(world.object_path("library/projection.parquet"))
    page = world.store.get_bytes("library/map.html").decode()
    (packed,) = re.findall(r'id="content">([^<]*)<', page)
    content = json.loads(zlib.decompress(base64.b64decode(packed)))
    assert len(content["beginnings"]) == content["n_chunks"] == table.num_rows
    named = ClusterMap.from_bytes(world.store.get_bytes("library/cluster_map.json"), key="map")
    titles = {card.title for card in named.cards}
    assert {node["title"] for node in content["nodes"] if node["is_cluster"]} == titles
    owners = np.frombuffer(base64.b64decode(content["points"]["dataset"]), dtype="<u2")
    shown = [content["datasets"][owner]["name"] for owner in owners]
    assert shown == table["dataset"].to_pylist()
    # the articles' licence forbids it
    has_text = [dataset for dataset, text in zip(shown, content["beginnings"], strict=True) if text]
    assert set(has_text) == {"notes"}
    assert len(has_text) == shown.count("notes")


def test_the_event_links_page_and_picture(world: World) -> None:
    with world.instance() as instance:
        made = versions.require_materialization(instance, PROJECTION, None)
    figures = versions.figures_of(made)
    assert figures["page"] == world.store.uri("library/map.html")
    assert figures["picture"] == world.store.uri("library/projection.png")
    assert figures["page_bytes"] == len(world.store.get_bytes("library/map.html"))
    assert figures["laid_out"] == figures["rows"]


def test_a_licence_that_changes_makes_the_page_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text that may no longer be shown must leave the page."""

    def version() -> str | None:
        return build_defs().resolve_asset_graph().get(PROJECTION).code_version

    before = version()
    registry = world.folder / "stricter.yaml"
    registry.write_text(samples.registry().replace("text: true", "text: false"), encoding="utf-8")
    monkeypatch.setenv("ACIDBURN_DATASETS", str(registry))
    assert version() != before
