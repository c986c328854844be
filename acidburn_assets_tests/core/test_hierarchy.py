import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.cluster import hierarchy as scipy_hierarchy

from acidburn_assets.core import cluster_model, hierarchy


def directions(k: int, *, dim: int = 12, seed: int = 0) -> np.ndarray:
    made = np.random.default_rng(seed).normal(size=(k, dim)).astype(np.float32)
    unit: np.ndarray = made / np.linalg.norm(made, axis=1, keepdims=True)
    return unit


@pytest.mark.parametrize("k", [1, 2, 3, 5, 60, 300])
def test_the_tree_is_scipys_own(k: int) -> None:
    centroids = directions(k)
    linkage = hierarchy.link(centroids)
    assert linkage.shape == (k - 1, 4)
    if k > 1:
        expected = scipy_hierarchy.linkage(centroids.astype(np.float64), method="ward")
        np.testing.assert_allclose(linkage, expected, atol=1e-9)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = hierarchy.link(directions(80))
    monkeypatch.setattr(cluster_model, "BLOCK_VALUES", 300)
    np.testing.assert_allclose(hierarchy.link(directions(80)), whole, atol=1e-12)


@given(k=st.integers(2, 40), n_distinct=st.integers(1, 5), seed=st.integers(0, 100))
def test_copies_are_joined_first_and_the_tree_is_a_tree(k: int, n_distinct: int, seed: int) -> None:
    which = np.random.default_rng(seed).integers(0, n_distinct, k)
    linkage = hierarchy.link(directions(n_distinct, seed=seed)[which])
    assert scipy_hierarchy.is_valid_linkage(linkage)
    assert (np.diff(linkage[:, 2]) >= 0).all()
    n_copies = k - len(np.unique(which))
    assert (linkage[:n_copies, 2] < 1e-6).all()


def test_a_row_of_ever_greater_gaps_has_no_two_pairs_at_a_time() -> None:
    """Each is the nearest of the one after it: the worst case, one join in each round."""
    angles = np.cumsum(1.01 ** np.arange(60)) / 100
    centroids = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    expected = scipy_hierarchy.linkage(centroids.astype(np.float64), method="ward")
    np.testing.assert_allclose(hierarchy.link(centroids)[:, 2], expected[:, 2], atol=1e-6)


@given(k=st.integers(1, 60), data=st.data())
def test_a_cut_leaves_as_many_groups_as_asked_for(k: int, data: st.DataObject) -> None:
    n_groups = data.draw(st.integers(1, k))
    groups = hierarchy.cut(hierarchy.link(directions(k, seed=k)), n_groups)
    assert groups.dtype == np.int32
    _, first = np.unique(groups, return_index=True)
    assert len(first) == n_groups
    assert (np.diff(first) > 0).all()  # numbered by the first cluster in each


@pytest.mark.parametrize(
    ("k", "sizes"),
    [(1, []), (3, []), (4, [2]), (15, [4]), (150, [12]), (300, [17, 4]), (2_000, [45, 7])],
)
def test_a_level_has_the_square_root_of_what_is_below(k: int, sizes: list[int]) -> None:
    parents, group_parents = hierarchy.levels(hierarchy.link(directions(k)))
    assert len(parents) == k
    assert len(group_parents) == sum(sizes)
    if not sizes:
        assert parents.tolist() == [-1] * k
        return
    starts = np.cumsum([0, *sizes])
    assert sorted(set(parents.tolist())) == list(range(sizes[0]))
    for level, (start, stop) in enumerate(itertools.pairwise(starts)):
        above = set(group_parents[start:stop].tolist())
        is_top = level == len(sizes) - 1
        assert above == ({-1} if is_top else set(range(stop, starts[level + 2])))


def test_every_level_is_a_cut_of_the_same_tree() -> None:
    """So a cluster's group lies wholly inside the group above it."""
    linkage = hierarchy.link(directions(400))
    parents, group_parents = hierarchy.levels(linkage)
    np.testing.assert_array_equal(parents, hierarchy.cut(linkage, 20))
    np.testing.assert_array_equal(group_parents[parents] - 20, hierarchy.cut(linkage, 4))


def test_groups_and_their_clusters_are_found_at_every_level() -> None:
    levels = hierarchy.Levels(
        parents=np.array([0, 1, 0, 2], np.int32),
        group_parents=np.array([3, 4, 4, -1, -1], np.int32),
    )
    assert hierarchy.groups_by_level(levels) == [[0, 1, 2], [3, 4]]
    assert hierarchy.clusters_below(levels) == {0: [0, 2], 1: [1], 2: [3], 3: [0, 2], 4: [1, 3]}


def test_few_clusters_lie_in_no_group() -> None:
    levels = hierarchy.levels(hierarchy.link(directions(3)))
    assert hierarchy.groups_by_level(levels) == []
    assert hierarchy.clusters_below(levels) == {}
