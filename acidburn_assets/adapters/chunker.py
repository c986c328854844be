"""Cuts texts in several processes: the same spans in the same order as one gives.

Where a text is cut is `core.chunks`' business, which documents there are `assets.chunks`'. The
processes hold the model's tokenizer and nothing else of it.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import chain
from typing import NamedTuple

from acidburn_assets.adapters import models
from acidburn_assets.adapters.processes import Processes, open_processes
from acidburn_assets.adapters.tokenizer import ModelTokenizer, read_tokenizer
from acidburn_assets.core.chunks import Sizes, Span, cut

MAX_PROCESSES = 8
"""Where the number is left open. Reading, screening and storing are this process's work alone."""

BATCH_CHARS = 2**18
"""Texts travel to a process in lists of about so many characters; a longer text travels alone."""

ALONE_CHARS = 2**22
"""Cut here before processes are started: so much text is cut while they start. Source: measured,
a process needs .. seconds."""


class _Batch(NamedTuple):
    texts: list[str]
    sizes: Sizes


class Chunker:
    """A model's tokenizer, in this process and in others once there is much to cut.

    Memory beside the texts of the documents in this process: for each other process three lists of
    `BATCH_CHARS` or three longer texts, and in each the tokenizer and one of them.

    Attributes:
        tokenizer: of the model.
        n_processes: that cut; 1 is this one alone.
    """

    def __init__(
        self,
        model: str,
        *,
        revision: str = "",
        hf_token: str = "",
        hub_endpoint: str | None = None,
        n_processes: int = 0,
    ) -> None:
        """Loads the tokenizer.

        Args:
            model: `minilm`, a folder, or `owner/name` on the hub.
            revision: of a hub's model; "" is its newest.
            hf_token: Hugging Face token; "" asks the hub as nobody.
            hub_endpoint: None is huggingface.co.
            n_processes: 0 is the cores that this process may use, `MAX_PROCESSES` at most.

        Raises:
            ModelError: no such model, or it has no tokenizer.json.
            ConfigError: a revision was given for what has none.
            ServiceUnavailable: the hub did not answer.
        """
        self._files = models.find(
            model, revision=revision, hf_token=hf_token, hub_endpoint=hub_endpoint
        )
        self._config = models.read_config(self._files)
        self.tokenizer: ModelTokenizer = read_tokenizer(self._files, self._config)
        self.n_processes = n_processes or min(_n_cores(), MAX_PROCESSES)
        self._n_chars = 0  # cut here so far
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
        while self.n_processes == 1 or self._n_chars < ALONE_CHARS:
            text = next(remaining, None)
            if text is None:
                return
            self._n_chars += len(text)
            yield cut(text, self.tokenizer, sizes)
        batches = (_Batch(batch, sizes) for batch in _batches(remaining))
        yield from chain.from_iterable(self._processes().map(batches))

    def close(self) -> None:
        """Ends the processes; what is cut later starts new ones."""
        self._pool = None
        self._opened.close()

    def _processes(self) -> "Processes[_Batch, list[list[Span]]]":
        if self._pool is None:
            place = (self._files, self._config)
            self._pool = self._opened.enter_context(
                open_processes(_cut_batch, [place] * self.n_processes, begin=_begin)
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

_tokenizer: list[ModelTokenizer] = []


def _begin(place: tuple[models.ModelFiles, models.ModelConfig]) -> None:
    _tokenizer.append(read_tokenizer(*place))


def _cut_batch(batch: _Batch) -> list[list[Span]]:
    return [cut(text, _tokenizer[0], batch.sizes) for text in batch.texts]
