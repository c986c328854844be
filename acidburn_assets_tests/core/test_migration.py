from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidburn_assets.core import schemas
from acidburn_assets.core.cluster_model import KINDS, NOISE, ClusterModel
from acidburn_assets.core.migration import (
    SAME_SHARE,
    Matched,
    counts,
    match,
    places_before,
    steady_ids,
    table,
)
from acidburn_assets_tests.core.cluster_samples import blobs, model_of, random_ids


def chunks(*flows: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Labels before and after of so many chunks: (cluster before, cluster now, chunks)."""
    rows = np.array([(old, new) for old, new, n in flows for _ in range(n)]).reshape(-1, 2)
    return rows[:, 0], rows[:, 1]


def matched(*flows: tuple[int, int, int]) -> Matched:
    old, new = chunks(*flows)
    return match(old, new, n_old=int(old.max()) + 1, n_new=int(new.max()) + 1)


def told(found: Matched) -> list[tuple[str, int, int]]:
    """Kind, old and new cluster of each relation."""
    rows = found.relations
    return sorted(
        (KINDS[kind], int(old), int(new))
        for kind, old, new in zip(rows["kind"], rows["old"], rows["new"], strict=True)
    )


@pytest.mark.parametrize(
    ("flows", "goes_on", "expected"),
    [
        # nothing changed, but the numbers
        ([(0, 1, 9), (1, 0, 5)], [1, 0], [("kept", 0, 1), ("kept", 1, 0)]),
        # half of a cluster became noise, and half of another was noise before
        ([(0, 0, 5), (0, NOISE, 5), (1, 1, 5), (NOISE, 1, 5)], [0, 1], [
            ("kept", 0, 0),
            ("kept", 1, 1),
        ]),
        # two thirds are still it, a third is a new cluster
        ([(0, 0, 6), (0, 1, 3)], [0, NOISE], [("kept", 0, 0), ("split", 0, 1)]),
        # less than half goes on as it
        ([(0, 0, 45), (0, 1, 55)], [NOISE, 0], [("split", 0, 0), ("kept", 0, 1)]),
        ([(0, 0, 45), (0, 1, 40), (0, 2, 15)], [0, NOISE, NOISE], [
            ("split", 0, 0),
            ("split", 0, 1),
            ("split", 0, 2),
        ]),
        # three equal parts: the first of them goes on
        ([(0, 0, 3), (0, 1, 3), (0, 2, 3)], [0, NOISE, NOISE], [
            ("split", 0, 0),
            ("split", 0, 1),
            ("split", 0, 2),
        ]),
        # five parts: none of them is it any more
        ([(0, n, 4) for n in range(3)] + [(0, 3, 2), (0, 4, 2)], [NOISE] * 5, [
            ("split", 0, n) for n in range(5)
        ]),
        # the larger one goes on
        ([(0, 0, 6), (1, 0, 4)], [0], [("kept", 0, 0), ("merged", 1, 0)]),
        # a small one ends in a large one, which hardly notices
        ([(0, 0, 90), (1, 0, 6)], [0], [("kept", 0, 0), ("merged", 1, 0)]),
        # a few members of a large one form a cluster of their own
        ([(0, 0, 90), (0, 1, 6)], [0, NOISE], [("kept", 0, 0), ("split", 0, 1)]),
        # out of noise, and into noise
        ([(NOISE, 0, 9), (0, NOISE, 9)], [NOISE], [("gone", 0, NOISE), ("new", NOISE, 0)]),
        # noise took nearly all of it: what is left of it is not it
        ([(0, 0, 1), (0, NOISE, 20), (NOISE, 0, 20)], [NOISE], [
            ("gone", 0, NOISE),
            ("new", NOISE, 0),
        ]),
        # the same one, with many other members than before
        ([(0, 0, 50), *[(0, n, 10) for n in (1, 2, 3)], *[(n, 0, 10) for n in (1, 2, 3)],
          *[(n, n, 40) for n in (1, 2, 3)]], [0, 1, 2, 3], [
            ("moved", 0, 0),
            ("kept", 1, 1),
            ("kept", 2, 2),
            ("kept", 3, 3),
        ]),
        # two exchange halves: one pair is the same, and the rest is said
        ([(0, 0, 5), (0, 1, 5), (1, 0, 5), (1, 1, 5)], [0, 1], [
            ("merged", 0, 0),
            ("merged", 0, 1),
            ("merged", 1, 0),
            ("merged", 1, 1),
        ]),
    ],
)  # fmt: skip
def test_what_became_of_clusters(
    flows: list[tuple[int, int, int]], goes_on: list[int], expected: list[tuple[str, int, int]]
) -> None:
    found = matched(*flows)
    assert found.goes_on.tolist() == goes_on
    assert told(found) == sorted(expected)


def test_shares_count_noise_on_both_sides() -> None:
    (row,) = matched((0, 0, 6), (0, NOISE, 2), (NOISE, 0, 4)).relations
    assert row["n_shared"] == 6
    assert row["share_of_old"] == pytest.approx(6 / 8)
    assert row["share_of_new"] == pytest.approx(6 / 10)


def test_the_same_cluster_has_a_third_of_its_members_in_common() -> None:
    before = [(0, 0, 10), (0, 1, 9), (1, 0, 10), (1, 1, 400)]
    assert 10 / 29 > SAME_SHARE > 10 / 31
    assert matched(*before).goes_on.tolist() == [0, 1]
    before[1] = (0, 1, 11)
    assert matched(*before).goes_on.tolist() == [NOISE, 1]


def test_nothing_before_or_nothing_now_is_new_or_gone() -> None:
    none = np.empty(0, dtype=np.int64)
    found = match(none, none, n_old=2, n_new=1)
    assert told(found) == [("gone", 0, NOISE), ("gone", 1, NOISE), ("new", NOISE, 0)]


LABELS = st.lists(st.tuples(st.integers(-1, 4), st.integers(-1, 4)), max_size=60)


@given(pairs=LABELS)
def test_every_cluster_is_told_of_and_none_goes_on_twice(pairs: Sequence[tuple[int, int]]) -> None:
    old, new = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    found = match(old, new, n_old=5, n_new=5)
    going = found.goes_on[found.goes_on >= 0]
    assert len(set(going.tolist())) == len(going)
    rows = found.relations
    assert set(rows["old"].tolist()) - {NOISE} == set(range(5))
    assert set(rows["new"].tolist()) - {NOISE} == set(range(5))
    same = {(old, new) for new, old in enumerate(found.goes_on.tolist()) if old != NOISE}
    relations = told(found)
    assert same <= {(old, new) for _, old, new in relations}
    assert len({(old, new) for _, old, new in relations}) == len(relations)
    for kind, before, now in relations:
        assert (kind in {"kept", "moved"}) <= ((before, now) in same)
        assert (kind == "new") == (before == NOISE)
        assert (kind == "gone") == (now == NOISE)


@given(pairs=LABELS, seed=st.integers(0, 3))
def test_the_order_of_chunks_decides_nothing(pairs: Sequence[tuple[int, int]], seed: int) -> None:
    old, new = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    shuffled = np.random.default_rng(seed).permutation(len(old))
    one = match(old, new, n_old=5, n_new=5)
    other = match(old[shuffled], new[shuffled], n_old=5, n_new=5)
    assert one.relations.tobytes() == other.relations.tobytes()


# ---- generations ----------------------------------------------------------------------------


def after(first: ClusterModel, vectors: np.ndarray, labels: np.ndarray) -> ClusterModel:
    """The next generation, of other chunks."""
    ids = random_ids(len(vectors), seed=first.meta.generation + 1)
    return model_of(vectors, labels, sample_ids=ids, previous=first)


def test_ids_are_kept_though_sizes_and_rows_change() -> None:
    vectors, truth = blobs((60, 40, 20))
    first = model_of(vectors, truth)
    kept = np.flatnonzero((truth != 0) | (np.arange(len(truth)) < 10))  # the largest is the least
    second = model_of(vectors[kept], truth[kept], sample_ids=random_ids(120)[kept], previous=first)
    assert second.cluster_ids.tolist() == [0, 1, 2]
    assert second.sizes.tolist() == [10, 40, 20]
    assert (second.meta.generation, second.meta.next_id) == (1, 3)
    assert second.meta.previous == first.content_version()
    assert steady_ids(second) == {0, 1, 2}


def test_chunks_that_no_sample_shares_are_compared_by_where_they_lie() -> None:
    vectors, truth = blobs((60, 40, 20))
    first = model_of(vectors, truth)
    second = after(first, vectors[::-1].copy(), truth[::-1].copy())
    assert second.cluster_ids.tolist() == [0, 1, 2]
    assert counts(second) == {
        **dict.fromkeys(KINDS, 0), "kept": 3
    }  # fmt: skip


def test_an_id_is_never_given_to_another_cluster() -> None:
    vectors, truth = blobs((60, 40, 20))
    first = model_of(vectors, truth)
    without = truth != 1
    second = after(first, vectors[without], truth[without])
    assert second.cluster_ids.tolist() == [0, 2]
    assert counts(second)["gone"] == 1
    third = after(second, vectors, truth)
    assert third.cluster_ids.tolist() == [0, 2, 3]
    assert third.meta.next_id == 4
    shown = {row["new_cluster_id"]: row for row in table(third).to_pylist()}
    assert shown[3]["kind"] == "new"
    assert (shown[3]["old_cluster_id"], shown[3]["cosine"], shown[3]["share_of_old"]) == (
        *(None, None, None),
    )
    assert shown[0]["cosine"] == pytest.approx(1.0, abs=1e-6)


def test_the_label_of_a_chunk_in_both_samples_counts_before_where_it_lies() -> None:
    vectors, truth = blobs((60, 40, 20), n_noise=30)
    first = model_of(vectors, truth)
    strangers = random_ids(150, seed=9)
    by_label = places_before(vectors, random_ids(150), first)
    np.testing.assert_array_equal(by_label, truth)
    by_place = places_before(vectors, strangers, first)
    assert (by_place[truth >= 0] == truth[truth >= 0]).mean() > 0.9
    half = np.where(np.arange(150)[:, None] < 75, random_ids(150), strangers)
    np.testing.assert_array_equal(
        places_before(vectors, half, first), [*by_label[:75], *by_place[75:]]
    )


def test_a_cluster_that_lies_elsewhere_now_has_moved() -> None:
    """Its members are the same, but their vectors are others."""
    vectors, truth = blobs((60, 40))
    first = model_of(vectors, truth)
    turned = vectors.copy()
    turned[truth == 0] = np.roll(vectors[truth == 0], 1, axis=1)
    second = model_of(turned, truth, previous=first)
    assert second.cluster_ids.tolist() == [0, 1]
    assert steady_ids(second) == {1}
    assert [row["kind"] for row in table(second).to_pylist()] == ["moved", "kept"]


def test_the_table_has_its_schema_and_what_is_gone_comes_last() -> None:
    vectors, truth = blobs((60, 40, 20))
    second = after(model_of(vectors, truth), *blobs((30,), seed=5))
    made = table(second)
    assert made.schema == schemas.MIGRATION
    assert made["kind"].to_pylist() == ["new", "gone", "gone", "gone"]
    assert made["old_cluster_id"].to_pylist() == [None, 0, 1, 2]
    assert made["new_cluster_id"].to_pylist() == [3, None, None, None]


def test_a_first_generation_has_no_migration() -> None:
    assert table(model_of(*blobs())).num_rows == 0
