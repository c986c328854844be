"""How good a ranking is, and how sure one can be of a mean.

Relevance is binary. A ranking is given as the relevance of its passages, best first.
"""

import math
from collections.abc import Sequence

import numpy as np

from acidburn_assets.core.records import Record

N_RESAMPLES = 2_000
"""Of a bootstrap. Source: Efron, Tibshirani, An introduction to the bootstrap, 1993: 1,000 or more
for a percentile interval."""

LEVEL = 0.95


class Interval(Record):
    """A figure and the range that holds it in 95 of 100 resamples."""

    mean: float
    low: float
    high: float


def recall(relevance: Sequence[bool], n_relevant: int, *, k: int) -> float:
    """Share of what could be found among the first k that was found.

    Capped: of a document with 500 passages no ten can hold more than ten.
    Source: Thakur et al., BEIR, 2021, recall capped at k.

    Args:
        relevance: of the ranked passages.
        n_relevant: relevant passages in the corpus, at least 1.
        k: how far down one looks.
    """
    return sum(relevance[:k]) / min(k, n_relevant)


def reciprocal_rank(relevance: Sequence[bool], *, k: int) -> float:
    """1 / rank of the first relevant passage; 0 where none is among the first k."""
    for rank, is_relevant in enumerate(relevance[:k], start=1):
        if is_relevant:
            return 1 / rank
    return 0.0


def ndcg(relevance: Sequence[bool], n_relevant: int, *, k: int) -> float:
    """Discounted gain of the first k over that of the best possible ranking.

    Source: Järvelin, Kekäläinen, Cumulated gain-based evaluation of IR techniques, 2002.

    Args:
        relevance: of the ranked passages.
        n_relevant: relevant passages in the corpus, at least 1.
        k: how far down one looks.
    """
    gain = sum(1 / math.log2(rank + 2) for rank, found in enumerate(relevance[:k]) if found)
    ideal = sum(1 / math.log2(rank + 2) for rank in range(min(k, n_relevant)))
    return gain / ideal


def mean(values: np.ndarray, *, seed: int) -> Interval:
    """The mean with its percentile bootstrap interval.

    Args:
        values: one per question, at least one  # (n,)
        seed: of the resampling.
    """
    return _interval(float(values.mean()), values[_resamples(len(values), seed)].mean(axis=1))


def ratio(values: np.ndarray, base: np.ndarray, *, seed: int) -> Interval | None:
    """Mean of `values` over mean of `base`, resampled in pairs; None where the base is all 0.

    Args:
        values: one per question  # (n,)
        base: of the same questions  # (n,)
        seed: of the resampling.
    """
    if not base.any():
        return None
    chosen = _resamples(len(values), seed)
    above, below = values[chosen].mean(axis=1), base[chosen].mean(axis=1)
    # a resample may hold only questions that the base answered with 0: it says nothing
    ratios = above[below > 0] / below[below > 0]
    return _interval(float(values.mean() / base.mean()), ratios)


def _resamples(n_values: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, n_values, (N_RESAMPLES, n_values))


def _interval(figure: float, resampled: np.ndarray) -> Interval:
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(mean=figure, low=float(low), high=float(high))
