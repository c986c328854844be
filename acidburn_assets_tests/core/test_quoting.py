"""Text of others as data, and text of a model as text."""

import time
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidburn_assets.core.quoting import LINK_LEFT_OUT, plain, printable, quoted


@given(st.text())
def test_quoted_text_can_open_and_close_no_marker(text: str) -> None:
    read = ElementTree.fromstring(f"<data>{quoted(text)}</data>")  # noqa: S314 - written here
    assert list(read) == []
    assert (read.text or "") == " ".join(printable(text).split())


@given(st.text())
def test_what_is_printable_stays_so(text: str) -> None:
    once = printable(text)
    assert printable(once) == once


def test_what_changes_how_other_text_is_shown_goes() -> None:
    assert printable("a\u202eb\u200bc\x00d\x1b[2J") == "abcd[2J"
    assert printable("a\tb\r\nc") == "a b  c"


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("Masks hide values [1].", "Masks hide values [1]."),
        ("First.\n\n\n\nSecond\x07.", "First.\n\nSecond."),
        ("See [the manual](https://evil.example/a_(b)) [1].", "See the manual [1]."),
        ("It holds [1](https://evil.example).", "It holds [1]."),
        ("![](https://evil.example/pixel.png)It holds.", "It holds."),
        ("Go to https://evil.example/x?y=1 now.", f"Go to {LINK_LEFT_OUT} now."),
        ("Go to <https://evil.example> now.", f"Go to {LINK_LEFT_OUT} now."),
        ("Go to www.evil.example.", f"Go to {LINK_LEFT_OUT}"),
        ("[x](javascript:alert(1)) y", "x y"),
        ("1http://evil.example", f"1{LINK_LEFT_OUT}"),
        ("javascript:alert`1`", f"{LINK_LEFT_OUT}`1`"),
        ("a <b>bold</b> <img src=x onerror=alert(1)> word", "a bold word"),
        ("<script>alert(1)</script>It holds.", "It holds."),
        ("<scr<script></script>ipt>alert(1)</script>", "alert(1)"),
        ("<!-- hidden --> shown", "shown"),
        ("std::vector<int> and a < b", "std::vector‹int› and a < b"),
        ("<x-card onclick=alert(1)>", "‹x-card onclick=alert(1)›"),
        ("<svg/onload=alert(1)>", ""),
        ("[click]\u200b(http://evil.example)", "click"),
    ],
)
def test_a_model_s_text_is_plain(written: str, shown: str) -> None:
    assert plain(written) == shown


@given(st.text("<>/abi!-script [](){}:.=w\"'h tp\n`&;", max_size=80))
def test_no_text_of_a_model_holds_markup_or_an_address(text: str) -> None:
    shown = plain(text)
    for piece in ("<script", "<b>", "<a", "</", "<!", "http://", " javascript:a"):
        assert piece not in shown
    assert plain(shown) == shown


@pytest.mark.parametrize(
    "piece", ["[](", "![[[](x)", "<!--", "<script>", "a.", "<a ", "((", "[1]("]
)
def test_a_text_that_is_made_to_be_slow_is_not(piece: str) -> None:
    started = time.process_time()
    plain(piece * (4_000 // len(piece)))
    assert time.process_time() - started < 2.0
