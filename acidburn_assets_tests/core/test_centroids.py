import itertools
import math
import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acidburn_assets.core import schemas
from acidburn_assets.core.centroids import (
    N_MEDOIDS,
    RADIUS_BINS,
    CentroidAccumulator,
    MedoidAccumulator,
)
from acidburn_assets.core.cluster_model import NOISE, ClusterModel
from acidburn_assets.core.errors import SchemaError
from acidburn_assets_tests.core.cluster_samples import blobs, model_of, random_ids

Batch = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def reduce(model: ClusterModel, batches: list[Batch]) -> pa.Table:
    sums = CentroidAccumulator(model)
    for vectors, _, cells, is_noise in batches:
        sums.add(vectors, cells, is_noise)
    nearest = MedoidAccumulator(sums)
    for batch in batches:
        nearest.add(*batch)
    return nearest.finish()


def table_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return bytes(sink.getvalue())


def corpus(seed: int = 0) -> tuple[ClusterModel, Batch]:
    """Members and noise of four clusters in mixed order; noise is nearest to cluster 0."""
    vectors, truth = blobs((90, 60, 40, 10), dim=32, n_noise=50, seed=seed)
    model = model_of(vectors, truth)
    order = np.random.default_rng(seed).permutation(len(vectors))
    clusters = np.maximum(truth, 0).astype(np.int32)
    return model, (
        vectors[order],
        random_ids(len(vectors), seed=seed),
        clusters[order],
        (truth == NOISE)[order],
    )


def cut(batch: Batch, borders: list[int]) -> list[Batch]:
    vectors, ids, clusters, is_noise = batch
    slices = itertools.starmap(slice, itertools.pairwise([0, *sorted(borders), len(vectors)]))
    return [(vectors[rows], ids[rows], clusters[rows], is_noise[rows]) for rows in slices]


@settings(max_examples=25)
@given(borders=st.lists(st.integers(0, 250), max_size=6), order=st.randoms())
def test_shards_and_batches_in_any_order_give_the_same_bytes(
    borders: list[int], order: random.Random
) -> None:
    model, batch = corpus()
    parts = cut(batch, borders)
    order.shuffle(parts)
    assert table_bytes(reduce(model, parts)) == table_bytes(reduce(model, [batch]))


def test_centroids_are_exact_means_of_the_members() -> None:
    model, batch = corpus()
    vectors, _, clusters, is_noise = batch
    table = reduce(model, [batch])
    assert table.schema == schemas.centroids(32)
    assert table["cluster_id"].to_pylist() == [0, 1, 2, 3]
    assert table["n_chunks"].to_pylist() == [90, 60, 40, 10]
    assert table["n_noise"].to_pylist() == [50, 0, 0, 0]
    for cluster, centroid in enumerate(table["centroid"].to_pylist()):
        members = vectors[(clusters == cluster) & ~is_noise].astype(np.float64)
        exact = np.array([math.fsum(column) for column in members.T])
        expected = (exact / math.sqrt(math.fsum(exact * exact))).astype(np.float32)
        np.testing.assert_array_equal(np.array(centroid, dtype=np.float32), expected)


def test_cells_are_exact_means_of_all_that_lies_in_them() -> None:
    vectors, truth = blobs((90, 60), dim=32, n_noise=50)
    model = model_of(vectors, truth, n_cells_each=3)
    cells = np.where(truth == NOISE, 4, truth * 3 + np.arange(len(truth)) % 3).astype(np.int32)
    table = reduce(model, [(vectors, random_ids(len(vectors)), cells, truth == NOISE)])
    rows = table.to_pylist()
    assert [row["cell_ids"] for row in rows] == [[0, 1, 2], [3, 4, 5]]
    assert [row["cell_n_chunks"] for row in rows] == [[30, 30, 30], [20, 70, 20]]
    assert [(row["n_chunks"], row["n_noise"]) for row in rows] == [(90, 0), (60, 50)]
    for row in rows:
        for cell, centroid in zip(row["cell_ids"], row["cell_centroids"], strict=True):
            inside = vectors[cells == cell].astype(np.float64).sum(axis=0)
            np.testing.assert_allclose(centroid, inside / np.linalg.norm(inside), atol=1e-6)


def test_an_empty_cell_keeps_the_models_centroid() -> None:
    model, (vectors, ids, cells, is_noise) = corpus()
    kept = cells != 2
    table = reduce(model, [(vectors[kept], ids[kept], cells[kept], is_noise[kept])])
    row = table.to_pylist()[2]
    assert row["cell_n_chunks"] == [0]
    np.testing.assert_array_equal(
        np.array(row["cell_centroids"][0], dtype=np.float32), model.cell_centroids[2]
    )


def test_medoids_are_the_members_nearest_to_the_exact_centroid() -> None:
    model, batch = corpus()
    vectors, ids, clusters, is_noise = batch
    table = reduce(model, [batch])
    for row in table.to_pylist():
        members = np.flatnonzero((clusters == row["cluster_id"]) & ~is_noise)
        cosines = vectors[members].astype(np.float64) @ np.array(row["centroid"])
        cosines /= np.linalg.norm(vectors[members], axis=1)
        nearest = members[np.argsort(-cosines)][:N_MEDOIDS]
        assert row["medoid_ids"] == [ids[at].tobytes() for at in nearest]
        np.testing.assert_array_equal(np.array(row["medoids"]), vectors[nearest])


def test_a_radius_holds_95_percent_and_is_at_most_a_bin_too_large() -> None:
    model, batch = corpus()
    vectors, _, clusters, is_noise = batch
    for row in reduce(model, [batch]).to_pylist():
        members = vectors[(clusters == row["cluster_id"]) & ~is_noise].astype(np.float64)
        members /= np.linalg.norm(members, axis=1, keepdims=True)
        distances = np.sort(1 - members @ np.array(row["centroid"]))
        exact = distances[math.ceil(0.95 * len(distances)) - 1]
        assert 0 <= row["radius"] - exact <= 2 / RADIUS_BINS + 1e-6


def test_copies_of_a_text_are_one_medoid_the_one_of_the_lowest_id() -> None:
    vectors = np.repeat(blobs((3,))[0], [40, 2, 1], axis=0)
    clusters = np.zeros(43, dtype=np.int32)
    model = model_of(vectors, clusters)
    ids = random_ids(43)
    batch = (vectors, ids, clusters, np.zeros(43, dtype=bool))
    (row,) = reduce(model, cut(batch, [7, 20, 41])).to_pylist()
    lowest = [min(ids[group].tolist()) for group in (range(40), range(40, 42), range(42, 43))]
    assert sorted(row["medoid_ids"]) == sorted(map(bytes, lowest))
    assert row["medoid_ids"][0] == bytes(lowest[0])


def test_a_cluster_without_members_keeps_the_models_centroid() -> None:
    model, (vectors, ids, clusters, is_noise) = corpus()
    is_noise = is_noise | (clusters == 2)
    row = reduce(model, [(vectors, ids, clusters, is_noise)]).to_pylist()[2]
    assert (row["n_chunks"], row["n_noise"]) == (0, 40)
    np.testing.assert_array_equal(np.array(row["centroid"], np.float32), model.centroids[2])
    assert row["radius"] == model.radii[2]
    assert row["medoid_ids"] == []
    assert row["medoids"] == []


def test_no_shard_at_all_gives_every_cluster_without_members() -> None:
    model, _ = corpus()
    table = reduce(model, [])
    assert table["n_chunks"].to_pylist() == [0, 0, 0, 0]
    np.testing.assert_array_equal(np.array(table["centroid"].to_pylist()), model.centroids)


def test_a_cell_that_the_model_lacks_is_refused() -> None:
    model, (vectors, _, clusters, is_noise) = corpus()
    with pytest.raises(SchemaError, match="4 cells"):
        CentroidAccumulator(model).add(vectors, clusters + 1, is_noise)


def test_parts_of_different_shards_are_refused() -> None:
    model, (vectors, ids, clusters, is_noise) = corpus()
    sums = CentroidAccumulator(model)
    with pytest.raises(SchemaError, match="249 cell ids"):
        sums.add(vectors, clusters[1:], is_noise)
    with pytest.raises(SchemaError, match="chunk ids"):
        MedoidAccumulator(sums).add(vectors, ids[1:], clusters, is_noise)
