"""Exact centroids, radii and medoids of a pool, by two passes over its shards in any order.

The model's centroids come from a sample; these come from every chunk: of a cluster from its
members, of a cell from all that lies in it, noise too, since a search finds it there. Nothing here
depends on the order of shards or batches: sums are whole numbers, ties are broken by chunk id.
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
    """First pass: sums of vectors by cell, counts of members and noise."""

    def __init__(self, model: ClusterModel) -> None:
        self.model = model
        # of members and of noise, each (c, dim) in 1 / FIXED_POINT
        self._members, self._noise = np.zeros((2, *model.cell_centroids.shape), dtype=np.int64)
        self._n_members, self._n_noise = np.zeros((2, len(model.cell_centroids)), dtype=np.int64)

    def add(self, vectors: np.ndarray, cell_ids: np.ndarray, is_noise: np.ndarray) -> None:
        """Counts a batch in.

        Args:
            vectors: (n, dim) float32.
            cell_ids: (n,) int32.
            is_noise: (n,) bool.

        Raises:
            SchemaError: an id is none of the model's, or the lengths differ.
        """
        n_cells = len(self._n_members)
        _check_batch(vectors, cell_ids, is_noise, n_cells=n_cells)
        for sums, counts, is_one in (
            (self._members, self._n_members, ~is_noise),
            (self._noise, self._n_noise, is_noise),
        ):
            counts += np.bincount(cell_ids[is_one], minlength=n_cells)
            chosen = np.flatnonzero(is_one)
            chosen = chosen[np.argsort(cell_ids[chosen], kind="stable")]
            for rows in row_blocks(len(chosen), n_columns=vectors.shape[1]):
                block = chosen[rows]
                present, starts = np.unique(cell_ids[block], return_index=True)
                whole = np.rint(vectors[block].astype(np.float64) * FIXED_POINT).astype(np.int64)
                sums[present] += np.add.reduceat(whole, starts, axis=0)

    @property
    def n_chunks(self) -> np.ndarray:
        """Members of each cluster, (k,) int64; noise not counted."""
        return self._by_cluster(self._n_members)

    @property
    def n_noise(self) -> np.ndarray:
        """Noise in each cluster's cells, (k,) int64."""
        return self._by_cluster(self._n_noise)

    @property
    def n_cell_chunks(self) -> np.ndarray:
        """Chunks of each cell, (c,) int64; noise counted."""
        counts: np.ndarray = self._n_members + self._n_noise
        return counts

    def centroids(self) -> np.ndarray:
        """(k, dim) float32, unit length; the model's own where a cluster got no member, or where
        its members cancel out."""
        return _unit_or(self._by_cluster(self._members), self.model.centroids)

    def cell_centroids(self) -> np.ndarray:
        """(c, dim) float32, unit length; the model's own where a cell got no chunk, or where its
        chunks cancel out."""
        return _unit_or(self._members + self._noise, self.model.cell_centroids)

    def _by_cluster(self, of_cells: np.ndarray) -> np.ndarray:
        """Sums over each cluster's cells, which lie side by side."""
        starts = np.searchsorted(self.model.cell_clusters, np.arange(len(self.model.centroids)))
        sums: np.ndarray = np.add.reduceat(of_cells, starts, axis=0)
        return sums


def _unit_or(sums: np.ndarray, instead: np.ndarray) -> np.ndarray:
    """Rows of `sums` at unit length in float32, and rows of `instead` for those of length 0."""
    wide = sums.astype(np.float64)
    norms = np.sqrt((wide * wide).sum(axis=1, keepdims=True))
    has_direction = norms > 0
    unit = wide / np.where(has_direction, norms, 1.0)
    return np.where(has_direction, unit, instead).astype(np.float32)


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
        cell_ids: np.ndarray,
        is_noise: np.ndarray,
    ) -> None:
        """Counts a batch in.

        Args:
            vectors: (n, dim) float32.
            chunk_ids: (n, 16) uint8.
            cell_ids: (n,) int32.
            is_noise: (n,) bool.

        Raises:
            SchemaError: an id is none of the model's, or the lengths differ.
        """
        model = self._first_pass.model
        _check_batch(vectors, cell_ids, is_noise, n_cells=len(model.cell_clusters))
        if chunk_ids.shape != (len(vectors), 16):
            raise SchemaError(
                f"chunk ids have the shape {chunk_ids.shape}, not {(len(vectors), 16)}; "
                "read ids and vectors from the same rows"
            )
        members = np.flatnonzero(~is_noise)
        for rows in row_blocks(len(members), n_columns=vectors.shape[1]):
            block = members[rows]
            own = model.cell_clusters[cell_ids[block]]
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
        """One row of `schemas.centroids` per cluster, by rising id; those without members included.

        The radius is the upper edge of the bin that holds `RADIUS_QUANTILE` of the members; a
        cluster without members keeps the model's centroid and radius.
        """
        first = self._first_pass
        n_clusters, dim = self._centroids.shape
        cells = np.arange(len(first.model.cell_clusters), dtype=np.int32)
        cell_offsets = pa.array(
            np.searchsorted(first.model.cell_clusters, np.arange(n_clusters + 1)), pa.int32()
        )
        offsets = pa.array(np.cumsum([0, *map(len, self._medoids)]), pa.int32())
        kept = [medoid for medoids in self._medoids for medoid in medoids]
        medoid_ids = pa.array([chunk_id for _, chunk_id, _ in kept], schemas.CHUNK_ID)
        medoids = np.frombuffer(b"".join(vector for _, _, vector in kept), dtype=np.float32)
        return pa.table(
            [
                pa.array(first.model.cluster_ids),
                pa.array(first.n_chunks),
                pa.array(first.n_noise),
                pa.array(self._radii()),
                _vector_array(self._centroids),
                pa.ListArray.from_arrays(offsets, medoid_ids),
                pa.ListArray.from_arrays(offsets, _vector_array(medoids.reshape(-1, dim))),
                pa.ListArray.from_arrays(cell_offsets, pa.array(cells)),
                pa.ListArray.from_arrays(cell_offsets, pa.array(first.n_cell_chunks)),
                pa.ListArray.from_arrays(cell_offsets, _vector_array(first.cell_centroids())),
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
    vectors: np.ndarray, cell_ids: np.ndarray, is_noise: np.ndarray, *, n_cells: int
) -> None:
    if not len(vectors) == len(cell_ids) == len(is_noise):
        raise SchemaError(
            f"{len(vectors)} vectors, {len(cell_ids)} cell ids and {len(is_noise)} noise "
            "marks do not belong together; read them from the same shard"
        )
    if len(cell_ids) and not (cell_ids.min() >= 0 and cell_ids.max() < n_cells):
        raise SchemaError(
            f"cell ids {cell_ids.min()} to {cell_ids.max()} are not all of a model with "
            f"{n_cells} cells; materialize the shard's assignments again"
        )


def _vector_array(vectors: np.ndarray) -> pa.FixedSizeListArray:
    """(n, dim) float32 as (n,) of `schemas.vector_type`."""
    flat = pa.array(np.ascontiguousarray(vectors).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, type=schemas.vector_type(vectors.shape[1]))
