"""The best passages by cosine and BM25, inside some cells of a pool or in all of it.

Exact: no index chooses what is compared, and none may. With an HNSW index on the column the
planner takes it for a filtered search too and quietly loses passages (recall .979 where 1 was
asked for), so nothing here is ordered by the distance operator itself.
Source: measured, pgvector 0.8.5.
"""

import queue
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from acidburn_assets.adapters.postgres.connection import Connection, Postgres, translated
from acidburn_assets.core.errors import DatabaseUnavailable
from acidburn_assets.core.ranking import Query
from acidburn_assets.core.term_weights import N_IDS

_POOL = "(select pool_id from acidburn.pools where name = %(pool)s)"

# Casts, because a parameter has no type of its own; operators by their schema, because the search
# path of the role is not ours to set. Ordering by 1 - distance is what no vector index can serve.
_SCORED = """
  select shard_id, chunk_id, cluster_id,
    1 - (embedding operator(extensions.<=>) %(vector)s::extensions.halfvec) as cosine,
    coalesce(
      (terms operator(extensions.<#>) %(terms)s::extensions.sparsevec) / -%(bound)s::float8, 0
    ) as lexical
  from acidburn.chunk_embeddings
"""
_SCORE = "(1 - %(share)s::float8) * cosine + %(share)s::float8 * lexical"

_INSIDE = f"""
with scored as materialized (
  {_SCORED} where pool_id = {_POOL} and cell_id = any(%(cells)s::int[])
), best as (
  select *, {_SCORE} as score, (select count(*) from scored) as n_scanned
  from scored order by score desc, shard_id, chunk_id limit %(limit)s
)
"""  # noqa: S608 - composed from the constants above

_EVERYWHERE = f"""
with best as (
  select *, (
    select sum(l.n_rows)::bigint from acidburn.loads l join acidburn.shards s using (shard_id)
    where s.pool_id = {_POOL} and l.table_name = 'chunk_embeddings'
  ) as n_scanned
  from (
    select *, {_SCORE} as score from ({_SCORED} where pool_id = {_POOL}) scored
    order by score desc, shard_id, chunk_id limit %(limit)s
  ) nearest
)
"""  # noqa: S608 - composed from the constants above

_WITH_FACTS = """
select b.n_scanned, b.chunk_id, s.dataset, s.shard, t.doc_id, t.doc_row, t.title, t.chunk_index,
  t.char_start, t.char_end, b.cluster_id, b.score, b.cosine, b.lexical, t.body, l.revision,
  l.chunks_sha256, l.embeddings_sha256, l.source_sha256, l.run_id
from best b
join acidburn.shards s using (shard_id)
join acidburn.loads l on l.shard_id = b.shard_id and l.table_name = 'chunk_embeddings'
join acidburn.chunk_texts t on t.shard_id = b.shard_id and t.chunk_id = b.chunk_id
order by b.score desc, b.shard_id, b.chunk_id
"""

# Rows of a cell lie together in each shard, and cells of a cluster beside each other: a bitmap of
# the pages sees each of them once and asks for the next ones ahead, an index scan comes back to
# them cell by cell. Source: measured, 2,184 rows in 36 cells of 20 shards: 1,150 pages against
# 1,442, 4.8 ms of CPU against 6.1.
_SETTINGS = """
select set_config('statement_timeout', %s, true), set_config('enable_indexscan', 'off', true),
  set_config('transaction_read_only', 'on', true)
"""


class Hit(NamedTuple):
    """A passage and where it is from."""

    chunk_id: bytes
    dataset: str
    shard: str
    doc_id: str
    doc_row: int
    title: str
    chunk_index: int
    char_start: int
    char_end: int
    cluster_id: int
    score: float  # that the order is by
    cosine: float
    lexical: float  # BM25 as a share of what is possible
    text: str | None  # None: it stays in the bucket
    revision: str
    chunks_sha256: str
    embeddings_sha256: str
    source_sha256: str  # of the loaded slice
    run_id: str  # that loaded it


class Hits(NamedTuple):
    """The best passages, best first."""

    hits: list[Hit]
    n_rows_scanned: int  # vectors compared with the question's
    seconds: float


class PassageSearch:
    """Searches one pool; may be used by several threads, each call on a connection of its own.

    Connections are kept for the next call, since opening one takes longer than a search; they
    end with this object.
    """

    def __init__(self, postgres: Postgres, pool: str, *, timeout_seconds: float = 60) -> None:
        """Connects to nothing yet.

        Args:
            postgres: where the pool is loaded.
            pool: its name.
            timeout_seconds: of one search. Chosen: a scan of 1.5M vectors takes a few seconds.
        """
        self._postgres = postgres
        self._pool = pool
        self._timeout_seconds = timeout_seconds
        self._idle: queue.SimpleQueue[Connection] = queue.SimpleQueue()
        weakref.finalize(self, _close_all, self._idle)

    def inside(self, query: Query, cells: Sequence[int], *, limit: int) -> Hits:
        """The best passages of some cells.

        Args:
            query: the question.
            cells: which.
            limit: how many passages at most.

        Raises:
            DatabaseUnavailable, DatabaseError: the database cannot say.
        """
        return self._search(_INSIDE + _WITH_FACTS, query, limit, {"cells": list(cells)})

    def everywhere(self, query: Query, *, limit: int) -> Hits:
        """The best passages of the whole pool; reads all of it.

        Args:
            query: the question.
            limit: how many passages at most.

        Raises:
            DatabaseUnavailable, DatabaseError: the database cannot say.
        """
        return self._search(_EVERYWHERE + _WITH_FACTS, query, limit, {})

    def close(self) -> None:
        """Closes the connections that are kept."""
        _close_all(self._idle)

    def _search(
        self, statement: str, query: Query, limit: int, arguments: Mapping[str, Any]
    ) -> Hits:
        began = time.perf_counter()
        rows = self._fetch(
            statement,
            {
                "pool": self._pool,
                "vector": _halfvec(query.vector),
                "terms": _sparsevec(query.terms),
                "bound": query.bound,
                "share": query.lexical_share,
                "limit": limit,
                **arguments,
            },
        )
        hits = [Hit(chunk_id.bytes, *facts) for _, chunk_id, *facts in rows]
        n_rows_scanned = rows[0][0] if rows else 0
        return Hits(hits, n_rows_scanned, time.perf_counter() - began)

    def _fetch(self, statement: str, arguments: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        while True:
            connection, is_kept = self._take()
            try:
                with translated(f"searching the pool {self._pool!r}"):
                    # sent together, so they are one transaction, and one journey to the server
                    with connection.pipeline():
                        connection.execute(_SETTINGS, [f"{self._timeout_seconds:.0f}s"])
                        found = connection.execute(statement.encode(), arguments)
                    return found.fetchall()
            except DatabaseUnavailable:
                # the other side may have closed a kept connection meanwhile; a read may be asked
                # again, on the next one
                if not (is_kept and connection.broken):
                    raise
            finally:
                if connection.closed:
                    connection.close()
                else:
                    self._idle.put(connection)

    def _take(self) -> tuple[Connection, bool]:
        """A connection, and whether it was kept from an earlier call."""
        try:
            return self._idle.get_nowait(), True
        except queue.Empty:
            connection = self._postgres.open()
            connection.autocommit = True
            return connection, False


def _halfvec(vector: np.ndarray) -> str:
    values = ",".join(map(repr, vector.astype(np.float16).tolist()))
    return f"[{values}]"


def _sparsevec(weights: Mapping[int, float]) -> str:
    # pgvector counts from 1 here
    entries = ",".join(f"{term + 1}:{weight!r}" for term, weight in sorted(weights.items()))
    return f"{{{entries}}}/{N_IDS}"


def _close_all(idle: queue.SimpleQueue[Connection]) -> None:
    while not idle.empty():
        idle.get().close()
