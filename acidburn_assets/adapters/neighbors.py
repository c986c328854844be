"""Finds the nearest neighbours of every vector in a sample, by cosine: all of them, or nearly.

The same vectors give the same bits on one machine, whatever its number of free cores, where the
caller limits BLAS to one thread: products are of blocks whose shapes do not depend on the number of
threads, and EVoC's descent, which does, gets one.

Source: measured, 60 neighbours of 62,735 texts, CPU s and share of them found: exact 97 and 1, by
descent 41 and .995. Comparing each vector with the cells around its own took 15 s and found .96,
but what it missed lay together: .015 less AMI with the labels than by descent.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np

from acidburn_assets.core.cluster_model import BLOCK_VALUES, RADIUS_FLOOR

MAX_STRIDE = 16
"""Columns of a block that are looked at together when its largest values are sought.

Source: measured, 30 neighbours of 10,000 vectors of dimension 384 in 1.1 CPU s, .85 of them
products; 2.0 where each row is partitioned whole.
"""


def exact_neighbors(
    vectors: np.ndarray, n_neighbors: int, *, n_threads: int
) -> tuple[np.ndarray, np.ndarray]:
    """Nearest neighbours, each vector itself first, ties to the lowest row.

    Args:
        vectors: (n, dim) float32, unit length.
        n_neighbors: itself included, at most n.
        n_threads: blocks at a time.

    Returns:
        Rows (n, n_neighbors) int32 and 1 - cosine (n, n_neighbors) float32: 0 for itself, positive
        for others.
    """
    n = len(vectors)
    n_rows = int(np.clip(BLOCK_VALUES // n, 16, 2_048))
    stride = int(np.clip(n // (4 * n_neighbors), 1, MAX_STRIDE))
    width = -(-n // stride)
    neighbors = np.empty((n, n_neighbors), dtype=np.int32)
    distances = np.empty((n, n_neighbors), dtype=np.float32)

    def search(start: int) -> None:
        rows = np.arange(start, min(start + n_rows, n))
        # what is left over at the end is no column
        cosines = np.full((len(rows), stride * width), -np.inf, dtype=np.float32)
        np.matmul(vectors[rows], vectors.T, out=cosines[:, :n])
        cosines[np.arange(len(rows)), rows] = np.inf
        # the n-th largest of the columns' maxima is at most the n-th largest of all
        maxima = cosines.reshape(len(rows), stride, width).max(axis=1)
        least = np.partition(maxima, width - n_neighbors, axis=1)[:, width - n_neighbors]
        row, first = np.nonzero(maxima >= least[:, None])
        columns = first[:, None] + width * np.arange(stride)
        chosen = cosines[row[:, None], columns]
        is_near = chosen >= least[row, None]
        row = np.broadcast_to(row[:, None], columns.shape)[is_near]
        column, cosine = columns[is_near], chosen[is_near]
        order = np.lexsort((column, -cosine, row))
        starts = np.searchsorted(row[order], np.arange(len(rows)))
        best = order[starts[:, None] + np.arange(n_neighbors)]
        neighbors[rows] = column[best]
        distances[rows] = _as_distances(cosine[best])

    with ThreadPoolExecutor(n_threads) as pool:
        for _ in pool.map(search, range(0, n, n_rows)):
            pass
    return neighbors, distances


def descended_neighbors(
    vectors: np.ndarray, n_neighbors: int, *, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """`exact_neighbors`, nearly: nearest-neighbour descent finds 99 % of them.

    Args:
        vectors: (n, dim) float32, unit length.
        n_neighbors: itself included.
        seed: of the trees that descent begins with.

    Returns:
        As `exact_neighbors`.
    """
    from evoc.knn_graph import knn_graph

    with one_numba_thread():  # the result depends on it
        neighbors, distances = knn_graph(
            vectors, n_neighbors, n_trees=8, random_state=np.random.RandomState(seed)
        )
    # EVoC's distance is -log2(cosine), and -1 stands for a neighbour that it did not find
    is_near = (neighbors >= 0) & np.isfinite(distances)
    cosines = np.exp2(-distances, where=is_near, out=np.zeros_like(distances))
    own = np.arange(len(vectors))[:, None]
    cosines[neighbors == own] = np.inf
    # where copies crowd a vector out of its own list, it takes the place of the farthest
    is_absent = ~(neighbors == own).any(axis=1)
    neighbors[is_absent, -1] = own[is_absent, 0]
    cosines[is_absent, -1] = np.inf
    order = np.argsort(-cosines, axis=1, kind="stable")
    return (
        np.ascontiguousarray(np.take_along_axis(neighbors, order, axis=1)),
        _as_distances(np.take_along_axis(cosines, order, axis=1)),
    )


@contextmanager
def one_numba_thread() -> Iterator[None]:
    """Holds what numba compiled to the caller's own thread."""
    import numba

    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        yield
    finally:
        numba.set_num_threads(before)


def _as_distances(cosines: np.ndarray) -> np.ndarray:
    """1 - cosine: 0 where the cosine is infinite (itself), else positive.

    A copy's distance is RADIUS_FLOOR, not 0: where EVoC meets a row of zeros it takes the mean of
    all distances, a sum that depends on the number of threads.
    """
    distances = np.maximum(1.0 - cosines, RADIUS_FLOOR)
    return np.where(np.isinf(cosines), 0.0, distances).astype(np.float32)
