"""Ways to replace a shard's vectors and texts: ours, psql's, and psycopg's.

Each of them does it in one transaction that takes the shard's lock, deletes what was there, writes
the rows and notes the load, so that they differ in how rows travel only. psql copies files that
were prepared before, rows in the order of their cells: a ceiling, since nothing is read, checked or
encoded. `executemany` sends its rows in a pipeline, vectors as pgvector's own adapter sends them. A
newcomer turns each row into Python values and a vector into text, and writes one row after another.
"""

import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias
from uuid import UUID

import numpy as np
import psycopg
import pyarrow as pa
from pgvector import HalfVector, SparseVector
from pgvector.psycopg import register_vector
from psycopg import sql

from acidburn_assets.adapters import embedded_postgres
from acidburn_assets.adapters.object_store import ObjectStore, iter_batches, write_parquet
from acidburn_assets.adapters.postgres import (
    Load,
    LoadResult,
    PoolFacts,
    Postgres,
    ShardFacts,
    copy_binary,
    replace_chunk_embeddings,
    rows,
)
from acidburn_assets.adapters.postgres.rows import EMBEDDING_COLUMNS, TEXT_COLUMNS, StoreText
from acidburn_assets.core import embeddings, schemas, term_weights

Row: TypeAlias = tuple[Any, ...]
Way: TypeAlias = Literal["executemany", "copy", "execute"]

ROWS_PER_CELL = 32
"""Chosen: between the 16 and the 62 that cells have in pools of thousands and of a million."""

NEXT = 10**6
"""What is added to every cell of the other generation, so that a reader can tell them apart."""


class Shard(NamedTuple):
    """What is loaded: the tables that the stages before would have made, in a bucket."""

    facts: ShardFacts
    chunks: pa.Table
    embeddings: pa.Table
    assignments: pa.Table
    term_weights: pa.Table
    store_text: StoreText
    bucket: ObjectStore

    @property
    def name(self) -> str:
        """As the loader's lock knows it."""
        return f"{self.facts.dataset}/{self.facts.shard}"

    def key(self, table: str) -> str:
        """Of its object, whatever the shard is called in Postgres."""
        return f"{self.facts.dataset}/{table}/000000.parquet"

    def renamed(self, name: str) -> "Shard":
        """The same content as another shard."""
        return self._replace(facts=self.facts._replace(shard=name))

    def head(self, n_rows: int) -> "Shard":
        """Its first rows, for ways that take long."""
        names = ("chunks", "embeddings", "assignments", "term_weights")
        return self._replace(**{name: getattr(self, name).slice(0, n_rows) for name in names})

    def moved(self, share: float, *, by: int = 1) -> "Shard":
        """The same chunks, a share of them in another cell."""
        n_rows = len(self.assignments)
        step = np.zeros(n_rows, np.int32)
        chosen = np.random.default_rng(1).permutation(n_rows)[: round(share * n_rows)]
        step[chosen] = by
        field = self.assignments.schema.get_field_index("cell_id")
        cells = self.assignments["cell_id"].to_numpy() + step
        return self._replace(
            assignments=self.assignments.set_column(
                field, self.assignments.schema.field(field), pa.array(cells, pa.int32())
            )
        )


def repeat(chunks: pa.Table, n_rows: int) -> pa.Table:
    """So many chunks: the same texts again and again, each under an id of its own."""
    rows = np.arange(n_rows) % len(chunks)
    ids = np.random.default_rng(0).bytes(16 * n_rows)
    column = pa.FixedSizeBinaryArray.from_buffers(
        schemas.CHUNK_ID, n_rows, [None, pa.py_buffer(ids)]
    )
    return chunks.take(pa.array(rows)).set_column(0, chunks.schema.field("chunk_id"), column)


def make_shard(
    chunks: pa.Table, weights: pa.Table, dim: int, *, store_text: StoreText, bucket: ObjectStore
) -> Shard:
    """The chunks with unit vectors and cells made up for them, stored as the stages store them."""
    rng = np.random.default_rng(0)
    n_rows = len(chunks)
    vectors = rng.standard_normal((n_rows, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = vectors.astype(np.float16).astype(np.float32)
    ids = chunks["chunk_id"].combine_chunks()
    cells = rng.integers(0, max(1, n_rows // ROWS_PER_CELL), n_rows)
    assignments = pa.table(
        [
            ids,
            pa.array(cells // 20, pa.int32()),
            pa.array(cells, pa.int32()),
            *(pa.array(rng.random(n_rows), pa.float32()) for _ in ("strength", "distance")),
            pa.array(rng.random(n_rows) < 0.2),
        ],
        schema=schemas.ASSIGNMENTS,
    )
    owner = f"bench_{dim}_{store_text}"
    shard = Shard(
        facts=ShardFacts(
            pool=PoolFacts(owner, "knowledge", f"random {dim}", "random", dim),
            dataset=owner,
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
        term_weights=weights,
        store_text=store_text,
        bucket=bucket,
    )
    for table, encoding in (
        ("chunks", None),
        ("embeddings", embeddings.COLUMN_ENCODING),
        ("assignments", None),
        ("term_weights", None),
    ):
        content: pa.Table = getattr(shard, table)
        write_parquet(
            bucket,
            shard.key(table),
            content.schema,
            content.to_batches(),
            column_encoding=encoding,
        )
    return shard


def load(
    postgres: Postgres, shard: Shard, *, clustering: str = "", is_forced: bool = True
) -> LoadResult:
    """Ours: vectors and texts from the bucket, assignments as given.

    Args:
        postgres: where.
        shard: which.
        clustering: stands for the hash of the assignments.
        is_forced: load what is there already.
    """
    return replace_chunk_embeddings(
        postgres,
        shard.facts,
        Load(
            run_id="bench",
            chunks_sha256="",
            embeddings_sha256="",
            assignments_sha256=clustering,
            clustering="",
        ),
        chunks=iter_batches(shard.bucket, shard.key("chunks")),
        embeddings=iter_batches(shard.bucket, shard.key("embeddings")),
        assignments=shard.assignments.to_batches(),
        term_weights=iter_batches(shard.bucket, shard.key("term_weights")),
        store_text=shard.store_text,
        is_forced=is_forced,
    )


class Psql:
    """psql and files that were prepared for it."""

    def __init__(self, dsn: str, shard: Shard, folder: Path) -> None:
        """Writes the files.

        Args:
            dsn: where; `load` has loaded the shard, and with it registered it.
            shard: which.
            folder: for the files.
        """
        with psycopg.connect(dsn) as connection:
            shard_id, pool_id = ids(connection, shard)
        target = rows.Target(shard.name, shard_id, pool_id, shard.facts.pool.dim)
        members = rows.read_members(shard.assignments.to_batches(), name=shard.name)
        vectors = rows.read_vectors(
            shard.embeddings.to_batches(),
            shard.term_weights.to_batches(),
            members,
            name=shard.name,
            dim=target.dim,
        )
        copies = []
        for table, columns, blocks in (
            (
                "chunk_embeddings",
                EMBEDDING_COLUMNS,
                rows.embedding_blocks(vectors, members, target),
            ),
            (
                "chunk_texts",
                TEXT_COLUMNS,
                rows.text_blocks(
                    shard.chunks.to_batches(), members, target, store_text=shard.store_text
                ),
            ),
        ):
            path = folder / f"{shard.facts.dataset}.{table}.bin"
            with path.open("wb") as file:
                file.write(copy_binary.HEADER)
                for block in blocks:
                    file.write(block.content)
                file.write(copy_binary.TRAILER)
            names = ", ".join(columns)
            copies.append(f"\\copy acidburn.{table} ({names}) from '{path}' (format binary)")
        self._program = embedded_postgres._newest_binaries().folder / "psql"
        self._dsn = dsn
        mine = f"where shard_id = {shard_id};"
        lock = f"hashtextextended('acidburn shard {shard.name}', 0)"
        self._script = "\n".join(
            [
                *("begin;", f"select pg_advisory_xact_lock({lock});"),
                *(f"delete from acidburn.{table} {mine}" for table in TABLES),  # noqa: S608
                *copies,
                f"update acidburn.loads set loaded_at = now() {mine}",  # noqa: S608
                "commit;\n",
            ]
        )

    def __call__(self) -> None:
        """One load."""
        subprocess.run(  # noqa: S603 - a program of an installed package
            [self._program, "-q", "-X", "-v", "ON_ERROR_STOP=1", "-d", self._dsn],
            input=self._script,
            text=True,
            check=True,
            stdout=subprocess.DEVNULL,
        )


TABLES = ("chunk_embeddings", "chunk_texts")


def insert(dsn: str, shard: Shard, way: Way) -> None:
    """psycopg's: row after row.

    Args:
        dsn: where; `load` has loaded the shard, and with it registered it.
        shard: which.
        way: one `executemany` for each table; COPY of one `write_row` each; one `execute` each.
    """
    with psycopg.connect(dsn, options="-c search_path=extensions") as connection:
        register_vector(connection)
        shard_id, pool_id = ids(connection, shard)
        is_naive = way != "executemany"
        connection.execute(
            "select pg_advisory_xact_lock(hashtextextended(%s, 0))",
            [f"acidburn shard {shard.name}"],
        )
        for table, columns, values in (
            (
                "chunk_embeddings",
                EMBEDDING_COLUMNS,
                _vectors(shard, shard_id, pool_id, is_naive=is_naive),
            ),
            ("chunk_texts", TEXT_COLUMNS, _texts(shard, shard_id)),
        ):
            _replace(connection, table, columns, values, shard_id, way)
        connection.execute(
            "update acidburn.loads set loaded_at = now() where shard_id = %s", [shard_id]
        )


def _replace(
    connection: psycopg.Connection[Any],
    table: str,
    columns: Sequence[str],
    values: Iterable[Row],
    shard_id: int,
    way: Way,
) -> None:
    name = sql.Identifier("acidburn", table)
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    connection.execute(sql.SQL("delete from {} where shard_id = %s").format(name), [shard_id])
    if way == "copy":
        statement = sql.SQL("copy {} ({}) from stdin").format(name, names)
        with connection.cursor() as cursor, cursor.copy(statement) as copy:
            for row in values:
                copy.write_row(row)
        return
    places = sql.SQL(", ").join([sql.Placeholder()] * len(columns))
    statement = sql.SQL("insert into {} ({}) values ({})").format(name, names, places)
    if way == "executemany":
        connection.cursor().executemany(statement, values)
        return
    for row in values:
        connection.execute(statement, row)


def _vectors(shard: Shard, shard_id: int, pool_id: int, *, is_naive: bool) -> Iterator[Row]:
    places = zip(
        _chunk_ids(shard),
        shard.assignments["cluster_id"].to_pylist(),
        shard.assignments["cell_id"].to_pylist(),
        strict=True,
    )
    said = (
        {term: weight for term, weight in zip(*one, strict=True) if weight > 0}
        for one in zip(
            shard.term_weights["terms"].to_pylist(),
            shard.term_weights["weights"].to_pylist(),
            strict=True,
        )
    )
    values: Iterable[tuple[Any, Any]]
    if is_naive:
        vectors = (str(values) for values in shard.embeddings["embedding"].to_pylist())
        values = zip(vectors, map(_sparse_text, said), strict=True)
    else:
        halves = map(HalfVector, embeddings.matrix(shard.embeddings["embedding"]))
        sparse = (SparseVector(weights, term_weights.N_IDS) for weights in said)
        values = zip(halves, sparse, strict=True)
    for place, value in zip(places, values, strict=True):
        chunk_id, cluster_id, cell_id = place
        yield shard_id, chunk_id, pool_id, cluster_id, cell_id, *value


def _sparse_text(weights: dict[int, float]) -> str:
    """As pgvector reads it; its indexes begin with 1."""
    said = ",".join(f"{term + 1}:{weight}" for term, weight in weights.items())
    return f"{{{said}}}/{term_weights.N_IDS}"


def _texts(shard: Shard, shard_id: int) -> Iterator[Row]:
    columns = [shard.chunks[name].to_pylist() for name in schemas.CHUNKS.names[1:]]
    for chunk_id, *values in zip(_chunk_ids(shard), *columns, strict=True):
        *facts, text = values
        yield shard_id, chunk_id, *facts, text if shard.store_text == "postgres" else None


def _chunk_ids(shard: Shard) -> list[UUID]:
    return [UUID(bytes=one) for one in shard.chunks["chunk_id"].to_pylist()]


def keep(connection: psycopg.Connection[Any], shard: Shard) -> None:
    """Removes what is loaded of a shard but for these rows."""
    shard_id, _ = ids(connection, shard)
    for table in TABLES:
        connection.execute(
            sql.SQL("delete from acidburn.{} where shard_id = %s and chunk_id <> all(%s)").format(
                sql.Identifier(table)
            ),
            [shard_id, _chunk_ids(shard)],
        )


def ids(connection: psycopg.Connection[Any], shard: Shard) -> tuple[int, int]:
    """shard_id and pool_id, which our loader registered."""
    found = connection.execute(
        "select shard_id, pool_id from acidburn.shards where dataset = %s and shard = %s",
        [shard.facts.dataset, shard.facts.shard],
    ).fetchone()
    assert found is not None, "the first variant, ours, has run"
    return found[0], found[1]
