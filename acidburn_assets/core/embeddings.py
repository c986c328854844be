"""Embeddings: which model made them, how texts are batched for it, and how vectors are stored.

A corpus is one space only if one model made all of it, so every table of vectors carries the
model's fingerprint. Loading models and tokenizers is `adapters.encoder`'s and
`adapters.tokenizer`'s work; the table's schema is `schemas.embeddings`.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from acidburn_assets.core import schemas
from acidburn_assets.core.errors import ModelError, QuestionError, SchemaError
from acidburn_assets.core.records import Record

ENCODER_VERSION = 1
"""Raised whenever the encoder may give the same text another vector: it is part of every model's
fingerprint."""

UNIT_TOLERANCE = 1e-3
"""How far from 1 the length of a stored vector may be. Rounding to fp16 moves each value, and so
the length, by at most 2**-11 = 4.9e-4 of itself; the rest is room for vectors made elsewhere."""

_FP16_TINY = np.float32(2**-14)  # least that fp16 holds with all its bits
_BLOCK_VALUES = 1 << 16

COLUMN_ENCODING = {"chunk_id": "PLAIN", "embedding.list.element": "BYTE_STREAM_SPLIT"}
"""How Parquet writes the table: bytes of equal weight together, which zstd then packs; ids and
vectors repeat nothing, so no dictionary.
Source: measured on 1024-d vectors, 1,771 bytes each against 4,227 with pyarrow's defaults."""

WINDOW_BATCHES = 64
"""Batches in a window, the rows that are encoded at a time: few enough that a window is seconds of
work, enough that threads seldom wait for its last batch and that texts of like length are found.
Source: measured with MiniLM on 2 cores, 5,000 texts of 54 tokens on average: against one window for
all, windows of 64 take 1.01 of the CPU's time, those of 32 take 1.04; one of 64 takes 12 s."""

WINDOW_ROWS = 10_000
"""Most rows of a window: short texts need few tokens, but a vector each, and 10,000 of 1,024 values
are 40 MB. Chosen, not measured."""

InputType = Literal["document", "query"]


class ModelCard(Record):
    """An embedding model: what its vectors depend on, and what it is called."""

    name: str
    revision: str  # commit on the hub; "" for a packaged model or a folder
    dim: int
    max_tokens: int  # of a document's content: special tokens and the prompt already subtracted
    pooling: str  # token vectors into one: `cls`, `mean`, …, several joined by `+`
    weights_sha256: str
    tokenizer_sha256: str
    query_prompt: str = ""  # put before every query, as the model was trained
    document_prompt: str = ""
    encoder_version: int = ENCODER_VERSION

    @property
    def fingerprint(self) -> str:
        """16 hex digits that tell models apart whose vectors must not meet in one space.

        Name and revision are left out: a folder with the same files is the same model. So are
        device and number format: the same text's vectors then agree within a cosine of 0.999,
        which the encoder checks, and go into each shard's metadata instead.
        """
        facts = self.model_dump(mode="json", exclude={"name", "revision"})
        lines = "".join(f"{key} {facts[key]}\0" for key in sorted(facts)) + "unit length"
        return hashlib.sha256(lines.encode()).hexdigest()[:16]


class Encoded(NamedTuple):
    """Texts as vectors."""

    vectors: np.ndarray  # (n, dim) float32, unit length
    n_tokens: int  # that the model read: special tokens and prompts included, padding not
    n_truncated: int  # texts the model did not read whole; 0 by construction
    seconds: float


class Encoder(Protocol):
    """A loaded embedding model."""

    card: ModelCard
    device: str  # cpu, cuda, cuda:1, mps
    dtype: str  # of its matrix products: float32, bfloat16, float16
    batch_tokens: int  # most tokens of a batch at first, padding included

    def encode(self, texts: Sequence[str], input_type: InputType) -> Encoded:
        """Makes one unit vector per text, in the texts' order.

        Raises:
            ModelError: a document is longer than the model reads; nothing is truncated.
            QuestionError: a query is.
        """
        ...

    def embed_iter(
        self, windows: Iterable[Sequence[str]], input_type: InputType
    ) -> Iterator[Encoded]:
        """Encodes window after window, each as `encode` does; the next one is computed meanwhile.

        The seconds of the windows add up to the time that all took.

        Raises:
            ModelError, ConfigError: as `encode`, for the first window that fails; the vectors of
                those before it have been given.
        """
        ...


@dataclass
class Tally:
    """What was seen while texts were encoded: now, or earlier by a run that was cut off."""

    n_rows: int = 0
    n_tokens: int = 0
    n_truncated: int = 0
    n_resumed_rows: int = 0  # of n_rows, encoded earlier
    n_resumed_tokens: int = 0  # of n_tokens
    seconds: float = 0.0  # that encoding took, now

    def add(self, encoded: Encoded) -> None:
        """Counts one call of `Encoder.encode`."""
        self.n_rows += len(encoded.vectors)
        self.n_tokens += encoded.n_tokens
        self.n_truncated += encoded.n_truncated
        self.seconds += encoded.seconds

    def resume(self, *, n_rows: int, n_tokens: int, n_truncated: int) -> None:
        """Counts what was encoded earlier; it makes nothing faster."""
        self.n_rows += n_rows
        self.n_tokens += n_tokens
        self.n_truncated += n_truncated
        self.n_resumed_rows += n_rows
        self.n_resumed_tokens += n_tokens

    @property
    def rows_per_second(self) -> float:
        """0 before anything was encoded."""
        return (self.n_rows - self.n_resumed_rows) / self.seconds if self.seconds else 0.0

    @property
    def tokens_per_second(self) -> float:
        """0 before anything was encoded."""
        return (self.n_tokens - self.n_resumed_tokens) / self.seconds if self.seconds else 0.0

    def cost_usd(self, usd_per_hour: float) -> float:
        """What the machine cost while it encoded, now."""
        return self.seconds / 3600 * usd_per_hour

    def progress(self, n_rows: int, *, usd_per_hour: float = 0.0) -> str:
        """For a person: `1,200 of 5,000 chunks, 240 a second, 16 s to go, $0.02 so far`.

        Args:
            n_rows: of the whole.
            usd_per_hour: what the machine costs; 0 is not worth a word.
        """
        told = [f"{self.n_rows:,} of {n_rows:,} chunks"]
        if self.rows_per_second:
            seconds = (n_rows - self.n_rows) / self.rows_per_second
            to_go = f"{seconds / 60:,.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
            told += [f"{self.rows_per_second:,.4g} a second", f"{to_go} to go"]
        if usd_per_hour:
            told.append(f"${self.cost_usd(usd_per_hour):,.2f} so far")
        return ", ".join(told)


def plan_windows(
    n_tokens: np.ndarray, *, window_tokens: int, window_rows: int = WINDOW_ROWS
) -> list[range]:
    """Cuts a table into windows of consecutive rows, each to be encoded by itself.

    A vector depends a little on its company in a batch. Batches never cross a window, and windows
    follow from the lengths alone: whoever takes up the work at a window's border makes the same
    bytes as who never stopped.

    Args:
        n_tokens: (n,) int, of each row's text.
        window_tokens: most tokens of a window; a row that is longer is a window by itself.
        window_rows: most rows of a window.

    Returns:
        Ranges that follow on each other; every row is in exactly one.
    """
    # a row without a token takes its time too
    ends = np.cumsum(np.maximum(n_tokens, 1), dtype=np.int64)  # (n,)
    windows = []
    start = 0
    while start < len(ends):
        before = int(ends[start - 1]) if start else 0
        fitting = int(np.searchsorted(ends, before + window_tokens, side="right"))
        end = min(max(fitting, start + 1), start + window_rows)
        windows.append(range(start, end))
        start = end
    return windows


def plan_batches(n_tokens: np.ndarray, *, batch_tokens: int, is_padded: bool) -> list[np.ndarray]:
    """Groups texts of like length.

    Padded, a batch costs its rows times its longest row, and texts of like length leave little
    padding; else it costs its tokens. The longest texts come first: what does not fit into memory
    fails at once. Texts of equal length keep their order.

    Args:
        n_tokens: (n,) int, of each text.
        batch_tokens: most that a batch may cost; a text that is longer than this is a batch by
            itself.
        is_padded: whether all rows of a batch are made as long as its longest.

    Returns:
        Index arrays; every index of `n_tokens` is in exactly one.
    """
    order = np.argsort(-n_tokens, kind="stable")
    if not is_padded:
        windows = plan_windows(n_tokens[order], window_tokens=batch_tokens)
        return [order[window.start : window.stop] for window in windows]
    batches = []
    start = 0
    while start < len(order):
        longest = max(1, int(n_tokens[order[start]]))
        end = start + max(1, batch_tokens // longest)
        batches.append(order[start:end])
        start = end
    return batches


def refuse_long(n_tokens: np.ndarray, input_type: InputType, *, model: str, limit: int) -> None:
    """Refuses texts that a model would not read whole: nothing is ever truncated.

    Args:
        n_tokens: (n,) int, of each text, special tokens and prompt included.
        input_type: of all of them.
        model: its name.
        limit: most tokens that it reads.

    Raises:
        ModelError: a document is too long.
        QuestionError: a query is.
    """
    too_long = np.flatnonzero(n_tokens > limit)
    if not len(too_long):
        return
    row = int(too_long[0])
    which = f"{input_type} {row} of {len(n_tokens)} has {n_tokens[row]} tokens"
    if input_type == "query":
        if len(n_tokens) == 1:  # told to whoever asked: no index, and no name that may be a path
            which = f"the question has {n_tokens[row]:,} tokens"
        raise QuestionError(f"{which}, and the model reads {limit:,}; shorten it")
    raise ModelError(
        f"{which}, {model!r} reads {limit}; materialize its chunks with this model's tokenizer"
    )


def to_storage(vectors: np.ndarray) -> pa.FixedSizeListArray:
    """Rounds unit vectors to fp16 and checks them; the values stay float32.

    Args:
        vectors: (n, dim) float32 or wider, unit length.

    Raises:
        ModelError: a vector has a value that is not finite, or not unit length.
    """
    n_rows, dim = vectors.shape
    # Arrow's memory is used again, NumPy's is new each time: half of what rounding takes
    memory = pa.allocate_buffer(n_rows * dim * 4)
    rounded = np.frombuffer(memory, dtype=np.float32).reshape(n_rows, dim)
    _round_to_fp16(vectors, out=rounded)
    lengths = np.sqrt(np.einsum("nd,nd->n", rounded, rounded))  # (n,)
    bad = np.flatnonzero(~(np.abs(lengths - 1) <= UNIT_TOLERANCE))  # NaN is bad too
    if len(bad):
        raise ModelError(
            f"{len(bad)} of {n_rows} vectors are not of unit length: row {bad[0]} has length "
            f"{lengths[bad[0]]:.4f}. Check the model with `acidburn doctor`, or encode in float32"
        )
    return pa.FixedSizeListArray.from_arrays(
        pa.Array.from_buffers(pa.float32(), n_rows * dim, [None, memory]),
        type=schemas.vector_type(dim),
    )


def _round_to_fp16(vectors: np.ndarray, *, out: np.ndarray) -> None:
    """The nearest values that fp16 has, ties to even, as float32; what is beyond fp16 stays there.

    The last 13 bits of a float32 are rounded away, block by block within a cache. Only what fp16
    holds with fewer bits, less than 2**-14, and NaN go through the type itself.
    Source: measured, 10,000 vectors of 1,024 values, 14 ms of CPU against 51 by `astype` alone.

    Args:
        vectors: (n, dim) float32 or wider.
        out: (n, dim) float32, contiguous.
    """
    values = np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1)
    rounded = out.reshape(-1)
    scratch = np.empty(min(_BLOCK_VALUES, len(values)), dtype=np.uint32)
    for start in range(0, len(values), _BLOCK_VALUES):
        block, target = (each[start : start + _BLOCK_VALUES] for each in (values, rounded))
        bits = scratch[: len(block)]
        np.right_shift(block.view(np.uint32), 13, out=bits)
        bits &= 1  # an odd one is rounded up where it is half way
        bits += 0xFFF
        bits += block.view(np.uint32)
        np.bitwise_and(bits, 0xFFFFE000, out=target.view(np.uint32))
        is_exact = np.abs(block, out=bits.view(np.float32)) >= _FP16_TINY
        few = np.flatnonzero(~is_exact)
        target[few] = block[few].astype(np.float16)


def record_batch(chunk_ids: pa.Array, vectors: np.ndarray) -> pa.RecordBatch:
    """A batch of `schemas.embeddings`.

    Args:
        chunk_ids: n ids of 16 bytes.
        vectors: (n, dim) float32, unit length, in the ids' order.

    Raises:
        ModelError: see `to_storage`.
    """
    return pa.record_batch(
        [chunk_ids, to_storage(vectors)], schema=schemas.embeddings(vectors.shape[1])
    )


def matrix(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Vectors of a column, without a copy where it is one piece.

    Args:
        column: fixed-size lists of float32; slices are respected.

    Returns:
        (n, dim) float32, read-only where it is not a copy.

    Raises:
        SchemaError: the column holds something else, or nulls.
    """
    vectors = _in_one_piece(column)
    if not pa.types.is_fixed_size_list(vectors.type) or vectors.type.value_type != pa.float32():
        raise SchemaError(
            f"vectors must be fixed-size lists of float32, not {vectors.type}; "
            "materialize the asset that writes them again"
        )
    # not `.values`: it ignores where a slice starts and ends
    flat = vectors.flatten()
    _refuse_nulls(vectors.null_count + flat.null_count)
    values: np.ndarray = flat.to_numpy(zero_copy_only=True)
    return values.reshape(-1, vectors.type.list_size)  # (n, dim)


def id_matrix(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Chunk ids of a column as bytes, without a copy where it is one piece.

    Args:
        column: binary of 16 bytes; slices are respected.

    Returns:
        (n, 16) uint8, read-only where it is not a copy.

    Raises:
        SchemaError: the column holds something else, or nulls.
    """
    ids = _in_one_piece(column)
    if ids.type != schemas.CHUNK_ID:
        raise SchemaError(
            f"chunk ids must be {schemas.CHUNK_ID}, not {ids.type}; "
            "materialize the asset that writes them again"
        )
    _refuse_nulls(ids.null_count)
    width = ids.type.byte_width
    content = ids.buffers()[1]
    if content is None:
        return np.empty((0, width), np.uint8)
    every = np.frombuffer(content, np.uint8)
    return every[ids.offset * width : (ids.offset + len(ids)) * width].reshape(-1, width)  # (n, 16)


def _in_one_piece(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    if not isinstance(column, pa.ChunkedArray):
        return column
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _refuse_nulls(n_nulls: int) -> None:
    if n_nulls:
        raise SchemaError(
            f"the column has {n_nulls} nulls; materialize the asset that writes it again"
        )
