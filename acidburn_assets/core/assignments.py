"""Assignments: every chunk's nearest cluster, how strongly it belongs, and whether it is noise.

Noise is marked but never lost: its nearest cluster is kept with a strength below .5, so a query
that is routed by clusters can reach every chunk.
"""

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


def assign(vectors: np.ndarray, model: ClusterModel, chunk_ids: pa.Array) -> pa.RecordBatch:
    """Gives each vector its nearest centroid.

    With `distance` = 1 - cosine to that centroid and `radius` of that cluster (95 % of the fit's
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
    check_vectors(vectors, dim=model.meta.dim)
    if len(chunk_ids) != len(vectors):
        raise SchemaError(
            f"{len(vectors)} vectors came with {len(chunk_ids)} chunk ids; "
            "read both from the same rows"
        )
    cluster_ids = np.zeros(len(vectors), dtype=np.int32)
    distances = np.zeros(len(vectors))
    for rows in row_blocks(len(vectors), n_columns=max(model.centroids.shape)):
        cluster_ids[rows], distances[rows] = _nearest(vectors[rows], model.centroids)
    # compared as they are stored, so that a reader who compares them finds the same noise
    stored = distances.astype(np.float32)
    radii = model.radii[cluster_ids]
    return pa.RecordBatch.from_arrays(
        [
            chunk_ids,
            pa.array(cluster_ids),
            pa.array(strength(distances, radii).astype(np.float32)),
            pa.array(stored),
            pa.array(stored > radii),
        ],
        schema=schemas.ASSIGNMENTS,
    )


def _nearest(vectors: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nearest centroid of each vector, ties to the lowest id, and 1 - cosine to it.

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
    return cluster[first], np.maximum(0.0, 1.0 - cosine[first])
