"""How many cells a pool is divided into, and how many of them each cluster gets.

Where the cells lie is found by `adapters.cells`; they are part of the cluster model.
"""

import math

import numpy as np

MIN_CELL_CHUNKS = 16
"""Chunks of a cell, on average, at least. Source: measured, 5,176 passages of docstrings and 400
known-item questions, nDCG@10 as a share of a full scan's at 2, 5 and 10 % of the passages scanned:
cells of 66 .66, .79 and .88; of 47 .70, .86 and .93; of 25 .79, .90 and .94; of 16 .84, .92 and
.96."""

CELLS_PER_ROOT = 16
"""Times the square root of the pool's chunks. Chosen: for a million 384-d chunks they are found and
assigned in minutes, and a question is compared with all of their centroids in milliseconds."""

MAX_CELLS = 2**15
"""Chosen: their centroids, at 1,024 dimensions, are 134 MB that a search holds in memory."""

MIN_SAMPLED = 8
"""Sampled vectors of a cell, on average: fewer say little about where it lies. Chosen; its exact
centroid, of all chunks, is what a search is routed by."""


def cells_wanted(n_chunks: int, n_sample: int, *, chunks_each: int | None = None) -> int:
    """Cells of a pool, before every cluster gets one at least.

    Args:
        n_chunks: of the pool.
        n_sample: of the sample that they are found in.
        chunks_each: chunks of a cell, on average; None: few in small pools, more in large ones.
    """
    if chunks_each is None:
        wanted = min(n_chunks / MIN_CELL_CHUNKS, CELLS_PER_ROOT * math.sqrt(n_chunks), MAX_CELLS)
    else:
        wanted = n_chunks / chunks_each
    return max(1, min(round(wanted), n_sample // MIN_SAMPLED))


def share_out(n_cells: int, weights: np.ndarray, *, at_most: np.ndarray) -> np.ndarray:
    """Cells of each cluster in proportion to its weight (largest remainder), one at least.

    Args:
        n_cells: in all; where there are more clusters, each has one.
        weights: (k,) int64, of each cluster.
        at_most: (k,) int64, 1 or more.

    Returns:
        (k,) int64.
    """
    if not len(weights):
        return np.zeros(0, np.int64)
    # whole numbers, so that no rounding decides who gets the last cell
    total = max(1, int(weights.sum()))
    whole, rest = np.divmod(weights.astype(np.int64) * n_cells, total)
    left = n_cells - int(whole.sum())
    winners = np.lexsort((np.arange(len(weights)), -rest))[:left]
    whole[winners] += 1
    shared: np.ndarray = np.clip(whole, 1, at_most)
    return shared
