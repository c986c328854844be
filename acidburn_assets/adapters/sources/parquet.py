"""Parquet files, here or on a hub: a unit is a row group.

Planning reads footers only. Reading opens a file, checks its footer against the plan, and reads
the needed columns of the planned row groups, so that a shard never depends on those before it.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import cached_property
from itertools import groupby, islice
from typing import NamedTuple, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from acidburn_assets.adapters.sources import files, planned, rows
from acidburn_assets.core.datasets import Dataset
from acidburn_assets.core.documents import Document
from acidburn_assets.core.errors import SourceError
from acidburn_assets.core.shards import Unit

TAIL_BYTES = 64 * 1024
"""Read from the end of a file at first: most footers fit, so that a footer on a hub costs one
request. Source: Arrow's own reader, `kDefaultFooterReadSize`."""

FOOTER_READERS = 8
"""Footers read at once. Chosen: far below the 100 parallel requests that the hub still served.
Source: huggingface/datasets issue 5374."""


class RandomAccess(Protocol):
    """What Arrow needs of a file."""

    def read(self, size: int = -1, /) -> bytes: ...
    def seek(self, offset: int, whence: int = 0, /) -> int: ...
    def tell(self) -> int: ...
    def close(self) -> None: ...


class ParquetSource:
    """A dataset of Parquet files, wherever they are."""

    def __init__(
        self,
        dataset: Dataset,
        *,
        find: Callable[[], Sequence[str]],
        open_file: Callable[[str], RandomAccess],
    ) -> None:
        """Takes what differs between places.

        Args:
            dataset: names the columns.
            find: the files' names relative to the dataset's root, in reading order.
            open_file: opens one by that name for seeking and reading; raises FileNotFoundError
                where there is none. Called from several threads at once.
        """
        self._dataset = dataset
        self._find = find
        self._open_file = open_file

    def revision(self) -> str:
        """sha256 over every file's name and footer digest."""
        return planned.combined_digest((path, summary.digest) for path, summary in self._summaries)

    def units(self) -> list[Unit]:
        """One unit per row group; its bytes are the text column's, uncompressed."""
        units: list[Unit] = []
        first_row = 0
        for path, summary in self._summaries:
            for index, (n_rows, n_bytes) in enumerate(summary.row_groups):
                if n_rows > 0:
                    units.append(
                        Unit(
                            path=path,
                            index=index,
                            first_row=first_row,
                            n_rows=n_rows,
                            n_bytes=n_bytes,
                            digest=summary.digest,
                        )
                    )
                first_row += n_rows
        return units

    def read(self, units: Sequence[Unit]) -> Iterator[Document]:
        """Opens each file once for its run of units."""
        for path, group in groupby(units, key=lambda unit: unit.path):
            run = list(group)
            with self._opened(path, planned_as=run[0]) as file:
                footer = _Footer.read(file)
                for unit in run:
                    planned.check_unchanged(unit, footer.digest, dataset=self._dataset.name)
                metadata = footer.parse()
                for unit in run:
                    yield from self._read_row_group(file, metadata, unit)

    def ids(self) -> Iterator[tuple[int, str]] | None:
        """Reads the id column only."""
        column = self._dataset.id_column
        return self._ids(column) if column is not None else None

    def _ids(self, column: str) -> Iterator[tuple[int, str]]:
        row = 0
        for path, _ in self._summaries:
            with self._opened(path) as file:
                for batch in pq.ParquetFile(file).iter_batches(columns=[column]):
                    for doc_id in rows.doc_ids(batch.column(0)):
                        yield row, doc_id
                        row += 1

    @cached_property
    def _summaries(self) -> list[tuple[str, "_Summary"]]:
        paths = self._find()
        with ThreadPoolExecutor(FOOTER_READERS) as pool:
            return list(zip(paths, pool.map(self._summarize, paths), strict=True))

    def _summarize(self, path: str) -> "_Summary":
        with self._opened(path) as file:
            footer = _Footer.read(file)
            metadata = footer.parse()
            rows.check_columns(metadata.schema.to_arrow_schema(), self._dataset, place=path)
            leaves = [metadata.schema.column(leaf).path for leaf in range(metadata.num_columns)]
            text_leaf = leaves.index(self._dataset.text_column)
            groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
            return _Summary(
                footer.digest,
                [
                    (group.num_rows, group.column(text_leaf).total_uncompressed_size)
                    for group in groups
                ],
            )

    def _read_row_group(
        self, file: RandomAccess, metadata: pq.FileMetaData, unit: Unit
    ) -> Iterator[Document]:
        # a reader of its own for each unit: Arrow keeps what it buffered as long as its reader
        reader = pq.ParquetFile(
            file, metadata=metadata, pre_buffer=True, page_checksum_verification=True
        )
        batches = reader.iter_batches(
            rows.BATCH_ROWS, row_groups=[unit.index], columns=rows.columns(self._dataset)
        )
        yield from islice(rows.documents(batches, self._dataset, row=unit.first_row), unit.n_rows)

    @contextmanager
    def _opened(self, path: str, *, planned_as: Unit | None = None) -> Iterator[RandomAccess]:
        try:
            with closing(self._open_file(path)) as file:
                yield file
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, FileNotFoundError) and planned_as is not None:
                raise planned.changed(planned_as, "now gone", dataset=self._dataset.name) from error
            raise SourceError(
                f"dataset {self._dataset.name!r}: {path!r} cannot be read as Parquet: {error}. "
                "Replace the file, or leave it out of the dataset's path"
            ) from error


def open_local(dataset: Dataset) -> ParquetSource:
    """Parquet files on this machine: a file, a folder with its subfolders, or a glob."""
    root = files.root(dataset)
    return ParquetSource(
        dataset,
        find=lambda: files.find(dataset, suffixes=(".parquet",)),
        open_file=lambda path: (root / path).open("rb"),
    )


class _Summary(NamedTuple):
    """What planning keeps of a footer, which itself may take megabytes."""

    digest: str
    row_groups: list[tuple[int, int]]  # rows, uncompressed bytes of the text column


class _Footer(NamedTuple):
    """The end of a Parquet file: the footer, its length in four bytes, and `PAR1`."""

    content: bytes
    digest: str  # sha256 of the content and the file's size

    @classmethod
    def read(cls, file: RandomAccess) -> "_Footer":
        """Reads what the last bytes of a file say is its footer; true or not, it has a digest."""
        n_bytes = file.seek(0, 2)
        tail = _read_tail(file, min(n_bytes, TAIL_BYTES), n_bytes=n_bytes)
        length = int.from_bytes(tail[-8:-4], "little") + 8
        if len(tail) < length <= n_bytes:
            tail = _read_tail(file, length, n_bytes=n_bytes)
        content = tail[-length:]
        return cls(content, hashlib.sha256(content + str(n_bytes).encode()).hexdigest())

    def parse(self) -> pq.FileMetaData:
        """Raises pa.ArrowInvalid where the file is not Parquet, or was cut off."""
        return pq.read_metadata(pa.BufferReader(self.content))


def _read_tail(file: RandomAccess, length: int, *, n_bytes: int) -> bytes:
    file.seek(n_bytes - length)
    return file.read(length)
