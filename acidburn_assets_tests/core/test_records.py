"""A record has one form in bytes, and nothing else is read as one."""

import hashlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from acidburn_assets.core.errors import SchemaError
from acidburn_assets.core.records import Record


class Leaf(Record):
    name: str
    share: float = 0.0


class Tree(Record):
    leaves: tuple[Leaf, ...]
    counts: dict[str, int] = Field(default_factory=dict)
    note: str | None = None


TREES = st.builds(
    Tree,
    leaves=st.lists(
        st.builds(Leaf, name=st.text(), share=st.floats(allow_nan=False)), max_size=4
    ).map(tuple),
    counts=st.dictionaries(st.text(), st.integers(-(2**63), 2**63 - 1), max_size=5),
    note=st.none() | st.text(),
)


@given(TREES)
def test_a_record_comes_back_from_its_bytes(tree: Tree) -> None:
    content = tree.to_bytes()
    again = Tree.from_bytes(content, key="a.json")
    assert again == tree
    assert again.to_bytes() == content
    assert again.content_hash() == hashlib.sha256(content).hexdigest()


def test_equal_records_have_equal_bytes_whatever_the_order_of_their_keys() -> None:
    one = Tree(leaves=(), counts={"a": 1, "b": 2})
    other = Tree(counts={"b": 2, "a": 1}, leaves=())
    assert one.to_bytes() == other.to_bytes()
    assert one.to_bytes() == b'{"counts":{"a":1,"b":2},"leaves":[],"note":null}\n'


def test_text_is_written_as_utf8() -> None:
    assert Leaf(name="天").to_bytes() == '{"name":"天","share":0.0}\n'.encode()


def test_a_number_that_is_none_survives() -> None:
    leaf = Leaf(name="a", share=math.nan)
    assert math.isnan(Leaf.from_bytes(leaf.to_bytes(), key="a.json").share)


def test_a_record_cannot_be_changed() -> None:
    leaf = Leaf(name="a")
    with pytest.raises(ValidationError):
        leaf.name = "b"  # type: ignore[misc]  # what is tested


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "'p.json' is not a Tree: Invalid JSON"),
        (b"[]", "at the top level"),
        (b"{}", "Field required at leaves"),
        (b'{"leaves":[{"name":1}]}', "valid string at leaves.0.name"),
        (b'{"leaves":[],"colour":1}', "not permitted at colour"),
        (b"\xff", "'p.json' is not a Tree"),
    ],
)
def test_bytes_that_are_not_the_record_are_refused_with_the_place(
    content: bytes, message: str
) -> None:
    with pytest.raises(SchemaError) as raised:
        Tree.from_bytes(content, key="p.json")
    assert message in str(raised.value)
