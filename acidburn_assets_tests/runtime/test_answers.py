"""The engine's verdicts: widening, verification, and a model that advises."""

from collections.abc import Callable, Sequence

import pyarrow as pa
import pytest

from acidburn_assets.adapters.object_store import ObjectStore
from acidburn_assets.adapters.postgres import Postgres
from acidburn_assets.core import gate
from acidburn_assets.core.answers import Answer, Card, ModelCall, Picked, Quoted, Reviewed
from acidburn_assets.core.gate import Calibration
from acidburn_assets.runtime import search
from acidburn_assets.runtime.search import Engine
from acidburn_assets_tests.postgres_server import database, dsn, postgres_server
from acidburn_assets_tests.runtime import test_search as samples
from acidburn_assets_tests.runtime.test_search import CORPUS, BagOfWords, store

__all__ = ["database", "dsn", "postgres_server", "store"]

QUESTION = "delimiter header unique12"


def calibration(accept: float, reject: float) -> Calibration:
    """One whose probability is 1 / (1 + exp(-coverage))."""
    return Calibration(
        model=BagOfWords.card.fingerprint,
        model_name="bag-of-words",
        intercept=0,
        weights={"coverage": 1},
        accept=accept,
        reject=reject,
        false_accepts=0.05,
        accepted=0.5,
        provenance="made up",
    )


ALWAYS, NEVER, UNSURE = calibration(0, 0), calibration(1, 1), calibration(1, 0)
COVERED = calibration(0.7, 0.6)
"""Accepts what has nearly all of a question's terms, rejects what has less than four tenths."""

MakeEngine = Callable[..., Engine]


@pytest.fixture
def make_engine(
    store: ObjectStore, database: Postgres, monkeypatch: pytest.MonkeyPatch
) -> MakeEngine:
    def make(judges: Calibration | None, **options: object) -> Engine:
        monkeypatch.setattr(gate, "calibration_of", lambda _model: judges)
        return Engine(
            store=store,
            postgres=database,
            encoder=BagOfWords(),
            pool="library",
            **options,  # type: ignore[arg-type]
        )

    samples.fill(database)
    return make


def with_texts(texts: list[str]) -> pa.Table:
    """The corpus's chunks with other texts."""
    position = CORPUS.chunks.schema.get_field_index("text")
    return CORPUS.chunks.set_column(position, CORPUS.chunks.field(position), pa.array(texts))


def ids(answer: Answer) -> list[str]:
    return [passage.chunk_id for passage in answer.passages]


# ---- the gate -------------------------------------------------------------------------------


def test_what_passes_the_gate_is_not_looked_for_any_further(make_engine: MakeEngine) -> None:
    answer = make_engine(ALWAYS).ask(QUESTION, n_scanned=8)
    assert answer.gate.verdict == "accepted"
    assert [(one.n_cells, one.n_rows_scanned) for one in answer.trail.rounds] == [(1, 8)]
    assert answer.verification.status == "not_needed"
    assert answer.gate.provenance == "made up"


def test_what_does_not_pass_is_looked_for_in_twice_as_much_each_time(
    make_engine: MakeEngine,
) -> None:
    trail = make_engine(NEVER).ask(QUESTION, n_scanned=8).trail
    assert [(one.n_cells, one.n_rows_scanned) for one in trail.rounds] == [
        (1, 8),
        (2, 16),
        (4, 32),
        (5, 40),
    ]
    assert (trail.n_rows_scanned, trail.share_scanned, trail.n_cells_searched) == (40, 1.0, 5)
    assert len(trail.clusters_searched) == 5


def test_a_small_pool_is_searched_whole_and_then_it_is_enough(make_engine: MakeEngine) -> None:
    rounds = make_engine(NEVER).ask(QUESTION, n_scanned=30).trail.rounds
    assert [one.n_rows_scanned for one in rounds] == [24, 40]


@pytest.mark.parametrize(
    ("n_rows", "n_cells", "expected"),
    [
        (5, 1, 1),  # one passage at least
        (5_176, 323, 518),  # a tenth
        (10**6, 16_000, 5_000),
        (48 * 10**6, 32_768, 17_578),  # twelve cells
        (1_000, 1, 100),
    ],
)
def test_a_first_look_is_bounded(n_rows: int, n_cells: int, expected: int) -> None:
    assert search._first_look(n_rows, n_cells) == expected


def test_who_does_not_want_it_widened_gets_one_look(make_engine: MakeEngine) -> None:
    answer = make_engine(NEVER).ask(QUESTION, n_scanned=8, widens=False)
    assert [one.n_rows_scanned for one in answer.trail.rounds] == [8]
    assert answer.gate.verdict == "not_found"
    assert answer.passages  # the nearest, all the same


def test_several_looks_rank_as_one(make_engine: MakeEngine) -> None:
    widened = make_engine(NEVER).ask(QUESTION, n_scanned=8, n_passages=12)
    at_once = make_engine(ALWAYS).ask(QUESTION, n_scanned=40, n_passages=12)
    assert ids(widened) == ids(at_once)
    assert [one.score for one in widened.passages] == [one.score for one in at_once.passages]


def test_without_calibration_nothing_is_judged_nor_widened(make_engine: MakeEngine) -> None:
    answer = make_engine(None).ask(QUESTION, n_scanned=8)
    assert (answer.gate.verdict, answer.gate.probability) == ("ambiguous", None)
    assert len(answer.trail.rounds) == 1
    assert "not calibrated" in answer.gate.provenance


def test_features_are_of_the_best_passage(make_engine: MakeEngine) -> None:
    answer = make_engine(COVERED).ask("unique12", n_scanned=40)
    assert answer.gate.verdict == "accepted"
    assert answer.gate.features["coverage"] == pytest.approx(1)
    assert answer.gate.features["cosine"] == pytest.approx(answer.passages[0].cosine)
    nowhere = make_engine(COVERED).ask("zeppelin xylophone", n_scanned=40)
    assert nowhere.gate.features["coverage"] == 0
    assert nowhere.gate.verdict == "not_found"


def test_matches_are_the_questions_words(make_engine: MakeEngine) -> None:
    passage = make_engine(ALWAYS).ask(QUESTION, n_scanned=40).passages[0]
    marked = [passage.text[start:end] for start, end in passage.matches]
    assert "unique12" in marked
    assert set(marked) <= {"unique12", "delimiter", "header"}


def test_equal_texts_are_one_passage(database: Postgres, make_engine: MakeEngine) -> None:
    texts = CORPUS.chunks["text"].to_pylist()
    texts[17] = f"  {texts[12].upper()}\n"
    texts[3], texts[4] = ("begins alike " * 20 + end for end in ("and ends so", "and so"))
    samples.fill(database, chunks=with_texts(texts), version="other texts")
    answer = make_engine(ALWAYS).ask(QUESTION, n_scanned=40, n_passages=39)
    assert len(answer.passages) == 39
    assert [one.rank for one in answer.passages] == list(range(1, 40))
    (doubled,) = [one for one in answer.passages if one.duplicates]
    assert {doubled.doc_id, *(one.doc_id for one in doubled.duplicates)} == {"doc 12", "doc 17"}


# ---- verification ---------------------------------------------------------------------------


@pytest.fixture
def manual(store: ObjectStore, database: Postgres) -> None:
    """A pool for verification with the same passages."""
    samples.fill(database, pool="manual", dataset="handbook")
    for name in ("centroids.parquet", "lexicon.parquet", "cell_terms.parquet"):
        store.put_bytes(f"manual/{name}", store.get_bytes(f"library/{name}"))
    cluster_map = samples.make_map().model_copy(update={"pool": "manual"})
    store.put_bytes("manual/cluster_map.json", cluster_map.to_bytes())


@pytest.mark.usefixtures("manual")
def test_an_unsure_answer_is_held_against_the_verification_pool(make_engine: MakeEngine) -> None:
    engine = make_engine(UNSURE, verification=["manual"])
    verification = engine.ask(QUESTION, n_scanned=8).verification
    assert (verification.status, verification.by) == ("unverified", "")
    assert {passage.dataset for passage in verification.passages} == {"handbook"}


@pytest.mark.usefixtures("manual")
def test_what_the_verification_pool_answers_is_corroborated(
    database: Postgres, make_engine: MakeEngine
) -> None:
    """The library's own passage has lost the word that matters most, the manual's has it."""
    texts = CORPUS.chunks["text"].to_pylist()
    question = texts[12]
    assert "unique12" in question
    texts[12] = question.replace("unique12", "")
    samples.fill(database, chunks=with_texts(texts), version="other texts")
    engine = make_engine(COVERED, verification=["manual"])
    answer = engine.ask(question, n_scanned=8, widens=False)
    assert answer.gate.verdict == "ambiguous"
    assert answer.verification.status == "corroborated"
    assert answer.verification.by == "manual, without a model: its passages pass the gate"
    assert answer.verification.passages[0].text == question


def test_without_a_verification_pool_it_stays_unverified(make_engine: MakeEngine) -> None:
    verification = make_engine(UNSURE).ask(QUESTION).verification
    assert verification == verification.model_copy(update={"status": "unverified", "passages": ()})


# ---- a model that advises -------------------------------------------------------------------


class Adviser:
    """Says what it was told to; remembers what it was shown."""

    model = "a-paid-model"

    def __init__(self, picks: Sequence[int] = (), review: Reviewed | None = None) -> None:
        self.picks = tuple(picks)
        self.reviewed = review
        self.caps: list[float] = []
        self.questions: list[str] = []
        self.cards: list[Card] = []
        self.passages: list[Quoted] = []
        self.verification: list[Quoted] = []
        self.is_closed = False

    def pick(self, question: str, cards: Sequence[Card], *, cap_usd: float) -> Picked:
        self.questions.append(question)
        self.caps.append(cap_usd)
        self.cards = list(cards)
        return Picked(self.picks, (call("pick", 0.01),))

    def review(
        self,
        question: str,
        passages: Sequence[Quoted],
        verification: Sequence[Quoted],
        *,
        cap_usd: float,
    ) -> Reviewed:
        self.questions.append(question)
        self.caps.append(cap_usd)
        self.passages, self.verification = list(passages), list(verification)
        return self.reviewed or review(outcome="timed out")

    def close(self) -> None:
        self.is_closed = True


def call(purpose: str, usd: float, outcome: str = "answered") -> ModelCall:
    return ModelCall.model_validate(
        {
            "purpose": purpose,
            "model": Adviser.model,
            "outcome": outcome,
            "usd": usd,
            "is_billed": True,
            "is_cached": False,
            "seconds": 0.1,
        }
    )


def review(
    *,
    is_answered: bool = False,
    supports: Sequence[int] = (),
    contradicts: Sequence[int] = (),
    corroborates: Sequence[int] = (),
    text: str | None = None,
    outcome: str = "answered",
) -> Reviewed:
    return Reviewed(
        is_answered,
        tuple(supports),
        tuple(contradicts),
        tuple(corroborates),
        text,
        (call("review", 0.02, outcome),),
    )


def test_picked_clusters_are_searched_and_named(make_engine: MakeEngine) -> None:
    adviser = Adviser(picks=[1])
    engine = make_engine(NEVER, advisor=adviser, usd_per_question=0.05)
    trail = engine.ask(QUESTION, n_scanned=40, widens=False).trail
    reasons = {one.cluster_id: one.reason for one in trail.clusters_searched}
    assert reasons == {0: "hedge", 1: "picked", 2: "hedge", 3: "hedge", 4: "hedge"}
    plain = make_engine(NEVER).ask(QUESTION, n_scanned=40, widens=False).trail
    assert {one.reason for one in plain.clusters_searched} == {"near"}
    order = [one.cluster_id for one in plain.clusters_considered]
    assert [card.cluster_id for card in adviser.cards] == order
    assert adviser.cards[0].title == "Parsing files"


def test_the_cap_of_a_question_is_handed_down_and_what_was_spent_is_told(
    make_engine: MakeEngine,
) -> None:
    adviser = Adviser()
    engine = make_engine(ALWAYS, advisor=adviser, usd_per_question=0.05)
    trail = engine.ask(QUESTION).trail
    assert adviser.caps == pytest.approx([0.05, 0.04])
    assert adviser.questions == [QUESTION, QUESTION]
    assert trail.usd == pytest.approx(0.03)
    assert [one.purpose for one in trail.calls] == ["pick", "review"]
    engine.close()
    assert adviser.is_closed


def test_a_review_writes_the_answer_and_marks_what_supports_it(make_engine: MakeEngine) -> None:
    adviser = Adviser(review=review(is_answered=True, supports=[2], text="So it is [2]."))
    answer = make_engine(UNSURE, advisor=adviser).ask(QUESTION, n_scanned=40)
    assert (answer.text, answer.written_by) == ("So it is [2].", "a-paid-model")
    assert answer.gate.verdict == "accepted"
    assert "a-paid-model read the passages" in answer.gate.provenance
    assert [one.is_support for one in answer.passages[:3]] == [False, True, False]
    assert [one.number for one in adviser.passages] == list(range(1, 9))
    assert {one.is_support for one in answer.passages[8:]} == {None}


@pytest.mark.parametrize(
    ("judges", "expected"), [(ALWAYS, "ambiguous"), (UNSURE, "not_found"), (NEVER, "not_found")]
)
def test_a_review_that_finds_no_support_lowers_the_verdict(
    make_engine: MakeEngine, judges: Calibration, expected: str
) -> None:
    answer = make_engine(judges, advisor=Adviser(review=review())).ask(QUESTION)
    assert answer.gate.verdict == expected
    assert answer.text is None
    assert answer.written_by is None


@pytest.mark.usefixtures("manual")
def test_what_a_review_doubts_is_held_against_the_verification_pool(
    make_engine: MakeEngine,
) -> None:
    """The gate was sure, so nothing had been held against it yet."""
    adviser = Adviser(review=review())
    engine = make_engine(ALWAYS, verification=["manual"], advisor=adviser)
    answer = engine.ask(QUESTION, n_scanned=8)
    assert answer.gate.verdict == "ambiguous"
    assert answer.verification.status == "corroborated"
    assert "verify" in answer.trail.seconds


@pytest.mark.parametrize("judges", [ALWAYS, UNSURE, NEVER])
def test_a_review_that_did_not_come_changes_nothing(
    make_engine: MakeEngine, judges: Calibration
) -> None:
    plain = make_engine(judges).ask(QUESTION)
    answer = make_engine(judges, advisor=Adviser()).ask(QUESTION)
    assert answer.gate == plain.gate
    assert ids(answer) == ids(plain)
    assert {one.is_support for one in answer.passages} == {None}
    assert answer.trail.calls[-1].outcome == "timed out"


@pytest.mark.usefixtures("manual")
@pytest.mark.parametrize(
    ("said", "status"),
    [({"contradicts": [1]}, "contradicted"), ({"corroborates": [2]}, "corroborated")],
)
def test_a_review_says_what_the_verification_pool_means(
    make_engine: MakeEngine, said: dict[str, list[int]], status: str
) -> None:
    adviser = Adviser(review=review(is_answered=True, supports=[1], text="Yes [1].", **said))
    engine = make_engine(UNSURE, verification=["manual"], advisor=adviser)
    answer = engine.ask(QUESTION, n_scanned=8)
    assert (answer.verification.status, answer.verification.by) == (status, "a-paid-model")
    assert len(adviser.verification) == 8


def test_a_search_that_is_not_to_be_paid_asks_no_model(make_engine: MakeEngine) -> None:
    adviser = Adviser()
    answer = make_engine(UNSURE, advisor=adviser).ask(QUESTION, advises=False)
    assert (adviser.caps, answer.trail.usd, answer.trail.calls) == ([], 0, ())
    assert answer.verification.status == "not_needed"
