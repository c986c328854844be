"""A folder of text files: a unit is a file, a document is a file.

Any file counts, whatever its type; what is no text is reported by the rules that screen
documents. Hidden files, files in hidden folders and symbolic links are not part of the dataset.
"""

import codecs
import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import PurePosixPath
from typing import NamedTuple

from acidburn_assets.adapters.sources import files, planned
from acidburn_assets.core.datasets import Dataset
from acidburn_assets.core.documents import Document, Problem
from acidburn_assets.core.errors import SourceError
from acidburn_assets.core.shards import Unit


class TextSource:
    """A dataset of text files under one folder."""

    def __init__(self, dataset: Dataset) -> None:
        """Reads nothing yet.

        Args:
            dataset: its path is a folder.
        """
        self._dataset = dataset
        self._root = files.place(dataset)

    def revision(self) -> str:
        """sha256 over every file's name and digest."""
        return planned.combined_digest((unit.path, unit.digest) for unit in self._units)

    def units(self) -> list[Unit]:
        """One unit per file, by path."""
        return list(self._units)

    def read(self, units: Sequence[Unit]) -> Iterator[Document]:
        """The id is the path in the folder, the title its last part without the file type."""
        for unit in units:
            try:
                head = self._read_head(unit.path)
            except FileNotFoundError as error:
                raise planned.changed(unit, "now gone", dataset=self._dataset.name) from error
            planned.check_unchanged(unit, head.digest, dataset=self._dataset.name)
            text, problem = _decode(head)
            yield Document(unit.first_row, unit.path, PurePosixPath(unit.path).stem, text, problem)

    def ids(self) -> None:
        """Paths are unique by themselves."""
        return

    @cached_property
    def _units(self) -> list[Unit]:
        name = self._dataset.name
        paths = sorted(files.walk(self._root, dataset=name, follow_links=False))
        if not paths:
            raise SourceError(
                f"dataset {name!r}: no file in the folder {self._dataset.path!r}; "
                "correct its path in datasets.yaml"
            )
        units = []
        for row, path in enumerate(paths):
            files.check_name(path, dataset=name)
            head = self._read_head(path)
            units.append(
                Unit(
                    path=path,
                    index=0,
                    first_row=row,
                    n_rows=1,
                    n_bytes=head.file_bytes,
                    digest=head.digest,
                )
            )
        return units

    def _read_head(self, path: str) -> "_Head":
        """Reads a file, or of one that is too large just enough to know it."""
        # seven more: the byte order mark is no text, the last character may be cut in two
        limit = self._dataset.filters.max_document_bytes + 7
        place = self._root / path
        try:
            with place.open("rb") as file:
                return _Head(file.read(limit), place.stat().st_size)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise SourceError(
                f"dataset {self._dataset.name!r}: {path!r} cannot be read: {error.strerror}"
            ) from error


class _Head(NamedTuple):
    content: bytes
    file_bytes: int

    @property
    def digest(self) -> str:
        """sha256 of what is read and the file's size: what lies beyond is never looked at."""
        return hashlib.sha256(self.content + str(self.file_bytes).encode()).hexdigest()


def _decode(head: _Head) -> tuple[str, Problem | None]:
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    try:
        return decoder.decode(head.content, final=len(head.content) == head.file_bytes), None
    except UnicodeDecodeError:
        return "", "not_utf8"
