"""A shard that is loaded and clustered anew: what is written, and what is left as it was."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pytest

from acidburn_assets.adapters.postgres import Postgres, load_state, replace_chunk_embeddings
from acidburn_assets.adapters.postgres.load import LoadResult
from acidburn_assets.adapters.postgres.moves import MOST_STRAYS
from acidburn_assets.core.errors import DatabaseError, SchemaError
from acidburn_assets_tests import postgres_samples
from acidburn_assets_tests.postgres_samples import Sample, load, load_clusters
from acidburn_assets_tests.postgres_server import database, dsn, postgres_server

__all__ = ["database", "dsn", "postgres_server"]

N_CHUNKS = 200
FEW, MANY = int(MOST_STRAYS * N_CHUNKS), int(MOST_STRAYS * N_CHUNKS) + 1


def clustered_anew(sample: Sample, n_moved: int, *, first: int = 0) -> Sample:
    """The same chunks, some of them in another cluster and cell."""
    moved = np.zeros(N_CHUNKS, bool)
    moved[first : first + n_moved] = True
    table = sample.assignments
    for name, step in (("cluster_id", 5), ("cell_id", 10)):
        column = table.schema.get_field_index(name)
        values = table[name].to_numpy() + np.where(moved, step, 0).astype(np.int32)
        table = table.set_column(column, table.schema.field(name), pa.array(values, pa.int32()))
    changed = sample.with_load(
        assignments_sha256=f"moved {n_moved} from {first}", run_id="run-2", clustering="second"
    )
    return replace(changed, assignments=table)


def follow(postgres: Postgres, sample: Sample, **options: Any) -> LoadResult:
    """Loads what must not need anything but the assignments."""

    def unread() -> Iterator[pa.RecordBatch]:
        raise AssertionError("vectors and texts need not be read again")
        yield

    return replace_chunk_embeddings(
        postgres,
        sample.facts,
        sample.load,
        chunks=unread(),
        embeddings=unread(),
        assignments=sample.batches()["assignments"],
        term_weights=unread(),
        **{"store_text": "postgres", **options},
    )


def fetch(dsn: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(query.encode()).fetchall()


def writers(dsn: str, table: str) -> dict[bytes, str]:
    """Chunk id -> the transaction that wrote its row."""
    rows = fetch(dsn, f"select uuid_send(chunk_id), xmin::text from acidburn.{table}")
    return dict(rows)


def n_written(dsn: str, table: str, before: dict[bytes, str]) -> int:
    """Rows that were written since."""
    now = writers(dsn, table)
    assert now.keys() == before.keys()
    return sum(now[chunk_id] != before[chunk_id] for chunk_id in now)


def places(dsn: str) -> dict[bytes, tuple[int, int]]:
    rows = fetch(
        dsn, "select uuid_send(chunk_id), cluster_id, cell_id from acidburn.chunk_embeddings"
    )
    return {chunk_id: (cluster, cell) for chunk_id, cluster, cell in rows}


def places_of(sample: Sample) -> dict[bytes, tuple[int, int]]:
    rows = zip(sample.chunk_ids, sample.clusters.tolist(), sample.cells.tolist(), strict=True)
    return {chunk_id: (cluster, cell) for chunk_id, cluster, cell in rows}


def in_order(dsn: str) -> list[bytes]:
    """Chunk ids as they lie on disk."""
    rows = fetch(dsn, "select uuid_send(chunk_id) from acidburn.chunk_embeddings order by ctid")
    return [chunk_id for (chunk_id,) in rows]


@pytest.mark.parametrize("n_moved", [1, FEW])
def test_only_rows_that_moved_are_written(database: Postgres, dsn: str, n_moved: int) -> None:
    sample = postgres_samples.make(N_CHUNKS)
    load(database, sample)
    vectors, texts = writers(dsn, "chunk_embeddings"), writers(dsn, "chunk_texts")
    moved = clustered_anew(sample, n_moved)
    result = follow(database, moved)
    assert (result.n_rows, result.n_changed, result.is_skipped) == (N_CHUNKS, n_moved, False)
    assert places(dsn) == places_of(moved)
    assert n_written(dsn, "chunk_embeddings", vectors) == n_moved
    assert n_written(dsn, "chunk_texts", texts) == 0
    state = load_state(database, "chunk_embeddings", "books", "000000")
    assert state is not None
    assert (state.run_id, state.clustering, state.n_counted) == ("run-2", "second", N_CHUNKS)
    assert follow(database, moved).is_skipped


@pytest.mark.parametrize("n_moved", [MANY, N_CHUNKS])
def test_many_moved_rows_are_written_in_the_order_of_their_cells(
    database: Postgres, dsn: str, n_moved: int
) -> None:
    sample = postgres_samples.make(N_CHUNKS)
    load(database, sample)
    before = fetch(
        dsn, "select chunk_id, embedding::text from acidburn.chunk_embeddings order by 1"
    )
    texts = writers(dsn, "chunk_texts")
    moved = clustered_anew(sample, n_moved)
    assert follow(database, moved).n_changed == n_moved
    assert places(dsn) == places_of(moved)
    order = np.argsort(moved.cells, kind="stable")
    assert in_order(dsn) == [moved.chunk_ids[row] for row in order]
    assert n_written(dsn, "chunk_texts", texts) == 0
    after = fetch(dsn, "select chunk_id, embedding::text from acidburn.chunk_embeddings order by 1")
    assert after == before


def test_a_few_moves_again_and_again_end_in_rows_written_in_order(
    database: Postgres, dsn: str
) -> None:
    """Each clustering moved less than the limit, and after many of them no cell lay together."""
    sample = postgres_samples.make(N_CHUNKS)
    load(database, sample)
    n_rewritten = 0
    for step in range(4):
        before = writers(dsn, "chunk_embeddings")
        sample = clustered_anew(sample, FEW - 5, first=step * FEW)
        assert follow(database, sample).n_changed == FEW - 5
        n_rewritten += n_written(dsn, "chunk_embeddings", before) == N_CHUNKS
    assert places(dsn) == places_of(sample)
    assert n_rewritten >= 1


def test_a_clustering_that_moves_nothing_writes_nothing(database: Postgres, dsn: str) -> None:
    sample = postgres_samples.make(N_CHUNKS)
    load(database, sample)
    before = writers(dsn, "chunk_embeddings")
    assert follow(database, clustered_anew(sample, 0)).n_changed == 0
    assert n_written(dsn, "chunk_embeddings", before) == 0


@pytest.mark.parametrize(
    "change",
    [
        {"chunks_sha256": "other chunks"},
        {"embeddings_sha256": "other vectors"},
        {"is_forced": True},
        {"store_text": "bucket"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_anything_else_that_changed_loads_the_whole_shard(
    database: Postgres, dsn: str, change: dict[str, Any]
) -> None:
    sample = postgres_samples.make(N_CHUNKS)
    load(database, sample)
    before = writers(dsn, "chunk_embeddings"), writers(dsn, "chunk_texts")
    hashes = {name: value for name, value in change.items() if name.endswith("sha256")}
    options = {name: value for name, value in change.items() if name not in hashes}
    moved = clustered_anew(sample, 1).with_load(**hashes)
    assert load(database, moved, **options).n_changed == N_CHUNKS
    assert n_written(dsn, "chunk_embeddings", before[0]) == N_CHUNKS
    assert n_written(dsn, "chunk_texts", before[1]) == N_CHUNKS


def test_a_row_that_became_another_chunk_loads_the_whole_shard(
    database: Postgres, dsn: str
) -> None:
    sample = postgres_samples.make(N_CHUNKS)
    load(database, sample)
    with psycopg.connect(dsn) as connection:
        connection.execute(
            "update acidburn.chunk_embeddings set chunk_id = gen_random_uuid() where ctid ="
            " (select min(ctid) from acidburn.chunk_embeddings)"
        )
    moved = clustered_anew(sample, 1)
    assert load(database, moved).n_changed == N_CHUNKS
    assert places(dsn) == places_of(moved)


def test_a_trigger_that_swallows_moves_is_told(database: Postgres, dsn: str) -> None:
    sample = postgres_samples.make(N_CHUNKS)
    load(database, sample)
    with psycopg.connect(dsn) as connection:
        connection.execute(
            "create function public.swallow() returns trigger language plpgsql as"
            " 'begin return null; end'"
        )
        connection.execute(
            "create trigger swallow before update on acidburn.chunk_embeddings for each row"
            " execute function public.swallow()"
        )
    with pytest.raises(DatabaseError, match=r"changed 0 of 1 rows of 'books/000000'.*trigger"):
        follow(database, clustered_anew(sample, 1))
    assert places(dsn) == places_of(sample)


def with_strengths(sample: Sample, n_changed: int) -> Sample:
    """The same assignments, some of them weaker."""
    table = sample.assignments
    column = table.schema.get_field_index("strength")
    values = table["strength"].to_numpy().copy()
    values[:n_changed] /= 2
    table = table.set_column(column, table.schema.field("strength"), pa.array(values, pa.float32()))
    return replace(sample.with_load(assignments_sha256="weaker"), assignments=table)


@pytest.mark.parametrize("n_changed", [0, 3, N_CHUNKS])
def test_only_memberships_that_changed_are_written(
    database: Postgres, dsn: str, n_changed: int
) -> None:
    sample = postgres_samples.make(N_CHUNKS)
    load_clusters(database, sample)
    before = writers(dsn, "chunk_clusters")
    weaker = with_strengths(sample, n_changed)
    result = load_clusters(database, weaker)
    assert (result.n_rows, result.n_changed) == (N_CHUNKS, n_changed)
    assert n_written(dsn, "chunk_clusters", before) == n_changed
    held = fetch(dsn, "select uuid_send(chunk_id), strength::float8 from acidburn.chunk_clusters")
    strengths = weaker.assignments["strength"].to_pylist()
    assert dict(held) == dict(zip(weaker.chunk_ids, strengths, strict=True))
    assert load_clusters(database, weaker).is_skipped


def test_memberships_of_other_chunks_are_replaced(database: Postgres, dsn: str) -> None:
    sample = postgres_samples.make(N_CHUNKS)
    load_clusters(database, sample)
    with psycopg.connect(dsn) as connection:
        connection.execute(
            "update acidburn.chunk_clusters set chunk_id = gen_random_uuid() where ctid ="
            " (select min(ctid) from acidburn.chunk_clusters)"
        )
    assert load_clusters(database, with_strengths(sample, 1)).n_changed == N_CHUNKS
    assert set(writers(dsn, "chunk_clusters")) == set(sample.chunk_ids)


def test_moves_of_another_table_change_nothing(database: Postgres, dsn: str) -> None:
    sample = postgres_samples.make(N_CHUNKS)
    load(database, sample)
    load_clusters(database, sample)
    wrong = clustered_anew(sample, 1)
    tables = {"assignments": iter(wrong.chunks.to_batches())}
    with pytest.raises(SchemaError, match="assignments of books/000000"):
        replace_chunk_embeddings(
            database, wrong.facts, wrong.load, **wrong.batches() | tables, store_text="postgres"
        )
    assert places(dsn) == places_of(sample)
