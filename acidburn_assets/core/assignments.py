"""Assignments: every chunk's cell and cluster, how strongly it belongs, and whether it is noise.

A chunk lies in the cell that is nearest to it, and so in that cell's cluster: a cluster need not be
round. Noise is marked but never lost: it has a cell like any other chunk, so a search that looks
into cells can reach every chunk.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from acidburn_assets.core import schemas
from acidburn_assets.core.cluster_model import (
    ClusterModel,
    check_vectors,
    row_blocks,
    row_cosines,
    strength,
)
from acidburn_assets.core.errors import SchemaError


class Places(NamedTuple):
    """Where vectors lie, as rows of a model."""

    cells: np.ndarray  # (n,) int32, nearest cell
    clusters: np.ndarray  # (n,) int32, that cell's cluster
    distances: np.ndarray  # (n,) float32, 1 - cosine to that cluster's centroid
    is_noise: np.ndarray  # (n,) bool, beyond that cluster's radius


def assign(vectors: np.ndarray, model: ClusterModel, chunk_ids: pa.Array) -> pa.RecordBatch:
    """Gives each vector its nearest cell, and the cluster that the cell is of.

    With `distance` = 1 - cosine to that cluster's centroid and `radius` of it (95 % of the fit's
    members are within it): `strength` = radius / (radius + distance), 1 at the centroid and .5 at
    the radius; `is_noise` = distance > radius. A row depends on its own vector alone: the same
    shard in other batches has the same bytes.

    Args:
        vectors: (n, dim) float32, unit length up to storage rounding.
        model: the pool's model.
        chunk_ids: (n,) of `schemas.CHUNK_ID`.

    Returns:
        (n,) rows of `schemas.ASSIGNMENTS`, in the order of `vectors`.

    Raises:
        ModelError: the vectors have another dimension than the model, or one is zero or not finite.
        SchemaError: ids and vectors differ in number.
    """
    if len(chunk_ids) != len(vectors):
        raise SchemaError(
            f"{len(vectors)} vectors came with {len(chunk_ids)} chunk ids; "
            "read both from the same rows"
        )
    found = place(vectors, model)
    strengths = strength(found.distances.astype(np.float64), model.radii[found.clusters])
    return pa.RecordBatch.from_arrays(
        [
            chunk_ids,
            pa.array(model.cluster_ids[found.clusters]),
            pa.array(found.cells),
            pa.array(strengths.astype(np.float32)),
            pa.array(found.distances),
            pa.array(found.is_noise),
        ],
        schema=schemas.ASSIGNMENTS,
    )


def place(vectors: np.ndarray, model: ClusterModel) -> Places:
    """Finds each vector's nearest cell.

    Args:
        vectors: (n, dim) float32, unit length up to storage rounding.
        model: the pool's model.

    Raises:
        ModelError: the vectors have another dimension than the model, or one is zero or not finite.
    """
    check_vectors(vectors, dim=model.meta.dim)
    cells = np.zeros(len(vectors), dtype=np.int32)
    distances = np.zeros(len(vectors))
    for rows in row_blocks(len(vectors), n_columns=max(model.cell_centroids.shape)):
        cells[rows] = _nearest(vectors[rows], model.cell_centroids)
        own = model.centroids[model.cell_clusters[cells[rows]]]
        distances[rows] = np.maximum(0.0, 1.0 - row_cosines(vectors[rows], own))
    clusters = model.cell_clusters[cells]
    # compared as they are stored, so that a reader who compares them finds the same noise
    stored = distances.astype(np.float32)
    return Places(cells, clusters, stored, stored > model.radii[clusters])


def _nearest(vectors: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Row of the nearest centroid of each vector, (n,) int64, ties to the first.

    A matrix product in float32 finds all centroids that can be the nearest, and the decision is
    made on cosines that no batch border touches.
    """
    n, dim = vectors.shape
    products = vectors @ centroids.T  # (n, k) float32
    # twice the bound on the error of a float32 product of unit vectors, dim * 2**-24 each, and
    # half as much again for vectors that rounding left a little longer than 1
    slack = np.float32(3 * dim * 2.0**-24)
    is_candidate = products >= products.max(axis=1, keepdims=True) - slack
    row, cluster = np.nonzero(is_candidate)
    cosine = row_cosines(vectors[row], centroids[cluster])
    order = np.lexsort((cluster, -cosine, row))
    first = order[np.searchsorted(row, np.arange(n))]  # sorted by row, so a row's best comes first
    nearest: np.ndarray = cluster[first]
    return nearest
