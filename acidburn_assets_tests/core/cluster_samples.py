"""Unit vectors in well known clusters, and a cluster model of them, for tests."""

from typing import Any

import numpy as np
import pyarrow as pa

from acidburn_assets.core import schemas
from acidburn_assets.core.cluster_model import (
    NOISE,
    ClusterModel,
    Fit,
    FittedOn,
    rank_clusters,
    summarize,
    unit_centroids,
)
from acidburn_assets.core.datasets import FitSettings
from acidburn_assets.core.migration import descend, places_before


def blobs(
    sizes: tuple[int, ...] = (60, 40, 20), *, dim: int = 24, n_noise: int = 0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Vectors around random directions, rounded as they are stored, and whose each one is.

    Returns:
        (n, dim) float32 of unit length up to fp16 rounding, and (n,) int32 with NOISE for the rest.
    """
    random = np.random.default_rng(seed)
    centres = random.normal(size=(len(sizes), dim))
    truth = np.repeat(np.arange(len(sizes)), sizes)
    vectors = centres[truth] + random.normal(size=(len(truth), dim)) * 0.25
    vectors = np.concatenate([vectors, random.normal(size=(n_noise, dim))])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    truth = np.concatenate([truth, np.full(n_noise, NOISE)]).astype(np.int32)
    return vectors.astype(np.float16).astype(np.float32), truth


def random_ids(n: int, *, seed: int = 0) -> np.ndarray:
    """(n, 16) uint8, all different."""
    ids = np.random.default_rng(seed).integers(0, 256, size=(n, 16), dtype=np.uint8)
    ids[:, 12:] = np.arange(n, dtype=">u4").view(np.uint8).reshape(n, 4)
    return ids


def id_array(ids: np.ndarray) -> pa.Array:
    """(n, 16) uint8 as (n,) of `schemas.CHUNK_ID`."""
    return pa.array([row.tobytes() for row in ids], schemas.CHUNK_ID)


def fit_of(labels: np.ndarray, vectors: np.ndarray, *, n_cells_each: int = 1) -> Fit:
    """A fit that found `labels`, without an engine; members are dealt out to cells in turn."""
    ranked, _ = rank_clusters(labels, vectors)
    n_clusters = int(ranked.max()) + 1
    parts = ranked * n_cells_each + np.arange(len(ranked)) % n_cells_each  # each has a member
    return Fit(
        labels=ranked,
        strengths=np.where(ranked >= 0, 0.9, 0.0).astype(np.float32),
        persistence=np.full(n_clusters, 0.5, dtype=np.float32),
        cell_centroids=unit_centroids(vectors, np.where(ranked >= 0, parts, NOISE)),
        cell_clusters=np.repeat(np.arange(n_clusters, dtype=np.int32), n_cells_each),
        linkage=np.ones((n_clusters - 1, 4)),
        parents=np.full(n_clusters, -1, dtype=np.int32),
        group_parents=np.empty(0, dtype=np.int32),
        reduction="none",
        fallback_reason="",
        versions={"numpy": "2"},
        seconds={},
    )


def fitted_on(**changed: Any) -> FittedOn:
    """What a small model of the pool `science` was fitted on, but for what is given."""
    facts = {
        "manifests": {"papers": "ab" * 32},
        "shards": {"papers/000000": "cd" * 32},
        "n_chunks": 150,
        "model": "encoder-1",
        "dim": 24,
        "settings": FitSettings(min_cluster_size=5, min_samples=2),
        "engine_version": "clusterer-1",
    }
    return FittedOn.model_validate({**facts, **changed})


def model_of(
    vectors: np.ndarray,
    labels: np.ndarray,
    *,
    pool: str = "science",
    n_cells_each: int = 1,
    sample_ids: np.ndarray | None = None,
    previous: ClusterModel | None = None,
) -> ClusterModel:
    """The model of such a fit; with `previous` the generation after that one."""
    fit = fit_of(labels, vectors, n_cells_each=n_cells_each)
    ids = random_ids(len(vectors)) if sample_ids is None else sample_ids
    return summarize(
        fit,
        vectors,
        ids,
        pool=pool,
        fitted_on=fitted_on(dim=vectors.shape[1], n_chunks=len(vectors)),
        descent=(
            None
            if previous is None
            else descend(fit.labels, vectors, places_before(vectors, ids, previous), previous)
        ),
    )
