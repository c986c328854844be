"""Exact centroids, radii and medoids of a pool, by two passes over its shards in any order.

The model's centroids come from a sample; these come from every chunk. Nothing here depends on the
order of shards or batches: sums are whole numbers, ties are broken by chunk id.
"""

import numpy as np
import pyarrow as pa

from acidburn_assets.core import schemas
from acidburn_assets.core.cluster_model import (
    RADIUS_QUANTILE,
    ClusterModel,
    row_blocks,
    row_cosines,
)
from acidburn_assets.core.errors import SchemaError

FIXED_POINT = 2.0**24
"""One unit of a sum. Stored embeddings are fp16 values, multiples of 2**-24, so their sum is exact.

Source: IEEE 754 binary16, least subnormal 2**-24. An int64 holds 2**39 unit vectors.
"""

RADIUS_BINS = 4096
"""Bins of 1 - cosine over [0, 2]: a radius is at most 2 / 4096 = .0005 too large. Chosen."""

N_MEDOIDS = 5
"""Members nearest to the centroid that are kept. Chosen: what a label and a router can read."""


class CentroidAccumulator:
    """First pass: sums of the members' vectors, counts of members and noise."""

    def __init__(self, model: ClusterModel) -> None:
        self.model = model
        self._sums = np.zeros(model.centroids.shape, dtype=np.int64)  # in 1 / FIXED_POINT
        self.n_chunks = np.zeros(len(model.centroids), dtype=np.int64)  # noise not counted
        self.n_noise = np.zeros(len(model.centroids), dtype=np.int64)

    def add(self, vectors: np.ndarray, cluster_ids: np.ndarray, is_noise: np.ndarray) -> None:
        """Counts a batch in.

        Args:
            vectors: (n, dim) float32.
            cluster_ids: (n,) int32.
            is_noise: (n,) bool.

        Raises:
            SchemaError: an id is none of the model's, or the lengths differ.
        """
        n_clusters = len(self.n_chunks)
        _check_batch(vectors, cluster_ids, is_noise, n_clusters=n_clusters)
        self.n_noise += np.bincount(cluster_ids[is_noise], minlength=n_clusters)
        self.n_chunks += np.bincount(cluster_ids[~is_noise], minlength=n_clusters)
        members = np.flatnonzero(~is_noise)
        members = members[np.argsort(cluster_ids[members], kind="stable")]
        for rows in row_blocks(len(members), n_columns=vectors.shape[1]):
            block = members[rows]
            present, starts = np.unique(cluster_ids[block], return_index=True)
            whole = np.rint(vectors[block].astype(np.float64) * FIXED_POINT).astype(np.int64)
            self._sums[present] += np.add.reduceat(whole, starts, axis=0)

    def centroids(self) -> np.ndarray:
        """(k, dim) float32, unit length; the model's own where a cluster got no member, or where
        its members cancel out."""
        sums = self._sums.astype(np.float64)
        norms = np.sqrt((sums * sums).sum(axis=1, keepdims=True))
        has_direction = norms > 0
        unit = sums / np.where(has_direction, norms, 1.0)
        return np.where(has_direction, unit, self.model.centroids).astype(np.float32)


class MedoidAccumulator:
    """Second pass: the members nearest to the exact centroids, and the exact radii."""

    def __init__(self, first_pass: CentroidAccumulator, *, n_medoids: int = N_MEDOIDS) -> None:
        self._first_pass = first_pass
        self._centroids = first_pass.centroids()
        self._n_medoids = n_medoids
        n_clusters = len(self._centroids)
        self._histogram = np.zeros((n_clusters, RADIUS_BINS), dtype=np.int64)
        self._medoids: list[list[_Medoid]] = [[] for _ in range(n_clusters)]
        self._worst = np.full(n_clusters, np.inf)  # distance of the last medoid kept

    def add(
        self,
        vectors: np.ndarray,
        chunk_ids: np.ndarray,
        cluster_ids: np.ndarray,
        is_noise: np.ndarray,
    ) -> None:
        """Counts a batch in.

        Args:
            vectors: (n, dim) float32.
            chunk_ids: (n, 16) uint8.
            cluster_ids: (n,) int32.
            is_noise: (n,) bool.

        Raises:
            SchemaError: an id is none of the model's, or the lengths differ.
        """
        _check_batch(vectors, cluster_ids, is_noise, n_clusters=len(self._centroids))
        if chunk_ids.shape != (len(vectors), 16):
            raise SchemaError(
                f"chunk ids have the shape {chunk_ids.shape}, not {(len(vectors), 16)}; "
                "read ids and vectors from the same rows"
            )
        members = np.flatnonzero(~is_noise)
        for rows in row_blocks(len(members), n_columns=vectors.shape[1]):
            block = members[rows]
            own = cluster_ids[block]
            distances = np.maximum(0.0, 1.0 - row_cosines(vectors[block], self._centroids[own]))
            bins = np.minimum(distances * (RADIUS_BINS / 2), RADIUS_BINS - 1).astype(np.int64)
            np.add.at(self._histogram, (own, bins), 1)
            is_near = distances <= self._worst[own]
            self._offer(vectors, chunk_ids, block[is_near], own[is_near], distances[is_near])

    def _offer(
        self,
        vectors: np.ndarray,
        chunk_ids: np.ndarray,
        rows: np.ndarray,
        own: np.ndarray,
        distances: np.ndarray,
    ) -> None:
        """Keeps the nearest of what is there and what is new."""
        high, low = chunk_ids[rows].view(">u8").T  # as bytes compare
        order = np.lexsort((low, high, distances, own))
        present, starts = np.unique(own[order], return_index=True)
        for cluster, group in zip(present, np.split(order, starts)[1:], strict=True):
            kept = self._medoids[cluster]
            fresh: list[_Medoid] = []
            for at in group:
                row = rows[at]
                medoid = (float(distances[at]), chunk_ids[row].tobytes(), vectors[row].tobytes())
                # copies of a text share one vector: they would crowd out all other members
                if all(medoid[2] != other[2] for other in fresh):
                    fresh.append(medoid)
                if len(fresh) == self._n_medoids:
                    break
            distinct: dict[bytes, _Medoid] = {}
            for medoid in sorted(kept + fresh):
                distinct.setdefault(medoid[2], medoid)
            self._medoids[cluster] = list(distinct.values())[: self._n_medoids]
            if len(self._medoids[cluster]) == self._n_medoids:
                self._worst[cluster] = self._medoids[cluster][-1][0]

    def finish(self) -> pa.Table:
        """One row of `schemas.centroids` per cluster 0 … k-1; those without members included.

        The radius is the upper edge of the bin that holds `RADIUS_QUANTILE` of the members; a
        cluster without members keeps the model's centroid and radius.
        """
        n_clusters, dim = self._centroids.shape
        offsets = pa.array(np.cumsum([0, *map(len, self._medoids)]), pa.int32())
        kept = [medoid for medoids in self._medoids for medoid in medoids]
        medoid_ids = pa.array([chunk_id for _, chunk_id, _ in kept], schemas.CHUNK_ID)
        medoids = np.frombuffer(b"".join(vector for _, _, vector in kept), dtype=np.float32)
        return pa.table(
            [
                pa.array(range(n_clusters), pa.int32()),
                pa.array(self._first_pass.n_chunks),
                pa.array(self._first_pass.n_noise),
                pa.array(self._radii()),
                _vector_array(self._centroids),
                pa.ListArray.from_arrays(offsets, medoid_ids),
                pa.ListArray.from_arrays(offsets, _vector_array(medoids.reshape(-1, dim))),
            ],
            schema=schemas.centroids(dim),
        )

    def _radii(self) -> np.ndarray:
        """(k,) float32."""
        n_within = np.cumsum(self._histogram, axis=1)
        wanted = np.ceil(n_within[:, -1:] * RADIUS_QUANTILE)
        last_bin = np.argmax(n_within >= wanted, axis=1)
        radii = (last_bin + 1) * (2 / RADIUS_BINS)
        has_members = n_within[:, -1] > 0
        return np.where(has_members, radii, self._first_pass.model.radii).astype(np.float32)


_Medoid = tuple[float, bytes, bytes]
"""Distance, chunk id, vector: sorted, the nearest comes first and ties go to the lowest id."""


def _check_batch(
    vectors: np.ndarray, cluster_ids: np.ndarray, is_noise: np.ndarray, *, n_clusters: int
) -> None:
    if not len(vectors) == len(cluster_ids) == len(is_noise):
        raise SchemaError(
            f"{len(vectors)} vectors, {len(cluster_ids)} cluster ids and {len(is_noise)} noise "
            "marks do not belong together; read them from the same shard"
        )
    if len(cluster_ids) and not (cluster_ids.min() >= 0 and cluster_ids.max() < n_clusters):
        raise SchemaError(
            f"cluster ids {cluster_ids.min()} to {cluster_ids.max()} are not all of a model with "
            f"{n_clusters} clusters; materialize the shard's assignments again"
        )


def _vector_array(vectors: np.ndarray) -> pa.FixedSizeListArray:
    """(n, dim) float32 as (n,) of `schemas.vector_type`."""
    flat = pa.array(np.ascontiguousarray(vectors).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, type=schemas.vector_type(vectors.shape[1]))
