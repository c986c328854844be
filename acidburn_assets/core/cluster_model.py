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
from dataclasses import dataclass, fields, replace
from typing import Literal, NamedTuple

import numpy as np

from acidburn_assets.core.datasets import FitSettings
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

KINDS = ("kept", "split", "merged", "moved", "new", "gone")
"""What became of a cluster when a pool was fitted anew: see `migration`."""

MIGRATION = np.dtype(
    [
        ("kind", "u1"),  # of KINDS
        ("old", "i4"),  # cluster id before; NOISE: there was none
        ("new", "i4"),  # cluster id now; NOISE: there is none
        ("n_shared", "i8"),  # sampled chunks that are in both
        ("share_of_old", "f4"),  # of those that the old one holds; NaN without one
        ("share_of_new", "f4"),  # of those that the new one holds; NaN without one
        ("cosine", "f4"),  # of the two centroids; NaN where there are not two
    ]
)
"""A row of the migration table of a model."""

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
    linkage: np.ndarray  # (k-1, 4) float64, Ward's tree of the centroids in SciPy's form
    parents: np.ndarray  # (k,) int32, the group each cluster belongs to; -1 where k < 4
    group_parents: np.ndarray  # (g,) int32, the group each group lies in; -1 at the top
    reduction: str  # the space the engine saw: "graph-5", "pca-5", "none"
    fallback_reason: str  # why there is one cluster that holds everything; "" for a real fit
    versions: dict[str, str]  # of the packages that found them
    seconds: dict[str, float]  # by stage; not part of the model


class Coverage(Record):
    """How well clusters hold some vectors, as `assignments` sees it."""

    n_vectors: int
    weak_share: float  # beyond their cluster's radius
    distance: float | None  # median of 1 - cosine to the own centroid, of the others; None: none
    novel_share: float  # weak, and as dense among themselves as a cluster: see `drift`


class FittedOn(Record):
    """What a fit is made from; where it is equal, so are the clusters."""

    manifests: dict[str, str]  # dataset to its manifest's content version
    shards: dict[str, str]  # `dataset/000001` to the sha256 of its embeddings
    n_chunks: int  # of all shards
    model: str  # fingerprint of the encoder
    dim: int
    settings: FitSettings
    engine_version: str


class Descent(NamedTuple):
    """How the clusters of a fit follow those of the generation before."""

    generation: int
    previous: str | None  # its content version
    cluster_ids: np.ndarray  # (k,) int32, of each cluster of the fit, all different
    next_id: int
    migration: np.ndarray  # (m,) of MIGRATION


class ClusterModelMeta(Record):
    """What a cluster model was made from, by what, and how well it separates."""

    schema_version: Literal[2] = 2
    pool: str
    fitted_on: FittedOn
    versions: dict[str, str]
    generation: int  # 0: the first fit of the pool with this encoder
    previous: str | None  # content version of the generation before
    next_id: int  # above every id that a cluster of the pool ever had
    n_sample: int
    n_clusters: int
    n_cells: int
    n_groups: int  # of all levels above the clusters; 0 where there is none
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
    coverage: Coverage | None
    """Of the sample itself, what that of new vectors is held against; None: not measured."""

    @property
    def dim(self) -> int:
        """Of the vectors."""
        return self.fitted_on.dim

    @property
    def model(self) -> str:
        """Fingerprint of the encoder."""
        return self.fitted_on.model


@dataclass(frozen=True, eq=False)
class ClusterModel:
    """A fitted model; equal models have equal bytes.

    What there is of each cluster stands in the order of their ids. Ids are those of the generation
    before wherever a cluster goes on, so they have gaps, and a row is no id.
    """

    cluster_ids: np.ndarray  # (k,) int32, rising
    centroids: np.ndarray  # (k, dim) float32, unit length
    radii: np.ndarray  # (k,) float32, 1 - cosine, RADIUS_QUANTILE of the members
    sizes: np.ndarray  # (k,) int64, members in the sample
    persistence: np.ndarray  # (k,) float32, NaN where the engine has none
    cell_centroids: np.ndarray  # (c, dim) float32, unit length
    cell_clusters: np.ndarray  # (c,) int32, row of each one's cluster, rising
    linkage: np.ndarray  # (k-1, 4) float64
    parents: np.ndarray  # (k,) int32, the group each cluster belongs to; -1 without a level
    group_parents: np.ndarray  # (g,) int32, the group each group lies in; -1 at the top
    migration: np.ndarray  # (m,) of MIGRATION; empty in the first generation
    sample_labels: np.ndarray  # (n,) int32, row of each one's cluster, or NOISE
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
        "cluster_ids": _Shape("int32", (k,)),
        "centroids": _Shape("float32", (k, dim)),
        "radii": _Shape("float32", (k,)),
        "sizes": _Shape("int64", (k,)),
        "persistence": _Shape("float32", (k,)),
        "cell_centroids": _Shape("float32", (c, dim)),
        "cell_clusters": _Shape("int32", (c,)),
        "linkage": _Shape("float64", (k - 1, 4)),
        "parents": _Shape("int32", (k,)),
        "group_parents": _Shape("int32", (meta.n_groups,)),
        "migration": _Shape(str(MIGRATION), arrays["migration"].shape[:1]),
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
    ids = arrays["cluster_ids"]
    if k and not (ids[0] >= 0 and (np.diff(ids) > 0).all() and ids[-1] < meta.next_id):
        raise _unreadable(key, f"its cluster ids do not rise from 0 to below {meta.next_id}")
    kinds, known = arrays["migration"]["kind"], {NOISE, *ids.tolist()}
    if (kinds >= len(KINDS)).any() or not known.issuperset(arrays["migration"]["new"].tolist()):
        raise _unreadable(key, "its migration table is of other clusters")


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
    fitted_on: FittedOn,
    descent: Descent | None = None,
) -> ClusterModel:
    """Makes the model of a fit: centroids, radii, sizes and quality figures.

    Args:
        fit: what the engine found.
        vectors: (n, dim) float32 unit vectors, the sample as it was fitted.
        sample_ids: (n, 16) uint8, their chunk ids.
        pool: name of the pool.
        fitted_on: what the sample was drawn from, and by which settings it was fitted.
        descent: from the generation before; None: this is the first.

    Raises:
        SchemaError: ids and vectors differ in number.
    """
    if sample_ids.shape != (len(vectors), 16):
        raise SchemaError(
            f"pool {pool!r}: chunk ids have the shape {sample_ids.shape}, "
            f"not {(len(vectors), 16)}; read ids and vectors from the same shards"
        )
    if descent is None:
        k = len(fit.persistence)
        descent = Descent(0, None, np.arange(k, dtype=np.int32), k, np.empty(0, MIGRATION))
    order = np.argsort(descent.cluster_ids)
    fit = _in_order(fit, order)
    centroids = unit_centroids(vectors, fit.labels)
    distances = own_distances(vectors, fit.labels, centroids)
    margins = 1.0 - distances - nearest_other(vectors, fit.labels, centroids)
    n_clusters = len(centroids)
    is_member = fit.labels >= 0
    stable = fit.persistence[np.isfinite(fit.persistence)]
    meta = ClusterModelMeta(
        pool=pool,
        fitted_on=fitted_on,
        versions=fit.versions,
        generation=descent.generation,
        previous=descent.previous,
        next_id=descent.next_id,
        n_sample=len(vectors),
        n_clusters=n_clusters,
        n_cells=len(fit.cell_centroids),
        n_groups=len(fit.group_parents),
        noise_share=float(np.mean(~is_member)),
        # rounded, because the last bits of a matrix product change with the number of threads
        separation=round(float(margins[is_member].mean()), 6) if n_clusters > 1 else None,
        persistence=round(float(stable.mean(dtype=np.float64)), 6) if stable.size else None,
        reduction=fit.reduction,
        is_fallback=bool(fit.fallback_reason),
        fallback_reason=fit.fallback_reason,
        coverage=None,
    )
    return ClusterModel(
        cluster_ids=descent.cluster_ids[order].astype(np.int32),
        centroids=centroids,
        radii=radii_of(distances, fit.labels, n_clusters).astype(np.float32),
        sizes=np.bincount(fit.labels[is_member], minlength=n_clusters),
        persistence=fit.persistence.astype(np.float32),
        cell_centroids=fit.cell_centroids.astype(np.float32),
        cell_clusters=fit.cell_clusters.astype(np.int32),
        linkage=fit.linkage.astype(np.float64),
        parents=fit.parents.astype(np.int32),
        group_parents=fit.group_parents.astype(np.int32),
        migration=descent.migration,
        sample_labels=fit.labels.astype(np.int32),
        sample_strengths=fit.strengths.astype(np.float32),
        sample_ids=np.ascontiguousarray(sample_ids, dtype=np.uint8),
        meta=meta,
    )


def _in_order(fit: Fit, order: np.ndarray) -> Fit:
    """The same fit, its clusters in another order: (k,) int64, the row that each one had."""
    row = np.empty(len(order) + 1, dtype=np.int32)
    row[order] = np.arange(len(order))
    row[NOISE] = NOISE  # its last place: label -1
    linkage = fit.linkage.copy()
    is_leaf = linkage[:, :2] < len(order)  # above that a number means an earlier row of the linkage
    linkage[:, :2][is_leaf] = row[linkage[:, :2][is_leaf].astype(np.int64)]
    linkage[:, :2].sort(axis=1)
    clusters = row[fit.cell_clusters]
    side_by_side = np.argsort(clusters, kind="stable")
    return replace(
        fit,
        labels=row[fit.labels],
        persistence=fit.persistence[order],
        cell_centroids=fit.cell_centroids[side_by_side],
        cell_clusters=clusters[side_by_side],
        linkage=linkage,
        parents=fit.parents[order],
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


def nearest_other(vectors: np.ndarray, labels: np.ndarray, centroids: np.ndarray) -> np.ndarray:
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
