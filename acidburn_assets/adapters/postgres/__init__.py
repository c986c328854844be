"""Postgres with pgvector: Supabase, any other, or the embedded one.

    connection   where it is, how to connect, what its errors mean
    inspection   whether it can hold the corpus
    examination  everything else about it that a person should know
    migrations   the tables, in ../sql
    ledger       what is loaded, and removing what no longer belongs
    load         replacing a slice of the corpus in one transaction
    moves        what a new clustering changes of a shard that is loaded
    stream       COPY of blocks that another thread makes
    rows         Arrow batches made into rows
    copy_binary  columns made into the bytes of COPY BINARY
    search       exact nearest passages, inside clusters or in a whole pool

Works through transaction poolers: nothing is prepared, nothing is SET for a session, and a lock
ends with its transaction.
"""

from acidburn_assets.adapters.postgres.connection import Postgres, conninfo_from_parts
from acidburn_assets.adapters.postgres.examination import Finding, examine
from acidburn_assets.adapters.postgres.inspection import Inspection, inspect
from acidburn_assets.adapters.postgres.ledger import (
    LoadState,
    PoolFacts,
    PoolState,
    PoolTable,
    ShardFacts,
    ShardTable,
    count_vectors,
    forget_load,
    keep_datasets,
    load_ledger,
    load_state,
    pool_ledger,
    pool_load_state,
    pool_state,
    remove_shards,
    unload,
)
from acidburn_assets.adapters.postgres.load import (
    Load,
    LoadResult,
    chunk_clusters_source,
    chunk_embeddings_source,
    replace_chunk_clusters,
    replace_chunk_embeddings,
    replace_cluster_headers,
    replace_lineage,
)
from acidburn_assets.adapters.postgres.migrations import migrate
from acidburn_assets.adapters.postgres.rows import ClusterHeader
from acidburn_assets.adapters.postgres.search import Hit, Hits, PassageSearch

__all__ = [
    "ClusterHeader",
    "Finding",
    "Hit",
    "Hits",
    "Inspection",
    "Load",
    "LoadResult",
    "LoadState",
    "PassageSearch",
    "PoolFacts",
    "PoolState",
    "PoolTable",
    "Postgres",
    "ShardFacts",
    "ShardTable",
    "chunk_clusters_source",
    "chunk_embeddings_source",
    "conninfo_from_parts",
    "count_vectors",
    "examine",
    "forget_load",
    "inspect",
    "keep_datasets",
    "load_ledger",
    "load_state",
    "migrate",
    "pool_ledger",
    "pool_load_state",
    "pool_state",
    "remove_shards",
    "replace_chunk_clusters",
    "replace_chunk_embeddings",
    "replace_cluster_headers",
    "replace_lineage",
    "unload",
]
