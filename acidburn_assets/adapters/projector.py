"""Lays vectors out in two dimensions by t-SNE: a map for people, not a space to search in.

Source: measured on 3,500 passages of Python documentation, share of each one's 15 nearest
neighbours that are still among its 15 nearest on the map, and CPU seconds: t-SNE .53 and 8, the
layout of `clusterer`'s graph .43 and 1.8, two principal components .06 and .03.
"""

import numpy as np

from acidburn_assets.core.cluster_model import check_vectors
from acidburn_assets.core.errors import ModelError

N_ITERATIONS = 500
"""Of gradient descent. Source: measured, 1,000 keep no more neighbours at twice the CPU."""

MIN_ROWS = 8
"""Fewer have no neighbourhoods to keep, and are shown by their principal components. Chosen."""


def project(vectors: np.ndarray, *, seed: int, n_neighbors: int = 15) -> np.ndarray:
    """Lays vectors out so that what is near stays near.

    The same vectors and seed give the same bits on one machine.

    Args:
        vectors: (n, dim) float32 unit vectors; 5,000 take about 20 CPU seconds.
        seed: of the pool.
        n_neighbors: how far near reaches, t-SNE's perplexity.

    Returns:
        (n, 2) float32, centred, the farthest coordinate at 1.

    Raises:
        ModelError: there is no vector, or one is zero or not finite.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    if len(vectors) == 0:
        raise ModelError("no vector to lay out: the pool's shards hold no chunk")
    check_vectors(vectors, dim=vectors.shape[1])
    # one thread: sums of several depend on how many there are
    with threadpool_limits(limits=1):
        layout = _principal_components(vectors)
        if len(vectors) >= MIN_ROWS and layout.any():
            layout = TSNE(
                # scaled as scikit-learn scales its own start by principal components
                init=(layout * 1e-4).astype(np.float32),
                perplexity=min(n_neighbors, (len(vectors) - 1) / 3),
                max_iter=N_ITERATIONS,
                random_state=seed,
                n_jobs=1,
            ).fit_transform(vectors)
    layout = layout - layout.mean(axis=0)
    widest = np.abs(layout).max()
    return np.asarray(layout / widest if widest > 0 else layout, dtype=np.float32)


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
