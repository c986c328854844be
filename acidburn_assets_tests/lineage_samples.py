"""A lineage of a few made-up shards, as the stage that counts it would hand it over."""

from typing import Any

import pyarrow as pa

from acidburn_assets.core.lineage import Source, Sources, count_shard, merge


def source(shard: str = "000000", dataset: str = "papers", **changes: Any) -> Source:
    """What a shard was made from."""
    facts = {
        "dataset": dataset,
        "shard": shard,
        "revision": "r1",
        "first_row": 10 * int(shard),
        "n_rows": 10,
        "n_chunks": 5,
        "n_noise": 1,
        "model": "f00d",
        "model_name": "a-model",
        "chunks_sha256": f"c{shard}",
        "embeddings_sha256": f"e{shard}",
        "embeddings_code_version": "embeddings-1",
        "embeddings_run_id": "run-1",
        "embeddings_event_id": 1,
        "assignments_sha256": f"a{shard}",
        "assignments_code_version": "assignments-1",
        "assignments_run_id": "run-2",
        "assignments_event_id": 2**40,
        "cluster_model": "model 1",
    }
    return Source.model_validate({**facts, **changes})


def sources(*of: Source) -> Sources:
    """What a lineage of these shards was counted from."""
    return Sources(pool="library", manifests={"papers": "m1"}, shards=of)


def count(shard: str, *rows: tuple[int, bool], dataset: str = "papers") -> pa.RecordBatch:
    """The counts of one shard.

    Args:
        shard: its key.
        rows: cluster of each chunk, and whether it is noise.
        dataset: whose.
    """
    placed = pa.table(
        {
            "cluster_id": pa.array([cluster for cluster, _ in rows], pa.int32()),
            "is_noise": pa.array([is_noise for _, is_noise in rows], pa.bool_()),
        }
    )
    return count_shard(placed, dataset=dataset, shard=shard)


def lineage() -> pa.Table:
    """Two shards of `papers` and one of `books`: clusters 0, 1 and 2."""
    return merge(
        [
            count("000001", (2, False), (2, False)),
            count("000000", (0, False), (0, False), (2, True), (0, True), (2, False)),
            count("000000", (1, False), dataset="books"),
        ],
        sources(source(dataset="books"), source(), source("000001")),
    )
