import pytest

from acidburn_assets.core import gate
from acidburn_assets.core.gate import Calibration, Features
from acidburn_assets.core.term_weights import Match

CALIBRATION = Calibration(
    model="f00d",
    model_name="a-model",
    intercept=-2.0,
    weights={"cosine": 4.0, "margin": 1.0},
    accept=0.8,
    reject=0.3,
    false_accepts=0.04,
    accepted=0.6,
    provenance="made up",
)
WEIGHTS = {1: 3.0, 2: 1.0}


def found(cosine: float, margin: float = 0.0) -> Features:
    return Features(cosine=cosine, coverage=0.0, window=0.0, margin=margin)


def matches(*places: tuple[int, int]) -> list[Match]:
    return [Match(term, word, 10 * word, 10 * word + 5) for term, word in places]


@pytest.mark.parametrize(
    ("cosine", "verdict"), [(0.95, "accepted"), (0.5, "ambiguous"), (0.1, "not_found")]
)
def test_verdict_follows_from_the_probability(cosine: float, verdict: str) -> None:
    judgement = gate.judge(found(cosine), CALIBRATION)
    assert judgement.verdict == verdict
    assert judgement.probability == pytest.approx(gate.probability_of(found(cosine), CALIBRATION))


def test_a_bound_belongs_to_the_better_verdict() -> None:
    probability = gate.probability_of(found(0.7), CALIBRATION)
    exact = CALIBRATION.model_copy(update={"accept": probability})
    assert gate.judge(found(0.7), exact).verdict == "accepted"
    exact = CALIBRATION.model_copy(update={"reject": probability})
    assert gate.judge(found(0.7), exact).verdict == "ambiguous"


def test_more_of_what_speaks_for_an_answer_is_more_probable() -> None:
    less, more = found(0.5), found(0.5, margin=0.4)
    assert gate.probability_of(less, CALIBRATION) < gate.probability_of(more, CALIBRATION)
    assert gate.probability_of(found(0.5), CALIBRATION) == pytest.approx(0.5)


def test_nothing_found_is_not_found() -> None:
    assert gate.judge(None, CALIBRATION) == ("not_found", 0.0)
    assert gate.judge(None, None) == ("not_found", 0.0)


def test_without_calibration_nothing_is_called_found_or_not() -> None:
    judgement = gate.judge(found(0.99), None)
    assert judgement == ("ambiguous", None)
    report = gate.report(judgement, found(0.99), None)
    assert (report.threshold, report.false_accepts) == (None, None)
    assert "not calibrated for this encoder" in report.provenance
    assert gate.calibration_of("no such model") is None


def test_report_says_from_where_its_numbers_are() -> None:
    features = found(0.95)
    report = gate.report(gate.judge(features, CALIBRATION), features, CALIBRATION)
    assert (report.verdict, report.threshold, report.false_accepts) == ("accepted", 0.8, 0.04)
    assert report.provenance == "made up"
    assert report.features["cosine"] == 0.95


def test_coverage_is_the_weighted_share_of_the_terms() -> None:
    scores = [0.9, 0.5]
    assert gate.features(WEIGHTS, [], cosine=0.4, scores=scores).coverage == 0
    one = gate.features(WEIGHTS, matches((1, 0), (1, 9)), cosine=0.4, scores=scores)
    assert one.coverage == pytest.approx(0.75)
    assert one.margin == pytest.approx(0.4)
    both = gate.features(WEIGHTS, matches((1, 0), (2, 9)), cosine=0.4, scores=scores)
    assert both.coverage == both.window == pytest.approx(1)


def test_a_window_is_of_words_that_stand_together() -> None:
    apart = matches((1, 0), (2, gate.WINDOW_WORDS))
    together = matches((1, 0), (2, gate.WINDOW_WORDS - 1))
    assert gate.features(WEIGHTS, apart, cosine=0, scores=[0.0]).window == pytest.approx(0.75)
    assert gate.features(WEIGHTS, together, cosine=0, scores=[0.0]).window == pytest.approx(1)


def test_margin_is_to_the_tenth_or_the_last() -> None:
    scores = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0]
    assert gate.features({}, [], cosine=0, scores=scores).margin == pytest.approx(0.9)
    assert gate.features({}, [], cosine=0, scores=scores[:2]).margin == pytest.approx(0.1)


def test_a_question_without_terms_covers_nothing() -> None:
    features = gate.features({}, [], cosine=0.5, scores=[0.5])
    assert (features.coverage, features.window) == (0, 0)
