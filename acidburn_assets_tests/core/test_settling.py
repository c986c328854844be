import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidburn_assets.core.cluster_model import NOISE
from acidburn_assets.core.settling import settle, silhouettes
from acidburn_assets_tests.core.cluster_samples import blobs


def same(labels: np.ndarray, other: np.ndarray) -> bool:
    """Whether two clusterings are the same but for their numbers."""
    pairs = set(zip(labels.tolist(), other.tolist(), strict=True))
    is_one_to_one = len(pairs) == len({one for one, _ in pairs}) == len({two for _, two in pairs})
    return is_one_to_one and all((one == NOISE) == (two == NOISE) for one, two in pairs)


def test_a_cluster_that_came_apart_for_nothing_stays_whole() -> None:
    vectors, truth = blobs((60, 40, 20))
    apart = np.where((truth == 0) & (np.arange(len(truth)) % 2 == 0), 3, truth)
    assert same(settle(apart, truth, vectors, min_members=5), truth)


def test_two_clusters_that_became_one_for_nothing_stay_two() -> None:
    vectors, truth = blobs((60, 40, 20))
    assert same(settle(np.minimum(truth, 1), truth, vectors, min_members=5), truth)


def test_a_split_that_is_better_is_taken() -> None:
    vectors, truth = blobs((60, 40, 20))
    assert same(settle(truth, np.minimum(truth, 1), vectors, min_members=5), truth)


def test_a_cluster_that_was_lost_to_noise_comes_back() -> None:
    vectors, truth = blobs((60, 40, 20))
    lost = np.where(truth == 2, NOISE, truth)
    assert same(settle(lost, truth, vectors, min_members=5), truth)
    assert same(settle(lost, truth, vectors, min_members=21), lost)  # too little is left of it


def test_a_new_cluster_is_taken() -> None:
    vectors, truth = blobs((60, 40, 20))
    assert same(settle(truth, np.where(truth == 2, NOISE, truth), vectors, min_members=5), truth)


def test_what_is_the_same_has_its_members_of_now() -> None:
    vectors, truth = blobs((60, 40, 20))
    grown = np.where(np.arange(len(truth)) % 6 == 0, NOISE, truth)
    assert same(settle(truth, grown, vectors, min_members=5), truth)


def test_what_has_nothing_to_do_with_a_change_does_not_change_with_it() -> None:
    vectors, truth = blobs((60, 40, 20, 30))
    now = np.where((truth == 0) & (np.arange(len(truth)) % 2 == 0), 4, truth)
    now[np.flatnonzero(truth == 3)[:5]] = NOISE
    settled = settle(now, truth, vectors, min_members=5)
    assert same(settled, np.where(now == 4, 0, now))


def test_nothing_before_is_nothing_to_keep() -> None:
    vectors, truth = blobs((60, 40, 20), n_noise=5)
    before = np.full(len(truth), NOISE)
    assert same(settle(truth, before, vectors, min_members=5), truth)


@given(data=st.data())
def test_every_cluster_comes_from_one_of_the_two(data: st.DataObject) -> None:
    vectors, _ = blobs((10, 8, 6), dim=4)
    labels = st.lists(st.integers(-1, 3), min_size=24, max_size=24).map(np.array)
    new, old = data.draw(labels), data.draw(labels)
    settled = settle(new, old, vectors, min_members=2)
    for cluster in np.unique(settled[settled >= 0]):
        members = settled == cluster
        assert any(
            len(np.unique(of[members])) == 1 and (of[members] >= 0).all() for of in (new, old)
        )
    assert np.array_equal(settled, settle(new, old, vectors, min_members=2))


@pytest.mark.parametrize(("n_clusters", "expected"), [(1, 0.0), (2, 1.0)])
def test_a_silhouette_is_one_at_the_centroid_and_none_without_another(
    n_clusters: int, expected: float
) -> None:
    vectors = np.eye(4, dtype=np.float32)[[0, 0, 1, 1]]
    labels = np.array([0, 0, 1, 1]) * (n_clusters - 1)
    assert silhouettes(vectors, labels).tolist() == pytest.approx([expected] * 4, abs=1e-6)
