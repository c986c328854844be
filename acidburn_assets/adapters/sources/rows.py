"""Arrow tables as documents: which columns are needed, and what a value of them says.

Shared by everything that arrives as Arrow: Parquet files, and what `datasets` prepared.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from acidburn_assets.core.datasets import Dataset
from acidburn_assets.core.documents import Document, Problem
from acidburn_assets.core.errors import SourceError

BATCH_ROWS = 64
"""Rows decoded at once. Chosen: 64 books of 1.5 MB are 100 MB, and the cost per batch is lost
beside the cost per row for short documents."""


def columns(dataset: Dataset) -> list[str]:
    """Columns that a dataset needs, each once."""
    named = (dataset.text_column, dataset.id_column, dataset.title_column)
    return list(dict.fromkeys(name for name in named if name is not None))


def check_columns(schema: pa.Schema, dataset: Dataset, *, place: str) -> None:
    """Refuses a table that lacks a needed column or has it in a type that is no text or id.

    Args:
        schema: of the table.
        dataset: names the columns.
        place: the file, for the error.

    Raises:
        SourceError: names the file, the column and the columns that are there.
    """
    for field in ("text_column", "id_column", "title_column"):
        name = getattr(dataset, field)
        if name is None:
            continue
        if schema.get_field_index(name) < 0:  # absent, or there twice
            raise SourceError(
                f"dataset {dataset.name!r}: {place!r} has no single column {name!r}; it has "
                f"{schema.names}. Set {field} in datasets.yaml"
            )
        kind = schema.field(name).type
        if not (_is_text(kind) or (field == "id_column" and pa.types.is_integer(kind))):
            raise SourceError(
                f"dataset {dataset.name!r}: {place!r} holds {name!r} as {kind}, which is not "
                f"text. Name another column as {field} in datasets.yaml"
            )


def documents(
    batches: Iterable[pa.RecordBatch], dataset: Dataset, *, row: int
) -> Iterator[Document]:
    """One document per row; `check_columns` says what the columns may be.

    Text is decoded value by value: Arrow takes a Parquet file's word that its bytes are UTF-8.

    Args:
        batches: hold at least `columns(dataset)`.
        dataset: names the columns.
        row: of the first in the dataset.
    """
    for batch in batches:
        texts = _values(batch.column(dataset.text_column))
        ids: Sequence[Any] = range(row, row + batch.num_rows)
        if dataset.id_column is not None:
            ids = _values(batch.column(dataset.id_column))
        titles: Sequence[Any] = [None] * batch.num_rows
        if dataset.title_column is not None:
            titles = _values(batch.column(dataset.title_column))
        for value, doc_id, title in zip(texts, ids, titles, strict=True):
            text, problem = _text(value)
            yield Document(row, _doc_id(doc_id), _title(title), text, problem)
            row += 1


def doc_ids(column: pa.Array) -> list[str]:
    """Ids as `documents` gives them."""
    return [_doc_id(value) for value in _values(column)]


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    # a column of nulls has no type of its own; its rows are reported as `null`
    return any(
        is_kind(kind)
        for is_kind in (
            pa.types.is_string,
            pa.types.is_large_string,
            pa.types.is_string_view,
            pa.types.is_binary,
            pa.types.is_large_binary,
            pa.types.is_binary_view,
            pa.types.is_null,
        )
    )


def _values(column: pa.Array) -> list[Any]:
    """Texts as bytes, integers as int, nulls as None."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not pa.types.is_integer(column.type):
        column = column.cast(pa.large_binary())
    values: list[Any] = column.to_pylist()
    return values


def _text(value: bytes | None) -> tuple[str, Problem | None]:
    if value is None:
        return "", "null"
    try:
        return value.decode(), None
    except UnicodeDecodeError:
        return "", "not_utf8"


def _doc_id(value: bytes | int | None) -> str:
    """ "" where there is no usable id: the document is then reported as `bad_id`."""
    if isinstance(value, int):
        return str(value)
    return _text(value)[0]


def _title(value: bytes | None) -> str:
    # a title is shown, never searched for: a damaged one is no reason to lose the document
    return value.decode(errors="replace") if value is not None else ""
