import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidburn_assets.core import quality

RANKINGS = st.lists(st.booleans(), max_size=15)


@pytest.mark.parametrize(
    ("relevance", "n_relevant", "recall", "rank", "ndcg"),
    [
        ([True], 1, 1, 1, 1),
        ([False, True], 1, 1, 1 / 2, 1 / math.log2(3)),
        ([True, True, True], 3, 1, 1, 1),
        ([True, False, True], 2, 1, 1, (1 + 1 / 2) / (1 + 1 / math.log2(3))),
        ([True, True, True], 500, 1, 1, 1),
        ([False, False, False, True], 1, 0, 0, 0),
        ([], 2, 0, 0, 0),
    ],
)
def test_figures_are_those_worked_out_by_hand(
    relevance: list[bool], n_relevant: int, recall: float, rank: float, ndcg: float
) -> None:
    assert quality.recall(relevance, n_relevant, k=3) == pytest.approx(recall)
    assert quality.reciprocal_rank(relevance, k=3) == pytest.approx(rank)
    assert quality.ndcg(relevance, n_relevant, k=3) == pytest.approx(ndcg)


@given(relevance=RANKINGS, extra=st.integers(0, 5), k=st.integers(1, 12))
def test_figures_lie_between_0_and_1(relevance: list[bool], extra: int, k: int) -> None:
    n_relevant = max(1, sum(relevance) + extra)
    for figure in (
        quality.recall(relevance, n_relevant, k=k),
        quality.reciprocal_rank(relevance, k=k),
        quality.ndcg(relevance, n_relevant, k=k),
    ):
        assert 0 <= figure <= 1 + 1e-12
        assert (figure > 0) == any(relevance[:k])


@given(relevance=RANKINGS, k=st.integers(1, 12))
def test_moving_a_relevant_passage_up_never_hurts(relevance: list[bool], k: int) -> None:
    best = sorted(relevance, reverse=True)
    n_relevant = max(1, sum(relevance))
    assert quality.ndcg(best, n_relevant, k=k) >= quality.ndcg(relevance, n_relevant, k=k)
    assert quality.reciprocal_rank(best, k=k) >= quality.reciprocal_rank(relevance, k=k)


def test_interval_holds_the_mean_and_shrinks_with_more_values() -> None:
    rng = np.random.default_rng(0)
    few, many = (quality.mean(rng.random(n), seed=1) for n in (20, 2000))
    assert few.low < few.mean < few.high
    assert many.high - many.low < (few.high - few.low) / 5


def test_interval_is_the_same_for_the_same_seed() -> None:
    values = np.random.default_rng(0).random(30)
    assert quality.mean(values, seed=3) == quality.mean(values, seed=3)
    assert quality.mean(values, seed=3) != quality.mean(values, seed=4)


def test_ratio_of_pairs_is_surer_than_its_parts() -> None:
    """Hard questions are hard for both: what is compared is the pairs."""
    base = np.random.default_rng(0).random(50)
    ratio = quality.ratio(base * 0.9, base, seed=0)
    assert ratio is not None
    assert (ratio.mean, ratio.low, ratio.high) == pytest.approx((0.9, 0.9, 0.9))


def test_nothing_has_no_share() -> None:
    assert quality.ratio(np.zeros(5), np.zeros(5), seed=0) is None
    one = quality.ratio(np.array([1.0, 0.0]), np.array([1.0, 0.0]), seed=0)
    assert one is not None
    assert one.mean == 1
