"""BM25 over whole texts, nothing pruned: what the lexical part of a search is held against.

Source: Robertson, Zaragoza, The probabilistic relevance framework: BM25 and beyond, 2009, in
Lucene's form, with its defaults and its English stop words; words are stemmed by Snowball.
"""

import re
from collections import Counter
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import scipy.sparse
import Stemmer

K1, B = 1.2, 0.75

_STOP_WORDS = """
a an and are as at be but by for if in into is it no not of on or such that the their then there
these they this to was will with
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())

_WORD = re.compile(r"[^\W_]+")


class Bm25:
    """An index of some texts."""

    def __init__(self, texts: Sequence[str]) -> None:
        """Counts the words.

        Args:
            texts: of the rows.
        """
        self._stemmer = Stemmer.Stemmer("english")
        self._column: dict[str, int] = {}
        counts = [Counter(self.words(text)) for text in texts]
        lengths = np.array([each.total() for each in counts], float)
        rows = np.repeat(np.arange(len(texts)), [len(each) for each in counts])
        columns = np.array(
            [self._column.setdefault(word, len(self._column)) for each in counts for word in each],
            np.int64,
        )
        n_times = np.array([n for each in counts for n in each.values()], float)
        norm = K1 * (1 - B + B * lengths[rows] / lengths.mean())
        self._weights = scipy.sparse.csr_matrix(
            (n_times * (K1 + 1) / (n_times + norm), (rows, columns)),
            shape=(len(texts), len(self._column)),
        )
        n_having = np.bincount(columns, minlength=len(self._column))
        self._idf = np.log(1 + (len(texts) - n_having + 0.5) / (n_having + 0.5))

    def words(self, text: str) -> list[str]:
        """Stems in the text's order, stop words left out."""
        found = (word for word in _WORD.findall(text.casefold()) if word not in STOP_WORDS)
        stems: list[str] = self._stemmer.stemWords(list(found))
        return stems

    def scores(self, question: str) -> np.ndarray:
        """Of every row  # (n,) float64."""
        counts = Counter(self.words(question))
        known = {self._column[word]: n for word, n in counts.items() if word in self._column}
        columns = np.array(list(known), np.int64)
        weights = np.array(list(known.values()), float) * self._idf[columns]
        found: np.ndarray = np.zeros(self._weights.shape[0])
        for column, weight in zip(columns, weights, strict=True):
            start, end = self._by_word.indptr[column : column + 2]
            found[self._by_word.indices[start:end]] += weight * self._by_word.data[start:end]
        return found

    @cached_property
    def _by_word(self) -> scipy.sparse.csc_matrix:
        return self._weights.tocsc()


def best(scores: np.ndarray, limit: int) -> np.ndarray:
    """Rows of the highest scores, highest first, of equals the first; those of 0 are left out.

    Args:
        scores: (n,).
        limit: how many at most.
    """
    if limit < len(scores):
        least = np.partition(scores, -limit)[-limit]
        rows = np.flatnonzero((scores >= least) & (scores > 0))
    else:
        rows = np.flatnonzero(scores > 0)
    return rows[np.argsort(-scores[rows], kind="stable")][:limit]
