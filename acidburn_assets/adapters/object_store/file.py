"""Objects as files below a folder: the embedded default, and a store for tests.

    root/<key>                          the object, nothing added
    root/.meta/<key>/<version>.json     sha256 and metadata of that version of the object
    root/.tmp/…                         objects in the making

A version is the file's modification time (set by us, in nanoseconds) and its size. Its record is
in place before the object is, under a name that no other version has: a reader finds the record of
just the bytes it opened, a crash between the two renames leaves the old object with its record,
and two writers cannot mix. A file without a record was copied or changed by hand: its sha256 is
taken from its content, so what `head` reports is always true.
"""

import hashlib
import io
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, NamedTuple

import pyarrow as pa

from acidburn_assets.adapters.object_store import contract
from acidburn_assets.adapters.object_store.contract import ListedObject, ObjectInfo
from acidburn_assets.adapters.object_store.parquet import VerifiedParquet
from acidburn_assets.core.errors import ObjectMissing, StoreError

LOGGER = logging.getLogger(__name__)

ABANDONED_SECONDS = 24 * 3600
"""Unfinished objects older than this belong to a process that died. Chosen, not measured: a copy
to a local disk takes minutes."""

ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


class _Record(NamedTuple):
    """What is kept beside one version of an object."""

    sha256: str
    metadata: dict[str, str]


class FileStore:
    """The contract of `ObjectStore` over a folder, which the first put makes."""

    def __init__(self, root: Path) -> None:
        self.url = root.as_uri()
        self._root = root
        self._is_swept = False

    def __repr__(self) -> str:
        return f"FileStore({self.url!r})"

    def put_file(self, key: str, path: Path, *, metadata: Mapping[str, str] = {}) -> ObjectInfo:
        with self._disk_errors(key), path.open("rb") as source:
            return self._put(key, source, metadata)

    def put_bytes(
        self, key: str, content: bytes, *, metadata: Mapping[str, str] = {}
    ) -> ObjectInfo:
        with self._disk_errors(key):
            return self._put(key, io.BytesIO(content), metadata)

    def get_bytes(self, key: str) -> bytes:
        with self._disk_errors(key), self._open(key) as (file, record):
            content = file.read()
            self._check(key, hashlib.sha256(content).hexdigest(), record, n_bytes=len(content))
            return content

    def verify(self, key: str) -> ObjectInfo:
        with self._disk_errors(key), self._open(key) as (file, record):
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            status = os.fstat(file.fileno())
            self._check(key, sha256, record, n_bytes=file.tell())
            return _object_info(key, status, record or self._record_of(key, sha256))

    def head(self, key: str) -> ObjectInfo | None:
        try:
            with self._disk_errors(key), self._open(key) as (file, record):
                if record is None:
                    record = self._record_of(key, hashlib.file_digest(file, "sha256").hexdigest())
                status = os.fstat(file.fileno())
        except ObjectMissing:
            return None
        return _object_info(key, status, record)

    def list(self, prefix: str) -> Iterator[ListedObject]:
        contract.check_prefix(prefix)
        with self._disk_errors(prefix):
            found = [
                ListedObject(key, status.st_size, _version(status), _modified(status))
                for key, status in self._walk(prefix)
            ]
        return iter(sorted(found))

    def delete(self, key: str) -> None:
        path = self._path(key)
        with self._disk_errors(key):
            if not path.is_file():
                return
            records = self._record_paths(key)  # not that of an object put there meanwhile
            path.unlink(missing_ok=True)
            for record in records:
                record.unlink(missing_ok=True)
            _sync_folder(path.parent)

    def open_parquet(self, key: str) -> VerifiedParquet:
        path = self._path(key)
        if not path.is_file():
            raise self._missing(key)
        with self._disk_errors(key):
            # not memory-mapped: a bad sector is then an error, not the end of the process (SIGBUS)
            source = pa.OSFile(str(path), mode="r")
        return VerifiedParquet(source, key=key)

    def uri(self, key: str) -> str:
        return self._path(key).as_uri()

    def _put(self, key: str, source: BinaryIO, metadata: Mapping[str, str]) -> ObjectInfo:
        target = self._path(key)
        contract.metadata_to_ascii(key, metadata)
        scratch = self._root / ".tmp"
        _make_folder(scratch)
        self._sweep(scratch)
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            unfinished = Path(folder, "content")
            with unfinished.open("wb") as file:
                sha256 = _copy(source, file)
                # file systems stamp in steps of milliseconds, which two versions can share
                now = time.time_ns()
                os.utime(file.fileno(), ns=(now, now))
                os.fsync(file.fileno())
            status = unfinished.stat()
            record = _Record(sha256, dict(metadata))
            unfinished_record = Path(folder, "record")
            with unfinished_record.open("w", encoding="utf-8") as file:
                json.dump(record._asdict(), file)
                file.flush()
                os.fsync(file.fileno())

            record_path = self._record_path(key, _version(status))
            _make_folder(record_path.parent)
            _make_folder(target.parent)
            replaced = self._version(target)
            os.replace(unfinished_record, record_path)
            _sync_folder(record_path.parent)
            os.replace(unfinished, target)
            _sync_folder(target.parent)
        if replaced is not None:
            self._record_path(key, replaced).unlink(missing_ok=True)
        return _object_info(key, status, record)

    def _check(self, key: str, found: str, record: _Record | None, *, n_bytes: int) -> None:
        """Compares a checksum with the version's own record, or with any where it has none."""
        # without one it was changed by hand, unless a copy of the folder only changed the times
        recorded = self._records(key) if record is None else (record,)
        if recorded and found not in {record.sha256 for record in recorded}:
            contract.check_sha256(key, found, sha256=recorded[-1].sha256, n_bytes=n_bytes)

    def _record_of(self, key: str, sha256: str) -> _Record:
        """The newest record of this content, or one without metadata."""
        same = [record for record in self._records(key) if record.sha256 == sha256]
        return same[-1] if same else _Record(sha256, {})

    @contextmanager
    def _open(self, key: str) -> Iterator[tuple[io.BufferedReader, _Record | None]]:
        """An object, and the record of just that version of it if there is one."""
        path = self._path(key)
        while True:
            try:
                file = path.open("rb")
            except ABSENT as error:
                raise self._missing(key) from error
            with file:
                version = _version(os.fstat(file.fileno()))
                record = self._read_record(self._record_path(key, version))
                # a record can be gone because the object was replaced since it was opened
                if record is not None or self._version(path) in (version, None):
                    yield file, record
                    return

    def _walk(self, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
        """Keys that begin so; what cannot hold one is not entered, nor looked at."""
        for place, folders, names in os.walk(
            self._root / prefix.rpartition("/")[0], onerror=_refuse
        ):
            folder = Path(place).relative_to(self._root).as_posix() + "/"
            if folder == "./":
                folder = ""
                folders[:] = [name for name in folders if name not in contract.OWN_FOLDERS]
            folders[:] = [name for name in folders if _is_on_the_way(f"{folder}{name}/", prefix)]
            for name in names:
                if not f"{folder}{name}".startswith(prefix):
                    continue
                try:
                    # by strings: an object each for thousands of paths takes most of a listing
                    status = os.stat(f"{place}/{name}")
                except FileNotFoundError:
                    continue  # deleted since its folder was read
                yield f"{folder}{name}", status

    def _sweep(self, scratch: Path) -> None:
        """Removes what killed processes left, once in the life of this object."""
        if not self._is_swept:
            self._is_swept = True
            for folder in scratch.iterdir():
                try:
                    age_seconds = time.time() - folder.stat().st_mtime
                    if age_seconds > ABANDONED_SECONDS and folder.is_dir():
                        shutil.rmtree(folder)
                except FileNotFoundError:
                    continue  # finished, or swept by another process

    def _path(self, key: str) -> Path:
        contract.check_key(key)
        return self._root / key

    def _version(self, path: Path) -> str | None:
        try:
            return _version(path.stat())
        except FileNotFoundError:
            return None

    def _record_path(self, key: str, version: str) -> Path:
        return self._root / ".meta" / key / f"{version}.json"

    def _record_paths(self, key: str) -> tuple[Path, ...]:
        paths = (self._root / ".meta" / key).glob("*.json")
        return tuple(sorted(path for path in paths if path.is_file()))

    def _records(self, key: str) -> tuple[_Record, ...]:
        """Records of whatever versions, the newest last."""
        found = map(self._read_record, self._record_paths(key))
        return tuple(record for record in found if record is not None)

    def _read_record(self, path: Path) -> _Record | None:
        try:
            content = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        try:
            return _Record(**json.loads(content))
        except (TypeError, ValueError) as error:
            LOGGER.warning(
                "the record %r is damaged, its object counts as one without metadata: %s",
                str(path),
                error,
            )
            return None

    def _missing(self, key: str) -> ObjectMissing:
        return ObjectMissing(f"no object {key!r} in {self.url!r}")

    @contextmanager
    def _disk_errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"the disk refused {key!r} in {self.url!r}: {error}; look at its free space, at "
                "the folder's rights, and whether one key is the folder of another"
            ) from error


def _refuse(error: OSError) -> None:
    """A folder that cannot be read is no empty folder: its shards would be made again."""
    if not isinstance(error, ABSENT):
        raise error


def _is_on_the_way(folder: str, prefix: str) -> bool:
    return folder.startswith(prefix) or prefix.startswith(folder)


def _version(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns:x}-{status.st_size:x}"


def _modified(status: os.stat_result) -> datetime:
    return datetime.fromtimestamp(status.st_mtime_ns / 1e9, tz=UTC)


def _object_info(key: str, status: os.stat_result, record: _Record) -> ObjectInfo:
    return ObjectInfo(
        key=key,
        n_bytes=status.st_size,
        sha256=record.sha256,
        metadata=record.metadata,
        modified=_modified(status),
        etag=_version(status),
    )


def _copy(source: BinaryIO, target: BinaryIO) -> str:
    """Copies to the end and returns the sha256, hex, of what was written."""
    digest = hashlib.sha256()
    while block := source.read(1 << 20):
        digest.update(block)
        target.write(block)
    target.flush()
    return digest.hexdigest()


def _make_folder(folder: Path) -> None:
    """`mkdir -p` whose new entries survive a power cut."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
