"""Ways to replace a shard's vectors and texts: ours, and psycopg's own.

Each of them does it in one transaction that deletes what was there, as a load does, so that they
differ in how rows travel only. `executemany` sends its rows in a pipeline, without waiting for each
answer; vectors go as pgvector's own adapter sends them.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

import numpy as np
import psycopg
import pyarrow as pa
from pgvector import HalfVector
from pgvector.psycopg import register_vector
from psycopg import sql

from acidburn_assets.adapters.postgres import (
    Load,
    PoolFacts,
    Postgres,
    ShardFacts,
    replace_chunk_embeddings,
)
from acidburn_assets.adapters.postgres.rows import EMBEDDING_COLUMNS, TEXT_COLUMNS
from acidburn_assets.core import embeddings, schemas
from benchmarks import evaluation

Row: TypeAlias = tuple[Any, ...]

N_CLUSTERS = 50

LOAD = Load(
    run_id="bench",
    chunks_sha256="",
    embeddings_sha256="",
    assignments_sha256="",
    clustering="",
)


class Shard(NamedTuple):
    """What is loaded: the tables that the stages before would have made."""

    facts: ShardFacts
    chunks: pa.Table
    embeddings: pa.Table
    assignments: pa.Table
    term_weights: pa.Table


def make_shard(chunks: pa.Table, dim: int) -> Shard:
    """The chunks with unit vectors and clusters made up for them."""
    rng = np.random.default_rng(0)
    n_rows = len(chunks)
    vectors = rng.standard_normal((n_rows, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = chunks["chunk_id"].combine_chunks()
    clusters = rng.integers(0, N_CLUSTERS, n_rows)
    assignments = pa.table(
        [
            ids,
            pa.array(clusters, pa.int32()),
            pa.array(clusters, pa.int32()),  # one cell each
            *(pa.array(rng.random(n_rows), pa.float32()) for _ in ("strength", "distance")),
            pa.array(rng.random(n_rows) < 0.2),
        ],
        schema=schemas.ASSIGNMENTS,
    )
    return Shard(
        facts=ShardFacts(
            pool=PoolFacts(f"bench_{dim}", "knowledge", f"random {dim}", "random", dim),
            dataset=f"bench_{dim}",
            shard="000000",
            first_row=0,
            n_rows=n_rows,
            revision="",
            licence="CC0-1.0",
            may_redistribute_text=True,
        ),
        chunks=chunks,
        embeddings=pa.Table.from_batches([embeddings.record_batch(ids, vectors)]),
        assignments=assignments,
        term_weights=evaluation.term_weights(chunks),
    )


def copy(postgres: Postgres, shard: Shard) -> None:
    """Ours: COPY BINARY."""
    replace_chunk_embeddings(
        postgres,
        shard.facts,
        LOAD,
        chunks=shard.chunks.to_batches(),
        embeddings=shard.embeddings.to_batches(),
        assignments=shard.assignments.to_batches(),
        term_weights=shard.term_weights.to_batches(),
        store_text="postgres",
        is_forced=True,
    )


def insert(dsn: str, shard: Shard, *, is_many: bool) -> None:
    """psycopg's: INSERT.

    Args:
        dsn: where; `copy` has loaded the shard, and with it registered it.
        shard: which.
        is_many: one `executemany` for each table; otherwise one `execute` for each row.
    """
    with psycopg.connect(dsn, options="-c search_path=extensions") as connection:
        register_vector(connection)
        shard_id, pool_id = _ids(connection, shard)
        for table, columns, rows in (
            ("chunk_embeddings", EMBEDDING_COLUMNS, _vectors(shard, shard_id, pool_id)),
            ("chunk_texts", TEXT_COLUMNS, _texts(shard, shard_id)),
        ):
            _replace(connection, table, columns, rows, shard_id, is_many=is_many)


def _replace(
    connection: psycopg.Connection[Any],
    table: str,
    columns: Sequence[str],
    rows: Iterable[Row],
    shard_id: int,
    *,
    is_many: bool,
) -> None:
    name = sql.Identifier("acidburn", table)
    connection.execute(sql.SQL("delete from {} where shard_id = %s").format(name), [shard_id])
    statement = sql.SQL("insert into {} ({}) values ({})").format(
        name,
        sql.SQL(", ").join(map(sql.Identifier, columns)),
        sql.SQL(", ").join([sql.Placeholder()] * len(columns)),
    )
    if is_many:
        connection.cursor().executemany(statement, rows)
        return
    for row in rows:
        connection.execute(statement, row)


def _vectors(shard: Shard, shard_id: int, pool_id: int) -> Iterator[Row]:
    vectors = embeddings.matrix(shard.embeddings["embedding"])
    clusters = shard.assignments["cluster_id"].to_pylist()
    for chunk_id, cluster, vector in zip(_chunk_ids(shard), clusters, vectors, strict=True):
        yield shard_id, chunk_id, pool_id, cluster, HalfVector(vector)


def _texts(shard: Shard, shard_id: int) -> Iterator[Row]:
    columns = [shard.chunks[name].to_pylist() for name in schemas.CHUNKS.names[1:]]
    for row in zip(_chunk_ids(shard), *columns, strict=True):
        yield shard_id, *row


def _chunk_ids(shard: Shard) -> list[UUID]:
    return [UUID(bytes=one) for one in shard.chunks["chunk_id"].to_pylist()]


def _ids(connection: psycopg.Connection[Any], shard: Shard) -> tuple[int, int]:
    """shard_id and pool_id, which our loader registered."""
    found = connection.execute(
        "select shard_id, pool_id from acidburn.shards where dataset = %s and shard = %s",
        [shard.facts.dataset, shard.facts.shard],
    ).fetchone()
    assert found is not None, "the first variant, ours, has run"
    return found[0], found[1]
