from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from acidburn_assets.adapters.sources import Source, open_source
from acidburn_assets.core.documents import Document
from acidburn_assets.core.errors import SourceChanged, SourceError
from acidburn_assets_tests.adapters.sources.declared import declare


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., Source]:
    def open_folder(path: str | Path = tmp_path, **fields: Any) -> Source:
        return open_source(declare("parquet", path, **fields), cache=tmp_path / "cache")

    return open_folder


def write(place: Path, *, row_group_size: int = 2, **columns: Any) -> None:
    pq.write_table(pa.table(columns), place, row_group_size=row_group_size)


def documents(source: Source) -> list[Document]:
    return list(source.read(source.units()))


def test_units_are_row_groups_in_path_order(opened: Any, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    write(tmp_path / "sub" / "a.parquet", text=["c", "d", "e"])
    write(tmp_path / "b.parquet", text=["a", "b"])
    write(tmp_path / ".hidden.parquet", text=["x"])
    (tmp_path / "notes.txt").write_text("no table")
    units = opened().units()
    assert [(unit.path, unit.index, unit.first_row, unit.n_rows) for unit in units] == [
        ("b.parquet", 0, 0, 2),
        ("sub/a.parquet", 0, 2, 2),
        ("sub/a.parquet", 1, 4, 1),
    ]
    assert [document.text for document in documents(opened())] == list("abcde")


@pytest.mark.parametrize(
    ("path", "texts"),
    [("b.parquet", "b"), ("*.parquet", "b"), ("**/*.parquet", "bs"), ("sub/*", "s")],
)
def test_path_may_be_a_file_or_a_glob(opened: Any, tmp_path: Path, path: str, texts: str) -> None:
    (tmp_path / "sub").mkdir()
    write(tmp_path / "sub" / "a.parquet", text=["s"])
    write(tmp_path / "b.parquet", text=["b"])
    assert [document.text for document in documents(opened(tmp_path / path))] == list(texts)


def test_file_whose_name_looks_like_a_glob_is_itself(opened: Any, tmp_path: Path) -> None:
    write(tmp_path / "[ab].parquet", text=["itself"])
    write(tmp_path / "a.parquet", text=["another"])
    source = opened(tmp_path / "[ab].parquet")
    assert [document.text for document in documents(source)] == ["itself"]


def test_id_and_title_columns_are_read(opened: Any, tmp_path: Path) -> None:
    write(
        tmp_path / "a.parquet",
        text=["one", "two", "three"],
        key=pa.array([7, None, 9], pa.int64()),
        name=["One", None, "Three"],
        ignored=[1.5, 2.5, 3.5],
    )
    source = opened(id_column="key", title_column="name")
    assert documents(source) == [
        Document(0, "7", "One", "one"),
        Document(1, "", "", "two"),  # screened as bad_id
        Document(2, "9", "Three", "three"),
    ]
    assert list(source.ids()) == [(0, "7"), (1, ""), (2, "9")]
    assert opened().ids() is None


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.binary(),
        pa.large_binary(),
        pa.dictionary(pa.int32(), pa.string()),
        pa.dictionary(pa.int8(), pa.large_string()),
    ],
    ids=str,
)
def test_every_kind_of_text_is_read(opened: Any, tmp_path: Path, kind: pa.DataType) -> None:
    text = pa.array(["ä", None, "ö", "ä"]).cast(kind)
    write(tmp_path / "a.parquet", text=text, row_group_size=4)
    assert [(document.text, document.problem) for document in documents(opened())] == [
        ("ä", None),
        ("", "null"),
        ("ö", None),
        ("ä", None),
    ]


@pytest.mark.parametrize("kind", [pa.binary(), pa.string()], ids=str)
def test_bytes_that_are_not_utf8_are_reported_by_row(
    opened: Any, tmp_path: Path, kind: pa.DataType
) -> None:
    """A string column is not checked by Arrow when it is written or read."""
    damaged = pa.array([b"fine", b"\xff\xfe", b"fine too"], pa.binary())
    column = pa.Array.from_buffers(kind, 3, damaged.buffers())
    write(tmp_path / "a.parquet", text=column, key=column, name=column)
    source = opened(id_column="key", title_column="name")
    assert documents(source)[1:2] == [Document(1, "", "\ufffd\ufffd", "", "not_utf8")]
    assert [document.problem for document in documents(source)] == [None, "not_utf8", None]


def test_column_of_nulls_is_reported_row_by_row(opened: Any, tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", text=pa.nulls(2))
    assert [document.problem for document in documents(opened())] == ["null", "null"]


def test_missing_column_names_the_file_and_its_columns(opened: Any, tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", text=["a"])
    write(tmp_path / "b.parquet", body=["b"], lang=["en"])
    with pytest.raises(SourceError, match=r"'b.parquet' .*'text'; it has \['body', 'lang'\]"):
        opened().units()
    with pytest.raises(SourceError, match="Set title_column"):
        opened(tmp_path / "a.parquet", title_column="title").units()


@pytest.mark.parametrize(
    "values", [[1, 2], [["a"], ["b"]], [1.5, 2.5], [{"a": "x"}, {"a": "y"}]], ids=str
)
def test_column_that_is_no_text_is_refused(opened: Any, tmp_path: Path, values: list[Any]) -> None:
    write(tmp_path / "a.parquet", text=values)
    with pytest.raises(SourceError, match=r"'a.parquet' holds 'text' as"):
        opened().units()


def test_no_file_is_refused(opened: Any, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.parquet", tmp_path / "*.parquet"):
        with pytest.raises(SourceError, match=r"no .parquet file at"):
            opened(path).units()


def test_file_of_another_type_is_refused(opened: Any, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\na\n")
    with pytest.raises(SourceError, match=r"'a.csv' is not a .parquet file"):
        opened(tmp_path / "*").units()


def test_empty_dataset_has_no_units(opened: Any, tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", text=pa.array([], pa.string()))
    assert opened().units() == []
    assert documents(opened()) == []


@pytest.mark.parametrize("damage", ["empty", "garbage", "truncated", "tail only"])
def test_damaged_file_is_named(opened: Any, tmp_path: Path, damage: str) -> None:
    place = tmp_path / "a.parquet"
    write(place, text=["a"] * 100)
    content = place.read_bytes()
    place.write_bytes(
        {
            "empty": b"",
            "garbage": b"no table at all" * 100,
            "truncated": content[:-20],
            "tail only": b"\xff\xff\xff\x7fPAR1",
        }[damage]
    )
    with pytest.raises(SourceError, match=r"'a.parquet' cannot be read as Parquet"):
        opened().units()


def test_damaged_page_is_named(opened: Any, tmp_path: Path) -> None:
    place = tmp_path / "a.parquet"
    texts = [f"text {index}" for index in range(1_000)]
    pq.write_table(pa.table({"text": texts}), place, write_page_checksum=True)
    units = opened().units()
    content = bytearray(place.read_bytes())
    content[2_000] ^= 0xFF
    place.write_bytes(content)
    with pytest.raises(SourceError, match=r"'a.parquet' cannot be read as Parquet"):
        list(opened().read(units))


def test_changed_file_is_refused_before_a_row_is_read(opened: Any, tmp_path: Path) -> None:
    place = tmp_path / "a.parquet"
    write(place, text=["a", "b", "c"])
    units = opened().units()
    before = opened().revision()
    write(place, text=["a", "b", "longer"])
    reading = opened().read(units)
    with pytest.raises(SourceChanged, match=r"'a.parquet' \(piece 0\) is not what was planned"):
        next(reading)
    assert opened().revision() != before
    place.write_bytes(b"garbage")
    with pytest.raises(SourceChanged):
        next(opened().read(units))


def test_footer_larger_than_the_first_read_is_read(opened: Any, tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", text=[str(index) for index in range(2_000)], row_group_size=1)
    units = opened().units()
    assert len(units) == 2_000
    assert [document.text for document in opened().read(units[1_998:])] == ["1998", "1999"]
