"""Cuts documents into chunks that the embedding model reads whole.

A chunk is an exact span of its document, holds at most the target number of tokens of the model's
own tokenizer, and ends at the best border near the target: paragraph, sentence, line, word, and
only then between two graphemes. Loading a tokenizer is `adapters.tokenizer`'s work, reading
documents the sources'.

How: a chunk's length in characters is guessed from the characters per token seen just before, cut
back to a border and counted. A guess that is over is made again by its own count, at last where the
tokens' places say; what is stored is always the count of the chunk's own text, because a slice
tokenised by itself may hold more tokens than it did in its context. A document is never tokenised
whole: beside its text, memory holds one slice. Source: measured at 2,048 tokens and an overlap of
200, 1.2 characters counted for each of the text, of which the overlap is 0.1.
"""

import hashlib
import re
import unicodedata
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
import pyarrow as pa

from acidburn_assets.core import keys, schemas
from acidburn_assets.core.datasets import ChunkSizes, Dataset
from acidburn_assets.core.documents import Document, screen
from acidburn_assets.core.errors import ConfigError, SourceError

CHUNKER_VERSION = 2
"""Raised whenever `cut` may cut the same text elsewhere: it is part of every chunk's id."""

DEFAULT_TARGET_TOKENS = 2048
DEFAULT_OVERLAP_TOKENS = 200

MAX_CHARS_PER_TOKEN = 32
"""A chunk has at most so many characters per token of the target: a tokenizer may see no token in
a megabyte of blanks, and a single unknown one in a megabyte of base64. Chosen, not measured: prose
has 4 to 5, tables padded with blanks 10 to 20."""

LENGTH_EDGES_TOKENS = (
    *(16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512),
    *(768, 1024, 1536, 2048, 3072, 4096, 6144, 8192),
)
"""Bins of `Tally.histogram`, the same for every target so that shards can be added up: bin 0 counts
chunks below 16 tokens, bin i those in [edge i-1, edge i), the last those of 8,192 and more."""

BATCH_ROWS = 1000
BATCH_BYTES = 8 * 2**20

_ENCODED_CHARS = 2**20

_ASCII_CHARS_PER_TOKEN = 4.0  # first guess; measured 3.9 (WordPiece) on English prose and code
_PROBE_CHARS = 1000
_AIM = 0.95  # of the target. Source: measured, 0.92 is no faster and fills 2 % less
_AIM_AGAIN = 0.98  # of the target, by the tokens of a slice that was over it
_N_GUESSES_AGAIN = 2  # then the tokens' places are asked for, which costs three counts or more
_POOR_FILL = 0.7  # of the target expected at the guess: below it, one better guess is made
_LAST_STRETCH = 1.1  # a rest that is at most so many targets long is tried whole

_CLOSERS = r"""["'”’»)\]」』】》）]*+"""
_LEVELS = (
    # a blank line: the border is at the start of the next line, before its indentation
    re.compile(r"\n(?:[^\S\n]*+\n)++"),
    # a full stop, unless it ends an initial or title, or goes on in lower case; full stops of
    # scripts without spaces need none after them
    re.compile(
        r"(?<!\b[A-Z])(?<!\b(?:Mr|Ms|Dr|St))(?<!\bMrs)"
        rf"[.!?…؟۔।॥։።]++{_CLOSERS}\s++(?![a-zß-öø-ÿα-ωа-я])|[。！？｡．]++{_CLOSERS}\s*+"
    ),
    re.compile(r"\n"),
    re.compile(r"[\s\u200b]++|[，、；：]++"),
)
"""What matches ends at a border; best level first. Chosen, not measured."""

_MAX_GRAPHEME_CHARS = 64
_JOINER = "\u200d"
_EXTENDS = frozenset(["Mn", "Me", "Mc"])


class Tokenizer(Protocol):
    """The embedding model's own tokenizer."""

    name: str  # model name
    fingerprint: str  # sha256 hex prefix of the tokenizer's files
    max_tokens: int  # of content that the model reads: special tokens already subtracted

    def spans(self, text: str) -> np.ndarray:
        """Character offsets of the tokens of `text`: no special tokens, never truncated.

        Returns:
            (n_tokens, 2) int64; as many rows as `count` says.
        """
        ...

    def count(self, texts: Sequence[str]) -> np.ndarray:
        """Tokens of each text: no special tokens, never truncated.

        Returns:
            (len(texts),) int64.
        """
        ...


class Sizes(NamedTuple):
    """Resolved sizes of a dataset's chunks."""

    target_tokens: int
    overlap_tokens: int


class Span(NamedTuple):
    """A chunk's place in its document."""

    start: int  # first character
    end: int  # one past its last character
    n_tokens: int  # counted on text[start:end] itself


CutAll: TypeAlias = Callable[[Iterable[str]], Iterator[list[Span]]]
"""What `cut` does, for many texts."""


@dataclass
class Tally:
    """What was seen while one shard was chunked."""

    n_documents: int = 0
    n_kept: int = 0
    n_chars: int = 0  # of kept documents
    n_bytes: int = 0  # of kept documents, UTF-8
    n_chunks: int = 0
    n_tokens: int = 0  # of chunks: what overlaps counts twice
    n_chunk_bytes: int = 0  # of chunks' texts, UTF-8
    n_over_limit: int = 0  # chunks over the target; 0 unless `cut` is broken
    skipped: Counter[str] = field(default_factory=Counter)  # reason -> documents
    histogram: list[int] = field(default_factory=lambda: [0] * (len(LENGTH_EDGES_TOKENS) + 1))

    def add(self, other: "Tally") -> None:
        """Adds what another shard held."""
        self.n_documents += other.n_documents
        self.n_kept += other.n_kept
        self.n_chars += other.n_chars
        self.n_bytes += other.n_bytes
        self.n_chunks += other.n_chunks
        self.n_tokens += other.n_tokens
        self.n_chunk_bytes += other.n_chunk_bytes
        self.n_over_limit += other.n_over_limit
        self.skipped.update(other.skipped)
        self.histogram = [a + b for a, b in zip(self.histogram, other.histogram, strict=True)]


def resolve_sizes(sizes: ChunkSizes, *, max_tokens: int) -> Sizes:
    """Fills in what a dataset leaves open and checks it against the model.

    Args:
        sizes: as declared.
        max_tokens: what the model reads, special tokens subtracted.

    Raises:
        ConfigError: the target is more than the model reads, or the overlap is half of it or more.
    """
    target = sizes.target_tokens
    if target is None:
        target = min(DEFAULT_TARGET_TOKENS, max_tokens)
    if target > max_tokens:
        raise ConfigError(
            f"target_tokens {target} is more than the {max_tokens} tokens that the model reads; "
            "lower it, or leave it out to use what the model can read"
        )
    overlap = sizes.overlap_tokens
    if overlap is None:
        overlap = min(DEFAULT_OVERLAP_TOKENS, target // 10)
    if overlap * 2 >= target:
        raise ConfigError(
            f"overlap_tokens {overlap} must be less than half of target_tokens {target}; lower it"
        )
    return Sizes(target, overlap)


def chunker_fingerprint(tokenizer_fingerprint: str, sizes: Sizes) -> str:
    """Identifies everything that decides where a text is cut: code version, tokenizer, sizes.

    Returns:
        16 hex digits.
    """
    fields = (CHUNKER_VERSION, tokenizer_fingerprint, sizes.target_tokens, sizes.overlap_tokens)
    return hashlib.sha256("\0".join(map(str, fields)).encode()).hexdigest()[:16]


def cut(text: str, tokenizer: Tokenizer, sizes: Sizes) -> list[Span]:
    """Cuts a text into spans that overlap and leave nothing out.

    Each span starts after the one before it, at most at its end, and ends after it; what lies in
    no span is whitespace. A text that fits is one span.

    Args:
        text: of one document.
        tokenizer: of the model that will read the chunks.
        sizes: see `resolve_sizes`.

    Raises:
        ConfigError: the target is less than the tokens of a single character.
    """
    spans: list[Span] = []
    start = covered = 0
    chars_per_token = _first_chars_per_token(text, tokenizer, sizes)
    while covered < len(text):
        end, n_tokens = _fit(text, start, covered, chars_per_token, tokenizer, sizes.target_tokens)
        if end <= covered:  # the overlap alone is over the target: go on without it
            start = covered
            continue
        if text[covered:end].isspace():
            start = covered = end
            continue
        spans.append(Span(start, end, n_tokens))
        chars_per_token = min((end - start) / max(n_tokens, 1), MAX_CHARS_PER_TOKEN)
        overlap_chars = min(round(sizes.overlap_tokens * chars_per_token), (end - start) // 2)
        start, covered = _overlap_start(text, start, end - overlap_chars, end), end
    return spans


def chunk_documents(
    documents: Iterable[Document],
    *,
    dataset: Dataset,
    revision: str,
    tokenizer: Tokenizer,
    sizes: Sizes,
    tally: Tally,
    cut_all: CutAll | None = None,
) -> Iterator[pa.RecordBatch]:
    """Screens and cuts documents, as they come, in bounded memory.

    Memory beside the documents that `cut_all` has drawn (the one that is cut, where it is left out)
    is 128 MB at most, whatever their length: two batches, and a slice that is tokenised. Source:
    measured, 55 to 110 MB with documents of 8 to 50 MB: prose, base64, CJK, emoji.

    Args:
        documents: of one shard.
        dataset: whose name and filters apply.
        revision: pinned revision, part of every chunk's id.
        tokenizer: of the model that will read the chunks.
        sizes: see `resolve_sizes`.
        tally: counted into as batches are drawn.
        cut_all: gives what `cut` gives of each text, in the texts' order; None: `cut` itself.

    Yields:
        Batches of `schemas.CHUNKS` in document order, 1,000 rows or about 8 MB each.

    Raises:
        SourceError: two documents have one id.
    """
    chunker = chunker_fingerprint(tokenizer.fingerprint, sizes)
    waiting: deque[Document] = deque()  # drawn and not cut yet

    def texts() -> Iterator[str]:
        for document in _keep(documents, dataset, tally):
            waiting.append(document)
            yield document.text

    cut_texts = cut_all or (lambda texts: (cut(text, tokenizer, sizes) for text in texts))
    rows: list[tuple[object, ...]] = []
    n_bytes = 0
    for spans in cut_texts(texts()):
        document = waiting.popleft()
        for index, span in enumerate(spans):
            text = document.text[span.start : span.end]
            n_bytes += len(text.encode())
            chunk_id = keys.chunk_id(
                dataset=dataset.name,
                revision=revision,
                doc_id=document.doc_id,
                start=span.start,
                end=span.end,
                chunker=chunker,
            )
            rows.append(
                (chunk_id, document.doc_id, document.row, document.title, index, *span, text)
            )
            tally.n_chunks += 1
            tally.n_tokens += span.n_tokens
            tally.n_over_limit += span.n_tokens > sizes.target_tokens
            tally.histogram[bisect_right(LENGTH_EDGES_TOKENS, span.n_tokens)] += 1
            if len(rows) >= BATCH_ROWS or n_bytes >= BATCH_BYTES:
                tally.n_chunk_bytes += n_bytes
                yield _batch(rows)
                rows, n_bytes = [], 0
    if rows:
        tally.n_chunk_bytes += n_bytes
        yield _batch(rows)


def _keep(documents: Iterable[Document], dataset: Dataset, tally: Tally) -> Iterator[Document]:
    """Documents that are chunked; the others are counted only.

    Raises:
        SourceError: two documents have one id.
    """
    row_of_id: dict[str, int] = {}
    for document in documents:
        tally.n_documents += 1
        verdict = screen(document, max_document_bytes=dataset.filters.max_document_bytes)
        if verdict.reason is not None:
            tally.skipped[verdict.reason] += 1
            continue
        first_row = row_of_id.setdefault(document.doc_id, document.row)
        if first_row != document.row:
            raise SourceError(
                f"dataset {dataset.name!r} has the id {document.doc_id!r} in row {first_row} and "
                f"in row {document.row}; name a column of unique values as `id_column`, or leave "
                "it out so that a document's row is its id"
            )
        tally.n_kept += 1
        tally.n_chars += len(document.text)
        tally.n_bytes += _n_bytes(document.text)
        yield document


def _n_bytes(text: str) -> int:
    """Of its UTF-8, without making all of it at once."""
    if text.isascii():
        return len(text)
    blocks = range(0, len(text), _ENCODED_CHARS)
    return sum(len(text[start : start + _ENCODED_CHARS].encode()) for start in blocks)


def _batch(rows: list[tuple[object, ...]]) -> pa.RecordBatch:
    columns = zip(*rows, strict=True)
    arrays = [
        pa.array(column, field.type) for column, field in zip(columns, schemas.CHUNKS, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schemas.CHUNKS)


def _first_chars_per_token(text: str, tokenizer: Tokenizer, sizes: Sizes) -> float:
    head = text[:_PROBE_CHARS]
    if len(text) <= sizes.target_tokens or head.isascii():
        return _ASCII_CHARS_PER_TOKEN
    return len(head) / max(_count(head, tokenizer), 1)


def _fit(
    text: str, start: int, covered: int, chars_per_token: float, tokenizer: Tokenizer, target: int
) -> tuple[int, int]:
    """Where the chunk that starts at `start` ends, and its tokens: at most `target`.

    The end is `covered` or less only where nothing beyond fits together with the overlap.
    """
    longest = target * MAX_CHARS_PER_TOKEN
    guess = min(int(target * chars_per_token * _AIM), longest)
    if len(text) - start <= min(target * chars_per_token * _LAST_STRETCH, longest):
        guess = len(text) - start
    end = _chunk_end(text, start, covered, start + max(guess, 1))
    n_tokens = _count(text[start:end], tokenizer)
    expected_at_guess = n_tokens * guess / (end - start)
    if expected_at_guess < target * _POOR_FILL and guess < longest and end < len(text):
        guess = min(int((end - start) * target / max(n_tokens, 1) * _AIM), longest)
        end = _chunk_end(text, start, covered, start + guess)
        n_tokens = _count(text[start:end], tokenizer)
    n_over = 0
    while n_tokens > target:
        if end - start == 1:
            raise ConfigError(
                f"the character {text[start]!r} is {n_tokens} tokens of {tokenizer.name!r}, more "
                f"than target_tokens {target}; raise it"
            )
        n_over += 1
        if n_over <= _N_GUESSES_AGAIN:
            limit = start + max(int((end - start) * target / n_tokens * _AIM_AGAIN), 1)
        else:
            begins = tokenizer.spans(text[start:end])[:, 0]  # (n_tokens,)
            # the token that is one too many begins inside the slice: the end moves for sure
            limit = start + min(max(int(begins[target]), 1), end - start - 1)
        end = _chunk_end(text, start, covered, limit)
        n_tokens = _count(text[start:end], tokenizer)
    return end, n_tokens


def _chunk_end(text: str, start: int, covered: int, limit: int) -> int:
    """The last best border in the second half of [start, limit], beyond `covered` if it can."""
    if limit >= len(text):
        return len(text)
    middle = (start + limit + 1) // 2
    borders = _borders(text, max(middle, min(covered, limit)), limit)
    return borders[-1] if borders else _grapheme_border(text, start, limit)


def _overlap_start(text: str, previous: int, earliest: int, end: int) -> int:
    """The first best border in the first half of [earliest, end], always after `previous`."""
    if earliest >= end:
        return end
    borders = _borders(text, earliest, (earliest + end + 1) // 2)
    return borders[0] if borders else _grapheme_border(text, previous, earliest)


def _borders(text: str, low: int, high: int) -> list[int]:
    """Borders in (low, high] of the best level that has any, ascending."""
    for level in _LEVELS:
        borders = [match.end() for match in level.finditer(text, low, high)]
        if borders:
            return borders
    return []


def _grapheme_border(text: str, low: int, high: int) -> int:
    """The last position in (low, high] that is not inside a grapheme; `high` where none is near.

    Source: Unicode UAX #29, the rules for marks, emoji sequences, flags and Hangul.
    """
    for position in range(high, max(low, high - _MAX_GRAPHEME_CHARS), -1):
        if not _is_inside_grapheme(text, position):
            return position
    return high


def _is_inside_grapheme(text: str, position: int) -> bool:
    before, after = text[position - 1], text[position]
    if after.isascii():
        return before == "\r" and after == "\n"
    if before == _JOINER or after == _JOINER or unicodedata.category(after) in _EXTENDS:
        return True
    if after in "\u0e33\u0eb3" or "\U0001f3fb" <= after <= "\U0001f3ff":  # sara am; skin tones
        return True
    if "\U000e0020" <= after <= "\U000e007f":  # tags of a flag
        return True
    if "\u1160" <= after <= "\u11ff" and "\u1100" <= before <= "\u11ff":  # Hangul jamo
        return True
    if _is_flag_letter(after):
        n_before = 0
        while n_before < position and _is_flag_letter(text[position - 1 - n_before]):
            n_before += 1
        return n_before % 2 == 1
    return False


def _is_flag_letter(char: str) -> bool:
    return "\U0001f1e6" <= char <= "\U0001f1ff"


def _count(text: str, tokenizer: Tokenizer) -> int:
    return int(tokenizer.count([text])[0])
