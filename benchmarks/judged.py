"""Collections with questions whose answers are known, as a search is asked of them.

    vaswani   abstracts of physics and electronics, 93 questions with judgements of people
    reuters   newswires, asked by their own headlines
    arxiv     abstracts, asked by their papers' titles; a title that the abstract begins with is cut

A document is one passage: the model reads its beginning, words are counted in all of it. A text
that stands twice is put in once, and answers for both. Titles are not put in where they are asked.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from benchmarks import evaluation
from benchmarks.cluster import read_judged

SETS = ("vaswani", "reuters", "arxiv")

N_QUESTIONS = 500
"""Of a set at most, drawn at random, always the same."""


class Asked(NamedTuple):
    """A collection and its questions."""

    name: str
    texts: list[str]  # all different
    vectors: np.ndarray  # (n, dim) float32, unit length
    questions: list[str]
    question_vectors: np.ndarray  # (q, dim) float32, unit length
    relevant: list[np.ndarray]  # rows that answer each question, one at least


def read(name: str, *, n_questions: int = N_QUESTIONS) -> Asked:
    """A collection of the evaluation data; ends the process with 2 where it is absent.

    Args:
        name: of `SETS`.
        n_questions: at most.
    """
    if name == "arxiv":
        table = evaluation.read("arxiv_ai")
        titles = table["title"].to_pylist()
        texts = [
            text.removeprefix(title)
            for text, title in zip(table["text"].to_pylist(), titles, strict=True)
        ]
        chosen = np.random.default_rng(0).permutation(len(titles))[:n_questions]
        questions = [titles[row] for row in chosen]
        relevant = [np.array([row]) for row in chosen]
        vectors = evaluation.embed(texts)
        asked = evaluation.embed(questions, "query")
    else:
        judged = read_judged(name)
        texts = evaluation.stored_texts("reuters") if name == "reuters" else _column("vaswani_docs")
        questions = _column("reuters_titlequeries" if name == "reuters" else "vaswani_queries")
        vectors, asked, relevant = judged
        has_answer = np.flatnonzero([len(rows) for rows in relevant])
        chosen = has_answer[np.random.default_rng(0).permutation(len(has_answer))[:n_questions]]
        questions = [questions[row] for row in chosen]
        asked, relevant = asked[chosen], [relevant[row] for row in chosen]
    return _without_copies(Asked(name, texts, vectors, questions, asked, relevant))


def _column(file: str) -> list[str]:
    texts: list[str] = evaluation.read(file)["text"].to_pylist()
    return texts


def _without_copies(asked: Asked) -> Asked:
    first, new_row = first_of_equals(asked.texts)
    return asked._replace(
        texts=[asked.texts[row] for row in first],
        vectors=asked.vectors[first],
        relevant=[np.unique(new_row[rows]) for rows in asked.relevant],
    )


def first_of_equals(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the different texts, and for each row where its text stands among those.

    Returns:
        (m,) int64 rising, and (n,) int64 below m.
    """
    place: dict[str, int] = {}
    new_row = np.array([place.setdefault(text, len(place)) for text in texts])
    _, first = np.unique(new_row, return_index=True)
    return first, new_row
