"""`acidburn export`: files that other tools read, and no text that may not leave."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from acidburn_assets_tests import samples
from acidburn_assets_tests.worlds import World, acidburn


def chunks(world: World, *datasets: str, asset: str) -> list[dict[str, Any]]:
    """Rows of the objects, dataset by dataset and shard by shard."""
    return [
        {"dataset": dataset, "shard": shard, **row}
        for dataset in datasets
        for shard in samples.SHARDS[dataset]
        for row in pq.read_table(
            world.object_path(f"{dataset}/{asset}/{shard}.parquet")
        ).to_pylist()
    ]


def test_every_chunk_is_there_once_and_noise_is_minus_one(world: World, tmp_path: Path) -> None:
    finished = acidburn("export", "library", str(tmp_path / "out"))
    assert finished.code == 0, finished.err
    table = pq.read_table(tmp_path / "out" / "clustered.parquet")
    placed = chunks(world, "notes", "articles", asset="assignments")
    assert finished.out.startswith(f"{len(placed)} chunks in 6 clusters: ")
    for name in ("dataset", "shard", "strength"):
        assert table[name].to_pylist() == [row[name] for row in placed]
    assert table["chunk_id"].to_pylist() == [row["chunk_id"].hex() for row in placed]
    assert table["nearest_cluster_id"].to_pylist() == [row["cluster_id"] for row in placed]
    assert table["cluster_id"].to_pylist() == [
        -1 if row["is_noise"] else row["cluster_id"] for row in placed
    ]
    embedded = chunks(world, "notes", "articles", asset="embeddings")
    vectors = np.array(table["embedding"].to_pylist(), dtype=np.float32)  # (n, dim)
    assert np.array_equal(
        vectors, np.array([row["embedding"] for row in embedded], dtype=np.float32)
    )
    centroids = pq.read_table(tmp_path / "out" / "centroids.parquet")
    stored = pq.read_table(world.object_path("library/centroids.parquet"))
    assert centroids.drop(["medoid_ids"]).equals(stored.drop(["medoid_ids"]))
    assert centroids["medoid_ids"].to_pylist() == [
        [chunk_id.hex() for chunk_id in ids] for ids in stored["medoid_ids"].to_pylist()
    ]
    # what every command shows is what joins the files, in pandas too
    assert set(
        pd.read_parquet(tmp_path / "out" / "centroids.parquet")
        .explode("medoid_ids")["medoid_ids"]
        .dropna()
    ) <= set(pd.read_parquet(tmp_path / "out" / "clustered.parquet")["chunk_id"])


def test_quotations_of_a_locked_dataset_are_emptied(world: World, tmp_path: Path) -> None:
    before = json.loads(world.object_path("library/cluster_map.json").read_bytes())
    quoted = {card["summary_dataset"] for card in before["cards"]}
    assert quoted == {"articles", "notes"}  # else this would show nothing
    finished = acidburn("export", "library", str(tmp_path))
    assert finished.err == "without texts and quotations: articles\n"
    after = json.loads((tmp_path / "cluster_map.json").read_bytes())
    for was, card in zip(before["cards"], after["cards"], strict=True):
        is_locked = was["summary_dataset"] == "articles"
        assert card["summary"] == ("" if is_locked else was["summary"])
        assert card["title"] == was["title"]
    assert "text" not in pq.read_schema(tmp_path / "clustered.parquet").names


def test_texts_of_a_locked_dataset_are_refused_before_anything_is_written(
    world: World, tmp_path: Path
) -> None:
    finished = acidburn("export", "library", str(tmp_path / "out"), "--texts")
    assert finished.code == 1
    assert finished.err.startswith(
        "acidburn: the texts of ['articles'] may not be redistributed (datasets.yaml)"
    )
    assert not (tmp_path / "out").exists()


def test_texts_of_an_open_pool_go_out(world: World, tmp_path: Path) -> None:
    assert acidburn("export", "reference", str(tmp_path), "--texts").code == 0
    table = pq.read_table(tmp_path / "clustered.parquet", columns=["chunk_id", "doc_id", "text"])
    expected = chunks(world, "manual", asset="chunks")
    assert table.to_pylist() == [
        {"chunk_id": row["chunk_id"].hex(), "doc_id": row["doc_id"], "text": row["text"]}
        for row in expected
    ]


def test_a_second_export_replaces_the_first_and_leaves_nothing_else(
    world: World, tmp_path: Path
) -> None:
    acidburn("export", "reference", str(tmp_path), "--texts")
    assert acidburn("export", "reference", str(tmp_path)).code == 0
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        "centroids.parquet",
        "cluster_map.json",
        "clustered.parquet",
    ]
    assert "text" not in pq.read_schema(tmp_path / "clustered.parquet").names


def test_an_unknown_pool_names_those_that_are_known(world: World, tmp_path: Path) -> None:
    finished = acidburn("export", "notes", str(tmp_path))
    assert finished.code == 1
    assert finished.err == (
        "acidburn: no pool 'notes'; datasets.yaml has ['library', 'reference']\n"
    )


def test_a_file_where_a_folder_should_be_is_refused(world: World, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    finished = acidburn("export", "library", str(tmp_path / "taken"))
    assert finished.code == 2
    assert "is a file" in finished.err


def test_before_anything_is_made_it_says_what_to_make(blank_world: World, tmp_path: Path) -> None:
    finished = acidburn("export", "library", str(tmp_path / "out"))
    assert finished.code == 1
    assert "materialize library/cluster_map first" in finished.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("missing", ["notes/assignments/000001.parquet", "articles/manifest.json"])
def test_a_half_made_pool_is_not_exported_half(
    copied_world: World, tmp_path: Path, missing: str
) -> None:
    copied_world.object_path(missing).unlink()
    finished = acidburn("export", "library", str(tmp_path))
    assert finished.code == 1
    assert missing in finished.err
    assert not (tmp_path / "clustered.parquet").exists()
