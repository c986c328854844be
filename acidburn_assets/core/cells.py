"""How many cells a pool is divided into, and how many of them each cluster gets.

Where the cells lie is found by `adapters.cells`; they are part of the cluster model.
"""

import math

import numpy as np

MIN_CELL_CHUNKS, MAX_CELL_CHUNKS = 100, 4_000
"""Chunks of a cell, on average. Source: measured, cells of 100 find as much as cells of 400 in a
third of the passages; at 48 million chunks more than 28,000 centroids would have to be compared."""

MIN_SAMPLED = 8
"""Sampled vectors of a cell, on average: fewer say little about where it lies. Chosen; its exact
centroid, of all chunks, is what a search is routed by."""


def cell_chunks(n_chunks: int) -> float:
    """Chunks of a cell, on average: a quarter of the square root of the pool's.

    Comparing a question with all centroids then costs as much as comparing it with the passages of
    sixteen cells.
    """
    return float(np.clip(math.sqrt(n_chunks) / 4, MIN_CELL_CHUNKS, MAX_CELL_CHUNKS))


def cells_wanted(n_chunks: int, n_sample: int, *, chunks_each: int | None = None) -> int:
    """Cells of a pool, before every cluster gets one at least.

    Args:
        n_chunks: of the pool.
        n_sample: of the sample that they are found in.
        chunks_each: chunks of a cell, on average; None: `cell_chunks`.
    """
    wanted = round(n_chunks / (chunks_each or cell_chunks(n_chunks)))
    return max(1, min(wanted, n_sample // MIN_SAMPLED))


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
