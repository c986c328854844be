"""Names are stable: they are in the bucket of whoever used an earlier version."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidburn_assets.core import keys

FIELDS = {"dataset": "d", "revision": "r", "doc_id": "a", "chunker": "c"}


def test_a_chunk_id_never_changes_between_versions() -> None:
    assert keys.chunk_id(**FIELDS, start=0, end=9).hex() == "0fbd70ad812f904bd9fec5d05b07a043"


@given(
    st.tuples(st.text("ab"), st.text("ab"), st.text("ab"), st.integers(0), st.integers(0)),
    st.tuples(st.text("ab"), st.text("ab"), st.text("ab"), st.integers(0), st.integers(0)),
)
def test_different_chunks_have_different_ids(
    one: tuple[str, str, str, int, int], other: tuple[str, str, str, int, int]
) -> None:
    ids = [
        keys.chunk_id(
            dataset="d", revision=revision, doc_id=doc_id, chunker=chunker, start=start, end=end
        )
        for revision, doc_id, chunker, start, end in (one, other)
    ]
    assert len(ids[0]) == 16
    assert (ids[0] == ids[1]) == (one == other)


def test_object_keys_mirror_asset_keys() -> None:
    shard = keys.shard_key(12)
    assert keys.object_key("books", "chunks", shard, suffix=".parquet") == (
        "books/chunks/000012.parquet"
    )
    assert keys.object_key("books", "plan", suffix=".json") == "books/plan.json"


@given(st.integers(0, 999_998))
def test_shard_keys_sort_as_their_numbers(index: int) -> None:
    assert keys.shard_key(index) < keys.shard_key(index + 1)


@pytest.mark.parametrize("name", ["a", "python_docs", "a1", "a" * 63])
def test_a_name_that_suits_assets_objects_and_sql_is_taken(name: str) -> None:
    assert keys.NAME.fullmatch(name)


@pytest.mark.parametrize("name", ["", "1a", "_a", "A", "a-b", "a,b", "a b", "é", "a\n", "a" * 64])
def test_any_other_name_is_not(name: str) -> None:
    assert not keys.NAME.fullmatch(name)
