"""`acidburn audit`: both ways, from what was recorded, and it says what is stale."""

from typing import TypeVar

import pyarrow.parquet as pq
import pytest

from acidburn_assets.core.audit import ClusterTrail, DocumentTrail, PassageTrail, ShardTrail
from acidburn_assets.core.records import Record
from acidburn_assets_tests.worlds import World, acidburn

Trail = TypeVar("Trail", bound=Record)


def audit(record: type[Trail], *arguments: str) -> Trail:
    finished = acidburn("audit", *arguments, "--json")
    assert finished.code == 0, finished.err
    return record.model_validate_json(finished.out)


def assignments(world: World, dataset: str) -> dict[str, list[dict]]:
    folder = world.home / "objects" / dataset / "assignments"
    return {path.stem: pq.read_table(path).to_pylist() for path in sorted(folder.iterdir())}


def test_a_cluster_names_the_shards_that_fed_it_with_their_counts(world: World):
    trail = audit(ClusterTrail, "cluster", "0")
    counted = {}
    for dataset in ("notes", "articles"):
        for shard, rows in assignments(world, dataset).items():
            own = [row for row in rows if row["cluster_id"] == 0]
            if own:
                n_noise = sum(row["is_noise"] for row in own)
                counted[dataset, shard] = (len(own) - n_noise, n_noise)
    found = {(one.dataset, one.shard): (one.n_chunks, one.n_noise) for one in trail.shards}
    assert found == counted
    assert trail.n_chunks == sum(members for members, _ in counted.values())
    for share in trail.shards:
        key = f"{share.dataset}/embeddings/{share.shard}.parquet"
        assert share.embeddings_sha256 == world.store.head(key).sha256
    assert set(trail.fitted_on) == {"notes", "articles"}


def test_a_shard_names_the_clusters_that_it_fed(world: World):
    rows = assignments(world, "notes")["000000"]
    trail = audit(ShardTrail, "shard", "notes/000000")
    assert sum(one.n_chunks + one.n_noise for one in trail.clusters) == len(rows)
    assert {one.cluster_id for one in trail.clusters} == {row["cluster_id"] for row in rows}
    assert [one.asset for one in trail.made] == [
        f"notes/{asset}"
        for asset in (
            *("plan", "chunks", "embeddings", "manifest"),
            *("assignments", "chunk_embeddings", "chunk_clusters"),
        )
    ]
    assert [one.stale_because for one in trail.made] == [()] * len(trail.made)


def test_what_was_made_carries_the_hash_of_its_object(world: World):
    trail = audit(ShardTrail, "shard", "notes/000000")
    made = {one.asset: one for one in trail.made}
    for asset in ("chunks", "embeddings", "assignments"):
        stored = world.store.head(f"notes/{asset}/000000.parquet")
        assert made[f"notes/{asset}"].data_version == stored.sha256


def test_a_document_is_followed_to_its_chunks_and_a_passage_back(world: World):
    path = world.home / "objects" / "manual" / "chunks" / "000000.parquet"
    row = pq.read_table(path).to_pylist()[0]
    document = audit(DocumentTrail, "document", row["doc_id"], "--dataset", "manual")
    assert document.shard == "000000"
    assert row["chunk_id"].hex() in [chunk.chunk_id for chunk in document.chunks]
    passage = audit(PassageTrail, "passage", row["chunk_id"].hex())
    assert (passage.doc_id, passage.text) == (row["doc_id"], row["text"])
    assert passage.chunk.cluster_title
    assert passage.licence == "MIT"


def test_what_is_stale_is_said_with_its_reason(copied_world: World):
    registry = copied_world.folder / "datasets.yaml"
    registry.write_text(registry.read_text().replace("chunks_per_shard: 10", "chunks_per_shard: 9"))
    trail = audit(ShardTrail, "shard", "notes/000000")
    stale = {one.asset: one.stale_because for one in trail.made if one.stale_because}
    assert stale == {"notes/plan": ("code",)}


def test_people_see_what_they_can_copy_into_the_next_command(world: World):
    finished = acidburn("audit", "cluster", "0")
    assert finished.code == 0, finished.err
    assert "notes/000000" in finished.out
    shard = acidburn("audit", "shard", "notes/000000")
    assert "notes/embeddings" in shard.out
    assert shard.err == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cluster", "9999"], "has no cluster 9999"),
        (["cluster", "first"], "not a cluster's number"),
        (["cluster", "0", "--pool", "nowhere"], "no pool 'nowhere'"),
        (["shard", "notes"], "has no shard ''"),
        (["shard", "notes/999999"], "it has 000000 to"),
        (["shard", "nowhere/000000"], "no dataset 'nowhere'"),
        (["document", "nothing-of-that-name"], "no document"),
        (["passage", "xyz"], "32 hex digits"),
        (["passage", "00" * 16], "no chunk"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(world: World, arguments, message):
    finished = acidburn("audit", *arguments)
    assert finished.code == 1
    assert message in finished.err
    assert len(finished.err.strip().splitlines()) == 1
