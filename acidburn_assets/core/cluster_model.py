"""The cluster model of a pool: what a fit found, as arrays with one byte form.

Here: the sample a model is fitted on, the figures that sum a fit up, and the object
`P/cluster_model.npz`. How clusters are found lives in `adapters.clusterer`; giving every chunk of
the corpus a cluster lives in `assignments`; exact centroids of all members in `centroids`.
"""

import hashlib
import io
import itertools
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np

from acidburn_assets.core.datasets import PoolSettings
from acidburn_assets.core.errors import ConfigError, ModelError, SchemaError
from acidburn_assets.core.records import Record

NOISE = -1
"""Label of a vector that belongs to no cluster, in HDBSCAN's own words."""

RADIUS_QUANTILE = 0.95
"""A cluster reaches as far as this share of its members.

Source: measured on 153,740 vectors of six corpora, a fit of half of them against one of all: where
both call a vector a member they agree at ARI .925 within this radius, at .852 without one. Of a
fit's own members 96 % keep their cluster, of its noise 42 % stays noise (3,500 passages of Python
documentation, 6,000 titles).
"""

RADIUS_FLOOR = 1e-6
"""Least radius, 1 - cosine, so that copies of one text form a cluster that holds them.

Chosen: above what storage as fp16 moves a vector, about (2**-11)**2 / 6 = 4e-8.
"""

BLOCK_VALUES = 2**22
"""Most values of one intermediate block of similarities: 16 MiB as float32. Chosen."""


@dataclass(frozen=True)
class Fit:
    """What an engine found in a sample, its clusters numbered by size (0 is the largest)."""

    labels: np.ndarray  # (n,) int32, NOISE or 0 … k-1
    strengths: np.ndarray  # (n,) float32 in [0, 1], 0 for noise
    persistence: np.ndarray  # (k,) float32, HDBSCAN's stability; NaN from engines without one
    cell_centroids: np.ndarray  # (c, dim) float32, unit length
    cell_clusters: np.ndarray  # (c,) int32, the cluster each cell was cut from, rising
    linkage: np.ndarray  # (k-1, 4) float64, average linkage of the centroids in SciPy's form
    parents: np.ndarray  # (k,) int32, the group each cluster belongs to; -1 where k < 4
    reduction: str  # the space the engine saw: "graph-8", "pca-50", "none"
    fallback_reason: str  # why there is one cluster that holds everything; "" for a real fit
    versions: dict[str, str]  # of the packages that found them
    seconds: dict[str, float]  # by stage; not part of the model


class ClusterModelMeta(Record):
    """What a cluster model was made from, by what, and how well it separates."""

    schema_version: int = 1
    pool: str
    engine: str
    settings: PoolSettings
    versions: dict[str, str]
    manifests: dict[str, str]  # dataset to its manifest's content version
    model: str  # fingerprint of the encoder
    dim: int
    n_sample: int
    n_clusters: int
    n_cells: int
    n_groups: int  # parents one level up; 0 where there is no such level
    noise_share: float
    separation: float | None
    """Mean over members of cosine to the own centroid less cosine to the nearest other one; None
    with one cluster. 0: clusters touch everywhere; .2 and more: well apart."""
    persistence: float | None
    """Mean of HDBSCAN's cluster persistence; None for engines without one."""
    reduction: str
    is_fallback: bool
    """The engine found no cluster, so one cluster holds every vector of the sample."""
    fallback_reason: str


@dataclass(frozen=True, eq=False)
class ClusterModel:
    """A fitted model; equal models have equal bytes."""

    centroids: np.ndarray  # (k, dim) float32, unit length
    radii: np.ndarray  # (k,) float32, 1 - cosine, RADIUS_QUANTILE of the members
    sizes: np.ndarray  # (k,) int64, members in the sample
    persistence: np.ndarray  # (k,) float32, NaN where the engine has none
    cell_centroids: np.ndarray  # (c, dim) float32, unit length
    cell_clusters: np.ndarray  # (c,) int32, rising: a cluster's cells lie side by side
    linkage: np.ndarray  # (k-1, 4) float64
    parents: np.ndarray  # (k,) int32
    sample_labels: np.ndarray  # (n,) int32
    sample_strengths: np.ndarray  # (n,) float32
    sample_ids: np.ndarray  # (n, 16) uint8, chunk ids
    meta: ClusterModelMeta

    def to_bytes(self) -> bytes:
        """An .npz without pickle and without time stamps."""
        content = io.BytesIO()
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        arrays["meta"] = np.frombuffer(self.meta.to_bytes(), dtype=np.uint8)
        # np.savez dates every member 1980-01-01 and stores it uncompressed: no zlib version in it
        np.savez(content, allow_pickle=False, **arrays)
        return content.getvalue()

    def content_version(self) -> str:
        """sha256 of `to_bytes()`, hex."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @classmethod
    def from_bytes(cls, content: bytes, *, key: str) -> "ClusterModel":
        """Parses what `to_bytes` wrote.

        Args:
            content: the object's bytes.
            key: where they came from, for the error.

        Raises:
            SchemaError: the bytes are no cluster model, or its arrays do not fit one another.
        """
        try:
            # opened by hand: np.load takes anything that is no zip file for a pickle
            with zipfile.ZipFile(io.BytesIO(content)) as members:
                arrays = {
                    name.removesuffix(".npy"): np.lib.format.read_array(
                        io.BytesIO(members.read(name)), allow_pickle=False
                    )
                    for name in members.namelist()
                }
        except (ValueError, EOFError, OSError, RuntimeError, zipfile.BadZipFile) as error:
            raise _unreadable(key, str(error)) from error
        expected = [field.name for field in fields(cls)]
        if sorted(arrays) != sorted(expected):
            raise _unreadable(key, f"it holds {sorted(arrays)}, not {sorted(expected)}")
        meta = ClusterModelMeta.from_bytes(arrays.pop("meta").tobytes(), key=key)
        _check_arrays(arrays, meta, key=key)
        return cls(meta=meta, **arrays)


class _Shape(NamedTuple):
    dtype: str
    shape: tuple[int, ...]


def _check_arrays(arrays: Mapping[str, np.ndarray], meta: ClusterModelMeta, *, key: str) -> None:
    n, k, c, dim = meta.n_sample, meta.n_clusters, meta.n_cells, meta.dim
    promised = {
        "centroids": _Shape("float32", (k, dim)),
        "radii": _Shape("float32", (k,)),
        "sizes": _Shape("int64", (k,)),
        "persistence": _Shape("float32", (k,)),
        "cell_centroids": _Shape("float32", (c, dim)),
        "cell_clusters": _Shape("int32", (c,)),
        "linkage": _Shape("float64", (k - 1, 4)),
        "parents": _Shape("int32", (k,)),
        "sample_labels": _Shape("int32", (n,)),
        "sample_strengths": _Shape("float32", (n,)),
        "sample_ids": _Shape("uint8", (n, 16)),
    }
    for name, shape in promised.items():
        have = _Shape(str(arrays[name].dtype), arrays[name].shape)
        if have != shape:
            raise _unreadable(key, f"{name} is {have.dtype}{have.shape}, not {shape}")
    for name in ("centroids", "cell_centroids"):
        if not np.allclose(np.linalg.norm(arrays[name], axis=1), 1.0, atol=1e-3):
            raise _unreadable(key, f"one of the {name} has not unit length")
    if not np.array_equal(np.unique(arrays["cell_clusters"]), np.arange(k)):
        raise _unreadable(key, "a cluster has no cell, or a cell no cluster")
    if (np.diff(arrays["cell_clusters"]) < 0).any():
        raise _unreadable(key, "the cells are not in the order of their clusters")
    if not (arrays["radii"] > 0).all():
        raise _unreadable(key, "a radius is not positive")


def _unreadable(key: str, reason: str) -> SchemaError:
    return SchemaError(
        f"{key!r} is not a cluster model: {reason}; materialize the pool's cluster_model again"
    )


def sample_rows(
    n_chunks_by_shard: Mapping[str, int], *, limit: int, seed: int
) -> dict[str, np.ndarray]:
    """Chooses at most `limit` rows, each shard in proportion to its chunks (largest remainder).

    Every row has a rank that depends on seed, shard and row alone, and a shard gives its rows of
    lowest rank: another shard changes how many rows a shard gives, never their order.

    Args:
        n_chunks_by_shard: `dataset/000001` to its number of chunks.
        limit: rows in all, at least 1.
        seed: of the pool.

    Returns:
        Shard to its chosen rows, (m,) int64, rising; shards that give none are left out.

    Raises:
        ConfigError: `limit` is below 1.
    """
    if limit < 1:
        raise ConfigError(f"a sample needs at least one row, not {limit}; raise sample_rows")
    shards = sorted(shard for shard, n_chunks in n_chunks_by_shard.items() if n_chunks > 0)
    n_all = sum(n_chunks_by_shard[shard] for shard in shards)
    n_sample = min(limit, n_all)
    # whole numbers, so that no rounding decides who gets the last row
    quotas = {shard: divmod(n_chunks_by_shard[shard] * n_sample, n_all) for shard in shards}
    n_left = n_sample - sum(whole for whole, _ in quotas.values())
    by_remainder = sorted(shards, key=lambda shard: (-quotas[shard][1], shard))
    winners = set(by_remainder[:n_left])
    chosen = {}
    for shard in shards:
        quota = quotas[shard][0] + (shard in winners)
        if quota:
            ranks = _row_ranks(n_chunks_by_shard[shard], seed=seed, shard=shard)
            chosen[shard] = np.sort(np.argsort(ranks, kind="stable")[:quota])
    return chosen


def _row_ranks(n_rows: int, *, seed: int, shard: str) -> np.ndarray:
    """(n_rows,) uint64: SplitMix64 of each row. Unlike numpy's generators it never changes.

    Source: Steele, Lea, Flood, Fast Splittable Pseudorandom Number Generators, OOPSLA 2014.
    """
    start = int.from_bytes(hashlib.sha256(f"{seed}\0{shard}".encode()).digest()[:8], "little")
    state = np.arange(1, n_rows + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    state += np.uint64(start)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def check_vectors(vectors: np.ndarray, *, dim: int) -> None:
    """Refuses vectors that have no direction or another dimension.

    Raises:
        ModelError: says which row.
    """
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        raise ModelError(
            f"vectors of shape {vectors.shape} do not fit a cluster model of dimension {dim}; "
            "embed the dataset with the pool's encoder, or fit the pool's cluster_model again"
        )
    squares = np.einsum("nd,nd->n", vectors, vectors)
    is_broken = ~(np.isfinite(squares) & (squares > 0))
    if is_broken.any():
        raise ModelError(
            f"row {int(np.argmax(is_broken))} of {len(vectors)} vectors is zero or not finite; "
            "embed that shard again"
        )


def strength(distances: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """radius / (radius + distance): 1 at the centroid, .5 at the radius, never 0.

    Chosen: so noise (beyond the radius) is what is weaker than .5 and stays comparable.

    Args:
        distances: (n,) float64, 1 - cosine.
        radii: (n,) of each one's cluster, positive.

    Returns:
        (n,) float64 in (0, 1].
    """
    return np.asarray(radii / (radii + distances))


def unit_centroids(vectors: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean direction of each cluster's members.

    Args:
        vectors: (n, dim) float32, unit length.
        labels: (n,) int32, NOISE or 0 … k-1, none of them empty.

    Returns:
        (k, dim) float32, unit length.

    Raises:
        ModelError: the members of a cluster cancel out.
    """
    n_clusters = int(labels.max(initial=NOISE)) + 1
    sums = np.zeros((n_clusters, vectors.shape[1]))
    for cluster, members in enumerate(members_of(labels, n_clusters)):
        sums[cluster] = vectors[members].sum(axis=0, dtype=np.float64)
    norms = np.sqrt((sums * sums).sum(axis=1, keepdims=True))
    if not (norms > 0).all():
        raise ModelError(
            "the members of a cluster cancel out, so it has no centroid; "
            "check that the embeddings are what the encoder made"
        )
    unit: np.ndarray = (sums / norms).astype(np.float32)
    return unit


def members_of(labels: np.ndarray, n_clusters: int) -> Iterator[np.ndarray]:
    """Rows of cluster 0, of cluster 1, …, each rising; noise is left out."""
    order = np.argsort(labels, kind="stable")
    borders = np.searchsorted(labels[order], np.arange(n_clusters + 1))
    for start, stop in itertools.pairwise(borders):
        yield order[start:stop]


def rank_clusters(labels: np.ndarray, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Renumbers clusters by size, largest first; ties by the bytes of their centroids.

    So a cluster's id depends on what is in it, not on the order an engine met it in.

    Args:
        labels: (n,) whole numbers, negative is noise, gaps allowed.
        vectors: (n, dim) float32.

    Returns:
        Labels (n,) int32, and (k,) int64: which old label each new cluster had.
    """
    old, dense = np.unique(np.maximum(labels, NOISE), return_inverse=True)
    if old.size and old[0] == NOISE:
        old, dense = old[1:], dense - 1
    centroids = unit_centroids(vectors, dense)
    sizes = np.bincount(dense[dense >= 0], minlength=len(old))
    order = sorted(range(len(old)), key=lambda c: (-int(sizes[c]), centroids[c].tobytes()))
    new = np.empty(len(old) + 1, dtype=np.int32)
    new[order] = np.arange(len(old))
    new[NOISE] = NOISE  # its last place: dense label -1
    return new[dense], old[order].astype(np.int64)


def summarize(
    fit: Fit,
    vectors: np.ndarray,
    sample_ids: np.ndarray,
    *,
    pool: str,
    settings: PoolSettings,
    manifests: Mapping[str, str],
    model: str,
) -> ClusterModel:
    """Makes the model of a fit: centroids, radii, sizes and quality figures.

    Args:
        fit: what the engine found.
        vectors: (n, dim) float32 unit vectors, the sample as it was fitted.
        sample_ids: (n, 16) uint8, their chunk ids.
        pool: name of the pool.
        settings: of the pool.
        manifests: dataset to the content version of the manifest that was sampled.
        model: fingerprint of the encoder that made the vectors.

    Raises:
        SchemaError: ids and vectors differ in number.
    """
    if sample_ids.shape != (len(vectors), 16):
        raise SchemaError(
            f"pool {pool!r}: chunk ids have the shape {sample_ids.shape}, "
            f"not {(len(vectors), 16)}; read ids and vectors from the same shards"
        )
    centroids = unit_centroids(vectors, fit.labels)
    distances = own_distances(vectors, fit.labels, centroids)
    margins = 1.0 - distances - _nearest_other(vectors, fit.labels, centroids)
    n_clusters = len(centroids)
    is_member = fit.labels >= 0
    stable = fit.persistence[np.isfinite(fit.persistence)]
    meta = ClusterModelMeta(
        pool=pool,
        engine=settings.engine,
        settings=settings,
        versions=fit.versions,
        manifests=dict(manifests),
        model=model,
        dim=vectors.shape[1],
        n_sample=len(vectors),
        n_clusters=n_clusters,
        n_cells=len(fit.cell_centroids),
        n_groups=int(fit.parents.max(initial=-1)) + 1,
        noise_share=float(np.mean(~is_member)),
        # rounded, because the last bits of a matrix product change with the number of threads
        separation=round(float(margins[is_member].mean()), 6) if n_clusters > 1 else None,
        persistence=round(float(stable.mean(dtype=np.float64)), 6) if stable.size else None,
        reduction=fit.reduction,
        is_fallback=bool(fit.fallback_reason),
        fallback_reason=fit.fallback_reason,
    )
    return ClusterModel(
        centroids=centroids,
        radii=radii_of(distances, fit.labels, n_clusters).astype(np.float32),
        sizes=np.bincount(fit.labels[is_member], minlength=n_clusters),
        persistence=fit.persistence.astype(np.float32),
        cell_centroids=fit.cell_centroids.astype(np.float32),
        cell_clusters=fit.cell_clusters.astype(np.int32),
        linkage=fit.linkage.astype(np.float64),
        parents=fit.parents.astype(np.int32),
        sample_labels=fit.labels.astype(np.int32),
        sample_strengths=fit.strengths.astype(np.float32),
        sample_ids=np.ascontiguousarray(sample_ids, dtype=np.uint8),
        meta=meta,
    )


def radii_of(distances: np.ndarray, labels: np.ndarray, n_clusters: int) -> np.ndarray:
    """`RADIUS_QUANTILE` of each cluster's distances, `RADIUS_FLOOR` at least.

    Args:
        distances: (n,) float64, 1 - cosine of each vector to its own centroid.
        labels: (n,) int32, NOISE or 0 … k-1, none of them empty.
        n_clusters: k.

    Returns:
        (k,) float64.
    """
    radii = [
        np.quantile(distances[rows], RADIUS_QUANTILE) for rows in members_of(labels, n_clusters)
    ]
    return np.maximum(radii, RADIUS_FLOOR)


def own_distances(vectors: np.ndarray, labels: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """1 - cosine of each vector to its own centroid, (n,) float64; 0 for noise."""
    distances = np.zeros(len(vectors))
    for rows in row_blocks(len(vectors), n_columns=vectors.shape[1]):
        members = rows.start + np.flatnonzero(labels[rows] >= 0)
        cosines = row_cosines(vectors[members], centroids[labels[members]])
        distances[members] = np.maximum(0.0, 1.0 - cosines)
    return distances


def _nearest_other(vectors: np.ndarray, labels: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Cosine of each vector to the nearest centroid that is not its own, (n,) float32; 0 for
    noise, -inf where there is no other."""
    nearest = np.zeros(len(vectors), dtype=np.float32)
    for rows in row_blocks(len(vectors), n_columns=max(centroids.shape)):
        members = rows.start + np.flatnonzero(labels[rows] >= 0)
        cosines = vectors[members] @ centroids.T  # (members, k)
        cosines[np.arange(len(members)), labels[members]] = -np.inf
        nearest[members] = cosines.max(axis=1)
    return nearest


def row_cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Cosine of each row of `left` with the same row of `right`.

    Each row is summed by itself in float64, so its value depends on nothing else: a matrix product
    may differ in the last bit with the number of rows or threads.

    Args:
        left: (n, dim) float32, any length but 0.
        right: (n, dim) float32, unit length.

    Returns:
        (n,) float64.
    """
    wide = left.astype(np.float64)
    return np.asarray((wide * right).sum(axis=1) / np.sqrt((wide * wide).sum(axis=1)))


def row_blocks(n_rows: int, *, n_columns: int) -> Sequence[slice]:
    """Slices of rows whose (rows, n_columns) block stays within `BLOCK_VALUES`."""
    n_block = max(1, BLOCK_VALUES // max(1, n_columns))
    return [slice(start, min(start + n_block, n_rows)) for start in range(0, n_rows, n_block)]
