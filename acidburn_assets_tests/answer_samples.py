"""Answers that were made up, and one who gives them: for tests of whatever shows answers."""

import re
import threading
import time
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from acidburn_assets.core.answers import (
    Answer,
    Corroboration,
    GateReport,
    ModelCall,
    Passage,
    Place,
    Round,
    RoutedCluster,
    Trail,
    Verdict,
    Verification,
)
from acidburn_assets.core.cluster_map import ClusterMap
from acidburn_assets.core.errors import QuestionError
from acidburn_assets.runtime.following import Version
from acidburn_assets_tests import map_samples

N_POINTS, N_CLUSTERS = 3_000, 40

TEXTS = (
    "The inverse of a square matrix is computed with inv(a). If the matrix is singular, "
    "LinAlgError is raised: there is no inverse, and the least squares solution of lstsq is what "
    "you may want instead.",
    "solve(a, b) finds x with a @ x == b. Prefer it to inverting the matrix: it is faster, and "
    "its rounding errors are smaller.",
    "pinv(a) is the Moore-Penrose pseudo-inverse of a matrix, from its singular value "
    "decomposition; it exists for matrices of any shape.\n\n    >>> a @ pinv(a) @ a\n\n"
    + "A longer explanation follows, line after line, of how small singular values are cut off. "
    * 12,
    "det(a) is the determinant; a matrix whose determinant is zero cannot be inverted.",
    "A transposed matrix has its rows for columns.",
)


def make_answer(
    question: str,
    *,
    pool: str = "science",
    verdict: Verdict = "accepted",
    n_passages: int = 5,
    text: str | None = None,
    status: Corroboration = "not_needed",
    points: pa.Table | None = None,
) -> Answer:
    """An answer with everything in it.

    Args:
        question: is repeated, and its words are what passages match.
        pool: that was asked.
        verdict: of the gate.
        n_passages: five texts over and over.
        text: as a model would write it; None: no model was asked.
        status: of the verification.
        points: rows of a map, whose chunks the passages are.
    """
    points = map_samples.table(N_POINTS, n_clusters=N_CLUSTERS) if points is None else points
    written = text is not None
    passages = tuple(
        _passage(question, rank, points, is_reviewed=written) for rank in range(1, n_passages + 1)
    )
    searched = tuple(
        RoutedCluster(
            cluster_id=cluster,
            title=f"Topic {cluster}: {map_samples.WORDS[cluster % 12]}",
            score=0.9 - 0.07 * place,
            cell=0.8 - 0.05 * place,
            lexical=0.4 if place == 0 else 0.0,
            reason=("picked", "near", "hedge")[min(place, 2)] if written else "near",
        )
        for place, cluster in enumerate((0, 1, 2, 7))
    )
    rounds = (
        Round(n_cells=4, n_rows_scanned=410, probability=0.41, verdict="ambiguous"),
        Round(n_cells=8, n_rows_scanned=830, probability=0.93, verdict=verdict),
    )
    calls = (
        ModelCall(
            purpose="review",
            model="grok-4.3",
            outcome="answered",
            usd=0.0021,
            is_billed=True,
            is_cached=False,
            seconds=1.4,
        ),
    )
    probability = {"accepted": 0.93, "ambiguous": 0.52, "not_found": 0.08}[verdict]
    return Answer(
        question=question,
        pool=pool,
        model="f" * 16,
        text=text,
        written_by="grok-4.3" if written else None,
        gate=GateReport(
            verdict=verdict,
            probability=probability,
            threshold=0.8,
            features={"best_cosine": 0.71, "margin": 0.12},
            false_accepts=0.04,
            provenance="1,200 questions of science, half of them without an answer",
        ),
        verification=Verification(
            status=status,
            by="" if status == "not_needed" else "reference, keyless agreement",
            passages=passages[:1] if status != "not_needed" else (),
        ),
        passages=passages,
        trail=Trail(
            clusters_considered=(
                *searched,
                RoutedCluster(
                    cluster_id=11, title="Topic 11: vector", score=0.3, cell=0.3, lexical=0.0
                ),
            ),
            clusters_searched=searched,
            n_cells_searched=8,
            n_cells_total=120,
            n_rows_scanned=830,
            n_rows_total=30_000,
            share_scanned=830 / 30_000,
            n_shards_behind=0,
            rounds=rounds,
            calls=calls if written else (),
            seconds={"encode": 0.012, "route": 0.003, "search": 0.021, "texts": 0.004},
            usd=0.0021 if written else 0.0,
        ),
    )


def _passage(question: str, rank: int, points: pa.Table, *, is_reviewed: bool) -> Passage:
    row = 17 * rank % points.num_rows
    text = TEXTS[(rank - 1) % len(TEXTS)]
    cluster = points["cluster_id"][row].as_py()
    place = Place(
        chunk_id=points["chunk_id"][row].as_py().hex(),
        dataset=points["dataset"][row].as_py(),
        shard="000003",
        doc_id=f"numpy.linalg.{rank}",
        title=f"numpy.linalg, section {rank}",
        char_start=120 * rank,
        char_end=120 * rank + len(text),
        cluster_id=cluster,
        cluster_title=f"Topic {cluster}: {map_samples.WORDS[cluster % 12]}",
        revision="2.4.6",
        embeddings_sha256="e" * 64,
        source_sha256="a" * 64,
        run_id="5f1ffaf0-1c2d-4e5f-8a9b-0c1d2e3f4a5b",
    )
    words = [word for word in re.findall(r"\w+", question) if len(word) > 3]
    pattern = "|".join(map(re.escape, words)) or r"(?!)"
    return Passage(
        **place.model_dump(),
        rank=rank,
        score=max(0.05, 0.92 - 0.11 * rank),
        cosine=max(0.05, 0.8 - 0.1 * rank),
        lexical=max(0.0, 1 - 0.3 * (rank - 1)),
        text=text,
        matches=tuple(match.span() for match in re.finditer(pattern, text, re.IGNORECASE)),
        duplicates=(place, place) if rank == 2 else (),
        is_support=rank != 4 if is_reviewed else None,
    )


class FakeAnswerer:
    """Answers at once, or when it is allowed to; counts how many it answers at a time."""

    def __init__(
        self,
        make: Callable[[str], Answer] | None = None,
        *,
        cluster_map: ClusterMap | None = None,
        seconds: float = 0.0,
        writer: str | None = None,
    ) -> None:
        self.cluster_map = cluster_map or map_samples.cluster_map(N_CLUSTERS)
        self.writer = writer
        self.asked: list[dict[str, Any]] = []
        self.most_at_once = 0
        self.is_closed = False
        self.held = threading.Event()  # cleared: questions wait for it
        self.held.set()
        self._make = make or make_answer
        self._seconds = seconds
        self._n_now = 0
        self._lock = threading.Lock()

    def ask(
        self,
        question: str,
        *,
        n_scanned: int | None = None,
        n_passages: int = 10,
        widens: bool = True,
        advises: bool = True,
    ) -> Answer:
        with self._lock:
            self.asked.append(
                {
                    "question": question,
                    "n_scanned": n_scanned,
                    "n_passages": n_passages,
                    "widens": widens,
                    "advises": advises,
                }
            )
            self._n_now += 1
            self.most_at_once = max(self.most_at_once, self._n_now)
        try:
            self.held.wait(30)
            time.sleep(self._seconds)
            if len(question) > 900:
                raise QuestionError(
                    "the question has 300 tokens, and the model reads 256; shorten it"
                )
            return self._make(question)
        finally:
            with self._lock:
                self._n_now -= 1

    def close(self) -> None:
        self.is_closed = True


class FakeHome:
    """A pool that can be made anew by changing `made_of`."""

    def __init__(
        self,
        answerer: FakeAnswerer | None = None,
        *,
        name: str = "science",
        points: pa.Table | None = None,
    ) -> None:
        self.name = name
        self.tier = "knowledge"
        self.made_of: str | Exception = "first"
        self.rows = "so many"
        self.opens: Callable[[], FakeAnswerer] | Exception = lambda: answerer or FakeAnswerer()
        self.n_opened = 0
        self._points = points

    def version(self) -> Version:
        if isinstance(self.made_of, Exception):
            raise self.made_of
        return Version(self.made_of, self.rows)

    def open(self) -> FakeAnswerer:
        self.n_opened += 1
        if isinstance(self.opens, Exception):
            raise self.opens
        return self.opens()

    def points(self) -> pa.Table | None:
        return self._points
