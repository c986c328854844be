"""`P/retrieval_report.json`: what routing costs in answers, and saves in work.

Known-item search: questions are made from the corpus itself, so it is known which passages answer
them. A document's title should find its passages; a sentence should find the passages it stands
in. Asking them is the engine's work (`runtime.search`); here they are chosen, and the outcomes
summed up. Figures compare ways to search one corpus, not one corpus with another.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa

from acidburn_assets.core import quality
from acidburn_assets.core.quality import Interval
from acidburn_assets.core.records import Record

K = 10
"""Passages that count in every figure."""

SHARES = (0.02, 0.05, 0.1, 0.2)
"""Of the pool that may be scanned, one line of the report each."""

Kind = Literal["title", "sentence"]
Choice = Literal["routed", "centroid", "all"]

_MIN_WORDS, _MAX_WORDS = 8, 30  # of a sentence
_MIN_LETTER_SHARE = 0.75
"""Of a sentence's characters, spaces counted; below it is code or a table. Chosen."""
_MAX_TITLE_CHARS = 200

_SENTENCE_END = re.compile(r"""(?<=[.!?])["'”’)\]]*\s+(?=["'“‘(\[]*[^\W\d_a-z])|\n\s*\n""")
"""After a full stop and before a capital, or at an empty line."""


class Question(Record):
    """A question whose answer is known."""

    kind: Kind
    text: str
    dataset: str
    doc_id: str
    char_start: int | None  # the sentence's place in the document; None for a title
    char_end: int | None
    n_relevant: int  # passages that answer it

    def is_answered_by(self, dataset: str, doc_id: str, char_start: int, char_end: int) -> bool:
        """Whether a passage is one of those that answer it."""
        if (dataset, doc_id) != (self.dataset, self.doc_id):
            return False
        if self.char_start is None or self.char_end is None:
            return True
        return char_start <= self.char_start and self.char_end <= char_end


class Outcome(NamedTuple):
    """One question, searched in one way."""

    question: Question
    choice: Choice
    share: float | None  # of the pool that may be scanned; None with choice `all`
    relevance: tuple[bool, ...]  # of the passages found, best first
    n_rows_scanned: int
    seconds: float  # routing and searching; making the question's vector is not counted


class Line(Record):
    """One way to search, over the questions of one kind."""

    kind: Literal["title", "sentence", "both"]
    choice: Choice
    """`routed`: cells as `ask` chooses them; `centroid`: by centroid alone, as an inverted file
    (IVF) does; `all`: every vector is compared, the best that any choice of cells can do."""
    share: float | None
    """Of the pool that may be scanned; null with `all`."""
    n_questions: int
    recall_at_10: Interval
    mrr_at_10: Interval
    ndcg_at_10: Interval
    ndcg_to_all: Interval | None
    """nDCG@10 as a share of that of `all`; null where `all` finds nothing."""
    share_scanned: float
    """Vectors compared as a share of the pool, mean."""
    seconds_p50: float


class RetrievalReport(Record):
    """All ways, over all questions."""

    schema_version: int = 2
    pool: str
    model: str  # fingerprint of the encoder
    cluster_model_sha256: str
    n_chunks: int
    n_clusters: int
    seed: int
    n_titles: int
    n_sentences: int
    lines: tuple[Line, ...]

    def line(self, choice: Choice, share: float | None = None) -> Line | None:
        """The line over both kinds of question; None where there were no questions."""
        for line in self.lines:
            if (line.kind, line.choice, line.share) == ("both", choice, share):
                return line
        return None


def choose_questions(
    chunks: pa.Table, *, dataset: str, seed: int, limit: int
) -> tuple[Question, ...]:
    """Makes questions from whole documents, at most one of each kind from one document.

    A title that two of the documents share, and a sentence that stands in two of them, ask for no
    document in particular and are left out.

    Args:
        chunks: of `schemas.CHUNKS`, without further columns at need; all chunks of each document
            that it holds.
        dataset: whose they are.
        seed: of the choice.
        limit: of each kind at most.
    """
    columns = ("doc_id", "title", "char_start", "char_end", "text")
    documents: defaultdict[str, list[_Chunk]] = defaultdict(list)
    titles: dict[str, str] = {}
    for doc_id, title, start, end, text in zip(
        *(chunks[name].to_pylist() for name in columns), strict=True
    ):
        documents[doc_id].append(_Chunk(start, end, text))
        titles[doc_id] = title.strip()
    rng = np.random.default_rng(seed)
    doc_ids = sorted(documents)
    shuffled = [doc_ids[index] for index in rng.permutation(len(doc_ids))]
    return (
        *_title_questions(shuffled, titles, documents, dataset, limit),
        *_sentence_questions(shuffled, documents, dataset, limit, rng),
    )


def sum_up(
    outcomes: Iterable[Outcome],
    *,
    pool: str,
    model: str,
    cluster_model_sha256: str,
    n_chunks: int,
    n_clusters: int,
    seed: int,
) -> RetrievalReport:
    """Makes the report.

    Args:
        outcomes: the same questions for every way to search, in the same order.
        pool: its name.
        model: fingerprint of the encoder.
        cluster_model_sha256: which clustering was searched.
        n_chunks: of the pool.
        n_clusters: of the pool.
        seed: of the questions and the intervals.
    """
    ways: defaultdict[tuple[Choice, float | None], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        ways[outcome.choice, outcome.share].append(outcome)
    kinds: tuple[Literal["title", "sentence", "both"], ...] = ("both", "title", "sentence")
    lines = []
    for kind in kinds:
        full = _of_kind(ways["all", None], kind)
        for (choice, share), found in ways.items():
            chosen = _of_kind(found, kind)
            if chosen:
                lines.append(_line(kind, choice, share, chosen, full, n_chunks, seed))
    kinds_asked = Counter(outcome.question.kind for outcome in ways["all", None])
    return RetrievalReport(
        pool=pool,
        model=model,
        cluster_model_sha256=cluster_model_sha256,
        n_chunks=n_chunks,
        n_clusters=n_clusters,
        seed=seed,
        n_titles=kinds_asked["title"],
        n_sentences=kinds_asked["sentence"],
        lines=tuple(lines),
    )


class _Chunk(NamedTuple):
    start: int
    end: int
    text: str


class _Sentence(NamedTuple):
    start: int  # in its chunk
    end: int
    text: str  # on one line


def _title_questions(
    doc_ids: Sequence[str],
    titles: dict[str, str],
    documents: dict[str, list[_Chunk]],
    dataset: str,
    limit: int,
) -> Iterator[Question]:
    n_documents = Counter(title.casefold() for title in titles.values())
    usable = [
        doc_id
        for doc_id in doc_ids
        if 0 < len(titles[doc_id]) <= _MAX_TITLE_CHARS
        and n_documents[titles[doc_id].casefold()] == 1
    ]
    for doc_id in usable[:limit]:
        yield Question(
            kind="title",
            text=titles[doc_id],
            dataset=dataset,
            doc_id=doc_id,
            char_start=None,
            char_end=None,
            n_relevant=len(documents[doc_id]),
        )


def _sentence_questions(
    doc_ids: Sequence[str],
    documents: dict[str, list[_Chunk]],
    dataset: str,
    limit: int,
    rng: np.random.Generator,
) -> Iterator[Question]:
    candidates: list[tuple[str, _Chunk, _Sentence]] = []
    for doc_id in doc_ids:
        chunks = documents[doc_id]
        for index in rng.permutation(len(chunks)):
            chunk = chunks[index]
            usable = [one for one in _sentences(chunk.text) if _is_usable(one, chunk)]
            if usable:
                candidates.append((doc_id, chunk, usable[int(rng.integers(len(usable)))]))
                break
        if len(candidates) == 2 * limit:  # what stands in two documents still goes
            break
    wanted = {sentence.text for _, _, sentence in candidates}
    found_in: defaultdict[str, set[str]] = defaultdict(set)
    for doc_id, chunks in documents.items():
        for chunk in chunks:
            for sentence in _sentences(chunk.text):
                if sentence.text in wanted:
                    found_in[sentence.text].add(doc_id)
    unique = [one for one in candidates if len(found_in[one[2].text]) == 1]
    for doc_id, chunk, sentence in unique[:limit]:
        start, end = chunk.start + sentence.start, chunk.start + sentence.end
        yield Question(
            kind="sentence",
            text=sentence.text,
            dataset=dataset,
            doc_id=doc_id,
            char_start=start,
            char_end=end,
            n_relevant=sum(one.start <= start and end <= one.end for one in documents[doc_id]),
        )


def _sentences(text: str) -> Iterator[_Sentence]:
    start = 0
    ends = [(match.start(), match.end()) for match in _SENTENCE_END.finditer(text)]
    for end, next_start in [*ends, (len(text), len(text))]:
        piece = text[start:end]
        stripped = piece.strip()
        if stripped:
            first = start + len(piece) - len(piece.lstrip())
            yield _Sentence(first, first + len(stripped), " ".join(stripped.split()))
        start = next_start


def _is_usable(sentence: _Sentence, chunk: _Chunk) -> bool:
    """A whole sentence of prose from the middle third: what begins or ends a chunk may be cut."""
    third = len(chunk.text) / 3
    n_letters = sum(letter.isalpha() or letter == " " for letter in sentence.text)
    return (
        third <= sentence.start
        and sentence.end <= 2 * third
        and _MIN_WORDS <= len(sentence.text.split()) <= _MAX_WORDS
        and sentence.text.rstrip("\"'”’)]").endswith((".", "!", "?"))
        and n_letters >= _MIN_LETTER_SHARE * len(sentence.text)
    )


def _of_kind(
    outcomes: Sequence[Outcome], kind: Literal["title", "sentence", "both"]
) -> list[Outcome]:
    return [one for one in outcomes if kind in ("both", one.question.kind)]


def _line(
    kind: Literal["title", "sentence", "both"],
    choice: Choice,
    share: float | None,
    outcomes: Sequence[Outcome],
    full: Sequence[Outcome],
    n_chunks: int,
    seed: int,
) -> Line:
    scores = _ndcg(outcomes)
    recalls = [quality.recall(one.relevance, one.question.n_relevant, k=K) for one in outcomes]
    ranks = [quality.reciprocal_rank(one.relevance, k=K) for one in outcomes]
    return Line(
        kind=kind,
        choice=choice,
        share=share,
        n_questions=len(outcomes),
        recall_at_10=quality.mean(np.array(recalls), seed=seed),
        mrr_at_10=quality.mean(np.array(ranks), seed=seed),
        ndcg_at_10=quality.mean(scores, seed=seed),
        ndcg_to_all=quality.ratio(scores, _ndcg(full), seed=seed),
        share_scanned=float(np.mean([one.n_rows_scanned for one in outcomes])) / n_chunks,
        seconds_p50=float(np.median([one.seconds for one in outcomes])),
    )


def _ndcg(outcomes: Sequence[Outcome]) -> np.ndarray:
    return np.array([quality.ndcg(one.relevance, one.question.n_relevant, k=K) for one in outcomes])
