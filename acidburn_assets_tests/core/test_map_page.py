"""What a map's page holds: what may be shown, shortened, packed, and named."""

import base64
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidburn_assets.core import map_page, projection
from acidburn_assets.core.cluster_map import DatasetTerms
from acidburn_assets.core.errors import SchemaError
from acidburn_assets_tests import map_samples

N = 600


def described(**changes: Any) -> dict[str, Any]:
    points = map_samples.table(N)
    arguments: dict[str, Any] = {
        "table": points,
        "chunks": map_samples.chunks(points),
        "cluster_map": map_samples.cluster_map(),
        "datasets": map_samples.TERMS,
        "n_chunks": 9_000,
        "n_laid_out": N,
    }
    return dict(json.loads(map_page.describe(**{**arguments, **changes})))


def unpacked(content: dict[str, Any], name: str, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(content["points"][name]), dtype=kind)


def replaced(table: pa.Table, name: str, values: Any) -> pa.Table:
    position = table.schema.get_field_index(name)
    return table.set_column(position, table.schema.field(name), pa.array(values))


def test_every_point_keeps_its_cluster_dataset_document_and_mark() -> None:
    points = map_samples.table(N)
    content = described()
    titles = [content["nodes"][node]["title"] for node in unpacked(content, "node", "<u4")]
    expected = {card.cluster_id: card.title for card in map_samples.cluster_map().cards}
    assert titles == [expected[cluster] for cluster in points["cluster_id"].to_pylist()]
    names = [content["datasets"][one]["name"] for one in unpacked(content, "dataset", "<u2")]
    assert names == points["dataset"].to_pylist()
    assert (
        unpacked(content, "is_noise", "u1").astype(bool).tolist() == points["is_noise"].to_pylist()
    )
    documents = [content["documents"][one] for one in unpacked(content, "document", "<u4")]
    assert documents[1:5] == ["documents/0.txt", "Document 0", "documents/1.txt", "Document 1"]


def test_points_lie_on_the_grid_as_they_lay_on_the_map() -> None:
    points = map_samples.table(N)
    content = described()
    grid = np.column_stack([unpacked(content, name, "<u2") for name in "xy"]) / 65_535
    given_ = np.column_stack([points["x"].to_numpy(), points["y"].to_numpy()])
    width = np.ptp(given_, axis=0).max()
    apart = np.diff(grid, axis=0) * width - np.diff(given_, axis=0)
    assert np.abs(apart).max() < width / 30_000
    assert grid.max() == 1.0
    assert np.allclose(grid.min(axis=0) + grid.max(axis=0), 1.0, atol=1e-4)  # in the middle


def test_nothing_of_a_text_that_may_not_be_redistributed_gets_in() -> None:
    content = described()
    is_private = unpacked(content, "dataset", "<u2") == 1
    beginnings = np.array(content["beginnings"])
    assert set(beginnings[is_private]) == {""}
    assert all(beginnings[~is_private])
    points = map_samples.table(N)
    texts = map_samples.chunks(points).to_pylist()
    private = [i for i in range(N) if i % 5 == 0]
    whole = json.dumps(content)
    for i in range(N):
        assert (map_samples.name_of(i) in whole) == (i not in private)
    shown = {content["documents"][one] for one in unpacked(content, "document", "<u4")[is_private]}
    assert shown == {texts[i]["doc_id"] for i in private}  # never their titles
    assert [one["has_text"] for one in content["datasets"]] == [True, False]


def test_what_was_private_when_it_was_labelled_stays_private() -> None:
    now_open = [
        terms.model_copy(update={"may_redistribute_text": True}) for terms in map_samples.TERMS
    ]
    content = described(datasets=now_open)
    assert [one["has_text"] for one in content["datasets"]] == [True, False]


def test_clusters_stand_below_their_groups_however_deep() -> None:
    nodes = described()["nodes"]
    clusters = [node for node in nodes if node["is_cluster"]]
    first = clusters[0]
    group = nodes[first["parent"]]
    region = nodes[group["parent"]]
    assert (group["title"], region["title"], region["parent"]) == ("Group 0", "Region 0", None)
    assert clusters[-1]["parent"] is None
    assert region["size"] == sum(1000 + 60 - cluster for cluster in range(30))
    assert sum(node["n_points"] for node in clusters) == N
    for node in clusters:
        assert 0 <= node["hue"] < len(projection.HUES)
        assert node["place"]["reach"] < 0.1
    assert region["place"]["reach"] > first["place"]["reach"]


def test_what_has_no_point_on_the_map_is_not_named() -> None:
    points = map_samples.table(N)
    few = points.filter(pa.compute.less(points["cluster_id"], 3))
    nodes = described(table=few, chunks=map_samples.chunks(few))["nodes"]
    assert [node["title"] for node in nodes if not node["is_cluster"]] == ["Group 0", "Region 0"]
    assert len([node for node in nodes if node["is_cluster"]]) == 3


def test_a_cluster_of_which_only_noise_is_on_the_map_has_no_place() -> None:
    points = map_samples.table(N)
    is_third = points["cluster_id"].to_numpy() == 3
    noisy = replaced(points, "is_noise", is_third | points["is_noise"].to_numpy())
    (node,) = [
        one for one in described(table=noisy)["nodes"] if one["title"].startswith("Topic 3:")
    ]
    assert (node["place"], node["hue"]) == (None, None)
    assert node["n_points"] == is_third.sum()


def test_an_empty_map_is_described() -> None:
    points = map_samples.table(0)
    content = described(table=points, chunks=map_samples.chunks(points), n_laid_out=0)
    assert (content["nodes"], content["beginnings"]) == ([], [])


def test_points_at_one_place_lie_in_the_middle() -> None:
    points = map_samples.table(3)
    for name in "xy":
        points = replaced(points, name, np.full(3, 0.25, dtype=np.float32))
    content = described(table=points, chunks=map_samples.chunks(points))
    assert set(unpacked(content, "x", "<u2")) == {32_768}


def test_the_same_map_has_the_same_bytes() -> None:
    assert map_samples.content(50) == map_samples.content(50)


def test_chunks_of_other_points_are_refused() -> None:
    chunks = map_samples.chunks(map_samples.table(N)).slice(1)
    with pytest.raises(SchemaError, match="600 points are not of the 599 chunks"):
        described(chunks=chunks)


def test_a_cluster_without_a_card_is_named() -> None:
    with pytest.raises(SchemaError, match="cluster 50 is on the map"):
        described(cluster_map=map_samples.cluster_map(50))


def test_a_dataset_without_terms_is_named() -> None:
    with pytest.raises(SchemaError, match="dataset 'shut' is on the map"):
        described(datasets=[DatasetTerms(dataset="open", licence="x", may_redistribute_text=True)])


def test_a_group_that_lies_in_itself_is_named() -> None:
    whole = map_samples.cluster_map()
    first = whole.groups[0].model_copy(update={"parent": 0})
    with pytest.raises(SchemaError, match="group 0 of the cluster map lies in itself"):
        described(cluster_map=whole.model_copy(update={"groups": (first, *whole.groups[1:])}))


def test_a_point_that_is_nowhere_is_refused() -> None:
    points = map_samples.table(N)
    xs = points["x"].to_numpy().copy()
    xs[7] = np.nan
    with pytest.raises(SchemaError, match="not finite"):
        described(table=replaced(points, "x", xs))


@given(text=st.text(max_size=300), limit=st.integers(2, 40))
def test_a_shortened_text_is_one_line_of_its_beginning(text: str, limit: int) -> None:
    short = map_page._shorten(text, limit)
    line = " ".join(text[: 8 * limit].split())
    assert len(short) <= limit
    assert short == line or (short[-1] == "…" and line.startswith(short[:-1]))


def test_a_text_is_cut_after_a_word_where_there_is_one() -> None:
    assert map_page._shorten("shards and clusters", 13) == "shards and…"
    assert map_page._shorten("x" * 30, 10) == "x" * 9 + "…"


# ---- the outline beside an answer ------------------------------------------------------------


def test_an_outline_holds_every_cluster_and_the_points_and_no_text() -> None:
    table = map_samples.table(400, n_clusters=20)
    outline = json.loads(map_page.outline(table, map_samples.cluster_map(25)))
    clusters, points = outline["clusters"], outline["points"]
    assert [one["cluster_id"] for one in clusters] == list(range(25))
    assert clusters[7]["title"] == "Topic 7: branch window"
    assert clusters[7]["n_chunks"] == 1018
    assert clusters[24]["place"] is None  # none of its points is on the map
    assert clusters[24]["hue"] is None
    assert points["n"] == 400
    places = np.frombuffer(base64.b64decode(points["cluster"]), "<u4")
    assert places.tolist() == table["cluster_id"].to_pylist()
    x = np.frombuffer(base64.b64decode(points["x"]), "<u2")
    assert np.argsort(x, kind="stable")[0] in np.flatnonzero(x == x.min())
    ids = base64.b64decode(points["chunk"])
    assert len(ids) == 400 * map_page.OUTLINE_ID_BYTES
    assert table["chunk_id"][399].as_py().startswith(ids[-map_page.OUTLINE_ID_BYTES :])
    assert "documents/" not in json.dumps(outline)


def test_an_outline_leaves_out_points_of_clusters_that_the_map_does_not_have() -> None:
    table = map_samples.table(400, n_clusters=20)
    outline = json.loads(map_page.outline(table, map_samples.cluster_map(10)))
    n_known = sum(cluster < 10 for cluster in table["cluster_id"].to_pylist())
    assert 0 < outline["points"]["n"] == n_known < 400


def test_an_outline_without_a_map_has_clusters_alone() -> None:
    outline = json.loads(map_page.outline(None, map_samples.cluster_map(10)))
    assert (len(outline["clusters"]), outline["points"]["n"]) == (10, 0)


def test_an_outline_quotes_no_dataset_that_may_not_be_redistributed() -> None:
    cluster_map = map_samples.cluster_map(3)
    cards = [
        card.model_copy(update={"summary": f"quoted from {dataset}", "summary_dataset": dataset})
        for card, dataset in zip(cluster_map.cards, ("open", "shut", "open"), strict=True)
    ]
    quoting = cluster_map.model_copy(update={"cards": tuple(cards)})
    outline = json.loads(map_page.outline(None, quoting))
    assert [one["summary"] for one in outline["clusters"]] == [
        "quoted from open",
        "",
        "quoted from open",
    ]
