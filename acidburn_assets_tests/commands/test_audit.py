"""`acidburn audit`: lineage both ways, counted once more from the tables themselves."""

import hashlib
import json
from collections.abc import Iterator

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from acidburn_assets.core.audit import (
    ClusterTrail,
    DocumentTrail,
    Made,
    PassageTrail,
    ShardTrail,
)
from acidburn_assets_tests import samples
from acidburn_assets_tests.worlds import World, acidburn

OF_A_SHARD = (
    *("plan", "chunks", "embeddings", "manifest"),
    *("term_weights", "assignments", "chunk_embeddings", "chunk_clusters"),
)


def audit(*arguments: str) -> str:
    """What the command prints as JSON."""
    finished = acidburn("audit", *arguments, "--json")
    assert finished.code == 0, finished.err
    return finished.out


def placed(world: World) -> Iterator[tuple[str, str, pa.Table]]:
    """(dataset, shard, assignments) of the pool `library`, read from the files."""
    for dataset in ("notes", "articles"):
        for shard in samples.SHARDS[dataset]:
            path = world.object_path(f"{dataset}/assignments/{shard}.parquet")
            yield dataset, shard, pq.read_table(path)


def counts(table: pa.Table, cluster: int) -> tuple[int, int]:
    """(members, noise nearest to it) of one cluster."""
    ids, is_noise = table["cluster_id"].to_numpy(), table["is_noise"].to_numpy()
    return int(np.sum((ids == cluster) & ~is_noise)), int(np.sum((ids == cluster) & is_noise))


def sha256(world: World, key: str) -> str:
    """Of an object's file."""
    return hashlib.sha256(world.object_path(key).read_bytes()).hexdigest()


def test_a_cluster_names_every_shard_that_fed_it(world: World) -> None:
    cards = json.loads(world.object_path("library/cluster_map.json").read_bytes())["cards"]
    assert len(cards) == len(samples.TOPICS)
    for card in cards:
        trail = ClusterTrail.model_validate_json(audit("cluster", str(card["cluster_id"])))
        expected = {
            (dataset, shard): counts(table, trail.cluster_id)
            for dataset, shard, table in placed(world)
            if counts(table, trail.cluster_id) != (0, 0)
        }
        found = {
            (one.source.dataset, one.source.shard): (one.n_chunks, one.n_noise)
            for one in trail.shards
        }
        assert found == expected
        assert (trail.title, trail.n_chunks) == (card["title"], card["size"])
        sizes = [one.n_chunks for one in trail.shards]
        assert sizes == sorted(sizes, reverse=True)
        assert set(trail.fitted_on) == {"notes", "articles"}


def test_a_cluster_names_what_each_of_its_shards_was_made_from(world: World) -> None:
    trail = ClusterTrail.model_validate_json(audit("cluster", "0"))
    assert trail.shards
    (model,) = [one for one in trail.made if one.asset == "library/cluster_model"]
    for share in trail.shards:
        of = share.source
        shard = ShardTrail.model_validate_json(audit("shard", f"{of.dataset}/{of.shard}"))
        assert shard.source == of
        assert (of.revision, of.first_row, of.n_rows) == (
            *(shard.revision, shard.first_row),
            shard.n_rows,
        )
        assert (of.model_name, len(of.model)) == ("minilm", 16)
        assert of.cluster_model == model.data_version
        made = {one.asset.split("/")[1]: one for one in shard.made}
        assert of.chunks_sha256 == made["chunks"].data_version
        for asset in ("embeddings", "assignments"):
            facts = [
                getattr(of, f"{asset}_{name}")
                for name in ("sha256", "code_version", "run_id", "event_id")
            ]
            event = made[asset]
            assert facts == [
                *(event.data_version, event.code_version, event.run_id, event.event_id)
            ]
        table = pq.read_table(world.object_path(f"{of.dataset}/assignments/{of.shard}.parquet"))
        n_noise = int(np.sum(table["is_noise"].to_numpy()))
        assert (of.n_chunks, of.n_noise) == (len(table), n_noise)


def test_a_shard_names_every_cluster_that_it_fed(world: World) -> None:
    for dataset, shard, table in placed(world):
        trail = ShardTrail.model_validate_json(audit("shard", f"{dataset}/{shard}"))
        assert {one.cluster_id: (one.n_chunks, one.n_noise) for one in trail.clusters} == {
            cluster: counts(table, cluster) for cluster in set(table["cluster_id"].to_pylist())
        }
        assert all(one.title for one in trail.clusters)
        assert trail.source is not None
        for asset in ("chunks", "embeddings", "assignments"):
            found = sha256(world, f"{dataset}/{asset}/{shard}.parquet")
            assert getattr(trail.source, f"{asset}_sha256") == found
        assert [one.asset for one in trail.made] == [f"{dataset}/{asset}" for asset in OF_A_SHARD]


def test_a_document_names_its_chunks_with_exact_spans(world: World) -> None:
    trail = DocumentTrail.model_validate_json(audit("document", "tides-8"))
    (document,) = samples.documents(["tides"], [8])
    assert (trail.dataset, trail.doc_id, trail.title) == ("notes", "tides-8", document["title"])
    assert len(trail.chunks) == 2
    chunks = pq.read_table(world.object_path(f"notes/chunks/{trail.shard}.parquet")).to_pylist()
    texts = {row["chunk_id"].hex(): row["text"] for row in chunks}
    for chunk in trail.chunks:
        assert document["text"][chunk.char_start : chunk.char_end] == texts[chunk.chunk_id]
    table = pq.read_table(world.object_path(f"notes/assignments/{trail.shard}.parquet"))
    clusters = {row["chunk_id"].hex(): row["cluster_id"] for row in table.to_pylist()}
    assert [one.cluster_id for one in trail.chunks] == [
        clusters[one.chunk_id] for one in trail.chunks
    ]
    of_dataset = audit("document", "tides-8", "--dataset", "notes")
    assert DocumentTrail.model_validate_json(of_dataset) == trail
    of_shard = audit("document", "tides-8", "--dataset", f"notes/{trail.shard}")
    assert DocumentTrail.model_validate_json(of_shard) == trail
    assert [one.asset for one in trail.made] == [f"notes/{asset}" for asset in OF_A_SHARD]
    assert trail.licence == "CC0-1.0"


def test_a_passage_of_an_answer_leads_to_the_objects_and_runs_that_made_it(world: World) -> None:
    answer = json.loads(acidburn("ask", samples.QUESTION, "--json").out)
    for passage in answer["passages"]:
        trail = PassageTrail.model_validate_json(audit("passage", passage["chunk_id"]))
        assert PassageTrail.model_validate_json(audit("chunk", passage["chunk_id"])) == trail
        dataset, shard = trail.dataset, trail.shard
        assert (dataset, shard) == (passage["dataset"], passage["shard"])
        assert trail.text == passage["text"]
        assert trail.chunk.cluster_id == passage["cluster_id"]
        made = {one.asset: one for one in trail.made}
        assert list(made) == [f"{dataset}/{asset}" for asset in OF_A_SHARD]
        for asset in ("chunks", "embeddings", "assignments"):
            found = sha256(world, f"{dataset}/{asset}/{shard}.parquet")
            assert made[f"{dataset}/{asset}"].data_version == found
        assert passage["embeddings_sha256"] == made[f"{dataset}/embeddings"].data_version
        assert passage["run_id"] == made[f"{dataset}/chunk_embeddings"].run_id
        assert [one.stale_because for one in trail.made] == [()] * len(made)
        _check_events(world, trail.made)


def _check_events(world: World, made: tuple[Made, ...]) -> None:
    """Each names an event of Dagster's, of that asset, shard and run."""
    with world.instance() as instance:
        for one in made:
            (record,) = instance.fetch_materializations(
                dg.AssetRecordsFilter(
                    asset_key=dg.AssetKey(one.asset.split("/")), storage_ids=[one.event_id]
                ),
                limit=2,
            ).records
            assert (record.run_id, record.partition_key) == (one.run_id, one.shard)


def test_a_chunk_has_no_title_until_its_clusters_are_named(copied_world: World) -> None:
    """Titles of an earlier cluster model would be those of other clusters."""
    (document,) = samples.documents(["tides"], [8])
    before = DocumentTrail.model_validate_json(audit("document", document["id"]))
    assert all(one.cluster_title for one in before.chunks)
    registry = copied_world.folder / "datasets.yaml"
    registry.write_text(
        registry.read_text().replace(
            "{min_cluster_size: 4, min_samples: 2}", "{min_cluster_size: 3, min_samples: 1}"
        )
    )
    for target in ("library/cluster_model", "notes/assignments"):
        finished = acidburn("materialize", target)
        assert finished.code == 0, finished.err
    after = DocumentTrail.model_validate_json(audit("document", document["id"]))
    assert [one.cluster_title for one in after.chunks] == [None] * len(before.chunks)
    assert all(one.cluster_id is not None for one in after.chunks)


def test_what_changed_since_is_named(copied_world: World) -> None:
    samples.write_parquet(
        copied_world.folder / "data/articles.parquet", samples.documents(samples.TOPICS, [1, 3])
    )
    assert acidburn("plan", "articles").code == 0
    trail = ShardTrail.model_validate_json(audit("shard", "articles/000001"))
    stale = {one.asset: one.stale_because for one in trail.made if one.stale_because}
    assert stale["articles/chunks"] == ("articles/plan",)
    assert "articles/plan" in stale["articles/manifest"]
    assert "articles/plan" not in stale
    finished = acidburn("audit", "shard", "articles/000001")
    assert finished.code == 0, finished.err
    assert "articles/plan" in finished.out


def test_a_changed_setting_is_named_as_code(copied_world: World) -> None:
    registry = copied_world.folder / "datasets.yaml"
    registry.write_text(registry.read_text().replace("chunks_per_shard: 10", "chunks_per_shard: 9"))
    trail = ShardTrail.model_validate_json(audit("shard", "notes/000000"))
    stale = {one.asset: one.stale_because for one in trail.made if one.stale_because}
    assert stale == {"notes/plan": ("code",)}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["cluster", "0"], ["0 of library", "keywords", "library/cluster_map", "notes/000000"]),
        (["shard", "notes/000001"], ["notes/000001", "CC0-1.0", "notes/embeddings"]),
        (["document", "bread-8"], ["bread-8", "notes", "000001"]),
    ],
)
def test_a_person_sees_the_same_in_words(
    world: World, arguments: list[str], expected: list[str]
) -> None:
    finished = acidburn("audit", *arguments)
    assert (finished.code, finished.err) == (0, "")
    assert [word for word in expected if word not in finished.out] == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["cluster", "99"], "pool 'library' has no cluster 99; it has 0 to 5"),
        (["cluster", "first"], "'first' is not a cluster's number"),
        (["cluster", "0", "--pool", "libary"], "no pool 'libary'"),
        (["shard", "nots/000000"], "no dataset 'nots'"),
        (["shard", "notes"], "'notes' is not DATASET/SHARD, such as notes/000000"),
        (["shard", "notes/7"], "'notes' has no shard '7'; it has 000000 to 000001"),
        (["document", "nobody"], "no document 'nobody' in ['articles', 'manual', 'notes']"),
        (["document", "bread-8", "--dataset", "manual"], "no document 'bread-8' in ['manual']"),
        (["document", "bread-8", "--dataset", "nots"], "no dataset 'nots'"),
        (
            ["document", "bread-8", "--dataset", "notes/000009"],
            "'notes' has no chunks of a shard '000009'; it has 000000 to 000001",
        ),
        (
            ["chunk", "0" * 32, "--dataset", "notes/000001"],
            f"no chunk '{'0' * 32}' in ['notes/000001']",
        ),
        (["passage", "xyz"], "'xyz' is not a chunk id: 32 hex digits"),
        (["passage", "00"], "'00' is not a chunk id: 32 hex digits"),
        (["passage", "0" * 32], f"no chunk '{'0' * 32}' in"),
    ],
)
def test_what_is_not_there_is_named(world: World, arguments: list[str], expected: str) -> None:
    finished = acidburn("audit", *arguments)
    assert finished.code == 1
    assert finished.out == ""
    assert finished.err.startswith(f"acidburn: {expected}")
    assert len(finished.err.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [["cluster", "0"], ["shard", "notes/000000"], ["document", "bread-8"], ["passage", "0" * 32]],
)
def test_before_anything_is_made_it_says_what_to_make(
    blank_world: World, arguments: list[str]
) -> None:
    finished = acidburn("audit", *arguments)
    assert finished.code == 1
    (line,) = finished.err.splitlines()
    assert "materialize" in line
