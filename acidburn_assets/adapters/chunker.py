"""Cuts texts in several processes: the same spans in the same order as one gives.

Where a text is cut is `core.chunks`' business, which documents there are `assets.chunks`'. The
processes hold the model's tokenizer and nothing else of it.
"""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import chain
from typing import NamedTuple

from acidburn_assets.adapters.processes import Processes, open_processes
from acidburn_assets.core.chunks import Sizes, Span, Tokenizer, cut

MAX_PROCESSES = 8
"""Where the number is left open. Source: measured, what this process does for them by itself
(screening, keys, tables, sending) takes a second of CPU for 68 MB, cutting with sentencepiece one
for 13 MB: six of them keep it busy."""

BATCH_CHARS = 2**18
"""Texts travel to a process in lists of about so many characters."""

ALONE_SECONDS = 2.0
"""Cut here before processes are started, in one call or many. Source: measured, starting one costs
0.5 seconds of CPU with 48,000 pieces, 1.5 with the 250,000 of XLM-R."""


class _Batch(NamedTuple):
    texts: list[str]
    sizes: Sizes


class Chunker:
    """A model's tokenizer, in this process and in others once there is much to cut.

    Memory beside the documents that were drawn: for each process three lists of `BATCH_CHARS`, or
    of one longer text, wait to be sent or are at work; it holds the tokenizer and one of them.

    Attributes:
        tokenizer: of the model.
        n_processes: that cut; 1 is this one alone.
    """

    def __init__(self, tokenizer: Tokenizer, *, n_processes: int = 0) -> None:
        """Starts nothing yet.

        Args:
            tokenizer: of the model, such that it can be sent to a process.
            n_processes: 0 is the cores that this process may use, `MAX_PROCESSES` at most.
        """
        self.tokenizer = tokenizer
        self.n_processes = n_processes or min(_n_cores(), MAX_PROCESSES)
        self._seconds = 0.0  # cut here so far
        self._opened = ExitStack()
        self._pool: Processes[_Batch, list[list[Span]]] | None = None

    def cut_all(self, texts: Iterable[str], sizes: Sizes) -> Iterator[list[Span]]:
        """Spans of each text, in the texts' order; few texts are drawn ahead.

        Args:
            texts: of documents.
            sizes: see `core.chunks.resolve_sizes`.

        Raises:
            ConfigError: the target is less than the tokens of a single character.
            ProcessLost: a process ended before its time: killed, or out of memory.
        """
        remaining = iter(texts)
        while self.n_processes == 1 or self._seconds < ALONE_SECONDS:
            text = next(remaining, None)
            if text is None:
                return
            started = time.perf_counter()
            spans = cut(text, self.tokenizer, sizes)
            self._seconds += time.perf_counter() - started
            yield spans
        batches = (_Batch(batch, sizes) for batch in _batches(remaining))
        yield from chain.from_iterable(self._processes().map(batches))

    def close(self) -> None:
        """Ends the processes; what is cut later starts new ones."""
        self._pool = None
        self._opened.close()

    def _processes(self) -> "Processes[_Batch, list[list[Span]]]":
        if self._pool is None:
            self._pool = self._opened.enter_context(
                open_processes(_cut_batch, [self.tokenizer] * self.n_processes, begin=_begin)
            )
        return self._pool


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    n_chars = 0
    for text in texts:
        batch.append(text)
        n_chars += len(text)
        if n_chars >= BATCH_CHARS:
            yield batch
            batch, n_chars = [], 0
    if batch:
        yield batch


def _n_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# ---- in each process -------------------------------------------------------------------------

_tokenizer: list[Tokenizer] = []


def _begin(tokenizer: Tokenizer) -> None:
    _tokenizer.append(tokenizer)


def _cut_batch(batch: _Batch) -> list[list[Span]]:
    return [cut(text, _tokenizer[0], batch.sizes) for text in batch.texts]
