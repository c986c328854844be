import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidburn_assets.adapters.stemmer import stem
from acidburn_assets.core import schemas, term_weights
from acidburn_assets.core.term_weights import (
    TermFinder,
    count_terms,
    question_terms,
    spans_of,
    weigh_terms,
)


def uncut(words: Sequence[str]) -> Sequence[str]:
    return words


def counted(text: str) -> list[int]:
    return sorted(question_terms(text, stem).values())


def test_forms_of_a_word_are_one_term() -> None:
    assert question_terms("inverting inverts INVERTED", stem) == question_terms("invert " * 3, stem)


def test_words_that_say_nothing_are_left_out() -> None:
    assert question_terms("What is the matrix?", stem).keys() == (
        question_terms("matrix what", stem).keys()
    )
    assert question_terms("to be or not to be", stem) == {}
    assert question_terms("", stem) == question_terms("?! -- ...", stem) == {}


def test_names_are_taken_apart() -> None:
    assert counted("pandas.read_csv") == [1, 1, 1]


def test_forms_of_letters_are_the_same() -> None:
    assert question_terms("ﬁle café", stem) == question_terms("FILE cafe\u0301", stem)


def test_encoded_bytes_are_no_word() -> None:
    assert question_terms("A" * 41 + " word", stem) == question_terms("word", stem)


def test_what_is_written_without_spaces_is_found_by_parts() -> None:
    document = question_terms("東京都は日本の首都です", stem)
    assert question_terms("首都", stem).keys() <= document.keys()
    assert not question_terms("大阪", stem).keys() & document.keys()


def test_counts_are_those_of_a_count_by_hand() -> None:
    texts = ["red green red", "", "green blue green green", "the"]
    found = count_terms(pa.array(texts), uncut)
    assert found.n_words.tolist() == [3, 0, 4, 0]
    by_row = {row: sorted(found.counts[found.rows == row].tolist()) for row in range(len(texts))}
    assert by_row == {0: [1, 2], 1: [], 2: [1, 3], 3: []}
    rows_and_terms = list(zip(found.rows.tolist(), found.terms.tolist(), strict=True))
    assert rows_and_terms == sorted(rows_and_terms)


def test_no_texts_have_no_terms() -> None:
    found = count_terms(pa.array([], pa.string()), stem)
    assert [len(column) for column in found] == [0, 0, 0, 0]


def weigh(texts: list[str], n_batches: int = 1) -> pa.Table:
    pieces = [texts[index::n_batches] for index in range(n_batches)]
    batches = [count_terms(pa.array(piece, pa.string()), uncut) for piece in pieces]
    ids = [
        pa.array([bytes([index, row] * 8) for row in range(len(piece))], schemas.CHUNK_ID)
        for index, piece in enumerate(pieces)
    ]
    return pa.Table.from_batches(weigh_terms(batches, ids), schemas.TERM_WEIGHTS)


def test_scores_are_those_of_bm25() -> None:
    texts = ["red green red", "green blue", "blue blue blue white", "black"]
    table = weigh(texts)
    words = [text.split() for text in texts]
    mean = sum(map(len, words)) / len(words)
    for row, own in enumerate(words):
        for word, count in Counter(own).items():
            (term,) = question_terms(word, uncut)
            terms = table["terms"][row].as_py()
            expected = count * 2.2 / (count + 1.2 * (0.25 + 0.75 * len(own) / mean))
            found = table["weights"][row].as_py()[terms.index(term)]
            assert found == pytest.approx(expected, rel=1e-3)  # as fp16 has it


def test_terms_rise_inside_a_chunk_and_batches_change_nothing_else() -> None:
    texts = ["one two three", "two", "three three four", ""]
    whole, cut = weigh(texts), weigh(texts, 2)
    assert all(terms == sorted(terms) for terms in whole["terms"].to_pylist())
    columns = ["terms", "weights"]
    in_order = cut.select(columns).take([0, 2, 1, 3]).to_pylist()
    assert whole.select(columns).to_pylist() == in_order


def test_a_long_chunk_keeps_what_is_rare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(term_weights, "MAX_TERMS", 2)
    texts = ["common rare usual seldom", *["common usual"] * 5]
    row = weigh(texts).slice(0, 1).to_pylist()[0]
    assert len(row["terms"]) == 4  # all are counted
    kept = {term for term, weight in zip(row["terms"], row["weights"], strict=True) if weight}
    assert kept == question_terms("rare seldom", uncut).keys()


def test_what_every_text_has_says_least() -> None:
    rarity = term_weights.idf(np.array([1, 5, 10, 12]), 10)
    assert (np.diff(rarity[:3]) < 0).all()
    assert rarity[0] == pytest.approx(math.log(1 + 9.5 / 1.5))
    assert (rarity > 0).all()  # counted when there were fewer texts than have it now


def test_matches_are_where_the_words_are() -> None:
    text = "A matrix can be inverted: inverting a Matrix, e.g. 行列の逆行列."
    terms = question_terms("invert matrix 逆行", stem)
    spans = spans_of(TermFinder(terms, stem).find(text))
    assert [text[start:end] for start, end in spans] == (
        ["matrix", "inverted", "inverting", "Matrix", "逆行"]
    )


def test_matches_that_touch_are_one() -> None:
    terms = question_terms("日本の首都", stem)
    text = "ここは日本の首都です"
    spans = spans_of(TermFinder(terms, stem).find(text))
    assert [text[start:end] for start, end in spans] == ["日本の首都"]


@given(st.text(st.characters(max_codepoint=127)))
def test_a_question_is_counted_as_a_passage_is(question: str) -> None:
    counted = count_terms(pa.array([question], pa.string()), stem)
    terms = dict(zip(counted.terms.tolist(), counted.counts.tolist(), strict=True))
    assert list(question_terms(question, stem).items()) == list(terms.items())


def test_a_match_knows_which_word_it_is() -> None:
    text = "under_score, (moon) moon-lit: moonlit moon"
    matches = TermFinder(question_terms("moon", stem), stem).find(text)
    assert [(match.word, text[match.start : match.end]) for match in matches] == [
        (2, "moon"),
        (3, "moon"),
        (6, "moon"),
    ]


def test_words_of_others_are_no_match() -> None:
    assert TermFinder(question_terms("matrix", stem), stem).find("nothing of the kind") == []
