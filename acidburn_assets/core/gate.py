"""The gate: does what was found answer the question, or is there nothing to be found?

Four figures of what a search found make a probability, by logistic regression fitted on questions
whose answers are known, and on the same questions with their answers taken out of the corpus
(`python -m benchmarks.gate`). A calibration holds for one encoder, whose cosines it knows; with
another one the gate says that it cannot judge, and nothing is called found or not found.
"""

import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import NamedTuple

from acidburn_assets.core.answers import GateReport, Verdict
from acidburn_assets.core.records import Record
from acidburn_assets.core.term_weights import Match

WINDOW_WORDS = 25
"""Words that stand together. Chosen: a long sentence."""

N_COMPARED = 10
"""The best passage is held against the one of this rank."""


class Features(NamedTuple):
    """What a verdict is made from, each 0 to 1 or near it."""

    cosine: float  # of the best passage
    coverage: float  # weighted share of the question's terms that it has
    window: float  # the same of `WINDOW_WORDS` words of it that stand together, the best such
    margin: float  # its score less that of the tenth


class Calibration(Record):
    """How features become a probability, and from where a verdict follows."""

    model: str  # fingerprint of the encoder
    model_name: str
    intercept: float
    weights: dict[str, float]  # by feature
    accept: float  # from this probability on
    reject: float  # below this one
    false_accepts: float  # of held-out questions without an answer, share that was accepted
    accepted: float  # of held-out questions with an answer, share that was accepted
    provenance: str


class Judgement(NamedTuple):
    """A verdict and what it is from."""

    verdict: Verdict
    probability: float | None


def features(
    weights: Mapping[int, float],
    matches: Sequence[Match],
    *,
    cosine: float,
    scores: Sequence[float],
) -> Features:
    """Figures of what was found.

    Args:
        weights: of the question's terms.
        matches: of these terms in the best passage, in order.
        cosine: of the best passage.
        scores: of the passages found, best first; one at least.
    """
    total = sum(weights.values())
    last = scores[min(N_COMPARED, len(scores)) - 1]
    return Features(
        cosine=cosine,
        coverage=_weight({match.term for match in matches}, weights) / total if total else 0.0,
        window=_best_window(weights, matches) / total if total else 0.0,
        margin=scores[0] - last,
    )


def judge(found: Features | None, calibration: Calibration | None) -> Judgement:
    """The verdict.

    Args:
        found: None: no passage was found.
        calibration: of the encoder; None: there is none.
    """
    if found is None:
        return Judgement("not_found", 0.0)
    if calibration is None:
        return Judgement("ambiguous", None)
    probability = probability_of(found, calibration)
    if probability >= calibration.accept:
        return Judgement("accepted", probability)
    return Judgement("ambiguous" if probability >= calibration.reject else "not_found", probability)


def report(
    judgement: Judgement, found: Features | None, calibration: Calibration | None
) -> GateReport:
    """The verdict with its reasons, as an answer carries it."""
    return GateReport(
        verdict=judgement.verdict,
        probability=judgement.probability,
        threshold=None if calibration is None else calibration.accept,
        features={} if found is None else found._asdict(),
        false_accepts=None if calibration is None else calibration.false_accepts,
        provenance=(
            "not calibrated for this encoder: python -m benchmarks.gate"
            if calibration is None
            else calibration.provenance
        ),
    )


def probability_of(found: Features, calibration: Calibration) -> float:
    """That the answer is among what was found."""
    logit = calibration.intercept + sum(
        weight * getattr(found, name) for name, weight in calibration.weights.items()
    )
    return 1 / (1 + math.exp(-logit))


def calibration_of(model: str) -> Calibration | None:
    """The calibration that comes with the package for an encoder, None where there is none.

    Args:
        model: its fingerprint.
    """
    return _shipped().get(model)


@cache
def _shipped() -> dict[str, Calibration]:
    content = resources.files(__package__).joinpath("gate.calibrations.json").read_text("utf-8")
    found = [Calibration.model_validate(each) for each in json.loads(content)]
    return {each.model: each for each in found}


def _best_window(weights: Mapping[int, float], matches: Sequence[Match]) -> float:
    """Weight of the terms in the words that stand together and have most of it."""
    best = 0.0
    for index, first in enumerate(matches):
        together = set()
        for match in matches[index:]:
            if match.word >= first.word + WINDOW_WORDS:
                break
            together.add(match.term)
        best = max(best, _weight(together, weights))
    return best


def _weight(terms: set[int], weights: Mapping[int, float]) -> float:
    return sum(weights[term] for term in sorted(terms))
