"""JSON lines, plain or gzipped: a unit is a block of lines.

A plain file is read from a block's byte offset. A gzipped one cannot be entered in the middle:
it is decompressed from its start up to the block, so a shard late in a large `.jsonl.gz` pays for
what stands before it. A line is held in memory whole.
"""

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import groupby
from typing import IO, Any, NamedTuple

from acidburn_assets.adapters.sources import files, planned
from acidburn_assets.core.datasets import Dataset
from acidburn_assets.core.documents import Document, Problem
from acidburn_assets.core.errors import SourceError
from acidburn_assets.core.shards import Unit

BLOCK_ROWS = 1_000
BLOCK_BYTES = 2**20
"""A block ends at whichever comes first. Chosen: small beside a shard of 50,000 chunks, and a
plan of 100 GB still has no more than 100,000 units."""

_BOM = b"\xef\xbb\xbf"


class JsonlSource:
    """A dataset of `.jsonl` and `.jsonl.gz` files."""

    def __init__(self, dataset: Dataset) -> None:
        """Reads nothing yet.

        Args:
            dataset: its path is a file, a folder or a glob.
        """
        self._dataset = dataset
        self._root = files.root(dataset)

    def revision(self) -> str:
        """sha256 over every block's file and digest."""
        return planned.combined_digest((unit.path, unit.digest) for unit in self._units)

    def units(self) -> list[Unit]:
        """One unit per block; its bytes are the lines', uncompressed."""
        return list(self._units)

    def read(self, units: Sequence[Unit]) -> Iterator[Document]:
        """Opens each file once for its run of units."""
        for path, group in groupby(units, key=lambda unit: unit.path):
            run = list(group)
            with self._opened(path, planned_as=run[0]) as stream:
                for unit in run:
                    stream.seek(unit.offset)
                    block = next(_blocks(stream), None)
                    if block is None:
                        raise planned.changed(unit, "now gone", dataset=self._dataset.name)
                    planned.check_unchanged(unit, block.digest, dataset=self._dataset.name)
                    for index, line in enumerate(block.lines[: unit.n_rows]):
                        yield self._document(line, row=unit.first_row + index)

    def ids(self) -> Iterator[tuple[int, str]] | None:
        """A full pass: a line must be parsed to find its id."""
        if self._dataset.id_column is None:
            return None
        return ((document.row, document.doc_id) for document in self.read(self._units))

    @cached_property
    def _units(self) -> list[Unit]:
        units: list[Unit] = []
        row = 0
        for path in files.find(self._dataset, suffixes=(".jsonl", ".jsonl.gz")):
            with self._opened(path) as stream:
                for index, block in enumerate(_blocks(stream)):
                    if index == 0:
                        self._check_keys(block, path)
                    units.append(
                        Unit(
                            path=path,
                            index=index,
                            first_row=row,
                            n_rows=len(block.lines),
                            n_bytes=block.n_bytes,
                            offset=block.offset,
                            digest=block.digest,
                        )
                    )
                    row += len(block.lines)
        return units

    def _check_keys(self, block: "_Block", path: str) -> None:
        objects = [entry for line in block.lines if (entry := _parse(line)[0]) is not None]
        keys = sorted({key for entry in objects for key in entry})
        if self._dataset.text_column not in keys:
            raise SourceError(
                f"dataset {self._dataset.name!r}: none of the first {len(block.lines)} lines of "
                f"{path!r} has the key {self._dataset.text_column!r}; they have {keys}. "
                "Set text_column in datasets.yaml"
            )

    def _document(self, line: bytes, *, row: int) -> Document:
        entry, problem = _parse(line)
        if entry is None:
            doc_id = "" if self._dataset.id_column is not None else str(row)
            return Document(row, doc_id, "", "", problem)
        doc_id, title = str(row), ""
        if self._dataset.id_column is not None:
            doc_id = _doc_id(entry.get(self._dataset.id_column))
        if self._dataset.title_column is not None:
            title = _title(entry.get(self._dataset.title_column))
        text, problem = _text(entry.get(self._dataset.text_column))
        return Document(row, doc_id, title, text, problem)

    @contextmanager
    def _opened(self, path: str, *, planned_as: Unit | None = None) -> Iterator[IO[bytes]]:
        """A stream of the uncompressed bytes."""
        place = self._root / path
        try:
            with gzip.open(place) if path.endswith(".gz") else place.open("rb") as stream:
                yield stream  # type: ignore[misc]  # a GzipFile is an IO[bytes] in all but name
        # gzip says EOFError for a truncated file and zlib.error for a damaged one
        except (OSError, EOFError, zlib.error) as error:
            if isinstance(error, FileNotFoundError) and planned_as is not None:
                raise planned.changed(planned_as, "now gone", dataset=self._dataset.name) from error
            raise SourceError(
                f"dataset {self._dataset.name!r}: {path!r} cannot be read: {error}. "
                "Replace the file, or leave it out of the dataset's path"
            ) from error


class _Block(NamedTuple):
    offset: int
    n_bytes: int
    lines: list[bytes]  # without blank ones
    digest: str  # sha256 of all its bytes


def _blocks(stream: IO[bytes]) -> Iterator[_Block]:
    """Cuts a stream into blocks, from where it stands.

    Where a block ends depends on nothing before it: begun at a planned offset, the first block is
    the planned one. A block has at least one line; blank lines belong to the block they are in.
    """
    content = hashlib.sha256()
    lines: list[bytes] = []
    offset = stream.tell()
    n_bytes = 0
    for line in stream:
        content.update(line)
        n_bytes += len(line)
        stripped = (line.removeprefix(_BOM) if offset == 0 and not lines else line).strip()
        if stripped:
            lines.append(stripped)
        if lines and (len(lines) == BLOCK_ROWS or n_bytes >= BLOCK_BYTES):
            yield _Block(offset, n_bytes, lines, content.hexdigest())
            content, lines, offset, n_bytes = hashlib.sha256(), [], offset + n_bytes, 0
    if lines:
        yield _Block(offset, n_bytes, lines, content.hexdigest())


def _parse(line: bytes) -> tuple[dict[str, Any] | None, Problem | None]:
    try:
        entry = json.loads(line.decode())
    except UnicodeDecodeError:
        return None, "not_utf8"
    # RecursionError: a line of a hundred thousand brackets; ValueError: also an endless number
    except (ValueError, RecursionError):
        return None, "not_text"
    return (entry, None) if isinstance(entry, dict) else (None, "not_text")


def _text(value: Any) -> tuple[str, Problem | None]:
    if value is None:
        return "", "null"
    if not isinstance(value, str):
        return "", "not_text"
    return (value, None) if planned.is_unicode(value) else ("", "not_utf8")


def _doc_id(value: Any) -> str:
    """ "" where there is no usable id: the document is then reported as `bad_id`."""
    is_id = isinstance(value, str | int) and not isinstance(value, bool)
    return str(value) if is_id and planned.is_unicode(str(value)) else ""


def _title(value: Any) -> str:
    # a title is shown, never searched for: a damaged one is no reason to lose the document
    return "" if value is None else str(value).encode(errors="replace").decode()
