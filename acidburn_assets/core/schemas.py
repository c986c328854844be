"""Arrow schemas of the tables in the bucket: the contract between stages.

One function or constant per table. A column is never added or retyped without raising
`SCHEMA_VERSION`. JSON records live with the stage that makes them.
"""

import pyarrow as pa

from acidburn_assets.core.errors import SchemaError

SCHEMA_VERSION = 2
"""Written into the metadata of every object."""

CHUNK_ID = pa.binary(16)
"""First 16 bytes of a sha256: see `keys.chunk_id`."""

CHUNKS = pa.schema(
    [
        pa.field("chunk_id", CHUNK_ID, nullable=False),
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("doc_row", pa.int64(), nullable=False),  # row in the dataset, 0-based
        pa.field("title", pa.string(), nullable=False),  # "" where the dataset has none
        pa.field("chunk_index", pa.int32(), nullable=False),  # 0-based within the document
        pa.field("char_start", pa.int64(), nullable=False),  # document[start:end] == text
        pa.field("char_end", pa.int64(), nullable=False),
        pa.field("n_tokens", pa.int32(), nullable=False),  # without the model's special tokens
        pa.field("text", pa.string(), nullable=False),
    ]
)

ASSIGNMENTS = pa.schema(
    [
        pa.field("chunk_id", CHUNK_ID, nullable=False),
        pa.field("cluster_id", pa.int32(), nullable=False),  # of the nearest cell, noise included
        pa.field("cell_id", pa.int32(), nullable=False),  # nearest cell, row in the model
        pa.field("strength", pa.float32(), nullable=False),  # [0, 1]; 1 at the centroid
        pa.field("distance", pa.float32(), nullable=False),  # 1 - cosine to the centroid
        pa.field("is_noise", pa.bool_(), nullable=False),
    ]
)

TERMS = pa.list_(pa.field("item", pa.int32(), nullable=False))
WEIGHTS = pa.list_(pa.field("item", pa.float32(), nullable=False))

TERM_WEIGHTS = pa.schema(
    [
        pa.field("chunk_id", CHUNK_ID, nullable=False),
        pa.field("terms", TERMS, nullable=False),  # rising, all that the chunk has
        pa.field("weights", WEIGHTS, nullable=False),  # of the same; 0: counted, not searched
    ]
)

LEXICON = pa.schema(
    [
        pa.field("term", pa.int32(), nullable=False),  # rising; -1 stands for all chunks
        pa.field("n_chunks", pa.int64(), nullable=False),  # of the pool, that have it
    ]
)

CELL_TERMS = pa.schema(
    [
        pa.field("term", pa.int32(), nullable=False),  # rising
        pa.field("cell_id", pa.int32(), nullable=False),  # rising inside a term
        pa.field("weight", pa.float32(), nullable=False),  # the most that a chunk of the cell has
    ]
)

PROJECTION = pa.schema(
    [
        pa.field("chunk_id", CHUNK_ID, nullable=False),
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("cluster_id", pa.int32(), nullable=False),
        pa.field("is_noise", pa.bool_(), nullable=False),
        pa.field("x", pa.float32(), nullable=False),
        pa.field("y", pa.float32(), nullable=False),
    ]
)

LINEAGE = pa.schema(
    [
        pa.field("cluster_id", pa.int32(), nullable=False),
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("n_chunks", pa.int64(), nullable=False),  # members, noise not counted
        pa.field("n_noise", pa.int64(), nullable=False),  # noise whose nearest cluster this is
    ]
)
"""Ordered by cluster, dataset and shard. What the shards were made from is said once, in the
schema's metadata: see `lineage.Sources`."""

MIGRATION = pa.schema(
    [
        pa.field("kind", pa.string(), nullable=False),  # of cluster_model.KINDS
        pa.field("old_cluster_id", pa.int32()),  # null: it is new
        pa.field("new_cluster_id", pa.int32()),  # null: it is gone
        pa.field("n_shared", pa.int64(), nullable=False),  # sampled chunks that are in both
        pa.field("share_of_old", pa.float32()),
        pa.field("share_of_new", pa.float32()),
        pa.field("cosine", pa.float32()),  # of the two centroids
    ]
)


def embeddings(dim: int) -> pa.Schema:
    """Unit vectors of one shard.

    Values are rounded to fp16 and stored as float32: DuckDB 2.0 cannot read half floats with
    BYTE_STREAM_SPLIT, and the rounded floats compress to the same size within 2 %.
    Source: measured, 1.77 KB per 1024-d vector with BYTE_STREAM_SPLIT and zstd.

    Args:
        dim: dimension of the model.
    """
    return pa.schema(
        [
            pa.field("chunk_id", CHUNK_ID, nullable=False),
            pa.field("embedding", vector_type(dim), nullable=False),
        ]
    )


def centroids(dim: int) -> pa.Schema:
    """One row per cluster of a pool, ordered by cluster_id, which has gaps.

    Args:
        dim: dimension of the model.
    """
    return pa.schema(
        [
            pa.field("cluster_id", pa.int32(), nullable=False),
            pa.field("n_chunks", pa.int64(), nullable=False),  # members, noise not counted
            pa.field("n_noise", pa.int64(), nullable=False),
            pa.field("radius", pa.float32(), nullable=False),  # 1 - cosine, 95th percentile
            pa.field("centroid", vector_type(dim), nullable=False),  # unit length
            pa.field("medoid_ids", pa.list_(CHUNK_ID), nullable=False),  # nearest member first
            pa.field("medoids", pa.list_(vector_type(dim)), nullable=False),
            # rows of the model's cells, all chunks in them (noise too), and their mean directions
            pa.field("cell_ids", pa.list_(pa.int32()), nullable=False),
            pa.field("cell_n_chunks", pa.list_(pa.int64()), nullable=False),
            pa.field("cell_centroids", pa.list_(vector_type(dim)), nullable=False),
        ]
    )


def vector_type(dim: int) -> pa.DataType:
    """`fixed_size_list<float32>[dim]`, its element named `element` so that BYTE_STREAM_SPLIT can
    be asked for by path."""
    return pa.list_(pa.field("element", pa.float32(), nullable=False), dim)


def check(table: pa.Table | pa.RecordBatch, schema: pa.Schema, *, key: str) -> None:
    """Refuses a table whose columns or types differ from its schema.

    Raises:
        SchemaError: names the first column that differs.
    """
    have = {field.name: field.type for field in table.schema}
    for field in schema:
        if field.name not in have:
            raise SchemaError(
                f"{key!r} lacks the column {field.name!r}; it has {sorted(have)}. "
                "Materialize the shard again"
            )
        if have[field.name] != field.type:
            raise SchemaError(
                f"{key!r} holds {field.name!r} as {have[field.name]}, not {field.type}. "
                "Materialize the shard again"
            )
