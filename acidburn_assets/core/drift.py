"""Whether the clusters of a pool still hold what comes into it.

What is new is held against them as `assignments` places it, and so was the sample that they were
found in. A difference counts by the share of the pool that is new: one shard among thousands
changes little, whatever is in it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from acidburn_assets.core.assignments import place
from acidburn_assets.core.cluster_model import ClusterModel, Coverage, FittedOn, row_blocks
from acidburn_assets.core.errors import ModelError
from acidburn_assets.core.records import Record

LOOK_ROWS = 20_000
"""Vectors that are looked at, at most. Chosen: it tells a share of a tenth to half a hundredth."""

LOOK_SHARDS = 32
"""Shards that they are of, at most. Chosen: each is read whole."""

NOVEL_ROWS = 5_000
"""Weak vectors that are compared with one another, at most. Chosen: 25 million cosines."""

MAX_WEAK, MAX_NOVEL, MAX_SHIFT = 0.05, 0.015, 0.05
"""How much more of the pool may be weak, and how much more may lie where a cluster should be, than
of the sample; and how much farther members may lie from their centroids in the median, as a share.

Source: measured, added to 10,000 titles and requests. A tenth of the same topics: .002 at most,
below 0, and .006. Two of 20 tags that were not there, a tenth of the pool: .035, .035 and .046;
one: .011, .010 and .029. 15 of 150 intents, a seventh: .086, .038, .059; 8, a twentieth: .030,
.033, .012.
"""

MAX_GROWTH = 2.0
"""How many times as large, or as small, the pool may become. Chosen: the number of cells, and what
the sample shows of a topic, are those of the pool as it was."""


class Drift(Record):
    """What is new in a pool, held against its cluster model."""

    n_new: int
    """Chunks of shards that the model was not fitted on."""
    new_share: float
    """Of the pool's chunks."""
    growth: float
    """The pool's chunks now, for each when the model was fitted."""
    looked: Coverage | None
    """Of a sample of what is new; None: nothing is."""
    weak_excess: float
    """Share of the pool that is weak beyond what the fit's sample was."""
    novel_mass: float
    """Share of the pool that lies where a cluster should be, beyond what the fit's sample did."""
    distance_shift: float
    """How much farther members lie from their centroids in the median, as a share of it."""
    reasons: tuple[str, ...]
    """Why the pool should be fitted anew; empty: its clusters still fit."""


def new_shards(sha256_by_shard: Mapping[str, str], fitted_on: FittedOn) -> list[str]:
    """Shards whose vectors are none that a model was fitted on, whatever they were called then.

    Args:
        sha256_by_shard: `dataset/000001` to the hash of its embeddings.
        fitted_on: of the model.
    """
    known = set(fitted_on.shards.values())
    return sorted(shard for shard, sha256 in sha256_by_shard.items() if sha256 not in known)


def look_at(shards: Sequence[str]) -> list[str]:
    """`LOOK_SHARDS` of them at most, evenly spread."""
    return [shards[row] for row in _evenly(len(shards), LOOK_SHARDS)]


def with_coverage(model: ClusterModel, vectors: np.ndarray) -> ClusterModel:
    """The model, and how well its clusters hold the sample that they were found in.

    Args:
        model: without coverage.
        vectors: (n, dim) float32, the sample that it was fitted on.
    """
    looked = vectors[_evenly(len(vectors), LOOK_ROWS)]
    made = cover(looked, model, n_in_fit=len(vectors))
    return replace(model, meta=model.meta.model_copy(update={"coverage": made}))


def cover(vectors: np.ndarray, model: ClusterModel, *, n_in_fit: int) -> Coverage:
    """How well a model's clusters hold some vectors.

    A weak vector is novel where a cluster should be: where HDBSCAN would see a dense place if these
    vectors were in its sample, min_samples neighbours that no cluster holds either, as near as
    members of the model's clusters are to one another. Where those have a cosine of c to their
    centroid, they have about one of c² to each other.

    Args:
        vectors: (n, dim) float32, unit length.
        model: whose clusters.
        n_in_fit: how many vectors would stand in the sample of a fit for these.

    Raises:
        ModelError: the vectors have another dimension than the model, or one is zero or not finite.
    """
    found = place(vectors, model)
    members = found.distances[~found.is_noise]
    distance = float(np.median(members)) if len(members) else None
    weak = np.flatnonzero(found.is_noise)
    reach = distance if model.meta.coverage is None else model.meta.coverage.distance
    novel = 0.0
    if len(weak) and reach is not None:
        looked = weak[_evenly(len(weak), NOVEL_ROWS)]
        # so many of those looked at stand for min_samples in the fit's sample
        scale = len(looked) / len(weak) * len(vectors) / max(1, n_in_fit)
        n_needed = max(2, round(model.meta.fitted_on.settings.min_samples * scale))
        is_dense = _n_near(vectors[looked], cosine=(1.0 - reach) ** 2) >= n_needed
        novel = float(is_dense.mean()) * len(weak) / len(vectors)
    return Coverage(
        n_vectors=len(vectors),
        weak_share=round(len(weak) / max(1, len(vectors)), 6),
        distance=None if distance is None else round(distance, 6),
        novel_share=round(novel, 6),
    )


def judge(model: ClusterModel, *, n_chunks: int, n_new: int, looked: Coverage | None) -> Drift:
    """Holds what is new against a model.

    Args:
        model: of the pool.
        n_chunks: of the pool now.
        n_new: of these, in shards that the model was not fitted on.
        looked: `cover` of a sample of them; None: there are none.

    Raises:
        ModelError: the model does not tell how well it held its own sample.
    """
    fitted = model.meta.coverage
    if fitted is None:
        raise ModelError(
            f"the cluster model of {model.meta.pool!r} has no coverage of its own sample; "
            "materialize the pool's cluster_model with --force"
        )
    new_share = n_new / max(1, n_chunks)
    growth = n_chunks / max(1, model.meta.fitted_on.n_chunks)
    weak = novel = shift = 0.0
    if looked is not None:
        weak = new_share * (looked.weak_share - fitted.weak_share)
        novel = new_share * (looked.novel_share - fitted.novel_share)
        if looked.distance is not None and fitted.distance:
            shift = new_share * (looked.distance / fitted.distance - 1)
    limits = [
        (weak > MAX_WEAK, f"{weak:.1%} more of the pool is weak than of the fit's sample"),
        (novel > MAX_NOVEL, f"{novel:.1%} of the pool lies densely where no cluster is"),
        (shift > MAX_SHIFT, f"members lie {shift:.0%} farther from their centroids"),
        (growth > MAX_GROWTH, f"the pool is {growth:.1f} times as large as it was"),
        (growth < 1 / MAX_GROWTH, f"the pool is {growth:.0%} as large as it was"),
    ]
    return Drift(
        n_new=n_new,
        new_share=round(new_share, 6),
        growth=round(growth, 6),
        looked=looked,
        weak_excess=round(weak, 6),
        novel_mass=round(novel, 6),
        distance_shift=round(shift, 6),
        reasons=tuple(reason for is_over, reason in limits if is_over),
    )


def _evenly(n: int, limit: int) -> np.ndarray:
    """At most `limit` of n rows, evenly spread, rising."""
    return np.arange(n) if n <= limit else np.linspace(0, n - 1, limit).astype(np.int64)


def _n_near(vectors: np.ndarray, *, cosine: float) -> np.ndarray:
    """How many others have at least that cosine to each vector, (n,) int64."""
    near = np.zeros(len(vectors), dtype=np.int64)
    for rows in row_blocks(len(vectors), n_columns=len(vectors)):
        near[rows] = (vectors[rows] @ vectors.T >= cosine).sum(axis=1) - 1
    return near
