"""Lays vectors out in two dimensions by t-SNE: a map for people, not a space to search in.

Source: measured on 3,500 passages of Python documentation, share of each one's 15 nearest
neighbours that are still among its 15 nearest on the map, and CPU seconds: t-SNE .53 and 8, the
layout of `clusterer`'s graph .43 and 1.8, two principal components .06 and .03.

t-SNE's cost grows faster than its rows, so it lays out a part, and the others are put beside those
of the part that they are nearest to. That is no layout of their own: a topic that the part misses
has no place, and its passages lie scattered among others.
"""

import numpy as np

from acidburn_assets.core.cluster_model import check_vectors
from acidburn_assets.core.errors import ModelError

N_ITERATIONS = 500
"""Of gradient descent. Source: measured, 1,000 keep no more neighbours at twice the CPU."""

MIN_ROWS = 8
"""Fewer have no neighbourhoods to keep, and are shown by their principal components. Chosen."""

LAID_OUT_POINTS = 5_000
"""Of t-SNE; about 20 CPU seconds. Chosen: what one waits for."""

N_BESIDE = 3
"""Nearest ones that a further point is put between, at the median of each coordinate.
Source: measured on 5,896 passages of Python documentation, 3,000 of them laid out: share of a
further point's 15 nearest neighbours that stay among its 15 nearest, .452; on top of the nearest
one .452, at the mean of three .385, of five .325. Where t-SNE lays out all, .524 for all points
against .472, in 2.7 times the CPU."""

_BLOCK_ROWS = 1_024  # of similarities at a time: 20 MB


def n_laid_out(n_vectors: int) -> int:
    """How many of so many vectors the layout itself places."""
    return min(n_vectors, LAID_OUT_POINTS)


def project(vectors: np.ndarray, *, seed: int, n_neighbors: int = 15) -> np.ndarray:
    """Lays vectors out so that what is near stays near.

    The same vectors and seed give the same bits on one machine.

    Args:
        vectors: (n, dim) float32 unit vectors. Of more than LAID_OUT_POINTS, so many are laid out,
            drawn at random, and the others put beside them.
        seed: of the pool.
        n_neighbors: how far near reaches, t-SNE's perplexity.

    Returns:
        (n, 2) float32, centred, the farthest coordinate at 1.

    Raises:
        ModelError: there is no vector, or one is zero or not finite.
    """
    from threadpoolctl import threadpool_limits

    if len(vectors) == 0:
        raise ModelError("no vector to lay out: the pool's shards hold no chunk")
    check_vectors(vectors, dim=vectors.shape[1])
    chosen = np.sort(np.random.default_rng(seed).permutation(len(vectors))[:LAID_OUT_POINTS])
    # one thread: sums of several depend on how many there are
    with threadpool_limits(limits=1):
        part = vectors[chosen]
        laid_out = _lay_out(part, seed=seed, n_neighbors=n_neighbors)
        layout = np.empty((len(vectors), 2))
        layout[chosen] = laid_out
        others = np.setdiff1d(np.arange(len(vectors)), chosen)
        for start in range(0, len(others), _BLOCK_ROWS):
            rows = others[start : start + _BLOCK_ROWS]
            layout[rows] = _beside(vectors[rows] @ part.T, laid_out)
    layout = layout - layout.mean(axis=0)
    widest = np.abs(layout).max()
    return np.asarray(layout / widest if widest > 0 else layout, dtype=np.float32)


def _lay_out(vectors: np.ndarray, *, seed: int, n_neighbors: int) -> np.ndarray:
    """(n, 2), neither centred nor scaled."""
    from sklearn.manifold import TSNE

    layout = _principal_components(vectors)
    if len(vectors) < MIN_ROWS or not layout.any():
        return layout
    return np.asarray(
        TSNE(
            # scaled as scikit-learn scales its own start by principal components
            init=(layout * 1e-4).astype(np.float32),
            perplexity=min(n_neighbors, (len(vectors) - 1) / 3),
            max_iter=N_ITERATIONS,
            random_state=seed,
            n_jobs=1,
        ).fit_transform(vectors)
    )


def _beside(similarities: np.ndarray, laid_out: np.ndarray) -> np.ndarray:
    """(m, 2): between the nearest of what is laid out, by (m, n) similarities to it."""
    nearest = np.argpartition(-similarities, N_BESIDE - 1, axis=1)[:, :N_BESIDE]
    return np.asarray(np.median(laid_out[nearest], axis=1))


def _principal_components(vectors: np.ndarray) -> np.ndarray:
    """(n, 2) float64, the first one with variance 1; zeros where all vectors are the same."""
    from sklearn.decomposition import PCA

    if (vectors == vectors[0]).all():
        return np.zeros((len(vectors), 2))
    n_components = min(2, *vectors.shape)
    wide = vectors.astype(np.float64)
    layout = PCA(n_components, svd_solver="covariance_eigh").fit_transform(wide)
    layout = np.pad(layout, ((0, 0), (0, 2 - n_components)))
    return np.asarray(layout / layout[:, 0].std())
