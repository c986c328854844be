"""Cell terms: which words lie in which cell, so that a search looks where they are.

A cell has of each term the weight of the chunk that has most of it: what the best of its chunks
could score. With centroids alone a passage that is asked for by its words, and means something
else, is not looked at. Of nDCG@10 of a full search there remained at 2 and 10 % scanned, on NPL
abstracts, newswires and arXiv abstracts: .955, .879, .865 and .994, .972, .972 by centroids; .978,
1, .966 and .999, 1, .998 with the terms of cells. The mean of a cell's chunks instead of the most:
.963, .910, .903 at 2 %. Source: measured, MiniLM, cells of 16 passages.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from acidburn_assets.core import schemas
from acidburn_assets.core.lexicon import Lexicon

MAX_TERMS, MIN_TERMS, MAX_ENTRIES = 1_024, 256, 16_000_000
"""Of a cell at most, those that are rarest and weigh most; fewer where a pool has so many cells
that there would be more entries than the last. Source: as above; with 256 .972, .948 of reuters and
arXiv at 2 %. The entries take 200 MB of the process that answers, chosen."""

_SLACK = 2
"""So many times as many are kept of a cell until all shards are in: what is left out early might
have come up again. Chosen."""

_TERM_BITS = 32


def terms_of_a_cell(n_cells: int) -> int:
    """How many terms are kept of each cell at most."""
    return int(np.clip(MAX_ENTRIES // max(1, n_cells), MIN_TERMS, MAX_TERMS))


class CellTermsAccumulator:
    """Collects over the shards of a pool; their order is part of the result where a cell has more
    terms than are kept."""

    def __init__(self, lexicon: Lexicon, n_cells: int) -> None:
        """Begins with nothing.

        Args:
            lexicon: of the pool.
            n_cells: of the pool.
        """
        self._lexicon = lexicon
        self._n_kept = terms_of_a_cell(n_cells)
        self._keys = np.empty(0, np.int64)  # cell and term
        self._weights = np.empty(0, np.float32)
        self._waiting: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, cell_ids: np.ndarray, weighed: pa.Table) -> None:
        """Takes in some chunks.

        Args:
            cell_ids: of each chunk  # (n,) int32
            weighed: of the same chunks, of `schemas.TERM_WEIGHTS`.
        """
        for batch in weighed.to_batches():
            offsets = batch["terms"].offsets.to_numpy().astype(np.int64)
            cells = np.repeat(cell_ids[: len(batch)].astype(np.int64), np.diff(offsets))
            cell_ids = cell_ids[len(batch) :]
            weights = batch["weights"].flatten().to_numpy()
            is_searched = weights > 0
            terms = batch["terms"].flatten().to_numpy()[is_searched]
            self._waiting.append((cells[is_searched] << _TERM_BITS | terms, weights[is_searched]))
        # sorting is what costs, so there is to be enough of it
        if sum(len(keys) for keys, _ in self._waiting) > max(2**22, len(self._keys)):
            self._merge(_SLACK * self._n_kept)

    def finish(self) -> pa.Table:
        """The cells' terms, of `schemas.CELL_TERMS`: by term, then by cell."""
        self._merge(self._n_kept)
        terms = (self._keys & (2**_TERM_BITS - 1)).astype(np.int32)
        cells = (self._keys >> _TERM_BITS).astype(np.int32)
        order = np.lexsort((cells, terms))
        return pa.table(
            [terms[order], cells[order], self._weights[order]], schema=schemas.CELL_TERMS
        )

    def _merge(self, n_kept: int) -> None:
        keys = np.concatenate([self._keys, *(keys for keys, _ in self._waiting)])
        weights = np.concatenate([self._weights, *(weights for _, weights in self._waiting)])
        self._waiting = []
        order = np.argsort(keys, kind="stable")
        keys, weights = keys[order], weights[order]
        first = np.flatnonzero(np.diff(keys, prepend=-1))
        most = np.maximum.reduceat(weights, first) if len(first) else weights
        self._keys, self._weights = _heaviest(keys[first], most, self._lexicon, n_kept)


class CellTerms:
    """Cells' terms that are asked."""

    def __init__(self, table: pa.Table, cell_ids: np.ndarray) -> None:
        """Takes the columns as they are.

        Args:
            table: of `schemas.CELL_TERMS`.
            cell_ids: of all cells, in the order of the scores  # (c,)
        """
        self._terms = table["term"].to_numpy()
        order = np.argsort(cell_ids)
        at = np.searchsorted(cell_ids, table["cell_id"].to_numpy(), sorter=order)
        self._positions = order[at].astype(np.int32)
        self._weights = table["weight"].to_numpy()
        self._n_cells = len(cell_ids)

    def score(self, weights: Mapping[int, float]) -> np.ndarray:
        """What the best chunk of each cell could score by words  # (c,) float64, by position.

        Args:
            weights: of the question's terms.
        """
        scores = np.zeros(self._n_cells)
        for term in sorted(weights):
            # of the column's own type: with another one numpy would first copy the column
            begin, end = np.searchsorted(self._terms, np.array([term, term + 1], np.int32))
            scores[self._positions[begin:end]] += weights[term] * self._weights[begin:end]
        return scores


def _heaviest(
    keys: np.ndarray, weights: np.ndarray, lexicon: Lexicon, n_kept: int
) -> tuple[np.ndarray, np.ndarray]:
    """The entries of each cell that matter most, in their order."""
    cells = keys >> _TERM_BITS
    matters = weights * lexicon.rarity((keys & (2**_TERM_BITS - 1)).astype(np.int32))
    # stable: of equals the lower term stays
    order = np.lexsort((-matters, cells))
    starts = np.searchsorted(cells, cells, side="left")  # of the sorted cells, which they are
    kept = np.sort(order[np.arange(len(order)) - starts < n_kept])
    return keys[kept], weights[kept]
