"""The lexicon of a pool: how many of its chunks have each term, exact over all of them.

What is rare says more: the lexicon gives a question's terms their weights. Those of the chunks are
`term_weights`.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from acidburn_assets.core import schemas
from acidburn_assets.core.term_weights import idf

ALL_CHUNKS = -1
"""The term whose count is that of all chunks."""

MAX_TERMS = 4_000_000
"""Kept of a pool, the most frequent ones: 48 MB of numbers. Chosen; a term that is not among them
is taken for as rare as one that only one chunk has."""


class LexiconAccumulator:
    """Sums up over the shards of a pool."""

    def __init__(self) -> None:
        self._terms = np.empty(0, np.int32)
        self._n_chunks = np.empty(0, np.int64)
        self._total = 0

    def add(self, terms: np.ndarray, n_chunks: int) -> None:
        """Counts one more piece of a shard.

        Args:
            terms: of each of its chunks, one after the other; int32  # (e,)
            n_chunks: how many chunks these are.
        """
        found, counts = np.unique(terms, return_counts=True)
        together, position = np.unique(
            np.concatenate([self._terms, found.astype(np.int32)]), return_inverse=True
        )
        summed = np.zeros(len(together), np.int64)
        # each of the two has a term once at most
        summed[position[: len(self._terms)]] += self._n_chunks
        summed[position[len(self._terms) :]] += counts
        self._terms, self._n_chunks = together, summed
        self._total += n_chunks

    def finish(self) -> pa.Table:
        """The lexicon, of `schemas.LEXICON`: by term, all chunks first."""
        # a term of one chunk is what is assumed of a term that is not there
        kept = np.flatnonzero(self._n_chunks > 1)
        kept = np.sort(kept[np.argsort(-self._n_chunks[kept], kind="stable")[:MAX_TERMS]])
        return pa.table(
            [
                np.concatenate([[ALL_CHUNKS], self._terms[kept]]).astype(np.int32),
                np.concatenate([[self._total], self._n_chunks[kept]]).astype(np.int64),
            ],
            schema=schemas.LEXICON,
        )


class Lexicon:
    """A lexicon that is asked."""

    def __init__(self, table: pa.Table) -> None:
        """Takes the columns as they are.

        Args:
            table: of `schemas.LEXICON`.
        """
        self._terms = table["term"].to_numpy()
        self._n_chunks = table["n_chunks"].to_numpy()

    @property
    def n_chunks(self) -> int:
        """Of the pool, when it was made."""
        return int(self._n_chunks[0])

    def weigh(self, counts: Mapping[int, int]) -> dict[int, float]:
        """A question's terms with their weights, by term: rarity times how often it is asked.

        Args:
            counts: of each term in the question.
        """
        terms = sorted(counts)
        rarity = self.rarity(np.array(terms, np.int32)).tolist()
        return {term: one * counts[term] for term, one in zip(terms, rarity, strict=True)}

    def rarity(self, terms: np.ndarray) -> np.ndarray:
        """How rare terms are in the pool, float64  # (t,).

        Args:
            terms: int32  # (t,)
        """
        at = np.minimum(np.searchsorted(self._terms, terms), len(self._terms) - 1)
        return idf(np.where(self._terms[at] == terms, self._n_chunks[at], 1), self.n_chunks)
