"""Replaces a slice of the corpus in one transaction.

A slice is one shard in one table, or one pool's headers or lineage. Its transaction: lock, stop if
the ledger says that the same content is there, delete, COPY BINARY, count, ledger row, commit.
Readers see the old slice until the commit; a killed load leaves the old slice. Where only the
clustering is another one, `moves` changes the rows that it changed.

Vectors are read before that transaction, all of them, since they are sent in another order than
they are stored in; so it is as short as it can be, and nothing is locked while a bucket is away.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from psycopg import sql

from acidburn_assets.adapters.postgres import ledger, moves, rows, stream
from acidburn_assets.adapters.postgres.connection import Connection, Postgres
from acidburn_assets.adapters.postgres.ledger import (
    LoadState,
    PoolFacts,
    PoolTable,
    ShardFacts,
    ShardTable,
)
from acidburn_assets.adapters.postgres.rows import (
    ClusterHeader,
    Members,
    StoreText,
    Target,
    Vectors,
)
from acidburn_assets.core.lineage import Sources

LOAD_VERSION = 3
"""Raised when the same sources make other rows: every slice is then loaded again."""

_STATEMENT_SECONDS = 3600
"""Of one statement; a COPY waits for the bucket too. Chosen; Supabase's own limit is 2 minutes."""

_LOCK_SECONDS = 600
"""How long a load waits for another of the same shard. Chosen: many times what one takes."""


class Load(NamedTuple):
    """Where a slice comes from."""

    run_id: str
    chunks_sha256: str
    embeddings_sha256: str
    assignments_sha256: str
    clustering: str  # content version of the cluster model
    made_from: str = ""  # fingerprint of code and inputs, where the caller has one
    term_weights_sha256: str = ""  # where the slice has them


class LoadResult(NamedTuple):
    """What a load did."""

    source_sha256: str
    n_rows: int
    is_skipped: bool  # the same content was there already
    seconds: float  # all of it
    transaction_seconds: float  # of these, the transaction that wrote, connection included
    n_changed: int  # rows that are others now: all, or those that a new clustering moved


def replace_chunk_embeddings(
    postgres: Postgres,
    shard: ShardFacts,
    load: Load,
    *,
    chunks: Iterable[pa.RecordBatch],
    embeddings: Iterable[pa.RecordBatch],
    assignments: Iterable[pa.RecordBatch],
    term_weights: Iterable[pa.RecordBatch],
    store_text: StoreText,
    is_forced: bool = False,
) -> LoadResult:
    """Replaces a shard in `chunk_embeddings` and `chunk_texts`.

    The four tables hold the same chunks in the same order. They are not read when the shard is
    loaded already, and where only its assignments are others, only these are read; otherwise each
    is read once, the large ones in another thread than the one that feeds Postgres. Memory: the
    shard's vectors at 2 bytes per dimension, its terms at 8 bytes each, and a few blocks of 4 MiB.

    Args:
        postgres: where, migrated.
        shard: which.
        load: where the rows come from.
        chunks: batches of `schemas.CHUNKS`.
        embeddings: batches of `schemas.embeddings(dim)`.
        assignments: batches of `schemas.ASSIGNMENTS`.
        term_weights: batches of `schemas.TERM_WEIGHTS`.
        store_text: `bucket` leaves the texts out.
        is_forced: load even what is there already.

    Raises:
        SchemaError: the tables do not belong together, or hold what Postgres cannot.
        ModelError: the pool holds another model's vectors.
        DatabaseUnavailable, DatabaseError: the shard is as it was before.
    """

    name = _name(shard)

    @cache
    def members() -> Members:
        return rows.read_members(assignments, name=name)

    @cache
    def vectors() -> Vectors:
        with stream.ahead(embeddings) as batches:
            return rows.read_vectors(
                batches, term_weights, members(), name=name, dim=shard.pool.dim
            )

    def follow(connection: Connection, target: Target) -> int | None:
        return moves.follow_embeddings(connection, members(), target)

    def fill(connection: Connection, target: Target) -> int:
        texts = rows.text_blocks(chunks, members(), target, store_text=store_text)
        with (
            stream.ahead(rows.embedding_blocks(vectors(), members(), target)) as vector_blocks,
            stream.ahead(texts) as text_blocks,
        ):
            _delete(connection, "chunk_embeddings", target)
            _delete(connection, "chunk_texts", target)
            n_rows = stream.copy(
                connection, "chunk_embeddings", rows.EMBEDDING_COLUMNS, vector_blocks
            )
            stream.copy(connection, "chunk_texts", rows.TEXT_COLUMNS, text_blocks)
        return n_rows

    def source(load: Load) -> str:
        return chunk_embeddings_source(shard.pool, load, store_text=store_text)

    work = _Work(source, vectors, fill, follow)
    return _replace(postgres, "chunk_embeddings", shard, load, work, is_forced=is_forced)


def replace_chunk_clusters(
    postgres: Postgres,
    shard: ShardFacts,
    load: Load,
    *,
    assignments: Iterable[pa.RecordBatch],
    is_forced: bool = False,
) -> LoadResult:
    """Replaces a shard in `chunk_clusters`.

    Args:
        postgres: where, migrated.
        shard: which.
        load: where the rows come from.
        assignments: batches of `schemas.ASSIGNMENTS`; not read when they are loaded already.
        is_forced: load even what is there already.

    Raises:
        SchemaError: the table is not an assignments table.
        ModelError: the pool holds another model's vectors.
        DatabaseUnavailable, DatabaseError: the shard is as it was before.
    """

    def fill(connection: Connection, target: Target) -> int:
        with stream.ahead(rows.cluster_blocks(assignments, target)) as blocks:
            _delete(connection, "chunk_clusters", target)
            return stream.copy(connection, "chunk_clusters", rows.CLUSTER_COLUMNS, blocks)

    def follow(connection: Connection, target: Target) -> int:
        return moves.follow_clusters(connection, assignments, target)

    def source(load: Load) -> str:
        return chunk_clusters_source(shard.pool, load)

    work = _Work(source, None, fill, follow)
    return _replace(postgres, "chunk_clusters", shard, load, work, is_forced=is_forced)


def replace_cluster_headers(
    postgres: Postgres,
    pool: PoolFacts,
    *,
    headers: Sequence[ClusterHeader],
    centroids: np.ndarray,
    source_sha256: str,
    clustering: str,
    run_id: str,
    made_from: str = "",
    is_forced: bool = False,
) -> LoadResult:
    """Replaces all headers of a pool in `cluster_headers`.

    Args:
        postgres: where, migrated.
        pool: which.
        headers: its clusters.
        centroids: of the same clusters in the same order, unit length, float32  # (k, dim)
        source_sha256: content version of what they were made from.
        clustering: content version of the cluster model.
        run_id: of the run that loads.
        made_from: fingerprint of code and inputs, where the caller has one.
        is_forced: load even what is there already.

    Raises:
        SchemaError: a centroid is not a unit vector of the pool's dimension.
        ModelError: the pool holds another model's vectors.
        DatabaseUnavailable, DatabaseError: the headers are as they were before.
    """

    def fill(connection: Connection, pool_id: int) -> int:
        block = rows.header_block(headers, centroids, pool=pool.name, pool_id=pool_id, dim=pool.dim)
        _delete_of_pool(connection, "cluster_headers", pool_id)
        return stream.copy(connection, "cluster_headers", rows.HEADER_COLUMNS, iter([block]))

    load = _PoolLoad(source_sha256, clustering, made_from, run_id)
    return _replace_of_pool(postgres, "cluster_headers", pool, load, fill, is_forced=is_forced)


def replace_lineage(
    postgres: Postgres,
    pool: PoolFacts,
    *,
    lineage: Iterable[pa.RecordBatch],
    sources: Sources,
    source_sha256: str,
    run_id: str,
    made_from: str = "",
    is_forced: bool = False,
) -> LoadResult:
    """Replaces all rows of a pool in `lineage` and `lineage_shards`.

    Args:
        postgres: where, migrated.
        pool: which.
        lineage: batches of `schemas.LINEAGE`; not read when they are loaded already.
        sources: what they were counted from.
        source_sha256: of the lineage object.
        run_id: of the run that loads.
        made_from: fingerprint of code and inputs, where the caller has one.
        is_forced: load even what is there already.

    Raises:
        SchemaError: the table is not a lineage of these sources.
        ModelError: the pool holds another model's vectors.
        DatabaseUnavailable, DatabaseError: the rows are as they were before.
    """

    def fill(connection: Connection, pool_id: int) -> int:
        shards = rows.source_block(sources.shards, pool_id=pool_id)
        blocks = rows.lineage_blocks(lineage, sources.shards, pool=pool.name, pool_id=pool_id)
        _delete_of_pool(connection, "lineage", pool_id)
        _delete_of_pool(connection, "lineage_shards", pool_id)
        stream.copy(connection, "lineage_shards", rows.SOURCE_COLUMNS, iter([shards]))
        with stream.ahead(blocks) as ready:
            return stream.copy(connection, "lineage", rows.LINEAGE_COLUMNS, ready)

    clustering = " ".join(sorted(sources.cluster_models))
    load = _PoolLoad(source_sha256, clustering, made_from, run_id)
    return _replace_of_pool(postgres, "lineage", pool, load, fill, is_forced=is_forced)


def chunk_embeddings_source(pool: PoolFacts, load: Load, *, store_text: StoreText) -> str:
    """What `source_sha256` of a shard in `chunk_embeddings` is, or would be."""
    sources = (
        *(load.chunks_sha256, load.embeddings_sha256, load.assignments_sha256),
        load.term_weights_sha256,
    )
    return _digest("chunk_embeddings", pool.name, pool.model, store_text, *sources)


def chunk_clusters_source(pool: PoolFacts, load: Load) -> str:
    """What `source_sha256` of a shard in `chunk_clusters` is, or would be."""
    return _digest("chunk_clusters", pool.name, pool.model, load.assignments_sha256)


def _digest(*fields: str) -> str:
    return hashlib.sha256("\0".join([str(LOAD_VERSION), *fields]).encode()).hexdigest()


class _Work(NamedTuple):
    """How a slice of a shard is written."""

    source: Callable[[Load], str]  # its source_sha256
    prepare: Callable[[], object] | None  # what `fill` needs and takes long, outside a transaction
    fill: Callable[[Connection, Target], int]  # deletes, copies, returns the rows
    follow: Callable[[Connection, Target], int | None]
    """For where only the assignments are others: the rows that changed, or None where it takes a
    `fill` after all."""


def _replace(
    postgres: Postgres,
    table: ShardTable,
    shard: ShardFacts,
    load: Load,
    work: _Work,
    *,
    is_forced: bool,
) -> LoadResult:
    """Every slice of a shard: tried without what takes long to prepare, then with it."""
    began = opened = time.perf_counter()
    purpose = f"loading the shard {_name(shard)!r} into {table}"
    result = None
    if work.prepare is not None:
        if not is_forced:
            with postgres.connect(purpose=purpose) as connection:
                result = _write(connection, table, shard, load, work, may_fill=False)
                if result is None:
                    connection.rollback()  # a pool or shard that is new is made with its rows
        if result is None:
            work.prepare()
    if result is None:
        opened = time.perf_counter()
        with postgres.connect(purpose=purpose) as connection:
            result = _write(connection, table, shard, load, work, is_forced=is_forced)
        assert result is not None  # noqa: S101 - what may fill does
    ended = time.perf_counter()
    return result._replace(seconds=ended - began, transaction_seconds=ended - opened)


def _write(
    connection: Connection,
    table: ShardTable,
    shard: ShardFacts,
    load: Load,
    work: _Work,
    *,
    is_forced: bool = False,
    may_fill: bool = True,
) -> LoadResult | None:
    """The transaction of every slice of a shard; None, to be rolled back, where it would have to
    fill and may not."""
    source_sha256 = work.source(load)
    name = _name(shard)
    _set_limits(connection)
    ledger.lock(connection, f"shard {name}")
    pool_id = ledger.admit(connection, shard.pool)
    shard_id = ledger.register(connection, shard, pool_id)
    state = ledger.shard_state(connection, table, shard.dataset, shard.shard)
    if not is_forced and state is not None and state.holds(source_sha256):
        connection.execute(
            "update acidburn.loads set clustering = %s, made_from = %s"
            " where shard_id = %s and table_name = %s",
            [load.clustering, load.made_from, shard_id, table],
        )
        return LoadResult(source_sha256, state.n_rows, True, 0.0, 0.0, 0)
    target = Target(name, shard_id, pool_id, shard.pool.dim)
    n_changed = None
    if not is_forced and state is not None and _is_moved(state, load, work):
        n_rows = state.n_rows
        n_changed = work.follow(connection, target)
    if n_changed is None:
        if not may_fill:
            return None
        n_rows = n_changed = work.fill(connection, target)
    connection.execute(
        "delete from acidburn.loads where shard_id = %s and table_name = %s", [shard_id, table]
    )
    connection.execute(
        "insert into acidburn.loads (shard_id, table_name, source_sha256, revision,"
        " chunks_sha256, embeddings_sha256, assignments_sha256, term_weights_sha256,"
        " clustering, made_from, n_rows, run_id)"
        " values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        [
            *(shard_id, table, source_sha256, shard.revision),
            *(load.chunks_sha256, load.embeddings_sha256, load.assignments_sha256),
            *(load.term_weights_sha256, load.clustering),
            *(load.made_from, n_rows, load.run_id),
        ],
    )
    return LoadResult(source_sha256, n_rows, False, 0.0, 0.0, n_changed)


def _name(shard: ShardFacts) -> str:
    return f"{shard.dataset}/{shard.shard}"


def _is_moved(state: LoadState, load: Load, work: _Work) -> bool:
    """Whether what is loaded differs from this load in its assignments only."""
    before = load._replace(assignments_sha256=state.assignments_sha256)
    return state.chunks_sha256 == load.chunks_sha256 and state.holds(work.source(before))


class _PoolLoad(NamedTuple):
    """Where a slice of a pool comes from."""

    source_sha256: str
    clustering: str
    made_from: str
    run_id: str


def _replace_of_pool(
    postgres: Postgres,
    table: PoolTable,
    pool: PoolFacts,
    load: _PoolLoad,
    fill: Callable[[Connection, int], int],
    *,
    is_forced: bool,
) -> LoadResult:
    """The transaction of every slice of a pool; `fill` deletes, copies and returns the rows."""
    began = time.perf_counter()
    purpose = f"loading the pool {pool.name!r} into {table}"
    with postgres.connect(purpose=purpose) as connection:
        _set_limits(connection)
        ledger.lock(connection, f"{table} {pool.name}")
        pool_id = ledger.admit(connection, pool)
        state = ledger.pool_slice_state(connection, table, pool.name)
        is_skipped = not is_forced and state is not None and state.holds(load.source_sha256)
        if state is not None and is_skipped:
            n_rows, n_changed = state.n_rows, 0
            connection.execute(
                "update acidburn.pool_loads set clustering = %s, made_from = %s"
                " where pool_id = %s and table_name = %s",
                [load.clustering, load.made_from, pool_id, table],
            )
        else:
            n_rows = n_changed = fill(connection, pool_id)
            connection.execute(
                "delete from acidburn.pool_loads where pool_id = %s and table_name = %s",
                [pool_id, table],
            )
            connection.execute(
                "insert into acidburn.pool_loads (pool_id, table_name, source_sha256, clustering,"
                " made_from, n_rows, run_id) values (%s, %s, %s, %s, %s, %s, %s)",
                [
                    *(pool_id, table, load.source_sha256, load.clustering),
                    *(load.made_from, n_rows, load.run_id),
                ],
            )
    seconds = time.perf_counter() - began
    return LoadResult(load.source_sha256, n_rows, is_skipped, seconds, seconds, n_changed)


def _set_limits(connection: Connection) -> None:
    connection.execute(
        "select set_config('statement_timeout', %s, true), set_config('lock_timeout', %s, true),"
        # between two statements the transaction may wait for the bucket
        " set_config('idle_in_transaction_session_timeout', '0', true)",
        [f"{_STATEMENT_SECONDS}s", f"{_LOCK_SECONDS}s"],
    )
    if connection.info.server_version >= 170000:
        connection.execute("select set_config('transaction_timeout', '0', true)")


def _delete(connection: Connection, table: str, target: Target) -> None:
    connection.execute(
        sql.SQL("delete from acidburn.{} where shard_id = %s").format(sql.Identifier(table)),
        [target.shard_id],
    )


def _delete_of_pool(connection: Connection, table: str, pool_id: int) -> None:
    connection.execute(
        sql.SQL("delete from acidburn.{} where pool_id = %s").format(sql.Identifier(table)),
        [pool_id],
    )
