"""Datasets on the Hugging Face hub, pinned to a commit.

Which files make up a config and split is decided by `datasets`' own rules. Where they are Parquet,
they are read in place, by row group, with ranged requests; a commit's files never change. Anything
else is downloaded into the cache and prepared there by `datasets`: a unit is then a block of rows
of the prepared table.
"""

import glob
import io
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pyarrow as pa

from acidburn_assets.adapters.sources import planned, rows
from acidburn_assets.adapters.sources.parquet import ParquetSource, RandomAccess
from acidburn_assets.core.datasets import Dataset
from acidburn_assets.core.documents import Document
from acidburn_assets.core.errors import ServiceUnavailable, SourceError
from acidburn_assets.core.shards import Unit

if TYPE_CHECKING:
    from huggingface_hub import HfApi

BLOCK_ROWS = 1_000
"""Rows of a prepared table in one unit. Chosen, as for JSON lines."""

DOWNLOADS = 8
"""Files downloaded at once. Source: huggingface_hub's own default in `snapshot_download`."""

TIMEOUT_SECONDS = 60.0
"""The client's own default is to wait for ever. Source: huggingface_hub issue 4178."""

_CARD_FILES = ("README.md", ".huggingface.yaml")


class HuggingFaceSource:
    """One config and split of a dataset on the hub."""

    def __init__(
        self, dataset: Dataset, *, cache: Path, token: str = "", endpoint: str | None = None
    ) -> None:
        """Asks nothing yet.

        Args:
            dataset: its path is `owner/name`.
            cache: folder for downloads.
            token: "" asks as nobody: a token that happens to lie on the machine is not used.
            endpoint: None: https://huggingface.co.
        """
        self._dataset = dataset
        self._cache = cache
        self._token: str | bool = token or False
        self._endpoint = endpoint

    def revision(self) -> str:
        """The commit sha that the declared revision stands for."""
        return self._commit

    def units(self) -> list[Unit]:
        """Row groups where the files are Parquet, else blocks of rows."""
        return self._parquet.units() if self._is_parquet else self._table.units()

    def read(self, units: Sequence[Unit]) -> Iterator[Document]:
        """Asks the hub for nothing but the units' own files where they are Parquet."""
        is_parquet = all(unit.path.endswith(".parquet") for unit in units)
        return self._parquet.read(units) if is_parquet else self._table.read(units)

    def ids(self) -> Iterator[tuple[int, str]] | None:
        """Reads the id column only."""
        return self._parquet.ids() if self._is_parquet else self._table.ids()

    @cached_property
    def _api(self) -> "HfApi":
        from huggingface_hub import HfApi

        return HfApi(endpoint=self._endpoint, token=self._token)

    @cached_property
    def _commit(self) -> str:
        with self._hub_errors():
            found = self._api.dataset_info(
                self._dataset.path, revision=self._dataset.revision, timeout=TIMEOUT_SECONDS
            )
        if found.sha is None:
            raise SourceError(f"{self._place} has no commit; push a file to it")
        return found.sha

    @property
    def _is_parquet(self) -> bool:
        return all(path.endswith(".parquet") for path in self._data_files)

    @cached_property
    def _parquet(self) -> ParquetSource:
        from huggingface_hub import HfFileSystem

        # not from fsspec's cache of instances, which would keep the token and every listing
        filesystem = HfFileSystem(
            endpoint=self._endpoint, token=self._token, skip_instance_cache=True
        )
        root = f"datasets/{self._dataset.path}@{self._commit}"

        def open_file(path: str) -> RandomAccess:
            with self._hub_errors():
                # no cache: Arrow asks for just the ranges that it needs
                return _HubFile(filesystem.open(f"{root}/{path}", cache_type="none"), self)

        return ParquetSource(self._dataset, find=lambda: self._data_files, open_file=open_file)

    @cached_property
    def _table(self) -> "_PreparedTable":
        return _PreparedTable(self._dataset, self._prepare())

    @cached_property
    def _data_files(self) -> list[str]:
        """Files of the config and split, in the order in which `datasets` reads them.

        `datasets` resolves configs, splits and patterns; it is shown a folder of empty files with
        the names that the repository has, so that it needs neither the network nor its files.
        """
        with tempfile.TemporaryDirectory() as folder:
            skeleton = Path(folder).resolve() / self._dataset.path.rpartition("/")[2]
            for name in self._repository_files:
                place = skeleton / name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.touch()
            for name in self._card_files:
                (skeleton / name).write_bytes(self._download(name).read_bytes())
            splits = self._resolve_splits(skeleton)
            if self._dataset.split not in splits:
                raise SourceError(
                    f"{self._place} has no split {self._dataset.split!r}; it has "
                    f"{sorted(splits)}. Correct split in datasets.yaml"
                )
            # two patterns of a split may match the same file
            found = dict.fromkeys(splits[self._dataset.split])
            return [Path(path).relative_to(skeleton).as_posix() for path in found]

    @cached_property
    def _repository_files(self) -> list[str]:
        from huggingface_hub.hf_api import RepoFile

        with self._hub_errors():
            tree = self._api.list_repo_tree(
                self._dataset.path, recursive=True, revision=self._commit, repo_type="dataset"
            )
            names = [entry.path for entry in tree if isinstance(entry, RepoFile)]
        for name in names:
            if name.startswith("/") or ".." in name.split("/"):
                raise SourceError(f"{self._place}: the file name {name!r} leaves its folder")
        return names

    @property
    def _card_files(self) -> list[str]:
        """Where a repository declares its configs, as far as it does."""
        return [name for name in self._repository_files if name in _CARD_FILES]

    def _resolve_splits(self, folder: Path) -> dict[str, list[str]]:
        import datasets

        with self._datasets_errors():
            builder = datasets.load_dataset_builder(
                str(folder), self._dataset.config, cache_dir=str(self._datasets_cache)
            )
        return {str(split): list(paths) for split, paths in builder.config.data_files.items()}

    def _prepare(self) -> pa.Table:
        """Downloads the split's files and turns them into one table on disk, memory-mapped."""
        import datasets

        with ThreadPoolExecutor(DOWNLOADS) as pool:
            data_files = list(pool.map(self._download, self._data_files))
        # where the snapshot begins, which holds the card too: `_data_files` has downloaded it
        folder = data_files[0].parents[self._data_files[0].count("/")]
        with self._datasets_errors():
            prepared = datasets.load_dataset(
                str(folder),
                self._dataset.config,
                data_files={self._dataset.split: [glob.escape(str(path)) for path in data_files]},
                split=self._dataset.split,
                cache_dir=str(self._datasets_cache),
            )
        place = f"{self._dataset.path} ({self._dataset.split})"
        rows.check_columns(prepared.features.arrow_schema, self._dataset, place=place)
        return prepared.data.table.select(rows.columns(self._dataset))

    def _download(self, name: str) -> Path:
        with self._hub_errors():
            path = self._api.hf_hub_download(
                self._dataset.path,
                name,
                repo_type="dataset",
                revision=self._commit,
                cache_dir=self._cache / "hub",
            )
        return Path(path)

    @property
    def _datasets_cache(self) -> Path:
        return self._cache / "datasets"

    @property
    def _place(self) -> str:
        return f"dataset {self._dataset.name!r}: {self._dataset.path!r} on the hub"

    @contextmanager
    def _datasets_errors(self) -> Iterator[None]:
        import datasets

        try:
            yield
        except (datasets.exceptions.DatasetsError, OSError, ValueError, RuntimeError) as error:
            raise SourceError(
                f"{self._place} cannot be read by `datasets`: {error}. Check config and split in "
                "datasets.yaml; `revision: refs/convert/parquet` reads the hub's own conversion"
            ) from error

    @contextmanager
    def _hub_errors(self) -> Iterator[None]:
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # made at run time

        try:
            yield
        except (OSError, httpx.HTTPError, HFValidationError) as error:
            raise self._translated(error) from error

    def _translated(self, error: Exception) -> Exception:
        """What an error of the hub's client means; see `core.errors` for the kinds."""
        from huggingface_hub.errors import (
            HfHubHTTPError,
            HFValidationError,
            OfflineModeIsEnabled,
            RevisionNotFoundError,
        )
        from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # made at run time

        # the client may hide the cause: a refused request can surface as FileNotFoundError
        # Source: huggingface_hub issue 3612, datasets issue 7506
        causes = list(_chain(error))
        response = next((e.response for e in causes if isinstance(e, HfHubHTTPError)), None)
        status = response.status_code if response is not None else None
        if any(isinstance(cause, OfflineModeIsEnabled) for cause in causes):
            return SourceError(f"{self._place}: HF_HUB_OFFLINE forbids asking the hub; unset it")
        if any(isinstance(cause, HFValidationError) for cause in causes):
            return SourceError(f"{self._place}: its path in datasets.yaml must be owner/name")
        if any(isinstance(cause, RevisionNotFoundError) for cause in causes):
            return SourceError(
                f"{self._place} has no revision {self._dataset.revision!r}; "
                "name a commit, branch or tag that it has"
            )
        if status in (401, 403):
            return SourceError(
                f"{self._place} is not open to us (HTTP {status}): accept its terms on its page, "
                "then set HF_TOKEN to a token of that account. A dataset that does not exist "
                "is answered the same way"
            )
        if status == 404:
            return SourceError(f"{self._place} does not exist; correct its path in datasets.yaml")
        if status is not None and (status == 429 or status >= 500):
            return ServiceUnavailable(f"{self._place}: the hub answered HTTP {status}; try later")
        if any(isinstance(e, httpx.HTTPError | ConnectionError | TimeoutError) for e in causes):
            return ServiceUnavailable(f"{self._place}: the hub did not answer; try later")
        if status is None and isinstance(error, FileNotFoundError):
            return FileNotFoundError(str(error))  # what `ParquetSource` wants to hear
        return SourceError(f"{self._place} cannot be read: {error}")


class _HubFile(io.RawIOBase):
    """A file on the hub for Arrow, which calls `read`, `seek` and `tell`; errors are ours."""

    def __init__(self, file: IO[bytes], source: HuggingFaceSource) -> None:
        super().__init__()
        self._file = file
        self._source = source

    def read(self, size: int = -1) -> bytes:
        with self._source._hub_errors():
            return self._file.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()


class _PreparedTable:
    """A table on this machine, in blocks of rows."""

    def __init__(self, dataset: Dataset, table: pa.Table) -> None:
        self._dataset = dataset
        self._table = table

    def units(self) -> list[Unit]:
        units = []
        for index, first_row in enumerate(range(0, self._table.num_rows, BLOCK_ROWS)):
            block = self._block(first_row)
            units.append(
                Unit(
                    path=self._dataset.split,
                    index=index,
                    first_row=first_row,
                    n_rows=len(block),
                    n_bytes=sum(len(document.text.encode()) for document in block),
                    digest=planned.documents_digest(block),
                )
            )
        return units

    def read(self, units: Sequence[Unit]) -> Iterator[Document]:
        for unit in units:
            block = self._block(unit.first_row)
            planned.check_unchanged(
                unit, planned.documents_digest(block), dataset=self._dataset.name
            )
            yield from block[: unit.n_rows]

    def ids(self) -> Iterator[tuple[int, str]] | None:
        column = self._dataset.id_column
        if column is None:
            return None
        chunks = self._table.column(column).iterchunks()
        return enumerate(doc_id for chunk in chunks for doc_id in rows.doc_ids(chunk))

    def _block(self, first_row: int) -> list[Document]:
        batches = self._table.slice(first_row, BLOCK_ROWS).to_batches()
        return list(rows.documents(batches, self._dataset, row=first_row))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what it was raised from, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
