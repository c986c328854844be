import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pytest

from acidburn_assets.adapters.postgres import (
    ClusterHeader,
    LoadResult,
    PoolFacts,
    Postgres,
    load_ledger,
    load_state,
    pool_load_state,
    pool_state,
    remove_shards,
    replace_chunk_embeddings,
    replace_cluster_headers,
    replace_lineage,
    unload,
)
from acidburn_assets.core.errors import DatabaseError, DatabaseUnavailable, ModelError, SchemaError
from acidburn_assets.core.lineage import Source, merge, sources_of
from acidburn_assets_tests import lineage_samples, postgres_samples
from acidburn_assets_tests.postgres_samples import POOL, Sample, load, load_clusters
from acidburn_assets_tests.postgres_server import database, dsn, postgres_server

__all__ = ["database", "dsn", "postgres_server"]


def fetch(dsn: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(query.encode()).fetchall()


def vectors_in(dsn: str) -> dict[bytes, tuple[int, list[float]]]:
    rows = fetch(
        dsn,
        "select chunk_id, cluster_id, embedding::extensions.vector::real[]::float8[]"
        " from acidburn.chunk_embeddings",
    )
    return {chunk_id.bytes: (cluster_id, vector) for chunk_id, cluster_id, vector in rows}


def vectors_of(*samples: Sample) -> dict[bytes, tuple[int, list[float]]]:
    return {
        chunk_id: (cluster_id, vector.tolist())
        for sample in samples
        for chunk_id, cluster_id, vector in zip(
            sample.chunk_ids, sample.clusters.tolist(), sample.halves, strict=True
        )
    }


def test_loaded_shard_holds_what_the_tables_hold(database: Postgres, dsn: str) -> None:
    sample = postgres_samples.make(50)
    result = load(database, sample)
    assert (result.n_rows, result.is_skipped) == (50, False)
    assert vectors_in(dsn) == vectors_of(sample)
    texts = fetch(
        dsn,
        "select uuid_send(chunk_id), doc_id, doc_row, title, chunk_index, char_start, char_end,"
        " n_tokens, body from acidburn.chunk_texts order by doc_row, chunk_index",
    )
    assert texts == [tuple(row.values()) for row in sample.chunks.to_pylist()]


def test_rows_lie_in_the_order_of_their_clusters(database: Postgres, dsn: str) -> None:
    load(database, postgres_samples.make(50))
    rows = fetch(dsn, "select cluster_id from acidburn.chunk_embeddings order by ctid")
    assert rows == sorted(rows)


def test_replaced_shard_holds_the_new_rows_only(database: Postgres, dsn: str) -> None:
    other = postgres_samples.make(shard="000001")
    load(database, other)
    load(database, postgres_samples.make(30, seed=1))
    new = postgres_samples.make(10, seed=2)
    assert load(database, new).n_rows == 10
    assert vectors_in(dsn) == vectors_of(new, other)
    assert fetch(dsn, "select count(*) from acidburn.chunk_texts") == [(30,)]


def test_unchanged_shard_is_skipped_without_reading_its_tables(database: Postgres) -> None:
    sample = postgres_samples.make()
    first = load(database, sample)

    def unread() -> Iterator[pa.RecordBatch]:
        raise AssertionError
        yield  # what makes it an iterator, whose body runs only when it is read

    again = replace_chunk_embeddings(
        database,
        sample.facts,
        sample.load._replace(made_from="code 2", run_id="run-2"),
        chunks=unread(),
        embeddings=unread(),
        assignments=unread(),
        term_weights=unread(),
        store_text="postgres",
    )
    assert again[:3] == (first.source_sha256, 20, True)
    state = load_state(database, "chunk_embeddings", "books", "000000")
    assert state is not None
    # what it was made from now counts; the run that loaded it is still the first
    assert (state.made_from, state.run_id, state.n_counted) == ("code 2", "run-1", 20)


@pytest.mark.parametrize("source", ["chunks", "embeddings", "assignments"])
def test_change_of_any_source_loads_again(database: Postgres, source: str) -> None:
    sample = postgres_samples.make()
    load(database, sample)
    changed = sample.with_load(**{f"{source}_sha256": "another"})
    assert not load(database, changed).is_skipped


def test_rows_deleted_by_hand_are_loaded_again(database: Postgres, dsn: str) -> None:
    sample = postgres_samples.make()
    load(database, sample)
    with psycopg.connect(dsn) as connection:
        connection.execute("delete from acidburn.chunk_texts where doc_row = 3")
    assert not load(database, sample).is_skipped
    assert load(database, sample).is_skipped
    assert not load(database, sample, is_forced=True).is_skipped


def test_text_stays_in_the_bucket_where_it_is_told_to(database: Postgres, dsn: str) -> None:
    sample = postgres_samples.make()
    load(database, sample)
    assert not load(database, sample, store_text="bucket").is_skipped
    rows = fetch(dsn, "select distinct body, count(title) from acidburn.chunk_texts group by body")
    assert rows == [(None, 20)]


def test_empty_shard_is_loaded(database: Postgres) -> None:
    empty = postgres_samples.make(0)
    assert load(database, empty).n_rows == 0
    assert load_clusters(database, empty).n_rows == 0
    assert load(database, empty).is_skipped


def test_clusters_are_loaded_and_replaced(database: Postgres, dsn: str) -> None:
    load_clusters(database, postgres_samples.make(30))
    sample = postgres_samples.make(20, seed=1).with_load(assignments_sha256="another")
    assert load_clusters(database, sample).n_rows == 20
    assert load_clusters(database, sample).is_skipped
    rows = fetch(
        dsn,
        "select uuid_send(chunk_id), cluster_id, strength, distance, is_noise"
        " from acidburn.chunk_clusters",
    )
    stored = sample.assignments.drop_columns(["cell_id"])
    expected = [tuple(row.values()) for row in stored.to_pylist()]
    assert {row[0]: row for row in rows} == {
        row[0]: (row[0], row[1], pytest.approx(row[2]), pytest.approx(row[3]), row[4])
        for row in expected
    }


def test_ledger_lists_a_datasets_shards(database: Postgres) -> None:
    load(database, postgres_samples.make(10))
    load(database, postgres_samples.make(12, shard="000001"))
    load(database, postgres_samples.make(14, dataset="papers"))
    states = load_ledger(database, "chunk_embeddings", "books")
    assert {shard: state.n_rows for shard, state in states.items()} == {"000000": 10, "000001": 12}
    assert load_ledger(database, "chunk_clusters", "books") == {}
    state = pool_state(database, "library")
    assert state is not None
    assert (state.facts, state.n_shards, state.n_chunks) == (POOL, 3, 36)
    assert state.clusterings == {"clustering 1": 3}
    assert pool_state(database, "nowhere") is None


def with_column(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), table.schema.field(name), values)


def broken(part: str) -> Sample:
    sample = postgres_samples.make()
    shuffled = sample.embeddings.take(pa.array([1, 0, *range(2, 20)]))
    match part:
        case "other order":
            return replace(sample, embeddings=shuffled)
        case "too few vectors":
            return replace(sample, embeddings=sample.embeddings.slice(0, 19))
        case "too many vectors":
            return replace(sample, assignments=sample.assignments.slice(0, 19))
        case "too few texts":
            return replace(sample, chunks=sample.chunks.slice(0, 19))
        case "nul":
            texts = pa.array(["a\0b", *(["text"] * 19)])
            return replace(sample, chunks=with_column(sample.chunks, "text", texts))
        case "other dimension":
            wide = postgres_samples.make(pool=POOL._replace(dim=9))
            return replace(sample, embeddings=wide.embeddings)
    values = sample.halves.copy()
    values[7, 3] = {"nan": np.nan, "infinity": np.inf, "not unit": 5.0}[part]
    column = pa.FixedSizeListArray.from_arrays(
        pa.array(values.reshape(-1)), type=sample.embeddings.schema.field("embedding").type
    )
    return replace(sample, embeddings=with_column(sample.embeddings, "embedding", column))


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("other order", "rows 0 to 4 are other chunks"),
        ("too few vectors", "19 rows for 20 assignments"),
        ("too many vectors", "rows 15 to 19 are other chunks"),
        ("too few texts", "19 rows for 20 assignments"),
        ("nul", "'text' of the document 'doc 0' holds a NUL"),
        ("other dimension", "'embedding' as fixed_size_list"),
        ("nan", "row 7 has the length nan"),
        ("infinity", "row 7 has the length inf"),
        ("not unit", "row 7 has the length 5"),
    ],
)
def test_tables_that_do_not_belong_together_change_nothing(
    database: Postgres, dsn: str, part: str, message: str
) -> None:
    old = postgres_samples.make(seed=9)
    load(database, old)
    with pytest.raises(SchemaError, match=message):
        load(database, broken(part))
    assert vectors_in(dsn) == vectors_of(old)
    assert fetch(dsn, "select count(body) from acidburn.chunk_texts") == [(20,)]


def test_two_chunks_of_one_id_say_where_to_look(database: Postgres) -> None:
    sample = postgres_samples.make()
    row_twice = pa.array([0, *range(19)])
    twice = replace(
        sample,
        chunks=sample.chunks.take(row_twice),
        embeddings=sample.embeddings.take(row_twice),
        assignments=sample.assignments.take(row_twice),
        term_weights=sample.term_weights.take(row_twice),
    )
    with pytest.raises(DatabaseError, match=r"id column name two documents alike"):
        load(database, twice)


def test_other_model_is_refused_until_the_pool_is_unloaded(database: Postgres, dsn: str) -> None:
    old = postgres_samples.make()
    load(database, old)
    load_clusters(database, old)
    other = PoolFacts("library", "knowledge", "beef", "another-model", 16)
    new = postgres_samples.make(shard="000001", pool=other)
    with pytest.raises(ModelError) as caught:
        load(database, new)
    for word in (
        *("'a-model' (8 dimensions, fingerprint f00d)", "20 rows of chunk_embeddings"),
        *("20 rows of chunk_clusters", "'another-model' (16 dimensions, fingerprint beef)"),
        "unload the pool 'library'",
    ):
        assert word in str(caught.value)
    assert vectors_in(dsn) == vectors_of(old)
    removed = unload(database, "library")
    assert (removed["chunk_embeddings"], removed["chunk_texts"], removed["pools"]) == (20, 20, 1)
    load(database, new)
    assert vectors_in(dsn) == vectors_of(new)


def test_unloading_a_pool_leaves_the_others(database: Postgres, dsn: str) -> None:
    kept = postgres_samples.make(dataset="forum", pool=POOL._replace(name="forums"))
    load(database, postgres_samples.make())
    load(database, kept)
    unload(database, "library")
    assert vectors_in(dsn) == vectors_of(kept)
    assert unload(database, "library")["chunk_embeddings"] == 0


def test_removed_shards_are_gone(database: Postgres, dsn: str) -> None:
    kept = postgres_samples.make()
    load(database, kept)
    gone = postgres_samples.make(shard="000001")
    load(database, gone)
    load_clusters(database, gone)
    removed = remove_shards(database, "books", ["000001", "000002"])
    assert (removed["chunk_clusters"], removed["shards"]) == (20, 1)
    assert vectors_in(dsn) == vectors_of(kept)


def make_headers(n_clusters: int) -> list[ClusterHeader]:
    return [
        ClusterHeader(
            cluster_id=cluster_id,
            parent=None if cluster_id == 0 else 100 + cluster_id,
            title=f"Über {cluster_id}",
            summary="A sentence.",
            keywords=["one", "two words", 'quote " and, comma'][:cluster_id],
            n_chunks=10,
            n_noise=2,
            radius=0.25,
            medoid_ids=[bytes([cluster_id] * 16)] * cluster_id,
            label_source="heuristic",
        )
        for cluster_id in range(n_clusters)
    ]


def load_headers(
    database: Postgres, n_clusters: int = 4, *, source: str = "map 1", dim: int = 8
) -> LoadResult:
    return replace_cluster_headers(
        database,
        POOL,
        headers=make_headers(n_clusters),
        centroids=np.eye(n_clusters, dim, dtype=np.float32),
        source_sha256=source,
        clustering="clustering 1",
        run_id="run-1",
        made_from="code 1",
    )


def test_headers_hold_what_the_map_holds(database: Postgres, dsn: str) -> None:
    load_headers(database, 5)
    assert load_headers(database, 4, source="map 2").n_rows == 4
    rows = fetch(
        dsn,
        "select cluster_id, parent, title, summary, keywords, n_chunks, n_noise, radius,"
        " array(select uuid_send(m) from unnest(medoid_ids) m), label_source,"
        " centroid::extensions.vector::real[]::float8[]"
        " from acidburn.cluster_headers order by cluster_id",
    )
    assert rows == [
        (*header, np.eye(4, 8, dtype=np.float32)[index].tolist())
        for index, header in enumerate(make_headers(4))
    ]


def test_unchanged_headers_are_skipped(database: Postgres, dsn: str) -> None:
    assert pool_load_state(database, "cluster_headers", "library") is None
    assert not load_headers(database).is_skipped
    assert load_headers(database).is_skipped
    state = pool_load_state(database, "cluster_headers", "library")
    assert state is not None
    assert (state.made_from, state.n_rows, state.n_counted) == ("code 1", 4, 4)
    with psycopg.connect(dsn) as connection:
        connection.execute("delete from acidburn.cluster_headers where cluster_id = 0")
    assert not load_headers(database).is_skipped


def test_headers_of_another_dimension_are_refused(database: Postgres) -> None:
    with pytest.raises(SchemaError, match=r"\(4, 9\), not \(4, 8\)"):
        load_headers(database, dim=9)


def load_lineage(
    database: Postgres, table: pa.Table | None = None, *, sha256: str = "lineage 1"
) -> LoadResult:
    table = lineage_samples.lineage() if table is None else table
    return replace_lineage(
        database,
        POOL,
        lineage=table.to_batches(max_chunksize=3),
        sources=sources_of(table.schema, key="lineage"),
        source_sha256=sha256,
        run_id="run-1",
        made_from="code 1",
    )


LINEAGE_ROWS = (
    "select cluster_id, dataset, shard, l.n_chunks, l.n_noise from acidburn.lineage l"
    " join acidburn.lineage_shards using (pool_id, shard_no) order by 1, 2, 3"
)


def test_lineage_holds_what_was_counted_and_from_what(database: Postgres, dsn: str) -> None:
    table = lineage_samples.lineage()
    assert load_lineage(database, table).n_rows == len(table)
    assert fetch(dsn, LINEAGE_ROWS) == [tuple(row.values()) for row in table.to_pylist()]
    names = ", ".join(Source.model_fields)
    shards = fetch(dsn, f"select {names} from acidburn.lineage_shards order by shard_no")
    expected = sources_of(table.schema, key="lineage").shards
    assert [Source(**dict(zip(Source.model_fields, row, strict=True))) for row in shards] == [
        *expected
    ]


def test_lineage_is_replaced_as_a_whole(database: Postgres, dsn: str) -> None:
    load_lineage(database)
    fewer = merge(
        [lineage_samples.count("000004", (7, False))],
        lineage_samples.sources(lineage_samples.source("000004")),
    )
    load_lineage(database, fewer, sha256="lineage 2")
    assert fetch(dsn, LINEAGE_ROWS) == [(7, "papers", "000004", 1, 0)]
    assert fetch(dsn, "select shard from acidburn.lineage_shards") == [("000004",)]


@pytest.mark.parametrize("table", ["lineage", "lineage_shards"])
def test_unchanged_lineage_is_skipped_unless_a_row_is_gone(
    database: Postgres, dsn: str, table: str
) -> None:
    assert pool_load_state(database, "lineage", "library") is None
    assert not load_lineage(database).is_skipped
    assert load_lineage(database).is_skipped
    state = pool_load_state(database, "lineage", "library")
    assert state is not None
    assert (state.clustering, state.made_from, state.n_rows, state.n_counted) == (
        *("model 1", "code 1"),
        *(4, 4),
    )
    with psycopg.connect(dsn) as connection:
        connection.execute(f"delete from acidburn.{table} where shard_no = 0")
    assert not load_lineage(database).is_skipped
    assert load_lineage(database).is_skipped


def test_lineage_that_counts_an_unknown_shard_leaves_the_old_one(
    database: Postgres, dsn: str
) -> None:
    load_lineage(database)
    before = fetch(dsn, LINEAGE_ROWS)
    with pytest.raises(SchemaError, match=r"'lineage of library' counts 'papers/000001'"):
        replace_lineage(
            database,
            POOL,
            lineage=lineage_samples.lineage().to_batches(),
            sources=lineage_samples.sources(
                lineage_samples.source(), lineage_samples.source(dataset="books")
            ),
            source_sha256="lineage 2",
            run_id="run-2",
        )
    assert fetch(dsn, LINEAGE_ROWS) == before
    assert load_lineage(database).is_skipped


def test_headers_and_lineage_of_a_pool_do_not_touch_each_other(database: Postgres) -> None:
    load_headers(database)
    load_lineage(database)
    load_headers(database, 5, source="map 2")
    assert load_lineage(database).is_skipped
    assert load_headers(database, 5, source="map 2").is_skipped


def test_unloading_a_pool_removes_its_lineage(database: Postgres, dsn: str) -> None:
    load_lineage(database)
    removed = unload(database, "library")
    assert (removed["lineage"], removed["lineage_shards"], removed["pools"]) == (4, 3, 1)
    assert fetch(dsn, "select from acidburn.lineage") == []


def test_connection_killed_in_the_middle_leaves_the_old_shard(database: Postgres, dsn: str) -> None:
    old = postgres_samples.make(40)
    load(database, old)
    new = postgres_samples.make(4000, seed=1)

    def slow() -> Iterator[pa.RecordBatch]:
        for number, batch in enumerate(new.chunks.to_batches(max_chunksize=1000)):
            if number == 2:  # all vectors and half of the texts are on their way
                with psycopg.connect(dsn, autocommit=True) as other:
                    other.execute(
                        "select pg_terminate_backend(pid) from pg_stat_activity"
                        " where application_name = 'acidburn' and datname = current_database()"
                    )
            yield batch

    tables = new.batches() | {"chunks": slow()}
    with pytest.raises(
        DatabaseUnavailable, match=r"'books/000000' into chunk_embeddings: .*rolled back"
    ):
        replace_chunk_embeddings(database, new.facts, new.load, **tables, store_text="postgres")
    assert vectors_in(dsn) == vectors_of(old)
    assert load(database, old).is_skipped


KILLED = """
import os, signal, sys
from pydantic import SecretStr
from acidburn_assets.adapters.postgres import Postgres, replace_chunk_embeddings
from acidburn_assets_tests import postgres_samples

new = postgres_samples.make(4000, seed=1)

def deadly():
    yield from new.chunks.to_batches(max_chunksize=1000)[:3]
    os.kill(os.getpid(), signal.SIGKILL)

tables = new.batches() | {"chunks": deadly()}
replace_chunk_embeddings(
    Postgres(SecretStr(sys.argv[1])), new.facts, new.load, **tables, store_text="postgres"
)
"""


def test_killed_loader_leaves_the_old_shard(database: Postgres, dsn: str) -> None:
    old = postgres_samples.make(40)
    load(database, old)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, dsn], cwd=Path(__file__).parents[2], check=False
    )
    assert done.returncode == -signal.SIGKILL
    # the next load waits for the lock of the dead one, so its transaction is over by then
    assert load(database, old).is_skipped
    assert vectors_in(dsn) == vectors_of(old)


def test_error_of_a_source_is_raised_as_it_is_and_stops_its_thread(database: Postgres) -> None:
    sample = postgres_samples.make(4000)

    def failing() -> Iterator[pa.RecordBatch]:
        yield from sample.chunks.to_batches(max_chunksize=1000)[:2]
        raise ArithmeticError("of the source")

    tables = sample.batches() | {"chunks": failing()}
    with pytest.raises(ArithmeticError, match="of the source"):
        replace_chunk_embeddings(
            database, sample.facts, sample.load, **tables, store_text="postgres"
        )
    assert load_state(database, "chunk_embeddings", "books", "000000") is None
    assert not [one for one in threading.enumerate() if one.name.startswith("acidburn-load")]


def test_two_loads_of_one_shard_at_once_leave_one_whole(database: Postgres, dsn: str) -> None:
    samples = [postgres_samples.make(400, seed=seed) for seed in range(3)]
    threads = [threading.Thread(target=load, args=(database, sample)) for sample in samples]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = vectors_in(dsn)
    assert found in [vectors_of(sample) for sample in samples]
