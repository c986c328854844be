"""Finds clusters in a sample of unit vectors: three engines behind one function.

- `graph_hdbscan`: nearest-neighbour graph, its layout in 8 dimensions by EVoC, HDBSCAN on that. Its
  noise lies between clusters; a vector far from all of them has neighbours like any other, and is
  told apart by its distance when it is assigned.
- `hdbscan`: the reference, HDBSCAN on 50 principal components.
- `kmeans`: the baseline, no noise.

The same vectors and settings give the same bits on one machine, whatever its number of free cores:
matrix products run on one thread each, and the stage of EVoC that depends on threads gets one.
Source: measured on 20,000 labelled titles, AMI and CPU seconds: graph_hdbscan .70 and 5, hdbscan
.38 and 19, UMAP with hdbscan .68 and 62.
"""

import logging
import os
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import NamedTuple

import numpy as np

from acidburn_assets.adapters import cells
from acidburn_assets.core.cells import cells_wanted
from acidburn_assets.core.cluster_model import (
    RADIUS_FLOOR,
    Fit,
    check_vectors,
    own_distances,
    radii_of,
    rank_clusters,
    strength,
    unit_centroids,
)
from acidburn_assets.core.datasets import PoolSettings
from acidburn_assets.core.errors import ModelError

ENGINE_VERSION = "clusterer-2"
"""Raised when the same vectors and settings would give other clusters than before."""

N_NEIGHBORS = 30
"""Of each vector in the graph, itself included.

Source: measured, 30 before 15: AMI .862 and .836 on 150 intents, equal on 20 tags.
"""

GRAPH_DIM = 8
"""Dimensions of the graph's layout. Source: measured, 8 before 4 with 30 neighbours."""

PCA_DIM = 50
"""Principal components that HDBSCAN sees. Source: measured, as good as all 384 at a third of the
CPU; its k-d tree gives nothing above that."""

MIN_GRAPH_ROWS = 64
"""Below it the layout is the principal components alone, as EVoC itself starts a layout.

Source: EVoC 0.3.2, `label_propagation_init(base_init_threshold=64)`.
"""

EXACT_ROWS = 50_000
"""Up to so many vectors their neighbours are found exactly, above by nearest-neighbour descent.

Source: measured in CPU seconds, 384-d: 27 exact and 18 by descent for 50,000, 95 and 38 for
100,000, with the same quality.
"""

MINI_BATCH_ROWS = 20_000
"""Above it k-means works in batches. Source: measured, .12 and 1.6 CPU s for 20,000 either way; 20
CPU s for 150,000 in full with 1,500 clusters."""

MIN_LEVEL_CLUSTERS = 4
"""Fewer clusters have no level above them. Chosen."""

_ENGINE_PACKAGES = {
    "graph_hdbscan": ("evoc", "hdbscan", "numba", "numpy", "scikit-learn"),
    "hdbscan": ("hdbscan", "numpy", "scikit-learn"),
    "kmeans": ("numpy", "scikit-learn"),
}

_one_fit_at_a_time = threading.Lock()
# numba's default threading layer aborts the process when two threads enter it at once

_logger = logging.getLogger(__name__)


class _Stages:
    """Seconds by stage, and a log line as each one ends."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._started = time.perf_counter()

    def done(self, stage: str, found: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = now - self._started
        self._started = now
        _logger.info("%s: %s (%.1f s)", stage, found, self.seconds[stage])


class _Found(NamedTuple):
    """What an engine returns."""

    labels: np.ndarray  # (n,) as the engine numbers them
    strengths: np.ndarray | None  # (n,), None: the engine has none
    persistence: np.ndarray | None  # by label, None: the engine has none
    reduction: str


def fit(
    vectors: np.ndarray,
    settings: PoolSettings,
    *,
    n_chunks: int | None = None,
    n_threads: int | None = None,
) -> Fit:
    """Clusters a sample, and divides the clusters into cells.

    Where an engine can find no cluster (too few vectors, all of them equal, all of them noise), the
    fit is one cluster that holds every vector and says why in `fallback_reason`: a pool of any
    size can be assigned, labelled and searched.

    Args:
        vectors: (n, dim) float32, unit length up to storage rounding.
        settings: engine, sizes and seed.
        n_chunks: of the pool that the sample stands for; None: the sample is all of it.
        n_threads: for exact neighbours and cells; None: one per core.

    Raises:
        ModelError: there is no vector, or one is zero or not finite.
    """
    from threadpoolctl import threadpool_limits

    if len(vectors) == 0:
        raise ModelError("no vector to cluster: the pool's shards hold no chunk; check its filters")
    check_vectors(vectors, dim=vectors.shape[1])
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    stages = _Stages()
    n_threads = n_threads or os.cpu_count() or 1
    wanted = cells_wanted(n_chunks or len(vectors), len(vectors), chunks_each=settings.cell_chunks)
    with _one_fit_at_a_time, threadpool_limits(limits=1):
        found, reason = _find(vectors, settings, stages, n_threads)
        labels, old = rank_clusters(found.labels, vectors)
        divided = cells.divide(
            vectors, labels, n_cells=wanted, seed=settings.seed, n_threads=n_threads
        )
        stages.done("cells", f"{len(divided.centroids)} cells")
        centroids = unit_centroids(vectors, labels)
        linkage, parents = _agglomerate(centroids)
    strengths = found.strengths
    if strengths is None:
        # an engine without strengths has no noise either: counted as `assignments` does
        distances = own_distances(vectors, labels, centroids)
        strengths = strength(distances, radii_of(distances, labels, len(centroids))[labels])
    stages.done("summary", f"{len(centroids)} clusters in {parents.max() + 1} groups")
    return Fit(
        labels=labels,
        strengths=np.where(labels >= 0, strengths, 0.0).astype(np.float32),
        persistence=(
            np.full(len(old), np.nan) if found.persistence is None else found.persistence[old]
        ).astype(np.float32),
        cell_centroids=divided.centroids,
        cell_clusters=divided.clusters,
        linkage=linkage,
        parents=parents,
        reduction=found.reduction,
        fallback_reason=reason,
        versions={name: version(name) for name in _ENGINE_PACKAGES[settings.engine]},
        seconds=stages.seconds,
    )


def warm() -> float:
    """Compiles what `graph_hdbscan` needs into EVoC's own cache, so that no fit waits for it.

    The first time takes a minute or two, later ones a few seconds.

    Returns:
        Seconds it took.
    """
    started = time.perf_counter()
    # 2,000 rows: fewer never reach the coarser levels of the layout, which have types of their own
    vectors = np.random.default_rng(0).normal(size=(2_000, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    fit(vectors, PoolSettings(min_cluster_size=10, min_samples=5))
    with _one_fit_at_a_time:
        descended_neighbors(vectors, N_NEIGHBORS, seed=0)
    return time.perf_counter() - started


def _find(
    vectors: np.ndarray, settings: PoolSettings, stages: _Stages, n_threads: int
) -> tuple[_Found, str]:
    """What the engine finds, or one cluster that holds everything and why."""
    everything = _Found(np.zeros(len(vectors), dtype=np.int32), None, None, "none")
    reason = _why_hopeless(vectors, settings)
    if not reason:
        found = _run_engine(vectors, settings, stages, n_threads)
        if (found.labels >= 0).any():
            return found, ""
        reason = (
            f"all {len(vectors)} vectors are noise with "
            f"min_cluster_size={settings.min_cluster_size}, min_samples={settings.min_samples}"
        )
    _logger.warning("one cluster holds everything: %s", reason)
    return everything, reason


def _why_hopeless(vectors: np.ndarray, settings: PoolSettings) -> str:
    n = len(vectors)
    if (vectors == vectors[0]).all():
        return f"all {n} vectors are the same"
    least = max(settings.min_cluster_size, settings.min_samples) + 1
    if settings.engine != "kmeans" and n < least:
        return (
            f"{n} vectors are fewer than the {least} that min_cluster_size="
            f"{settings.min_cluster_size} and min_samples={settings.min_samples} need"
        )
    return ""


def _run_engine(
    vectors: np.ndarray, settings: PoolSettings, stages: _Stages, n_threads: int
) -> _Found:
    n, dim = vectors.shape
    _logger.info("clustering %d vectors of dimension %d by %s", n, dim, settings.engine)
    if settings.engine == "kmeans":
        return _kmeans(vectors, settings, stages)
    if settings.engine == "hdbscan" or n < MIN_GRAPH_ROWS:
        n_components = min(PCA_DIM if settings.engine == "hdbscan" else GRAPH_DIM, n - 1, dim)
        reduced = _principal_components(vectors, n_components)
        reduction = f"pca-{n_components}"
        stages.done("reduce", reduction)
    else:
        n_components = min(GRAPH_DIM, dim)
        reduced = _graph_layout(vectors, settings.seed, n_components, stages, n_threads)
        reduction = f"graph-{n_components}"
    return _hdbscan(reduced, settings, reduction, stages)


def _hdbscan(
    reduced: np.ndarray, settings: PoolSettings, reduction: str, stages: _Stages
) -> _Found:
    import hdbscan

    clusterer = hdbscan.HDBSCAN(
        min_cluster_size=settings.min_cluster_size,
        min_samples=settings.min_samples,
        core_dist_n_jobs=1,
    ).fit(reduced)
    labels = clusterer.labels_
    stages.done(
        "hdbscan", f"{labels.max() + 1} clusters, {np.mean(labels < 0):.0%} of the sample is noise"
    )
    return _Found(
        labels, clusterer.probabilities_, np.asarray(clusterer.cluster_persistence_), reduction
    )


def _kmeans(vectors: np.ndarray, settings: PoolSettings, stages: _Stages) -> _Found:
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    n = len(vectors)
    # the rule of thumb sqrt(n / 2), Mardia, Kent, Bibby, Multivariate Analysis, 1979
    n_clusters = min(n, settings.n_clusters or max(1, round((n / 2) ** 0.5)))
    engine = MiniBatchKMeans if n > MINI_BATCH_ROWS else KMeans
    with warnings.catch_warnings():
        # fewer distinct vectors than clusters: the clusters it does find are what there is
        warnings.filterwarnings("ignore", "Number of distinct clusters", ConvergenceWarning)
        labels = engine(n_clusters, n_init=1, random_state=settings.seed).fit_predict(vectors)
    stages.done("kmeans", f"{labels.max() + 1} clusters")
    return _Found(labels, None, None, "none")


def _principal_components(vectors: np.ndarray, n_components: int) -> np.ndarray:
    from sklearn.decomposition import PCA

    return np.asarray(
        PCA(n_components, svd_solver="covariance_eigh").fit_transform(vectors), dtype=np.float32
    )


def _graph_layout(
    vectors: np.ndarray, seed: int, n_components: int, stages: _Stages, n_threads: int
) -> np.ndarray:
    """(n, n_components) float32: neighbours near, all others apart.

    Raises:
        ModelError: the layout is not finite.
    """
    _logger.info("loading EVoC: on its first use on a machine it compiles for a minute or two")
    from evoc.graph_construction import neighbor_graph_matrix
    from evoc.label_propagation import label_propagation_init
    from evoc.node_embedding import node_embedding

    n = len(vectors)
    if n > EXACT_ROWS:
        neighbors, distances = descended_neighbors(vectors, N_NEIGHBORS, seed=seed)
        stages.done("neighbors", f"{N_NEIGHBORS} of each by descent")
    else:
        neighbors, distances = exact_neighbors(vectors, N_NEIGHBORS, n_threads=n_threads)
        stages.done("neighbors", f"{N_NEIGHBORS} of each, exact")
    random = np.random.RandomState(seed)
    graph = neighbor_graph_matrix(float(N_NEIGHBORS), neighbors, distances, symmetrize=True)
    # the figures below are those of evoc.EVoC 0.3.2, which does the same before its own clustering
    initial = label_propagation_init(
        graph,
        n_components=n_components,
        approx_n_parts=int(np.clip(int(8 * np.sqrt(n)), 256, 16_384)),
        random_scale=0.1,
        scaling=0.5,
        noise_level=0.5,
        random_state=random,
        data=vectors,
    )
    layout = node_embedding(
        graph,
        n_components=n_components,
        n_epochs=50,
        initial_embedding=initial,
        initial_alpha=0.1,
        noise_level=0.5,
        random_state=random,
        reproducible_flag=True,
    )
    if not np.isfinite(layout).all():
        raise ModelError(
            "the graph's layout is not finite; set the pool's engine to hdbscan, "
            "and tell the maintainers which vectors do this"
        )
    stages.done("layout", f"{n_components}-d, {graph.nnz} edges")
    return np.ascontiguousarray(layout)


def exact_neighbors(
    vectors: np.ndarray, n_neighbors: int, *, n_threads: int
) -> tuple[np.ndarray, np.ndarray]:
    """Nearest neighbours by cosine, each vector itself first, ties to the lowest row.

    BLAS must be limited to one thread by the caller; blocks have the same shape for any number of
    threads, so their products have the same bits.

    Args:
        vectors: (n, dim) float32, unit length.
        n_neighbors: itself included, at most n.
        n_threads: blocks at a time.

    Returns:
        Rows (n, n_neighbors) int32 and 1 - cosine (n, n_neighbors) float32: 0 for itself, positive
        for others.
    """
    n = len(vectors)
    n_rows = int(np.clip(2**24 // n, 16, 2_048))  # a block of at most 64 MiB of cosines
    neighbors = np.empty((n, n_neighbors), dtype=np.int32)
    distances = np.empty((n, n_neighbors), dtype=np.float32)

    def search(start: int) -> None:
        rows = np.arange(start, min(start + n_rows, n))
        cosines = vectors[rows] @ vectors.T
        cosines[np.arange(len(rows)), rows] = np.inf
        least = np.partition(cosines, n - n_neighbors, axis=1)[:, n - n_neighbors]
        row, column = np.nonzero(cosines >= least[:, None])
        cosine = cosines[row, column]
        order = np.lexsort((column, -cosine, row))
        first = np.searchsorted(row, np.arange(len(rows)))
        best = order[first[:, None] + np.arange(n_neighbors)]  # more than n_neighbors only in ties
        neighbors[rows] = column[best]
        distances[rows] = _as_distances(cosine[best])

    with ThreadPoolExecutor(n_threads) as pool:
        for _ in pool.map(search, range(0, n, n_rows)):
            pass
    return neighbors, distances


def descended_neighbors(
    vectors: np.ndarray, n_neighbors: int, *, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """`exact_neighbors`, nearly: nearest-neighbour descent finds 99 % of them."""
    import numba
    from evoc.knn_graph import knn_graph

    before = numba.get_num_threads()
    numba.set_num_threads(1)  # the result depends on it
    try:
        neighbors, distances = knn_graph(
            vectors, n_neighbors, n_trees=8, random_state=np.random.RandomState(seed)
        )
    finally:
        numba.set_num_threads(before)
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


def _as_distances(cosines: np.ndarray) -> np.ndarray:
    """1 - cosine: 0 where the cosine is infinite (itself), else positive.

    A copy's distance is RADIUS_FLOOR, not 0: where EVoC meets a row of zeros it takes the mean of
    all distances, a sum that depends on the number of threads.
    """
    distances = np.maximum(1.0 - cosines, RADIUS_FLOOR)
    return np.where(np.isinf(cosines), 0.0, distances).astype(np.float32)


def _agglomerate(centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Joins clusters by average linkage, and cuts at about sqrt(k) groups.

    Returns:
        SciPy's linkage (k-1, 4) float64, and each cluster's group (k,) int32: numbered by the
        first cluster in it; -1 where k < MIN_LEVEL_CLUSTERS.
    """
    from scipy.cluster import hierarchy
    from scipy.spatial.distance import squareform

    k = len(centroids)
    parents = np.full(k, -1, dtype=np.int32)
    if k < 2:
        return np.empty((0, 4)), parents
    wide = centroids.astype(np.float64)
    distances = np.maximum(0.0, 1.0 - wide @ wide.T)
    distances = (distances + distances.T) / 2
    np.fill_diagonal(distances, 0.0)
    linkage = hierarchy.linkage(squareform(distances, checks=False), method="average")
    if k >= MIN_LEVEL_CLUSTERS:
        groups = hierarchy.fcluster(linkage, round(k**0.5), criterion="maxclust")
        _, first, group = np.unique(groups, return_index=True, return_inverse=True)
        parents[:] = np.argsort(np.argsort(first))[group]
    return linkage, parents
