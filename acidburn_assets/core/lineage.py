"""Lineage: how many chunks of each shard went into each cluster, and the questions it answers.

One row per (dataset, shard, cluster) that has a chunk, with the hashes of the objects it was
counted from. What those objects were made from is in the manifests.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from acidburn_assets.core import schemas
from acidburn_assets.core.errors import SchemaError

_COUNTED = pa.schema([schemas.ASSIGNMENTS.field(name) for name in ("cluster_id", "is_noise")])
_ORDER = [("dataset", "ascending"), ("shard", "ascending"), ("cluster_id", "ascending")]


class LineageRow(NamedTuple):
    """What one shard gave to one cluster."""

    dataset: str
    shard: str
    cluster_id: int
    n_chunks: int  # members, noise not counted
    n_noise: int  # noise whose nearest cluster this is
    assignments_sha256: str
    embeddings_sha256: str


def count_shard(
    assignments: pa.Table | pa.RecordBatch,
    *,
    dataset: str,
    shard: str,
    assignments_sha256: str,
    embeddings_sha256: str,
) -> pa.RecordBatch:
    """Counts one shard's assignments.

    Args:
        assignments: all rows of the shard; `cluster_id` and `is_noise` are read.
        dataset: whose shard it is.
        shard: its key.
        assignments_sha256: of the assignments object.
        embeddings_sha256: of the embeddings object it was made from.

    Returns:
        Rows of `schemas.LINEAGE`, rising by cluster; a cluster without a chunk has none.

    Raises:
        SchemaError: the table lacks a column that is read.
    """
    schemas.check(assignments, _COUNTED, key=f"{dataset}/assignments/{shard}")
    cluster_ids = assignments["cluster_id"].to_numpy()
    is_noise = assignments["is_noise"].to_numpy(zero_copy_only=False)
    present = np.unique(cluster_ids)
    n_of = np.bincount(cluster_ids, minlength=1)
    n_noise_of = np.bincount(cluster_ids[is_noise], minlength=len(n_of))
    n = len(present)
    columns = {
        "dataset": pa.repeat(dataset, n),
        "shard": pa.repeat(shard, n),
        "cluster_id": pa.array(present, pa.int32()),
        "n_chunks": pa.array((n_of - n_noise_of)[present]),
        "n_noise": pa.array(n_noise_of[present]),
        "assignments_sha256": pa.repeat(assignments_sha256, n),
        "embeddings_sha256": pa.repeat(embeddings_sha256, n),
    }
    return pa.RecordBatch.from_pydict(columns, schema=schemas.LINEAGE)


def merge(counts: Iterable[pa.RecordBatch]) -> pa.Table:
    """One table of all shards, ordered by dataset, shard and cluster, whatever their order.

    Raises:
        SchemaError: a shard is counted twice.
    """
    merged = pa.Table.from_batches(counts, schema=schemas.LINEAGE).sort_by(_ORDER)
    keys = merged.group_by([name for name, _ in _ORDER]).aggregate([([], "count_all")])
    twice = keys.filter(pc.greater(keys["count_all"], 1))
    if twice.num_rows:
        first = twice.slice(0, 1).to_pylist()[0]
        raise SchemaError(
            f"shard {first['dataset']}/{first['shard']} is counted twice; count each shard once"
        )
    return merged.combine_chunks()


def shards_of(lineage: pa.Table, cluster_id: int) -> list[LineageRow]:
    """The shards that fed a cluster, largest share first; none for an unknown cluster."""
    return _rows(lineage, pc.equal(lineage["cluster_id"], cluster_id))


def clusters_of(lineage: pa.Table, *, dataset: str, shard: str) -> list[LineageRow]:
    """The clusters that a shard fed, largest share first; none for an unknown shard."""
    is_shard = pc.and_(pc.equal(lineage["dataset"], dataset), pc.equal(lineage["shard"], shard))
    return _rows(lineage, is_shard)


def _rows(lineage: pa.Table, is_wanted: pa.ChunkedArray) -> list[LineageRow]:
    by_share = [("n_chunks", "descending"), ("n_noise", "descending"), *_ORDER]
    found = lineage.filter(is_wanted).sort_by(by_share)
    return [LineageRow(**row) for row in found.to_pylist()]
