"""Finds clusters in a sample of unit vectors: three engines behind one function.

- `graph_hdbscan`: nearest-neighbour graph, its layout in 5 dimensions by EVoC's functions, HDBSCAN
  on that. Its noise lies between clusters; a vector far from all of them has neighbours like any
  other, and is told apart by its distance when it is assigned.
- `hdbscan`: the reference, the same without a short cut: all neighbours are found, however many
  vectors there are. Up to EXACT_ROWS the two are the same.
- `kmeans`: the baseline, no noise.

The same vectors and settings give the same bits on one machine, whatever its number of free cores:
matrix products run on one thread each, and nothing that depends on threads has more than one.
"""

import logging
import os
import threading
import time
import warnings
from importlib.metadata import version
from typing import NamedTuple

import numpy as np

from acidburn_assets.adapters import cells
from acidburn_assets.adapters.neighbors import (
    descended_neighbors,
    exact_neighbors,
    one_numba_thread,
)
from acidburn_assets.core import hierarchy
from acidburn_assets.core.cells import cells_wanted
from acidburn_assets.core.cluster_model import (
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
from acidburn_assets.core.settling import settle

ENGINE_VERSION = "clusterer-3"
"""Raised when the same vectors and settings would give other clusters than before."""

LEAST_NEIGHBORS, MOST_NEIGHBORS = 15, 60
"""Of each vector in the graph, itself included; between them as many as the least cluster has.

Source: measured, AMI. Intents of 20 texts, min_cluster_size 15: .814 with 15 neighbours, .809 with
30, .783 with 60. Intents of 150, min_cluster_size 100: .835 with 30, .844 with 45, .846 with 60.
"""

GRAPH_DIM = 5
"""Dimensions of the graph's layout.

Source: measured, 4 to 15 are equal within .002 of AMI, and few cost least.
"""

N_EPOCHS = 50
"""Of the layout, EVoC's own number.

Source: measured, AMI with 100 at twice the CPU: .01 more on newswire, .01 less on titles.
"""

NOISE_LEVEL = 0.0
"""EVoC's own name: with more, neighbours stay farther apart.

Source: measured, AMI and noise with 0 and .5: newswire .423, 33 % and .416, 39 %; intents .835, 9 %
and .832, 11 %; titles .701, 15 % and .701, 20 %.
"""

MIN_GRAPH_ROWS = 64
"""Below it the layout is the principal components alone, as EVoC itself starts a layout.

Source: EVoC 0.3.2, `label_propagation_init(base_init_threshold=64)`.
"""

EXACT_ROWS = 25_000
"""Up to so many vectors `graph_hdbscan` finds neighbours exactly, above by EVoC's descent.

Source: by the figures in `neighbors` both cost some 15 CPU s there, one with the square of the
number of vectors, the other in proportion to it.
"""

MINI_BATCH_ROWS = 20_000
"""Above it k-means works in batches. Source: measured, .12 and 1.6 CPU s for 20,000 either way; 20
CPU s for 150,000 in full with 1,500 clusters."""

_ENGINE_PACKAGES = {
    "graph_hdbscan": ("evoc", "hdbscan", "numba", "numpy", "scikit-learn"),
    "hdbscan": ("evoc", "hdbscan", "numba", "numpy", "scikit-learn"),
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
    before: np.ndarray | None = None,
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
        before: (n,) cluster of each vector in an earlier fit, or NOISE; what is not better now
            stays as it was, see `settling`. Of k-means, which has as many clusters as it is asked
            for, nothing stays.
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
        if before is not None and not reason and settings.engine != "kmeans":
            found = _settled(found, before, vectors, settings, stages)
        labels, old = rank_clusters(found.labels, vectors)
        divided = cells.divide(
            vectors, labels, n_cells=wanted, seed=settings.seed, n_threads=n_threads
        )
        stages.done("cells", f"{len(divided.centroids)} cells")
        centroids = unit_centroids(vectors, labels)
        linkage = hierarchy.link(centroids)
        parents, group_parents = hierarchy.levels(linkage)
    strengths = found.strengths
    if strengths is None or np.isnan(strengths).any():
        # of an engine without strengths, or of an earlier fit: counted as `assignments` does
        distances = own_distances(vectors, labels, centroids)
        counted = strength(distances, radii_of(distances, labels, len(centroids))[labels])
        strengths = (
            counted if strengths is None else np.where(np.isnan(strengths), counted, strengths)
        )
    stages.done("summary", f"{len(centroids)} clusters in {len(group_parents)} groups")
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
        group_parents=group_parents,
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
        descended_neighbors(vectors, LEAST_NEIGHBORS, seed=0)
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


def _settled(
    found: _Found,
    before: np.ndarray,
    vectors: np.ndarray,
    settings: PoolSettings,
    stages: _Stages,
) -> _Found:
    """What was found, with the clusters of before where those are no worse; of these neither
    strengths nor persistence are known."""
    labels = settle(found.labels, before, vectors, min_members=settings.min_cluster_size)
    n_found = int(found.labels.max()) + 1
    is_left = labels >= n_found
    stages.done("settle", f"{len(np.unique(labels[is_left]))} clusters stay as they were")
    n_before = int(labels.max(initial=n_found - 1)) + 1 - n_found
    return found._replace(
        labels=labels,
        strengths=None if found.strengths is None else np.where(is_left, np.nan, found.strengths),
        persistence=(
            None
            if found.persistence is None
            else np.append(found.persistence, np.full(n_before, np.nan))
        ),
    )


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
    if n < MIN_GRAPH_ROWS:
        n_components = min(GRAPH_DIM, n - 1, dim)
        reduced = _principal_components(vectors, n_components)
        reduction = f"pca-{n_components}"
        stages.done("reduce", reduction)
    else:
        reduced = _graph_layout(vectors, settings, stages, n_threads)
        reduction = f"graph-{reduced.shape[1]}"
    return _hdbscan(reduced, settings, reduction, stages)


def _hdbscan(
    reduced: np.ndarray, settings: PoolSettings, reduction: str, stages: _Stages
) -> _Found:
    import hdbscan

    clusterer = hdbscan.HDBSCAN(
        min_cluster_size=settings.min_cluster_size,
        min_samples=settings.min_samples,
        # as fast here as the package's approximate one, which alone moved a fifth of the pairs
        approx_min_span_tree=False,
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
    vectors: np.ndarray, settings: PoolSettings, stages: _Stages, n_threads: int
) -> np.ndarray:
    """(n, GRAPH_DIM or dim) float32: neighbours near, all others apart.

    Raises:
        ModelError: the layout is not finite.
    """
    _logger.info("loading EVoC: on its first use on a machine it compiles for a minute or two")
    from evoc.graph_construction import neighbor_graph_matrix
    from evoc.label_propagation import label_propagation_init
    from evoc.node_embedding import node_embedding

    n, dim = vectors.shape
    n_components = min(GRAPH_DIM, dim)
    n_neighbors = neighbors_wanted(settings.min_cluster_size)
    if n > EXACT_ROWS and settings.engine != "hdbscan":
        neighbors, distances = descended_neighbors(vectors, n_neighbors, seed=settings.seed)
        stages.done("neighbors", f"{n_neighbors} of each by descent")
    else:
        neighbors, distances = exact_neighbors(vectors, n_neighbors, n_threads=n_threads)
        stages.done("neighbors", f"{n_neighbors} of each, exact")
    # hundreds of short loops: measured, 10,000 vectors cost two threads on two busy cores 8.4 CPU s
    # of waiting for each other, and one thread .9
    with one_numba_thread():
        random = np.random.RandomState(settings.seed)
        graph = neighbor_graph_matrix(float(n_neighbors), neighbors, distances, symmetrize=True)
        # other figures are those of evoc.EVoC 0.3.2, which does the same before its own clustering
        initial = label_propagation_init(
            graph,
            n_components=n_components,
            approx_n_parts=int(np.clip(int(8 * np.sqrt(n)), 256, 16_384)),
            random_scale=0.1,
            scaling=0.5,
            noise_level=NOISE_LEVEL,
            random_state=random,
            data=vectors,
        )
        layout = node_embedding(
            graph,
            n_components=n_components,
            n_epochs=N_EPOCHS,
            initial_embedding=initial,
            initial_alpha=0.1,
            noise_level=NOISE_LEVEL,
            random_state=random,
            reproducible_flag=True,
        )
    if not np.isfinite(layout).all():
        raise ModelError(
            "the graph's layout is not finite; set the pool's engine to kmeans, "
            "and tell the maintainers which vectors do this"
        )
    stages.done("layout", f"{n_components}-d, {graph.nnz} edges")
    return np.ascontiguousarray(layout)


def neighbors_wanted(min_cluster_size: int) -> int:
    """Of each vector in the graph, itself included: more would join clusters that small."""
    return min(max(min_cluster_size, LEAST_NEIGHBORS), MOST_NEIGHBORS)
