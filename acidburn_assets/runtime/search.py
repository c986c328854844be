"""The query engine of a pool: question → vector → cells → passages → verdict, with its trail.

`ask` is for people and services, `measure` for the retrieval report; both find in the same way.
What is near what is decided in `core.routing`, `core.ranking` and `adapters.postgres.search`,
whether it answers in `core.gate`; a paid model that advises is an `answers.Advisor`.
"""

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from unicodedata import category

import numpy as np

from acidburn_assets.adapters.object_store import ObjectStore
from acidburn_assets.adapters.postgres import Hit, Hits, Postgres
from acidburn_assets.core import gate, retrieval_report
from acidburn_assets.core.answers import (
    Advisor,
    Answer,
    GateReport,
    ModelCall,
    Passage,
    Quoted,
    Reviewed,
    Round,
    Trail,
    Verdict,
    Verification,
)
from acidburn_assets.core.cluster_map import ClusterMap
from acidburn_assets.core.embeddings import Encoder
from acidburn_assets.core.errors import QuestionError
from acidburn_assets.core.gate import Features, Judgement
from acidburn_assets.core.ranking import Query
from acidburn_assets.core.retrieval_report import Choice, Outcome, Question, RetrievalReport
from acidburn_assets.core.routing import Ranking, Route
from acidburn_assets.core.term_weights import TermFinder
from acidburn_assets.runtime.pools import SearchedPool

N_CONSIDERED = 16
"""Clusters that the trail shows at least. Chosen."""

SHARE_SCANNED, MAX_SCANNED, N_CELLS = 0.1, 5_000, 12
"""What a question is compared with at first, unless it is said how many: a tenth of the pool, but
no more than so many passages, or so many average cells where these hold more. Source: `python -m
benchmarks.ask`: a tenth keeps .99 of a full scan's nDCG@10, and 5,000 rows of 1,024 values and 231
terms are some 15 ms of Postgres; the cells, which only pools of many millions have so large, are
chosen."""

WIDENINGS = (1, 2, 4, 8)
"""While the gate is not satisfied so many times as much is looked at, and no further."""

N_CARDS = 64
"""Clusters that a model picks from. Source: 60 tokens each, less than a cent a question."""

N_REVIEWED = 8
"""Passages that a model reviews. Chosen: with 2,048 tokens each under three cents."""

MAX_QUESTION_CHARS = 4_000
"""Chosen: four times what an encoder of 256 tokens reads."""

MAX_PASSAGES = 200


class Engine:
    """Answers questions from one pool. May be used by several threads."""

    def __init__(
        self,
        *,
        store: ObjectStore,
        postgres: Postgres,
        encoder: Encoder,
        pool: str,
        verification: Sequence[str] = (),
        advisor: Advisor | None = None,
        usd_per_question: float = 0.0,
    ) -> None:
        """Reads what the pools are searched by, and checks that all of it is of one model.

        Args:
            store: where maps, centroids and lexicons are.
            postgres: where the passages are.
            encoder: of questions.
            pool: its name.
            verification: pools that an answer is held against where the gate is not sure.
            advisor: a paid model that picks clusters and reviews passages; None: nothing is paid.
            usd_per_question: that the advisor may spend at most on one question.

        Raises:
            NotMaterialized: a pool's map, centroids, lexicon or passages have not been made.
            ModelError: the encoder is not the one that made a pool's vectors.
        """
        self._encoder = encoder
        self._advisor = advisor
        self._usd_per_question = usd_per_question
        self._calibration = gate.calibration_of(encoder.card.fingerprint)
        self._pool = SearchedPool(store, postgres, encoder.card, pool)
        self._verification = [
            SearchedPool(store, postgres, encoder.card, name) for name in verification
        ]

    @property
    def cluster_map(self) -> ClusterMap:
        """The map that routes."""
        return self._pool.cluster_map

    @property
    def writer(self) -> str | None:
        """The paid model that advises; None: nothing is paid."""
        return self._advisor.model if self._advisor is not None else None

    def ask(
        self,
        question: str,
        *,
        n_scanned: int | None = None,
        n_passages: int = 10,
        widens: bool = True,
        advises: bool = True,
    ) -> Answer:
        """The best passages of the cells that a question belongs to, and whether they answer it.

        The same question gets the same answer as long as the pool stays as it is, and no model
        advises.

        Args:
            question: as a person wrote it.
            n_scanned: how many passages it is compared with at first, those of one cell at least;
                None: `SHARE_SCANNED`, `MAX_SCANNED` and `N_CELLS`.
            n_passages: how many passages are wanted.
            widens: whether more is looked at where the gate is not satisfied.
            advises: whether the advisor and the verification pools are asked.

        Raises:
            QuestionError: the question is blank, too long or no text, or a number is out of range.
            DatabaseUnavailable, DatabaseError: the database cannot say.
        """
        _check(question)
        if (n_scanned is not None and n_scanned < 1) or not 1 <= n_passages <= MAX_PASSAGES:
            raise QuestionError(
                f"n_scanned ({n_scanned}) must be 1 or more, n_passages ({n_passages}) 1 to "
                f"{MAX_PASSAGES}"
            )
        clock, calls = _Clock(), _Calls(self._usd_per_question)
        vector = self._encoder.encode([question], "query").vectors[0]
        query = self._pool.query(question, vector)
        clock.lap("encode")
        route = self._pool.router.route(query)
        clock.lap("route")
        picked = self._pick(question, route, calls) if advises else None
        if picked is not None:
            route = self._pool.router.prefer(route, picked)
            clock.lap("pick")
        found = self._find(self._pool, query, route, n_scanned, n_passages, widens=widens)
        clock.lap("search")
        passages = self._pool.passages(found.hits, found.finder, limit=n_passages)
        clock.lap("texts")
        report = gate.report(found.judgement, found.features, self._calibration)
        verification = Verification(status="not_needed", by="")
        if advises and report.verdict == "ambiguous":
            verification = self._verify(question, vector, n_passages)
            clock.lap("verify")
        text = None
        if advises and self._advisor is not None and passages:
            reviewed = self._review(question, passages, verification, calls)
            text = reviewed.text
            passages, report, verification = _follow(
                reviewed, self._advisor.model, passages, report, verification
            )
            clock.lap("review")
            if report.verdict == "ambiguous" and verification.status == "not_needed":
                # it was the model that doubted
                verification = self._verify(question, vector, n_passages)
                clock.lap("verify")
        searched = route.explain_within(found.n_within)
        considered = route.explain(max(N_CONSIDERED, len(searched)))
        return Answer(
            question=question,
            pool=self._pool.name,
            model=self._encoder.card.fingerprint,
            text=text,
            written_by=self._advisor.model if self._advisor is not None and text else None,
            gate=report,
            verification=verification,
            passages=passages,
            trail=Trail(
                clusters_considered=self._pool.explain(considered, picked),
                clusters_searched=self._pool.explain(searched, picked),
                n_cells_searched=found.rounds[-1].n_cells,
                n_cells_total=len(route.cells.cell_ids),
                n_rows_scanned=found.rounds[-1].n_rows_scanned,
                n_rows_total=self._pool.n_rows,
                share_scanned=found.rounds[-1].n_rows_scanned / self._pool.n_rows,
                n_shards_behind=self._pool.n_shards_behind,
                rounds=found.rounds,
                calls=tuple(calls.made),
                seconds=clock.laps,
                usd=calls.spent_usd,
            ),
        )

    def measure(
        self,
        questions: Sequence[Question],
        *,
        seed: int,
        shares: Sequence[float] = retrieval_report.SHARES,
    ) -> RetrievalReport:
        """Asks questions with known answers in every way, and sums up.

        Args:
            questions: from `retrieval_report.choose_questions`.
            seed: of the questions, kept in the report.
            shares: of the pool that may be scanned, one line each.

        Raises:
            DatabaseUnavailable, DatabaseError: the database cannot say.
        """
        texts = [question.text for question in questions]
        vectors = self._encoder.encode(texts, "query").vectors if texts else np.empty((0, 0))
        outcomes = [
            outcome
            for question, vector in zip(questions, vectors, strict=True)
            for outcome in self._ways(question, vector, shares)
        ]
        return retrieval_report.sum_up(
            outcomes,
            pool=self._pool.name,
            model=self._encoder.card.fingerprint,
            cluster_model_sha256=self.cluster_map.cluster_model_sha256,
            n_chunks=self._pool.n_rows,
            n_clusters=len(self._pool.titles),
            seed=seed,
        )

    def close(self) -> None:
        """Closes the connections that are kept for the next question."""
        for pool in (self._pool, *self._verification):
            pool.close()
        if self._advisor is not None:
            self._advisor.close()

    def _find(
        self,
        pool: SearchedPool,
        query: Query,
        route: Route,
        n_scanned: int | None,
        n_passages: int,
        *,
        widens: bool,
    ) -> "_Found":
        """Looks into the best cells, and into more of them as long as the gate asks for it."""
        if n_scanned is None:
            n_scanned = _first_look(pool.n_rows, len(route.cells.cell_ids))
        # more than are wanted: equal texts become one, and the gate looks at the tenth
        limit = max(2 * n_passages, 2 * gate.N_COMPARED)
        finder = pool.finder(query)
        hits: list[Hit] = []
        rounds: list[Round] = []
        n_rows, done = 0, 0
        for factor in WIDENINGS if widens else WIDENINGS[:1]:
            n_within = factor * n_scanned
            cells = route.cells.within(n_within)
            if len(cells) == done:
                break
            more = pool.search.inside(query, cells[done:], limit=limit)
            done, n_rows = len(cells), n_rows + more.n_rows_scanned
            # the order of the search itself, whatever was found when
            hits = sorted([*hits, *more.hits], key=lambda hit: (-hit.score, hit.chunk_id))[:limit]
            features = _features(pool, query, finder, hits)
            judgement = gate.judge(features, self._calibration)
            rounds.append(
                Round(
                    n_cells=done,
                    n_rows_scanned=n_rows,
                    probability=judgement.probability,
                    verdict=judgement.verdict,
                )
            )
            found = _Found(hits, finder, features, judgement, n_within, tuple(rounds))
            if judgement.verdict == "accepted" or judgement.probability is None:
                break
        return found

    def _verify(self, question: str, vector: np.ndarray, n_passages: int) -> Verification:
        """What the verification pools have to say: whether what they hold would be accepted."""
        shown: tuple[Passage, ...] = ()
        for pool in self._verification:
            query = pool.query(question, vector)
            route = pool.router.route(query)
            found = self._find(pool, query, route, None, n_passages, widens=True)
            passages = pool.passages(found.hits, found.finder, limit=n_passages)
            if found.judgement.verdict == "accepted":
                return Verification(
                    status="corroborated",
                    by=f"{pool.name}, without a model: its passages pass the gate",
                    passages=passages,
                )
            shown = shown or passages
        return Verification(status="unverified", by="", passages=shown)

    def _pick(self, question: str, route: Route, calls: "_Calls") -> frozenset[int] | None:
        if self._advisor is None:
            return None
        near = [score.cluster_id for score in route.explain(N_CARDS)]
        picked = self._advisor.pick(question, self._pool.cards(near), cap_usd=calls.left_usd)
        calls.add(picked.calls)
        return frozenset(picked.cluster_ids) or None

    def _review(
        self,
        question: str,
        passages: Sequence[Passage],
        verification: Verification,
        calls: "_Calls",
    ) -> Reviewed:
        assert self._advisor is not None  # noqa: S101 - a type's promise
        reviewed = self._advisor.review(
            question,
            [Quoted(one.rank, one.title, one.text) for one in passages[:N_REVIEWED]],
            [Quoted(one.rank, one.title, one.text) for one in verification.passages[:N_REVIEWED]],
            cap_usd=calls.left_usd,
        )
        calls.add(reviewed.calls)
        return reviewed

    def _ways(
        self, question: Question, vector: np.ndarray, shares: Sequence[float]
    ) -> Iterator[Outcome]:
        clock = _Clock()
        query = self._pool.query(question.text, vector)
        routed = self._pool.router.route(query).cells
        clock.lap("routed")
        by_centroid = self._pool.router.by_centroid(vector)
        clock.lap("centroid")
        orders: tuple[tuple[Choice, Ranking], ...] = (("routed", routed), ("centroid", by_centroid))
        for choice, order in orders:
            for share in shares:
                cells = order.within(round(share * self._pool.n_rows))
                hits = self._pool.search.inside(query, cells, limit=retrieval_report.K)
                yield _outcome(question, choice, share, hits, clock.laps[choice])
        hits = self._pool.search.everywhere(query, limit=retrieval_report.K)
        yield _outcome(question, "all", None, hits, 0.0)


class _Found(NamedTuple):
    """What a search found, and how far it went."""

    hits: list[Hit]  # best first
    finder: TermFinder
    features: Features | None
    judgement: Judgement
    n_within: int  # passages that might be looked at
    rounds: tuple[Round, ...]


class _Calls:
    """What the advisor was asked for one question, and what is left to be spent."""

    def __init__(self, cap_usd: float) -> None:
        self.made: list[ModelCall] = []
        self._cap_usd = cap_usd

    @property
    def spent_usd(self) -> float:
        return sum(call.usd for call in self.made)

    @property
    def left_usd(self) -> float:
        return max(0.0, self._cap_usd - self.spent_usd)

    def add(self, calls: Sequence[ModelCall]) -> None:
        self.made += calls


class _Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """What passed since the last lap was for this stage."""
        now = time.perf_counter()
        self.laps[stage] = now - self._last
        self._last = now


def _features(
    pool: SearchedPool, query: Query, finder: TermFinder, hits: Sequence[Hit]
) -> Features | None:
    if not hits:
        return None
    best = hits[0]
    return gate.features(
        query.terms,
        finder.find(pool.texts([best])[best.chunk_id]),
        cosine=best.cosine,
        scores=[hit.score for hit in hits],
    )


def _first_look(n_rows: int, n_cells: int) -> int:
    """How many passages a question is compared with at first.

    Args:
        n_rows: of the pool.
        n_cells: of the pool.
    """
    most = max(MAX_SCANNED, N_CELLS * n_rows // n_cells)
    return min(max(1, round(SHARE_SCANNED * n_rows)), most)


def _check(question: str) -> None:
    """Raises QuestionError where it is none."""
    if not question.strip():
        raise QuestionError("the question is empty; ask something")
    if len(question) > MAX_QUESTION_CHARS:
        raise QuestionError(
            f"the question has {len(question):,} characters; ask in {MAX_QUESTION_CHARS:,} at most"
        )
    # control characters and halves of characters; not marks of joining and direction (Cf), without
    # which there is no Persian and no family of emoji
    if any(category(letter) in ("Cc", "Cs") and not letter.isspace() for letter in question):
        raise QuestionError("the question holds characters that are no text; ask in words")


def _follow(
    reviewed: Reviewed,
    model: str,
    passages: tuple[Passage, ...],
    report: GateReport,
    verification: Verification,
) -> tuple[tuple[Passage, ...], GateReport, Verification]:
    """What a model's review makes of passages, verdict and verification.

    A model that gave no answer changes nothing. One that finds no support takes a verdict down a
    step, and one that does takes it to accepted: it has read the passages.
    """
    if not any(call.outcome == "answered" for call in reviewed.calls):
        return passages, report, verification
    supports = frozenset(reviewed.supports)
    passages = tuple(
        one.model_copy(update={"is_support": one.rank in supports})
        if one.rank <= N_REVIEWED
        else one
        for one in passages
    )
    verdict: Verdict = "accepted"
    if not (reviewed.is_answered and supports):
        verdict = "ambiguous" if report.verdict == "accepted" else "not_found"
    if verdict != report.verdict:
        report = report.model_copy(
            update={
                "verdict": verdict,
                "provenance": f"{report.provenance}; {model} read the passages: {verdict}",
            }
        )
    if reviewed.contradicts or reviewed.corroborates:
        verification = verification.model_copy(
            update={
                "status": "contradicted" if reviewed.contradicts else "corroborated",
                "by": f"{verification.by}; {model}".removeprefix("; "),
            }
        )
    return passages, report, verification


def _outcome(
    question: Question, choice: Choice, share: float | None, hits: Hits, seconds: float
) -> Outcome:
    return Outcome(
        question=question,
        choice=choice,
        share=share,
        relevance=tuple(
            question.is_answered_by(hit.dataset, hit.doc_id, hit.char_start, hit.char_end)
            for hit in hits.hits
        ),
        n_rows_scanned=hits.n_rows_scanned,
        seconds=seconds + hits.seconds,
    )
