import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from acidburn_assets.adapters.sources import Source, open_source
from acidburn_assets.core import documents
from acidburn_assets.core.documents import Document
from acidburn_assets.core.errors import SourceChanged, SourceError
from acidburn_assets_tests.adapters.sources.declared import declare


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    return folder


@pytest.fixture
def opened(folder: Path, tmp_path: Path) -> Callable[..., Source]:
    def open_folder(path: Path = folder, **filters: Any) -> Source:
        return open_source(declare("text", path, filters=filters), cache=tmp_path / "cache")

    return open_folder


def read(source: Source) -> list[Document]:
    return list(source.read(source.units()))


def test_every_file_is_a_document_in_path_order(opened: Any, folder: Path) -> None:
    (folder / "b").mkdir()
    (folder / "b" / "deep.notes.md").write_text("deep")
    (folder / "b.txt").write_bytes(b"\xef\xbb\xbfwith a mark\r\n")
    (folder / "a").write_text("")
    assert read(opened()) == [
        Document(0, "a", "a", ""),
        Document(1, "b.txt", "b", "with a mark\r\n"),
        Document(2, "b/deep.notes.md", "deep.notes", "deep"),
    ]
    assert opened().ids() is None


def test_hidden_files_and_links_are_not_part_of_it(
    opened: Any, folder: Path, tmp_path: Path
) -> None:
    (folder / "a.txt").write_text("a")
    (folder / ".hidden").write_text("h")
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("g")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "x.txt").write_text("x")
    (folder / "link.txt").symlink_to(tmp_path / "outside" / "x.txt")
    (folder / "linked").symlink_to(tmp_path / "outside")
    os.mkfifo(folder / "pipe")
    assert [document.doc_id for document in read(opened())] == ["a.txt"]


def test_bytes_that_are_no_text_are_reported(opened: Any, folder: Path) -> None:
    (folder / "a.txt").write_bytes("latin: é".encode("latin-1"))
    (folder / "b.txt").write_bytes(b"\xff\xfea\x00")
    (folder / "c.txt").write_bytes("cut: é".encode()[:-1])
    assert [document.problem for document in read(opened())] == ["not_utf8"] * 3


@pytest.mark.parametrize("character", ["a", "é", "漢", "🙂"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("limit", [100, 101, 102, 103])
def test_too_large_file_is_read_just_so_far_that_it_shows(
    opened: Any, folder: Path, character: str, mark: bytes, limit: int
) -> None:
    n_fitting = limit // len(character.encode())
    (folder / "fits.txt").write_bytes(mark + character.encode() * n_fitting)
    (folder / "over.txt").write_bytes(mark + character.encode() * (n_fitting + 1))
    (folder / "vast.txt").write_bytes(mark + character.encode() * 50_000)
    found = {document.doc_id: document for document in read(opened(max_document_bytes=limit))}
    reasons = {
        name: documents.screen(document, max_document_bytes=limit).reason
        for name, document in found.items()
    }
    assert reasons == {"fits.txt": None, "over.txt": "too_large", "vast.txt": "too_large"}
    assert len(found["vast.txt"].text.encode()) <= limit + 7


def test_no_file_or_no_folder_is_refused(opened: Any, folder: Path) -> None:
    with pytest.raises(SourceError, match="no file in the folder"):
        opened().units()
    with pytest.raises(SourceError, match=r"absent' cannot be listed: No such file"):
        opened(folder / "absent").units()
    (folder / "a.txt").write_text("a")
    with pytest.raises(SourceError, match="cannot be listed: Not a directory"):
        opened(folder / "a.txt").units()


def test_file_name_that_is_not_utf8_is_named(opened: Any, folder: Path) -> None:
    place = os.fsencode(folder) + b"/caf\xe9.txt"
    with open(place, "w") as file:
        file.write("a")
    with pytest.raises(SourceError, match=r"'caf\\udce9.txt' is not UTF-8"):
        opened().units()


def test_changed_file_is_refused(opened: Any, folder: Path) -> None:
    (folder / "a.txt").write_text("a")
    (folder / "b.txt").write_text("b")
    source = opened()
    units = source.units()
    before = source.revision()
    (folder / "b.txt").write_text("B")
    reading = opened().read(units)
    assert next(reading).text == "a"
    with pytest.raises(SourceChanged, match=r"'b.txt' .* is not what was planned"):
        next(reading)
    assert opened().revision() != before


def test_growing_file_beyond_the_limit_is_a_change(opened: Any, folder: Path) -> None:
    (folder / "a.txt").write_text("a" * 500)
    units = opened(max_document_bytes=100).units()
    with (folder / "a.txt").open("a") as file:
        file.write("a")
    with pytest.raises(SourceChanged):
        list(opened(max_document_bytes=100).read(units))
