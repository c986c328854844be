import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from acidburn_assets.adapters.neighbors import descended_neighbors, exact_neighbors
from acidburn_assets_tests.core.cluster_samples import blobs


@pytest.mark.parametrize(("n", "n_neighbors"), [(2, 2), (40, 12), (500, 12), (3_000, 40)])
def test_exact_neighbors_are_those_of_a_full_sort(n: int, n_neighbors: int) -> None:
    vectors, _ = blobs((n - n // 3, n // 3), dim=24)
    vectors[n // 10 : n // 8] = vectors[n // 10]  # ties
    with threadpool_limits(limits=1):
        neighbors, distances = exact_neighbors(vectors, n_neighbors, n_threads=2)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, np.inf)
    nearest = np.sort(cosines, axis=1)[:, ::-1][:, 1:n_neighbors]
    np.testing.assert_allclose(distances[:, 1:], np.maximum(1e-6, 1 - nearest), atol=1e-6)
    np.testing.assert_array_equal(neighbors[:, 0], np.arange(n))
    assert all(len(set(row)) == n_neighbors for row in neighbors.tolist())
    assert (distances[:, 0] == 0).all()
    assert (distances[:, 1:] > 0).all()


def test_copies_are_neighbors_in_the_order_of_their_rows() -> None:
    vectors, _ = blobs((300, 200), dim=24)
    vectors[100:140] = vectors[100]
    with threadpool_limits(limits=1):
        neighbors, _ = exact_neighbors(vectors, 12, n_threads=1)
    assert neighbors[100].tolist() == [*range(100, 112)]
    assert neighbors[120].tolist() == [120, *range(100, 111)]


def test_descent_finds_nearly_the_exact_neighbors() -> None:
    vectors, _ = blobs((400, 300, 200), dim=24)
    vectors[10:70] = vectors[10]  # more copies than a list has places
    with threadpool_limits(limits=1):
        exact, _ = exact_neighbors(vectors, 15, n_threads=2)
    found, distances = descended_neighbors(vectors, 15, seed=0)
    np.testing.assert_array_equal(found[:, 0], np.arange(900))
    unique = np.r_[0:10, 70:900]
    shared = [len(set(exact[at]) & set(found[at])) / 15 for at in unique]
    assert np.mean(shared) > 0.97
    assert (np.diff(distances, axis=1) >= 0).all()
