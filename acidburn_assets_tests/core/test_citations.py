"""Citations of numbered passages."""

import pytest

from acidburn_assets.core.citations import Cited, keep


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It holds [1].", Cited("It holds [1].", (1,), ())),
        ("It holds [3][1], and [1] more.", Cited("It holds [3][1], and [1] more.", (3, 1), ())),
        ("It holds [1, 3].", Cited("It holds [1][3].", (1, 3), ())),
        ("It holds [1;1].", Cited("It holds [1].", (1,), ())),
        ("It holds 【3】.", Cited("It holds [3].", (3,), ())),
        ("It holds [2].", Cited("It holds.", (), (2,))),
        ("It holds [1, 2] [2] now.", Cited("It holds [1] now.", (1,), (2,))),
        ("`a[0]` is first [1].", Cited("`a[0]` is first [1].", (1,), ())),
        ("No citation [x] [1.2] [].", Cited("No citation [x] [1.2] [].", (), ())),
    ],
)
def test_only_citations_of_what_may_be_cited_are_kept(text: str, expected: Cited) -> None:
    assert keep(text, {1, 3}) == expected
