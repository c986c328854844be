"""The same collection in Postgres as others search it: IVFFlat, HNSW, and Postgres's full text.

Each has a table of its own beside our tables, in the schema `bench`, so that the planner has one
index to choose. IVFFlat has as many lists as the pool has cells; how many rows a number of probes
compares is counted, not guessed. HNSW is built with pgvector's defaults. Full text is asked for any
of the question's words, since most questions find nothing that has all of them.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import psutil
import psycopg
from pgvector import HalfVector
from pgvector.psycopg import register_vector
from psycopg import sql

from benchmarks.judged import Asked

N_CALIBRATED = 50
"""Questions that the number of probes is chosen by."""

HNSW_M, HNSW_EF_CONSTRUCTION = 16, 64
"""pgvector's defaults."""


class Found(NamedTuple):
    """What a peer found for every question."""

    rows: list[np.ndarray]  # best first
    cpu_ms: float  # of its backend, per question


class Peers:
    """One collection, as others would search it."""

    def __init__(self, connection: psycopg.Connection[Any], asked: Asked, *, n_lists: int) -> None:
        """`loaded` makes one; `build_ivf` comes before anything that asks lists."""
        self._connection = connection
        self._asked = asked
        self._n_lists = n_lists
        self._lists = f"{asked.name}_ivf_lists"
        self._vectors = [HalfVector(vector) for vector in asked.question_vectors]
        self._backend = psutil.Process(connection.info.backend_pid)

    def build_ivf(self) -> None:
        """Makes the lists of IVFFlat anew: they begin at random rows, so each time they differ."""
        lists = sql.Identifier("bench", self._lists)
        self._connection.execute(sql.SQL("drop index if exists {}").format(lists))
        self._connection.execute(
            sql.SQL(
                "create index {} on {} using ivfflat (embedding halfvec_cosine_ops)"
                " with (lists = {})"
            ).format(sql.Identifier(self._lists), self._table("ivf"), sql.Literal(self._n_lists))
        )

    def probes_for(self, shares: Sequence[float]) -> dict[float, int]:
        """The fewest probes with which so large a share is compared, on average.

        Args:
            shares: of the collection.
        """
        n_rows = len(self._asked.texts)
        chosen = {}
        for share in shares:
            low, high = 1, self._n_lists
            while low < high:
                middle = (low + high) // 2
                scanned = [len(rows) for rows in self.in_lists(middle, limit=N_CALIBRATED)]
                if np.mean(scanned) >= share * n_rows:
                    high = middle
                else:
                    low = middle + 1
            chosen[share] = low
        return chosen

    def in_lists(self, n_probes: int, *, limit: int | None = None) -> list[np.ndarray]:
        """All rows that so many probes compare, nearest first, for each question.

        Args:
            n_probes: lists that are looked into.
            limit: questions that are asked; None: all.
        """
        self._set("ivfflat.probes", n_probes)
        statement = self._nearest("ivf", len(self._asked.texts))
        return [self._rows(statement, [vector]) for vector in self._vectors[:limit]]

    def ivf_cpu_ms(self, n_probes: int, *, limit: int) -> float:
        """What the nearest rows of so many lists cost the backend, per question.

        Args:
            n_probes: lists that are looked into.
            limit: rows for each question.
        """
        self._set("ivfflat.probes", n_probes)
        statement = self._nearest("ivf", limit)
        return self._timed(lambda: [self._rows(statement, [each]) for each in self._vectors]).cpu_ms

    def hnsw(self, ef_search: int, *, limit: int) -> Found:
        """The nearest rows by a graph.

        Args:
            ef_search: candidates that are kept; fewer than `limit` find no more than that.
            limit: rows for each question.
        """
        self._set("hnsw.ef_search", ef_search)
        statement = self._nearest("hnsw", limit)
        return self._timed(lambda: [self._rows(statement, [each]) for each in self._vectors])

    def full_text(self, *, limit: int) -> Found:
        """Rows by `ts_rank_cd` that have any of the words.

        Args:
            limit: rows for each question.
        """
        statement = sql.SQL(
            "select row from {}, (select replace(plainto_tsquery('english', %s)::text, ' & ',"
            " ' | ')::tsquery as words) asked where lexemes @@ words"
            " order by ts_rank_cd(lexemes, words) desc, row limit {}"
        ).format(self._table("full_text"), sql.Literal(limit))
        return self._timed(
            lambda: [self._rows(statement, [question]) for question in self._asked.questions]
        )

    def plans(self) -> dict[str, str]:
        """Which index each table's search uses."""
        found = {}
        for name in ("ivf", "hnsw"):
            explained = self._connection.execute(
                sql.SQL("explain {}").format(self._nearest(name, 10)), self._vectors[:1]
            ).fetchall()
            found[name] = "\n".join(line for (line,) in explained)
        return found

    def _timed(self, search: Callable[[], list[np.ndarray]]) -> Found:
        search()  # warm
        before = self._cpu()
        rows = search()
        return Found(rows, 1000 * (self._cpu() - before) / len(rows))

    def _cpu(self) -> float:
        used = self._backend.cpu_times()
        return float(used.user + used.system)

    def _rows(self, statement: sql.Composed, arguments: Sequence[Any]) -> np.ndarray:
        found = self._connection.execute(statement, arguments).fetchall()
        return np.array([row for (row,) in found], np.int64)

    def _nearest(self, name: str, limit: int) -> sql.Composed:
        return sql.SQL("select row from {} order by embedding <=> %s limit {}").format(
            self._table(name), sql.Literal(limit)
        )

    def _set(self, name: str, value: int) -> None:
        self._connection.execute("select set_config(%s, %s, false)", [name, str(value)])

    def _table(self, name: str) -> sql.Identifier:
        return sql.Identifier("bench", f"{self._asked.name}_{name}")


@contextmanager
def loaded(dsn: str, asked: Asked, *, n_lists: int) -> Iterator[Peers]:
    """A collection in tables of peers, dropped at the end.

    Args:
        dsn: where.
        asked: the collection.
        n_lists: of IVFFlat.
    """
    with psycopg.connect(
        dsn, autocommit=True, options="-c search_path=extensions,pg_catalog"
    ) as connection:
        register_vector(connection)
        connection.execute("create schema if not exists bench")
        peers = Peers(connection, asked, n_lists=n_lists)
        try:
            _make(connection, asked)
            connection.execute("set enable_seqscan = off")
            connection.execute("set jit = off")
            yield peers
        finally:
            connection.execute("drop schema bench cascade")


def _make(connection: psycopg.Connection[Any], asked: Asked) -> None:
    dim = asked.vectors.shape[1]
    names = {kind: sql.Identifier("bench", f"{asked.name}_{kind}") for kind in ("ivf", "hnsw")}
    for name in names.values():
        connection.execute(
            sql.SQL("create table {} (row int, embedding halfvec({}) not null)").format(
                name, sql.Literal(dim)
            )
        )
        copy_in = sql.SQL("copy {} (row, embedding) from stdin (format binary)").format(name)
        with connection.cursor().copy(copy_in) as copy:
            copy.set_types(["int4", "halfvec"])
            for row, vector in enumerate(asked.vectors):
                copy.write_row((row, HalfVector(vector)))
    # the graph in memory: one that does not fit is built many times slower
    connection.execute("set maintenance_work_mem = '1GB'")
    connection.execute(
        sql.SQL(
            "create index on {} using hnsw (embedding halfvec_cosine_ops)"
            " with (m = {}, ef_construction = {})"
        ).format(names["hnsw"], sql.Literal(HNSW_M), sql.Literal(HNSW_EF_CONSTRUCTION))
    )
    full_text = sql.Identifier("bench", f"{asked.name}_full_text")
    connection.execute(
        sql.SQL("create table {} (row int, body text, lexemes tsvector)").format(full_text)
    )
    with connection.cursor().copy(
        sql.SQL("copy {} (row, body) from stdin").format(full_text)
    ) as copy:
        for row, text in enumerate(asked.texts):
            copy.write_row((row, text))
    connection.execute(
        sql.SQL("update {} set lexemes = to_tsvector('english', body)").format(full_text)
    )
    connection.execute(sql.SQL("create index on {} using gin (lexemes)").format(full_text))
    for name in (*names.values(), full_text):
        connection.execute(sql.SQL("analyze {}").format(name))
