"""Tables in a store: how each is written, and the two ways to read it.

A whole table is read in one piece and compared with the object's sha256. Some columns of it are
read by byte range, each page compared with the checksum in its header. What the columns mean is
`core.schemas`.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from acidburn_assets.adapters.object_store.contract import ObjectInfo, ObjectStore
from acidburn_assets.adapters.object_store.work_folder import disk_errors, work_folder
from acidburn_assets.core import schemas
from acidburn_assets.core.errors import ObjectCorrupt, SchemaError

ROW_GROUP_ROWS = 10_000
"""What is read, and held in memory, at once: 80 MB of 2K-token chunks. Chosen, not measured."""

ROW_GROUP_VECTOR_BYTES = 2**23
"""Of the vectors in a row group, 2,048 of 1,024 values: what is written is then still in the CPU's
cache when it is packed. Source: measured, written 1.1 to 1.16 times as fast as 10,000 at once, in
no more bytes."""


class VerifiedParquet(pq.ParquetFile):  # type: ignore[misc]  # pyarrow has no types
    """A Parquet file that checks its pages and says which object is damaged.

    Column ranges are known from the footer, so Arrow asks for each just once and whole
    (`pre_buffer`); reading ahead would only fetch what nobody wants. Source: measured, a column
    of a 4-row-group file costs its own bytes in one read per row group.
    """

    def __init__(self, source: pa.NativeFile, *, key: str) -> None:
        self._key = key
        with _damage_named(key):
            super().__init__(source, pre_buffer=True, page_checksum_verification=True)

    def close(self, force: bool = True) -> None:
        """Closes the source too: nobody else holds it."""
        super().close(force=force)

    def read(self, columns: Sequence[str] | None = None, **options: Any) -> pa.Table:
        """As in `pyarrow`.

        Raises:
            ObjectCorrupt: a page is not what its checksum says, or cannot be decoded.
            SchemaError: there is no such column.
        """
        with _damage_named(self._key):
            return super().read(columns=self._known(columns), **options)

    def read_row_group(
        self, i: int, columns: Sequence[str] | None = None, **options: Any
    ) -> pa.Table:
        """As in `pyarrow`; raises as `read`."""
        with _damage_named(self._key):
            return super().read_row_group(i, columns=self._known(columns), **options)

    def read_row_groups(
        self, row_groups: Sequence[int], columns: Sequence[str] | None = None, **options: Any
    ) -> pa.Table:
        """As in `pyarrow`; raises as `read`."""
        with _damage_named(self._key):
            return super().read_row_groups(row_groups, columns=self._known(columns), **options)

    def iter_batches(
        self,
        batch_size: int = ROW_GROUP_ROWS,
        row_groups: Sequence[int] | None = None,
        columns: Sequence[str] | None = None,
        **options: Any,
    ) -> Iterator[pa.RecordBatch]:
        """As in `pyarrow`, but no batch spans two row groups, and no more than one row group is in
        memory (asked for all at once, `pre_buffer` fetches them all first); raises as `read`."""
        columns = self._known(columns)
        for row_group in range(self.num_row_groups) if row_groups is None else row_groups:
            with _damage_named(self._key):
                yield from super().iter_batches(
                    batch_size=batch_size, row_groups=[row_group], columns=columns, **options
                )

    def _known(self, columns: Sequence[str] | None) -> list[str] | None:
        """Refuses unknown columns: pyarrow would leave them out in silence."""
        if columns is None:
            return None
        names = set(self.schema_arrow.names)
        unknown = [name for name in columns if name.partition(".")[0] not in names]
        if unknown:
            raise SchemaError(f"{self._key!r} has no column {unknown[0]!r}; it has {sorted(names)}")
        return list(columns)


def write_parquet(
    store: ObjectStore,
    key: str,
    schema: pa.Schema,
    batches: Iterable[pa.RecordBatch],
    *,
    metadata: Mapping[str, str] | Callable[[], Mapping[str, str]] | None = None,
    column_encoding: Mapping[str, str] | None = None,
    row_group_rows: int | None = None,
) -> tuple[ObjectInfo, int]:
    """Writes a table, checked against its schema, as one object.

    Equal rows make equal bytes however they are cut into batches, with one version of pyarrow. If
    `batches` raises, nothing is stored.

    Args:
        store: where.
        key: under which key.
        schema: the table's columns, exactly.
        batches: the rows, in order; columns in any order.
        metadata: small facts that travel with the object; a function is called when the rows are
            written.
        column_encoding: encoding by path of the leaf column, for example
            `{"embedding.list.element": "BYTE_STREAM_SPLIT"}`.
        row_group_rows: rows in every row group but the last; None: `default_row_group_rows`.

    Returns:
        What is stored now, and its number of rows.

    Raises:
        SchemaError: a batch, or the path of an encoding, does not fit the schema.
        WorkFolderUnavailable: the local disk is full or fails.
        StoreError, StoreUnavailable: as `ObjectStore.put_file`.
    """
    encoding = column_encoding or {}
    columns = _leaf_columns(schema)
    _check_encoding(columns, encoding)
    # least and greatest of a vector's values tell nobody anything
    told = [path for path in columns if encoding.get(path) != "BYTE_STREAM_SPLIT"]
    with work_folder() as folder:
        path = folder / "table.parquet"
        with _parquet_writer(path, schema, encoding, told) as write:
            n_rows = 0
            wanted = row_group_rows or default_row_group_rows(schema)
            for row_group in _row_groups(batches, schema, key=key, n_rows=wanted):
                write(row_group)
                n_rows += row_group.num_rows
        facts = metadata() if callable(metadata) else metadata
        return store.put_file(key, path, metadata=facts or {}), n_rows


def default_row_group_rows(schema: pa.Schema) -> int:
    """`ROW_GROUP_ROWS`, or fewer where the rows hold vectors: see `ROW_GROUP_VECTOR_BYTES`."""
    vector_bytes: int = sum(
        field.type.list_size * field.type.value_type.bit_width // 8
        for field in schema
        if pa.types.is_fixed_size_list(field.type)
    )
    return max(1, min(ROW_GROUP_ROWS, ROW_GROUP_VECTOR_BYTES // max(1, vector_bytes)))


@contextmanager
def _parquet_writer(
    path: Path, schema: pa.Schema, column_encoding: Mapping[str, str], told: Sequence[str]
) -> Iterator[Callable[[pa.Table], None]]:
    """Writes row groups to a local file that is whole, and on the disk, at the end.

    Args:
        path: of the file.
        schema: of the rows.
        column_encoding: by path of the leaf column.
        told: columns with statistics.
    """
    with disk_errors(path.parent):
        writer = pq.ParquetWriter(
            path,
            schema,
            compression="zstd",
            compression_level=1,
            # zstd finds repeated values by itself: without dictionaries chunks are as small and
            # take a fifth less time, assignments are a fifth smaller. Source: measured, 20,000 rows
            use_dictionary=False,
            column_encoding=dict(column_encoding) or None,
            # of 1,024-d vectors they took a tenth of the time to write. Source: measured
            write_statistics=list(told),
            write_page_checksum=True,
        )

    def write(row_group: pa.Table) -> None:
        with disk_errors(path.parent):
            writer.write_table(row_group, row_group_size=max(row_group.num_rows, 1))

    def abandon() -> None:
        # on a full disk the footer fails too; the error that led here is the one to be told
        with suppress(OSError):
            writer.close()

    with ExitStack() as unfinished:
        unfinished.callback(abandon)
        yield write
        unfinished.pop_all()
    with disk_errors(path.parent):
        writer.close()
        with path.open("rb") as file:
            os.fsync(file.fileno())  # a full or failing disk is found before the upload


def read_table(store: ObjectStore, key: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Reads a table; all of it, or by byte range only the columns that are asked for.

    Raises:
        ObjectMissing: no such key.
        ObjectCorrupt: the object's sha256, or a page's checksum, does not fit.
        SchemaError: there is no such column.
    """
    with _open(store, key, columns) as file:
        return file.read(columns=columns)


def iter_batches(
    store: ObjectStore,
    key: str,
    columns: Sequence[str] | None = None,
    batch_rows: int = ROW_GROUP_ROWS,
) -> Iterator[pa.RecordBatch]:
    """Reads a table piece by piece; raises as `read_table`, on the way.

    Without `columns` the compressed object is in memory, since its sha256 is checked before the
    first row is handed out; with `columns` only one row group of them is.
    """
    with _open(store, key, columns) as file:
        yield from file.iter_batches(batch_size=batch_rows, columns=columns)


def _open(store: ObjectStore, key: str, columns: Sequence[str] | None) -> pq.ParquetFile:
    if columns is None:
        return VerifiedParquet(pa.BufferReader(store.get_bytes(key)), key=key)
    return store.open_parquet(key)


def _row_groups(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, *, key: str, n_rows: int
) -> Iterator[pa.Table]:
    """Cuts rows into tables of just `n_rows`, the last one shorter, each in one piece."""
    waiting = schema.empty_table()
    for batch in batches:
        waiting = pa.concat_tables([waiting, _conform(batch, schema, key=key)])
        while waiting.num_rows >= n_rows:
            yield waiting.slice(0, n_rows).combine_chunks()
            waiting = waiting.slice(n_rows)
    if waiting.num_rows:
        yield waiting.combine_chunks()


def _conform(batch: pa.RecordBatch, schema: pa.Schema, *, key: str) -> pa.Table:
    """The batch's columns in the schema's order, under the schema's own fields."""
    schemas.check(batch, schema, key=key)
    for name in batch.schema.names:
        if name not in schema.names:
            raise SchemaError(f"{key!r} would hold {name!r}, which its schema does not know")
    for field in schema:
        if not field.nullable and batch.column(field.name).null_count:
            raise SchemaError(f"{key!r} would hold {field.name!r} with nulls, which it may not")
    return pa.table([batch.column(name) for name in schema.names], schema=schema)


def _leaf_columns(schema: pa.Schema) -> list[str]:
    """Paths of the columns that Parquet makes of a schema."""
    footer = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), footer)
    columns = pq.ParquetFile(pa.BufferReader(footer.getvalue())).schema
    return [columns.column(index).path for index in range(len(columns))]


def _check_encoding(columns: Sequence[str], column_encoding: Mapping[str, str]) -> None:
    """Refuses paths that are no column's: pyarrow would ignore them, and sizes would double."""
    for path in column_encoding:
        if path not in columns:
            raise SchemaError(f"no column {path!r} to encode; the leaf columns are {columns}")


@contextmanager
def _damage_named(key: str) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ObjectCorrupt(
            f"{key!r} cannot be read as Parquet: {error}. Delete the object and materialize it "
            "again",
            key=key,
        ) from error
