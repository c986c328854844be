import struct
from collections.abc import Iterator

import numpy as np
import psycopg
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from acidburn_assets.adapters.postgres import Postgres, copy_binary
from acidburn_assets_tests.postgres_server import database, dsn, postgres_server

__all__ = ["database", "dsn", "postgres_server"]

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
ROWS = st.lists(
    st.tuples(
        st.integers(-(2**15), 2**15 - 1),
        TEXTS | st.none(),
        st.integers(-(2**63), 2**63 - 1),
        st.booleans(),
        st.floats(width=32, allow_nan=False),
        TEXTS,
        st.lists(TEXTS, max_size=3),
        st.binary(min_size=16, max_size=16),
    ),
    max_size=12,
)


def test_rows_of_fixed_width_are_the_bytes_of_the_manual() -> None:
    fields = [np.array([7], np.int32), np.array([True])]
    assert bytes(copy_binary.encode_rows(fields)) == struct.pack(">hiiib", 2, 4, 7, 1, 1)


def test_rows_with_text_are_the_bytes_of_the_manual() -> None:
    fields = [pa.array(["é", None]), np.array([7, 8], np.int16)]
    assert bytes(copy_binary.encode_rows(fields)) == struct.pack(
        ">hi2sih hiih".replace(" ", ""), 2, 2, "é".encode(), 2, 7, 2, -1, 2, 8
    )


def test_no_rows_are_no_bytes() -> None:
    assert bytes(copy_binary.encode_rows([np.empty(0, np.int32)])) == b""
    assert bytes(copy_binary.encode_rows([pa.array([], pa.string()), np.empty(0, np.int32)])) == b""


def test_sparse_vectors_are_those_that_postgres_reads(database: Postgres, dsn: str) -> None:
    starts = np.array([0, 2, 2, 5])
    indices = np.array([0, 999_999_999, 4, 7, 8], np.int32)
    values = np.array([0.5, 2.25, 1, -3, 0.125], np.float32)
    field = copy_binary.sparsevec_field(starts, indices, values, dim=10**9)
    with psycopg.connect(dsn) as connection, connection.cursor() as cursor:
        cursor.execute("create temp table t (a int, b extensions.sparsevec)")
        with cursor.copy("copy t from stdin (format binary)") as copy:
            copy.write(copy_binary.HEADER)
            copy.write(copy_binary.encode_rows([np.arange(3, dtype=np.int32), field]))
            copy.write(copy_binary.TRAILER)
        found = cursor.execute("select b::text from t order by a").fetchall()
    assert found == [
        ("{1:0.5,1000000000:2.25}/1000000000",),
        ("{}/1000000000",),
        ("{5:1,8:-3,9:0.125}/1000000000",),
    ]


@pytest.fixture
def connection(dsn: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    columns = "a smallint, b text, c bigint, d boolean, e real, f text, g text[], h uuid"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"create table t ({columns})".encode())
        yield connection


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(rows=ROWS)
def test_what_is_copied_is_what_is_read(
    connection: psycopg.Connection[tuple[object, ...]],
    rows: list[tuple[int, str | None, int, bool, float, str, list[str], bytes]],
) -> None:
    a, b, c, d, e, f, g, h = zip(*rows, strict=True) if rows else ((),) * 8
    arrays = [copy_binary.array_value([word.encode() for word in words], oid=25) for words in g]
    content = copy_binary.encode_rows(
        [
            np.array(a, np.int16),
            pa.array(b, pa.string()),
            np.array(c, np.int64),
            np.array(d, np.bool_),
            np.array(e, np.float32),
            # offset arrays: a slice of a batch
            pa.array(["skipped", *f], pa.string()).slice(1),
            pa.array(arrays, pa.binary()),
            np.frombuffer(b"".join(h), np.uint8).reshape(-1, 16),
        ]
    )
    connection.execute("truncate t")
    with connection.cursor().copy("copy t from stdin (format binary)") as copy:
        copy.write(copy_binary.HEADER)
        copy.write(content)
        copy.write(copy_binary.TRAILER)
    read = connection.execute("select a, b, c, d, e::float8, f, g, uuid_send(h) from t").fetchall()
    assert read == rows


def test_halfvec_is_read_back_exactly(dsn: str) -> None:
    rng = np.random.default_rng(0)
    halves = rng.standard_normal((50, 37)).astype(np.float16)
    with psycopg.connect(dsn) as connection, connection.cursor() as cursor:
        cursor.execute("create table v (v extensions.halfvec)")
        with cursor.copy("copy v from stdin (format binary)") as copy:
            copy.write(copy_binary.HEADER)
            copy.write(copy_binary.encode_rows([copy_binary.halfvec_field(halves)]))
            copy.write(copy_binary.TRAILER)
        rows = cursor.execute("select v::extensions.vector::real[] from v").fetchall()
    assert np.array_equal(np.array([row[0] for row in rows], np.float32), halves)
