import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from acidburn_assets.adapters import projector
from acidburn_assets.core.errors import ModelError
from acidburn_assets_tests.core.cluster_samples import blobs


def test_neighbors_stay_neighbors() -> None:
    vectors, truth = blobs((80, 70, 60), dim=48)
    points = projector.project(vectors, seed=0)
    assert points.shape == (210, 2)
    assert points.dtype == np.float32
    assert np.abs(points).max() == 1.0
    apart = ((points[:, None] - points[None]) ** 2).sum(axis=2)
    np.fill_diagonal(apart, np.inf)
    nearest = apart.argmin(axis=1)
    assert np.mean(truth[nearest] == truth) > 0.98


def test_the_same_vectors_lie_at_the_same_place_whatever_the_threads() -> None:
    vectors, _ = blobs((60, 50), dim=48)
    places = []
    for n_threads in (1, 2):
        with threadpool_limits(limits=n_threads):
            places.append(projector.project(vectors, seed=3).tobytes())
    assert places[0] == places[1]


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 9])
def test_few_vectors_have_a_place_too(n: int) -> None:
    vectors, _ = blobs((n,), dim=16)
    points = projector.project(vectors, seed=0)
    assert points.shape == (n, 2)
    assert np.isfinite(points).all()
    assert len(np.unique(points, axis=0)) == n


def test_vectors_that_are_all_the_same_share_one_place() -> None:
    points = projector.project(np.tile(blobs((1,))[0], (40, 1)), seed=0)
    assert points.tolist() == [[0.0, 0.0]] * 40


def test_copies_among_others_stay_together() -> None:
    vectors, _ = blobs((60, 60), dim=24)
    vectors[:20] = vectors[0]
    points = projector.project(vectors, seed=0)
    assert np.isfinite(points).all()
    assert np.ptp(points[:20], axis=0).max() < 0.5


def test_a_vector_without_direction_names_its_row() -> None:
    vectors, _ = blobs()
    vectors[2] = 0
    with pytest.raises(ModelError, match="row 2"):
        projector.project(vectors, seed=0)


def test_no_vector_at_all_is_refused() -> None:
    with pytest.raises(ModelError, match="no vector"):
        projector.project(np.empty((0, 24), dtype=np.float32), seed=0)


def test_more_than_are_laid_out_lie_beside_their_like(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projector, "LAID_OUT_POINTS", 90)
    vectors, truth = blobs((80, 70, 60), dim=48)
    points = projector.project(vectors, seed=0)
    assert points.shape == (210, 2)
    assert np.abs(points).max() == 1.0
    apart = ((points[:, None] - points[None]) ** 2).sum(axis=2)
    np.fill_diagonal(apart, np.inf)
    assert np.mean(truth[apart.argmin(axis=1)] == truth) > 0.98
    assert len(np.unique(points, axis=0)) > 150  # between their nearest, not on top of one


def test_further_points_lie_where_they_did_whatever_the_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(projector, "LAID_OUT_POINTS", 60)
    vectors, _ = blobs((60, 50), dim=48)
    places = []
    for n_threads in (1, 2):
        with threadpool_limits(limits=n_threads):
            places.append(projector.project(vectors, seed=3).tobytes())
    assert places[0] == places[1]


def test_as_many_as_are_laid_out_have_the_layout_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, _ = blobs((30, 30), dim=24)
    alone = projector.project(vectors, seed=0)
    monkeypatch.setattr(projector, "LAID_OUT_POINTS", 60)
    assert projector.project(vectors, seed=0).tobytes() == alone.tobytes()
