import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from acidburn_assets.adapters.sources import Source, jsonl, open_source
from acidburn_assets.core.documents import Document
from acidburn_assets.core.errors import SourceChanged, SourceError
from acidburn_assets_tests.adapters.sources.declared import declare


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., Source]:
    def open_folder(path: str | Path = tmp_path, **fields: Any) -> Source:
        return open_source(declare("jsonl", path, **fields), cache=tmp_path / "cache")

    return open_folder


def documents(source: Source) -> list[Document]:
    return list(source.read(source.units()))


def lines(*entries: Any) -> bytes:
    return b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)


def test_a_block_ends_after_its_rows_or_its_bytes(opened: Any, tmp_path: Path) -> None:
    short = [{"text": "s"}] * (jsonl.BLOCK_ROWS + 1)
    long = [{"text": "l" * (jsonl.BLOCK_BYTES // 2)}] * 3
    (tmp_path / "a.jsonl").write_bytes(lines(*short))
    (tmp_path / "b.jsonl").write_bytes(lines(*long))
    units = opened().units()
    assert [(unit.path, unit.index, unit.n_rows) for unit in units] == [
        ("a.jsonl", 0, jsonl.BLOCK_ROWS),
        ("a.jsonl", 1, 1),
        ("b.jsonl", 0, 2),
        ("b.jsonl", 1, 1),
    ]
    assert units[1].offset == units[0].n_bytes == jsonl.BLOCK_ROWS * len(lines(short[0]))


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz"])
def test_bad_lines_are_reported_and_blank_ones_are_no_rows(
    opened: Any, tmp_path: Path, suffix: str
) -> None:
    content = b"\n".join(
        [
            b"\xef\xbb\xbf" + b'{"text": "first", "key": "k0", "name": "First"}\r',
            b"",
            b'{"text": "cut of',
            b"   ",
            b'["a", "list"]',
            b'{"text": "\xff"}',
            b'{"key": "k4"}',
            b'{"text": null, "key": 5, "name": 1984}',
            b'{"text": 12, "key": true}',
            b'{"text": "\\ud800", "key": "\\udfff", "name": "\\ud800"}',
            b"[" * 100_000,
            b'{"text": "last", "key": "k9"}',
        ]
    )
    compress = gzip.compress if suffix.endswith("gz") else bytes
    (tmp_path / f"a.{suffix}").write_bytes(compress(content))
    source = opened(id_column="key", title_column="name")
    expected = [
        Document(0, "k0", "First", "first"),
        Document(1, "", "", "", "not_text"),
        Document(2, "", "", "", "not_text"),
        Document(3, "", "", "", "not_utf8"),
        Document(4, "k4", "", "", "null"),
        Document(5, "5", "1984", "", "null"),
        Document(6, "", "", "", "not_text"),
        Document(7, "", "?", "", "not_utf8"),
        Document(8, "", "", "", "not_text"),
        Document(9, "k9", "", "last"),
    ]
    assert documents(source) == expected
    assert list(source.ids()) == [(document.row, document.doc_id) for document in expected]


def test_position_is_the_id_where_no_column_is_declared(opened: Any, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines({"text": "a"}) + b"broken\n" + lines({"text": "b"}))
    assert [document.doc_id for document in documents(opened())] == ["0", "1", "2"]
    assert opened().ids() is None


def test_wrong_column_names_the_keys(opened: Any, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines({"text": "a"}))
    (tmp_path / "b.jsonl").write_bytes(lines({"body": "b"}, {"lang": "en"}))
    with pytest.raises(SourceError, match=r"'b.jsonl' .*'text'; they have \['body', 'lang'\]"):
        opened().units()


def test_empty_file_has_no_units(opened: Any, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\n\n")
    assert opened().units() == []


@pytest.mark.parametrize("damage", ["truncated", "flipped", "plain"])
def test_damaged_gzip_is_named(opened: Any, tmp_path: Path, damage: str) -> None:
    content = bytearray(gzip.compress(lines(*({"text": f"text {n}"} for n in range(5_000)))))
    if damage == "truncated":
        content = content[: len(content) // 2]
    elif damage == "flipped":
        content[len(content) // 2] ^= 0xFF
    else:
        content = bytearray(lines({"text": "a"}))
    (tmp_path / "a.jsonl.gz").write_bytes(content)
    with pytest.raises(SourceError, match=r"'a.jsonl.gz' cannot be read"):
        opened().units()


def test_other_types_of_file_are_refused(opened: Any, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(lines({"text": "a"}))
    with pytest.raises(SourceError, match=r"'a.json' is not a .jsonl or .jsonl.gz file"):
        opened(tmp_path / "a.json").units()
    with pytest.raises(SourceError, match=r"no .jsonl or .jsonl.gz file at"):
        opened(tmp_path).units()


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz"])
def test_changed_block_is_refused_and_the_others_are_read(
    opened: Any, tmp_path: Path, suffix: str
) -> None:
    compress = gzip.compress if suffix.endswith("gz") else bytes
    entries = [{"text": f"text {index:05d}"} for index in range(2 * jsonl.BLOCK_ROWS)]
    place = tmp_path / f"a.{suffix}"
    place.write_bytes(compress(lines(*entries)))
    units = opened().units()
    entries[-1] = {"text": "text 99999"}
    place.write_bytes(compress(lines(*entries)))
    assert len(list(opened().read(units[:1]))) == jsonl.BLOCK_ROWS
    with pytest.raises(SourceChanged, match=r"\(piece 1\) is not what was planned"):
        list(opened().read(units[1:]))
    place.write_bytes(compress(lines(*entries[:10])))
    with pytest.raises(SourceChanged, match="now gone"):
        list(opened().read(units[1:]))


def test_appended_lines_leave_full_blocks_as_planned(opened: Any, tmp_path: Path) -> None:
    place = tmp_path / "a.jsonl"
    place.write_bytes(lines(*({"text": str(index)} for index in range(jsonl.BLOCK_ROWS))))
    units = opened().units()
    with place.open("ab") as file:
        file.write(lines({"text": "one more"}))
    assert len(list(opened().read(units))) == jsonl.BLOCK_ROWS


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=30))
@pytest.mark.parametrize("is_ascii", [True, False])
def test_any_text_comes_back(opened: Any, tmp_path: Path, texts: list[str], is_ascii: bool) -> None:
    content = "\n".join(json.dumps({"text": text}, ensure_ascii=is_ascii) for text in texts)
    (tmp_path / "a.jsonl").write_bytes(content.encode())
    assert [document.text for document in documents(opened())] == texts
