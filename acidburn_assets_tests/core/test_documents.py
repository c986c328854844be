"""Every document is kept, or skipped under one reason."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidburn_assets.core import documents
from acidburn_assets.core.documents import KEPT, Document, Problem, Verdict, screen


def verdict_on(text: str, *, doc_id: str = "a", title: str = "", limit: int = 1000) -> Verdict:
    return screen(Document(0, doc_id, title, text), max_document_bytes=limit)


@pytest.mark.parametrize("text", ["x", " x\n", "tab\tnew\r\nline\fpage", "天气", "👍🏽", "\u200b"])
def test_text_is_kept(text: str) -> None:
    assert verdict_on(text) == KEPT


@pytest.mark.parametrize("problem", ["null", "not_text", "not_utf8"])
def test_a_problem_of_reading_is_the_reason(problem: Problem) -> None:
    document = Document(0, "", "", "", problem)
    assert screen(document, max_document_bytes=10) == Verdict(False, problem)


@pytest.mark.parametrize("text", ["", " ", "\n\t\r\u3000"])
def test_blank_text_is_empty(text: str) -> None:
    assert verdict_on(text) == Verdict(False, "empty")


@pytest.mark.parametrize("doc_id", ["", "a\0b", "\ud800"])
def test_an_id_that_cannot_be_stored_is_bad(doc_id: str) -> None:
    assert verdict_on("text", doc_id=doc_id) == Verdict(False, "bad_id")


@pytest.mark.parametrize(
    ("text", "n_bytes"), [("x" * 100, 100), ("é" * 50, 100), ("天" * 33, 99), ("👍" * 25, 100)]
)
def test_size_is_counted_in_utf8_bytes(text: str, n_bytes: int) -> None:
    assert verdict_on(text, limit=n_bytes) == KEPT
    assert verdict_on(text, limit=n_bytes - 1) == Verdict(False, "too_large")


def test_control_characters_make_text_binary() -> None:
    prose = "some prose, some code\n" * 10
    assert verdict_on(prose + "\x1b" * 4) == KEPT
    assert verdict_on(prose + "\x1b" * 5) == Verdict(False, "binary")
    assert verdict_on(bytes(range(256)).decode("latin-1").strip("\0")) == Verdict(False, "binary")


def test_a_nul_anywhere_is_binary() -> None:
    """Postgres stores no NUL in a text."""
    assert verdict_on("long prose " * 50 + "\0") == Verdict(False, "binary")
    assert verdict_on("prose", title="a\0") == Verdict(False, "binary")


@pytest.mark.parametrize(("text", "title"), [("a\udc80b", ""), ("prose", "\ud83d")])
def test_a_lone_surrogate_is_not_utf8(text: str, title: str) -> None:
    """JSON can spell one with an escape; the tokenizer and Arrow would fail on it."""
    assert verdict_on(text, title=title) == Verdict(False, "not_utf8")


@given(text=st.text(), title=st.text(), doc_id=st.text())
def test_what_is_kept_can_be_stored(text: str, title: str, doc_id: str) -> None:
    verdict = verdict_on(text, title=title, doc_id=doc_id, limit=40)
    assert verdict.is_kept == (verdict.reason is None)
    if verdict.is_kept:
        assert text.strip()
        assert doc_id
        assert len(text.encode()) <= 40
        assert b"\0" not in (text + title + doc_id).encode()


def test_every_control_character_but_white_space_counts() -> None:
    counted = [chr(code) for code in range(128) if documents._control_share(chr(code)) == 1]
    assert counted == [chr(code) for code in [*range(32), 127] if chr(code) not in "\t\n\r\f"]
