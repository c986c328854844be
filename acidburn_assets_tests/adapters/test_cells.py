import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from acidburn_assets.adapters.cells import Cells, divide
from acidburn_assets.core.cluster_model import NOISE, unit_centroids
from acidburn_assets_tests.core.cluster_samples import blobs


def divided(
    vectors: np.ndarray, labels: np.ndarray, n_cells: int, *, seed: int = 0, n_threads: int = 2
) -> Cells:
    with threadpool_limits(limits=1):
        return divide(vectors, labels, n_cells=n_cells, seed=seed, n_threads=n_threads)


def test_cells_of_a_cluster_lie_side_by_side_and_share_out_by_size() -> None:
    vectors, truth = blobs((300, 100, 40), n_noise=60)
    made = divided(vectors, truth, 25)
    assert np.bincount(made.clusters).tolist() == pytest.approx([16, 6, 3], abs=2)
    assert (np.diff(made.clusters) >= 0).all()
    assert made.centroids.shape == (len(made.clusters), vectors.shape[1])
    np.testing.assert_allclose(np.linalg.norm(made.centroids, axis=1), 1, atol=1e-6)


def test_members_lie_in_cells_of_their_own_cluster() -> None:
    vectors, truth = blobs((300, 100, 40))
    made = divided(vectors, truth, 25)
    nearest = made.clusters[np.argmax(vectors @ made.centroids.T, axis=1)]
    assert (nearest == truth).mean() > 0.99


def test_a_cell_is_the_mean_of_what_is_nearest_to_it_noise_too() -> None:
    """Rounds end before the last vector has found its place: nearly the mean."""
    vectors, truth = blobs((200, 200), n_noise=200, dim=4)
    made = divided(vectors, truth, 12)
    nearest = np.argmax(vectors @ made.centroids.T, axis=1)
    means = unit_centroids(vectors, nearest.astype(np.int32))
    assert (means * made.centroids).sum(axis=1).min() > 0.99


def test_more_cells_leave_less_between_a_vector_and_its_cell() -> None:
    vectors, truth = blobs((400, 300), dim=8)
    near = [
        (vectors @ divided(vectors, truth, n_cells).centroids.T).max(axis=1).mean()
        for n_cells in (2, 8, 32)
    ]
    assert near[0] < near[1] < near[2]


def test_threads_change_no_bit_and_a_seed_does() -> None:
    vectors, truth = blobs((500, 300), n_noise=100)
    one, four, other = (
        divided(vectors, truth, 20, n_threads=1),
        divided(vectors, truth, 20, n_threads=4),
        divided(vectors, truth, 20, seed=1),
    )
    assert one.centroids.tobytes() == four.centroids.tobytes()
    assert one.centroids.tobytes() != other.centroids.tobytes()


def test_every_cluster_has_a_cell_however_few_are_asked_for() -> None:
    vectors, truth = blobs((60, 40, 20))
    assert divided(vectors, truth, 1).clusters.tolist() == [0, 1, 2]


def test_copies_share_a_cell() -> None:
    vectors = np.repeat(blobs((1, 1), dim=8)[0], 50, axis=0)
    made = divided(vectors, np.repeat([0, 1], 50).astype(np.int32), 20)
    assert made.clusters.tolist() == [0, 1]


def test_noise_alone_around_one_cluster_is_held_by_its_cells() -> None:
    vectors, truth = blobs((30,), n_noise=300, dim=6)
    assert (truth == NOISE).sum() == 300
    made = divided(vectors, truth, 15)
    assert len(made.clusters) == 15
    assert (vectors @ made.centroids.T).max(axis=1).min() > 0
