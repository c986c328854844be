"""Columns to the bytes of `COPY … (format binary)`, without a step of Python per row.

A row is a field count, then for each field its length and its bytes, all big-endian. Fields of a
fixed width become one numpy record; texts are joined between such records by Arrow.
Source: PostgreSQL manual, COPY, "Binary Format"; pgvector `halfvec_recv`.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"

Field: TypeAlias = np.ndarray | pa.Array
"""One column of n rows:

- numpy `(n,)` of bool, int16, int32, int64 or float32: boolean, smallint, int, bigint, real;
- numpy `(n, width)` uint8: bytes already in Postgres's form, a uuid for example;
- Arrow string or binary: text, or bytes already in Postgres's form; null is NULL.
"""

_LENGTH = np.dtype(">i4")


def encode_rows(fields: Sequence[Field]) -> memoryview:
    """The rows, without header and trailer.

    Args:
        fields: in the order of the COPY's columns, all of n rows.
    """
    n_rows = len(fields[0])
    pieces: list[pa.Array] = []
    fixed: list[np.ndarray] = [np.full(n_rows, len(fields), ">i2")]
    for field in fields:
        if isinstance(field, np.ndarray):
            value = field if field.ndim == 2 else field.astype(field.dtype.newbyteorder(">"))
            width = value.dtype.itemsize * (value.shape[1] if value.ndim == 2 else 1)
            fixed += [np.full(n_rows, width, _LENGTH), value]
        else:
            lengths = pc.fill_null(pc.binary_length(field), -1).to_numpy(zero_copy_only=False)
            pieces.append(_as_binary(_join([*fixed, lengths.astype(_LENGTH)])))
            pieces.append(pc.fill_null(field.cast(pa.large_binary()), b""))
            fixed = []
    if not pieces:
        return _join(fixed).reshape(-1).data
    if fixed:
        pieces.append(_as_binary(_join(fixed)))
    rows = pc.binary_join_element_wise(*pieces, pa.scalar(b"", pa.large_binary()))
    # a computed array begins at offset 0, so its data buffer is the stream
    n_bytes = int(np.frombuffer(rows.buffers()[1], np.int64)[n_rows]) if n_rows else 0
    return memoryview(rows.buffers()[2])[:n_bytes] if n_bytes else memoryview(b"")


def halfvec_field(halves: np.ndarray) -> np.ndarray:
    """fp16 vectors as pgvector's halfvec.

    Args:
        halves: float16  # (n, dim)

    Returns:
        uint8  # (n, 4 + 2 * dim)
    """
    n_rows, dim = halves.shape
    value = np.empty((n_rows, 2 + dim), ">u2")
    value[:, 0] = dim
    value[:, 1] = 0  # reserved
    value[:, 2:] = halves.view(np.uint16)
    return value.view(np.uint8)


def sparsevec_field(
    starts: np.ndarray, indices: np.ndarray, values: np.ndarray, *, dim: int
) -> pa.Array:
    """Sparse vectors as pgvector's sparsevec.

    Args:
        starts: where each vector's entries begin, and the end  # (n + 1,) int64
        indices: of the entries, from 0, rising inside a vector  # (e,) int32
        values: of the same, none of them 0  # (e,) float32
        dim: of all vectors.

    Returns:
        large_binary, n values.
    """
    n_rows = len(starts) - 1
    counts = np.diff(starts)
    # in words of four bytes: dimension, count, a reserved one, indices, values
    offsets = np.zeros(n_rows + 1, np.int64)
    np.cumsum(3 + 2 * counts, out=offsets[1:])
    words = np.zeros(offsets[-1], ">u4")
    words[offsets[:-1]] = dim
    words[offsets[:-1] + 1] = counts
    entries = np.arange(starts[0], starts[-1])
    at = entries + np.repeat(offsets[:-1] + 3 - starts[:-1], counts)
    words[at] = indices[entries]
    words[at + np.repeat(counts, counts)] = values[entries].astype(np.float32).view(np.uint32)
    return pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), n_rows, [None, pa.py_buffer(4 * offsets), pa.py_buffer(words)]
    )


def array_value(elements: Sequence[bytes], *, oid: int) -> bytes:
    """A one-dimensional array in Postgres's form.

    Args:
        elements: each in its type's binary form.
        oid: of the elements' type: 25 for text, 2950 for uuid.
    """
    if not elements:
        return b"".join(_int4(number) for number in (0, 0, oid))
    parts = [_int4(number) for number in (1, 0, oid, len(elements), 1)]
    for element in elements:
        parts += [_int4(len(element)), element]
    return b"".join(parts)


def _int4(number: int) -> bytes:
    return number.to_bytes(4, "big", signed=True)


def _join(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Columns side by side as bytes  # (n, width) uint8."""
    layout: list[Any] = [
        (f"f{index}", column.dtype, column.shape[1:]) for index, column in enumerate(columns)
    ]
    record = np.empty(len(columns[0]), dtype=layout)
    for index, column in enumerate(columns):
        record[f"f{index}"] = column
    return record.view(np.uint8).reshape(len(record), record.dtype.itemsize)


def _as_binary(rows: np.ndarray) -> pa.Array:
    n_rows, width = rows.shape
    offsets = np.arange(n_rows + 1, dtype=np.int64) * width
    return pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), n_rows, [None, pa.py_buffer(offsets), pa.py_buffer(rows)]
    )
