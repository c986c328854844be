"""Divides clusters into cells: small regions of vectors, the unit that a search looks into.

A cluster has a name and may be large; a cell has neither. First k-means inside every cluster, then
a few rounds over all vectors at once, noise included: a vector belongs to the cell that is nearest
to it, and a cell to the cluster that it was cut from. So cells reach everything, noise too, and
find as much as an inverted file of as many lists, whatever the clustering above them.

The same vectors and labels give the same bits on one machine, whatever its number of free cores.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from acidburn_assets.core.cells import share_out
from acidburn_assets.core.cluster_model import BLOCK_VALUES, members_of, unit_centroids

ROUNDS_INSIDE = 8
"""Of k-means inside a cluster. Chosen: rounds over all vectors follow."""

ROUNDS_OVER_ALL = 10
"""Of k-means over all vectors. Source: measured on 11,429 abstracts, share of the exact ten nearest
found in a fiftieth of the corpus: .62 to .68 without, .64 to .70 after 3, .66 to .73 after 12 and
.66 to .74 after 25; in a tenth the same from 3 rounds on."""


class Cells(NamedTuple):
    """Cells of a sample, those of a cluster side by side."""

    centroids: np.ndarray  # (c, dim) float32, unit length
    clusters: np.ndarray  # (c,) int32, row of the cluster of each, rising


def divide(
    vectors: np.ndarray, labels: np.ndarray, *, n_cells: int, seed: int, n_threads: int
) -> Cells:
    """Divides the clusters of a sample.

    BLAS must be limited to one thread by the caller.

    Args:
        vectors: (n, dim) float32, unit length.
        labels: (n,) int32, NOISE or 0 … k-1, none of them empty.
        n_cells: in all, about; a cluster has one at least, and none more than different members.
        seed: of where cells begin.
        n_threads: blocks at a time.
    """
    centroids = unit_centroids(vectors, labels)
    k = len(centroids)
    with ThreadPoolExecutor(n_threads) as pool:
        # noise is to be held by cells too: it counts for the cluster that it is nearest to
        nearest = _nearest(vectors, centroids, pool)
        weights = np.bincount(np.where(labels >= 0, labels, nearest), minlength=k)
        wanted = share_out(n_cells, weights, at_most=np.bincount(labels[labels >= 0], minlength=k))
        rng = np.random.default_rng(seed)
        cut = [
            _cut(vectors[rows], int(n), rng)
            for rows, n in zip(members_of(labels, k), wanted, strict=True)
        ]
        cells = np.concatenate(cut)
        clusters = np.repeat(np.arange(k, dtype=np.int32), list(map(len, cut)))
        for _ in range(ROUNDS_OVER_ALL):
            cells = _moved(vectors, cells, _nearest(vectors, cells, pool))
    return Cells(cells, clusters)


def _cut(vectors: np.ndarray, n_cells: int, rng: np.random.Generator) -> np.ndarray:
    """(n_cells or less, dim) float32: cells of one cluster."""
    if n_cells == 1:
        return unit_centroids(vectors, np.zeros(len(vectors), np.int32))
    drawn = np.sort(rng.permutation(len(vectors))[:n_cells])
    cells = np.unique(vectors[drawn], axis=0)  # copies would share a cell
    for _ in range(ROUNDS_INSIDE):
        cells = _moved(vectors, cells, np.argmax(vectors @ cells.T, axis=1))
    return cells


def _nearest(vectors: np.ndarray, cells: np.ndarray, pool: ThreadPoolExecutor) -> np.ndarray:
    """(n,) int64; blocks have the same shape for any number of threads, so the same bits."""
    n_rows = max(16, BLOCK_VALUES // len(cells))
    starts = range(0, len(vectors), n_rows)
    found = pool.map(
        lambda start: np.argmax(vectors[start : start + n_rows] @ cells.T, axis=1), starts
    )
    return np.concatenate(list(found))


def _moved(vectors: np.ndarray, cells: np.ndarray, nearest: np.ndarray) -> np.ndarray:
    """Each cell at the mean direction of what is nearest to it; one without any stays."""
    order = np.argsort(nearest, kind="stable")
    present, starts = np.unique(nearest[order], return_index=True)
    sums = np.zeros(cells.shape)
    for cell, rows in zip(present, np.split(order, starts[1:]), strict=True):
        sums[cell] = vectors[rows].sum(axis=0, dtype=np.float64)
    norms = np.sqrt((sums * sums).sum(axis=1, keepdims=True))
    has_direction = norms > 0
    return np.where(has_direction, sums / np.where(has_direction, norms, 1.0), cells).astype(
        np.float32
    )
