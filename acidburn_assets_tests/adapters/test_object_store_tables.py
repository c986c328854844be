"""Tables in a store of either kind: whole, by column, in batches, and damaged."""

import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from acidburn_assets.adapters.object_store import (
    ObjectStore,
    iter_batches,
    read_table,
    write_parquet,
)
from acidburn_assets.adapters.object_store.file import FileStore
from acidburn_assets.core import schemas
from acidburn_assets.core.errors import (
    ObjectCorrupt,
    SchemaError,
)
from acidburn_assets_tests.adapters.stores import DIM, KEY, embeddings, write_embeddings


def test_a_table_is_read_back_whole_by_column_and_in_batches(store: ObjectStore) -> None:
    batch = embeddings(2_500)
    info, n_rows = write_embeddings(store, batch, row_group_rows=1_000, metadata={"n_rows": "2500"})

    assert n_rows == 2_500
    assert store.head(KEY) == info
    assert info.metadata == {"n_rows": "2500"}
    whole = pa.table(batch)
    assert read_table(store, KEY) == whole
    assert read_table(store, KEY, columns=["chunk_id"]) == whole.select(["chunk_id"])
    for columns in (None, ["embedding"]):
        batches = list(iter_batches(store, KEY, columns=columns, batch_rows=600))
        assert [len(batch) for batch in batches] == [600, 400, 600, 400, 500]
        expected = whole.select(columns or whole.column_names)
        assert pa.Table.from_batches(batches) == expected
    with store.open_parquet(KEY) as file:
        assert file.read_row_group(1) == whole.slice(1_000, 1_000)
        assert file.read_row_groups([0, 2], columns=["chunk_id"]).num_rows == 1_500


def test_a_table_is_stored_as_the_design_says(folder: FileStore) -> None:
    write_embeddings(folder, embeddings(2_500), row_group_rows=1_000)

    with folder.open_parquet(KEY) as file:
        footer = file.metadata
        assert file.schema_arrow == schemas.embeddings(DIM)
    assert [footer.row_group(index).num_rows for index in range(3)] == [1_000, 1_000, 500]
    ids, vectors = footer.row_group(0).column(0), footer.row_group(0).column(1)
    assert vectors.path_in_schema == "embedding.list.element"
    assert "BYTE_STREAM_SPLIT" in vectors.encodings
    assert {ids.compression, vectors.compression} == {"ZSTD"}
    assert not ids.has_dictionary_page
    assert not vectors.has_dictionary_page


def test_a_table_of_no_rows_is_a_table(store: ObjectStore) -> None:
    _info, n_rows = write_parquet(store, KEY, schemas.CHUNKS, [])

    assert n_rows == 0
    assert read_table(store, KEY) == schemas.CHUNKS.empty_table()
    assert read_table(store, KEY, columns=["text"]).schema.names == ["text"]
    assert list(iter_batches(store, KEY)) == []


TEXTS = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("text", pa.string()),
        pa.field("vector", schemas.vector_type(3), nullable=False),
        pa.field("ids", pa.list_(schemas.CHUNK_ID), nullable=False),
    ]
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cuts=st.lists(st.integers(0, 150), max_size=6), row_group_rows=st.integers(1, 160))
def test_equal_rows_make_equal_bytes_however_they_are_cut(
    folder: FileStore, cuts: list[int], row_group_rows: int
) -> None:
    """A shard that was resumed in parts has the sha256 of one that was made at a stretch."""
    n_rows = 150
    table = pa.table(
        [
            pa.array(range(n_rows)),
            pa.array([None if row % 7 == 0 else "é" * row for row in range(n_rows)]),
            pa.FixedSizeListArray.from_arrays(
                pa.array(np.arange(n_rows * 3, dtype=np.float32)), type=schemas.vector_type(3)
            ),
            pa.array([[bytes([row]) * 16] * (row % 3) for row in range(n_rows)], TEXTS[3].type),
        ],
        schema=TEXTS,
    )
    borders = [0, *sorted(cuts), n_rows]
    pieces = [
        batch
        for start, end in itertools.pairwise(borders)
        for batch in table.slice(start, end - start).to_batches()
    ]

    whole, _ = write_parquet(
        folder, "whole", TEXTS, table.to_batches(), row_group_rows=row_group_rows
    )
    cut, n_written = write_parquet(folder, "cut", TEXTS, pieces, row_group_rows=row_group_rows)

    assert n_written == n_rows
    assert cut.sha256 == whole.sha256
    assert read_table(folder, "cut") == table


@pytest.mark.parametrize("row_group_rows", [3_500, 10_000])
def test_pages_do_not_depend_on_how_rows_are_cut(folder: FileStore, row_group_rows: int) -> None:
    """Arrow closes a page when it passes 1 MB, but looks only between pieces of 1,024 rows."""
    rng = np.random.default_rng(0)
    schema = pa.schema([("text", pa.string())])
    rows = pa.array([rng.bytes(500).hex() for _ in range(4_000)])
    batch = pa.record_batch([rows], schema=schema)
    pieces = [batch.slice(start, 700) for start in range(0, 4_000, 700)]

    whole, _ = write_parquet(folder, "whole", schema, [batch], row_group_rows=row_group_rows)
    cut, _ = write_parquet(folder, "cut", schema, pieces, row_group_rows=row_group_rows)

    assert batch.nbytes > 3 << 20
    assert cut.sha256 == whole.sha256


def test_a_source_that_fails_midway_leaves_the_old_table_and_no_temporary_file(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    old, _ = write_embeddings(store, embeddings(10))

    def fails() -> Iterator[pa.RecordBatch]:
        yield embeddings(3_000)
        raise RuntimeError("the encoder died")

    for key in (KEY, "new"):
        with pytest.raises(RuntimeError, match="the encoder died"):
            write_parquet(store, key, schemas.embeddings(DIM), fails(), row_group_rows=100)

    assert store.head(KEY) == old
    assert [found.key for found in store.list("")] == [KEY]
    assert list(scratch.iterdir()) == []
    assert list(tmp_path.glob("objects/.tmp/*")) == []


def test_batches_that_do_not_fit_the_schema_are_refused(folder: FileStore) -> None:
    good = embeddings(4)
    wrong = {
        "lacks the column 'embedding'": good.select(["chunk_id"]),
        "not fixed_size_list": good.set_column(1, "embedding", pa.array([1.0] * 4)),
        "'extra', which its schema does not know": good.append_column(
            "extra", pa.array([1, 2, 3, 4])
        ),
        "'chunk_id' with nulls": good.set_column(
            0, "chunk_id", pa.array([None] * 4, schemas.CHUNK_ID)
        ),
    }
    for reason, batch in wrong.items():
        with pytest.raises(SchemaError, match=f"{KEY}.*{reason}"):
            write_parquet(folder, KEY, schemas.embeddings(DIM), [good, batch])
    assert folder.head(KEY) is None


def test_columns_in_another_order_are_put_right(folder: FileStore) -> None:
    batch = embeddings(4)
    write_embeddings(folder, batch.select(["embedding", "chunk_id"]))

    assert read_table(folder, KEY) == pa.table(batch)


def test_an_encoding_for_no_column_is_refused(folder: FileStore) -> None:
    with pytest.raises(SchemaError, match=r"'embedding'.*embedding\.list\.element"):
        write_parquet(
            folder, KEY, schemas.embeddings(DIM), [], column_encoding={"embedding": "PLAIN"}
        )


def test_a_column_that_is_not_there_is_named(store: ObjectStore) -> None:
    write_embeddings(store, embeddings(4))

    with pytest.raises(SchemaError, match=r"no column 'vector'.*chunk_id.*embedding"):
        read_table(store, KEY, columns=["chunk_id", "vector"])
    with pytest.raises(SchemaError, match="no column 'vector'"):
        list(iter_batches(store, KEY, columns=["vector"]))


def test_a_rotten_page_is_found_by_whoever_reads_it(
    store: ObjectStore, rot: Callable[..., None]
) -> None:
    write_embeddings(store, embeddings(2_000), row_group_rows=1_000)
    with store.open_parquet(KEY) as file:
        vectors = file.metadata.row_group(1).column(1)
    rot(KEY, vectors.data_page_offset + vectors.total_compressed_size // 2)

    assert read_table(store, KEY, columns=["chunk_id"]).num_rows == 2_000
    readers: list[Callable[[], Any]] = [
        lambda: read_table(store, KEY, columns=["embedding"]),
        lambda: read_table(store, KEY),
        lambda: list(iter_batches(store, KEY, columns=["embedding"])),
        lambda: list(iter_batches(store, KEY)),
        lambda: store.open_parquet(KEY).read_row_group(1),
        lambda: store.open_parquet(KEY).read_row_groups([1]),
    ]
    for read in readers:
        with pytest.raises(ObjectCorrupt, match=KEY):
            read()
    first = next(iter_batches(store, KEY, columns=["embedding"]))
    assert first.num_rows == 1_000


def test_what_is_not_parquet_is_named(store: ObjectStore) -> None:
    store.put_bytes(KEY, b'{"this": "is JSON"}' * 10)

    for columns in (None, ["text"]):
        with pytest.raises(ObjectCorrupt, match=f"{KEY}.*cannot be read as Parquet"):
            read_table(store, KEY, columns=columns)
