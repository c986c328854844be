"""Term weights: which words each chunk has and how much they say of it, for lexical search (BM25).

A term is a word's stem under a number. A chunk's weights are what BM25 makes of how often each term
is in it; how rare a term is comes in with the question (`lexicon`). So the score of a chunk is an
inner product of two sparse vectors, which Postgres computes beside the cosine, over the same rows.

Of a long chunk the terms that matter least have a weight of 0: they are counted, not searched.
Source: BM25 as in Robertson, Zaragoza, The probabilistic relevance framework: BM25 and beyond,
2009; pruning as in Carmel et al., Static index pruning for information retrieval systems, 2001.
"""

import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import chain, pairwise
from typing import NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from acidburn_assets.core import schemas

N_IDS = 10**9
"""Numbers that a term can have; as many as a sparse vector of pgvector has dimensions. Of 100,000
words five pairs share one."""

MAX_TERMS = 240
"""Of a chunk that are searched: with a vector of 1,024 values two rows then fit a page. Passages of
256 tokens have 90. Of 2,938 passages of 1,300 words with 321 terms each, asked for by six of their
words, BM25 finds .744 (nDCG@10) with all terms, .70 with 240, .54 with 128, .41 with 72. Source:
measured on PEPs and Rust RFCs."""

K1, B = 1.2, 0.75
"""BM25's saturation and its part of length normalisation. Source: Lucene's defaults."""

MAX_WORD_CHARS = 40
"""A longer run of letters and digits is a hash or encoded bytes and no word. Chosen."""

_STOP_WORDS = """
a an and are as at be but by for if in into is it no not of on or such that the their then there
these they this to was will with
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())
"""Source: Lucene's EnglishAnalyzer."""

_NO_WORD = r"[^\pL\pN]+"
_WORD = re.compile(r"([^\W_]+)")
_ASCII_WORD = re.compile(_WORD.pattern, re.ASCII)  # the same of ASCII, in half the time
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\u0e00-\u0e7f\uac00-\ud7af]")
"""Kana, Han, Thai, Hangul: written without spaces, or with endings grown on, and so searched by
pairs of characters. Source: Lucene's CJKAnalyzer."""

N_REMEMBERED = 2**16
"""Words whose terms are kept for the next passage, 10 MB: texts repeat their words. Source:
measured, ten passages of 1,300 words are looked through in 4 ms instead of 11."""

_WORD_BITS = 32
"""Of a key that holds a row and a term."""

Stem: TypeAlias = Callable[[Sequence[str]], Sequence[str]]
"""Words in lower case to their stems, one each."""


class Counts(NamedTuple):
    """How often each term is in each text, by text and then by term."""

    rows: np.ndarray  # (e,) int32, which text
    terms: np.ndarray  # (e,) int32
    counts: np.ndarray  # (e,) int32
    n_words: np.ndarray  # (n,) int64, of each text; repeated ones counted


def count_terms(texts: pa.Array, stem: Stem) -> Counts:
    """Counts the terms of texts.

    Args:
        texts: of string; none is null.
        stem: from `adapters.stemmer`.
    """
    lower = pc.utf8_lower(pc.utf8_normalize(texts, form="NFKC"))
    words = pc.split_pattern_regex(lower, _NO_WORD)
    parents = pc.list_parent_indices(words).to_numpy().astype(np.int64)
    coded = words.flatten().dictionary_encode()
    starts, ids = _ids_of(coded.dictionary.to_pylist(), stem)
    of_word = coded.indices.to_numpy()
    # each word stands for none, one or, written without spaces, several terms
    n_terms = (starts[1:] - starts[:-1])[of_word]
    rows = np.repeat(parents, n_terms)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(n_terms) - n_terms, n_terms)
    terms = ids[np.repeat(starts[:-1][of_word], n_terms) + within]
    found, counts = np.unique(rows << _WORD_BITS | terms, return_counts=True)
    return Counts(
        rows=(found >> _WORD_BITS).astype(np.int32),
        terms=(found & (2**_WORD_BITS - 1)).astype(np.int32),
        counts=counts.astype(np.int32),
        n_words=np.bincount(rows, minlength=len(texts)),
    )


def weigh_terms(counted: Sequence[Counts], ids: Iterable[pa.Array]) -> Iterator[pa.RecordBatch]:
    """Weighs the terms of a shard.

    Length is held against the mean of the shard, and which terms matter is told by their rarity in
    it: so a shard's weights depend on nothing outside it.

    Args:
        counted: of its chunks, a batch each.
        ids: of the same chunks.

    Returns:
        batches of `schemas.TERM_WEIGHTS`.
    """
    n_chunks = sum(len(batch.n_words) for batch in counted)
    mean_words = sum(int(batch.n_words.sum()) for batch in counted) / max(1, n_chunks)
    terms, n_having = np.unique(
        np.concatenate([np.empty(0, np.int32), *(batch.terms for batch in counted)]),
        return_counts=True,
    )
    rarity = idf(n_having, n_chunks)
    for batch, chunk_ids in zip(counted, ids, strict=True):
        weights = bm25_weights(batch.counts, batch.n_words[batch.rows], mean_words)
        matters = weights * rarity[np.searchsorted(terms, batch.terms)]
        weights[_is_beyond(batch.rows, matters, MAX_TERMS)] = 0
        offsets = np.searchsorted(batch.rows, np.arange(len(batch.n_words) + 1)).astype(np.int32)
        yield pa.record_batch(
            [
                chunk_ids,
                pa.ListArray.from_arrays(offsets, batch.terms, schemas.TERMS),
                # as many digits as fp16 has: they compress
                pa.ListArray.from_arrays(
                    offsets, weights.astype(np.float16).astype(np.float32), schemas.WEIGHTS
                ),
            ],
            schema=schemas.TERM_WEIGHTS,
        )


def bm25_weights(counts: np.ndarray, n_words: np.ndarray, mean_words: float) -> np.ndarray:
    """What each term adds to its text's score, before its rarity.

    Args:
        counts: of the term in the text  # (e,)
        n_words: of the text  # (e,)
        mean_words: of all texts.

    Returns:
        0 to `K1` + 1, float64  # (e,)
    """
    length = 1 - B + B * n_words / max(mean_words, 1)
    weights: np.ndarray = counts * (K1 + 1) / (counts + K1 * length)
    return weights


def idf(n_having: np.ndarray, n_texts: int) -> np.ndarray:
    """How rare a term is: never negative, float64  # (t,).

    Args:
        n_having: texts that have the term  # (t,)
        n_texts: all there are.
    """
    rarity: np.ndarray = np.log1p(
        (np.maximum(n_texts, n_having) - n_having + 0.5) / (n_having + 0.5)
    )
    return rarity


def question_terms(question: str, stem: Stem) -> dict[int, int]:
    """How often each term is in a question."""
    if question.isascii():
        # the same, without setting up for a whole shard: 2 ms
        terms_of = _vocabulary(stem)
        found = chain.from_iterable(terms_of[word] for word in _WORD.findall(question))
        return dict(Counter(sorted(found)))
    counted = count_terms(pa.array([question], pa.string()), stem)
    return dict(zip(counted.terms.tolist(), counted.counts.tolist(), strict=True))


class Match(NamedTuple):
    """A question's term in a text."""

    term: int
    word: int  # which word of the text, from 0
    start: int
    end: int  # text[start:end]


class TermFinder:
    """Finds a question's terms in texts; remembers texts, and words from one to the next."""

    def __init__(self, terms: Iterable[int], stem: Stem) -> None:
        """Takes the question.

        Args:
            terms: of it.
            stem: that it was cut by.
        """
        self._wanted = frozenset(terms)
        self._terms_of = _vocabulary(stem)
        self._seen: set[str] = set()
        self._within: dict[str, list[tuple[int, int, int]]] = {}  # words: term, start and end
        self._found: dict[str, list[Match]] = {}

    def find(self, text: str) -> list[Match]:
        """Where the terms are in a text, in order."""
        found = self._found.get(text)
        if found is None:
            found = self._found[text] = self._look(text)
        return found

    def _look(self, text: str) -> list[Match]:
        # words and, before and behind each, what is none
        parts = (_ASCII_WORD if text.isascii() else _WORD).split(text)
        words = parts[1::2]
        new = set(words) - self._seen
        self._seen |= new
        is_without, terms_of, within = self._wanted.isdisjoint, self._terms_of, self._within
        within |= {word: self._places(word) for word in new if not is_without(terms_of[word])}
        found: list[Match] = []
        done, begin = 0, 0  # parts, and their characters
        for at in [at for at, word in enumerate(words) if word in within]:
            begin += sum(map(len, parts[done : 2 * at + 1]))
            done = 2 * at + 1
            found += [
                Match(term, at, begin + start, begin + end)
                for term, start, end in within[words[at]]
            ]
        return found

    def _places(self, word: str) -> list[tuple[int, int, int]]:
        """The question's terms in a word, each with its start and end."""
        length = len(word)
        # of what is written without spaces the pair of characters, otherwise the word
        is_pair = _UNSPACED.search(word) is not None
        return [
            (term, min(at, length - 1), min(at + 2, length)) if is_pair else (term, 0, length)
            for at, term in enumerate(self._terms_of[word])
            if term in self._wanted
        ]


def spans_of(matches: Iterable[Match]) -> tuple[tuple[int, int], ...]:
    """The matches as spans, those that touch or overlap as one."""
    spans: list[tuple[int, int]] = []
    for match in matches:
        if spans and spans[-1][1] >= match.start:
            spans[-1] = (spans[-1][0], max(spans[-1][1], match.end))
        else:
            spans.append((match.start, match.end))
    return tuple(spans)


def _ids_of(words: Sequence[str], stem: Stem) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the terms that words stand for.

    Returns:
        Where each word's begin  # (w + 1,) int64
        and the numbers of all of them  # (t,) int64
    """
    stems = stem(words)
    starts = np.zeros(len(words) + 1, np.int64)
    ids: list[int] = []
    for position, (word, root) in enumerate(zip(words, stems, strict=True)):
        ids += _ids_of_stem(word, root)
        starts[position + 1] = len(ids)
    return starts, np.array(ids, np.int64)


class _Vocabulary(dict[str, tuple[int, ...]]):
    """The same of words as they stand in texts."""

    def __init__(self, stem: Stem) -> None:
        super().__init__()
        self._stem = stem

    def __missing__(self, word: str) -> tuple[int, ...]:
        lower = word.lower() if word.isascii() else unicodedata.normalize("NFKC", word).lower()
        ids = tuple(_ids_of_stem(lower, self._stem([lower])[0]))
        if len(self) >= N_REMEMBERED:
            self.clear()
        self[word] = ids
        return ids


@cache
def _vocabulary(stem: Stem) -> _Vocabulary:
    return _Vocabulary(stem)


def _ids_of_stem(word: str, root: str) -> list[int]:
    if not word.isascii() and _UNSPACED.search(word):
        return [_id(first + second) for first, second in pairwise(word)] or [_id(word)]
    if word and word not in STOP_WORDS and len(word) <= MAX_WORD_CHARS:
        return [_id(root)]
    return []


def _id(word: str) -> int:
    return zlib.crc32(word.encode()) % N_IDS


def _is_beyond(rows: np.ndarray, matters: np.ndarray, n_kept: int) -> np.ndarray:
    """Which entries are not among the so many of their row that matter most  # (e,) bool."""
    beyond = np.zeros(len(rows), bool)
    begins = np.searchsorted(rows, np.arange(rows[-1] + 2 if len(rows) else 1))
    for begin, end in pairwise(begins.tolist()):
        if end - begin > n_kept:
            # stable: of equals the lower number stays
            order = np.argsort(-matters[begin:end], kind="stable")
            beyond[begin + order[n_kept:]] = True
    return beyond
