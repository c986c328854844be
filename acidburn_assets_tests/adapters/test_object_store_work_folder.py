"""Unfinished local files: gone with their process, however that ended; and a disk that is full."""

import errno
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest

from acidburn_assets.adapters.object_store import ObjectStore, read_table, write_parquet
from acidburn_assets.adapters.object_store import work_folder as work_folders
from acidburn_assets.adapters.object_store.file import FileStore
from acidburn_assets.adapters.object_store.work_folder import NAME, work_folder
from acidburn_assets.core import schemas
from acidburn_assets.core.errors import TransientError, WorkFolderUnavailable
from acidburn_assets_tests.adapters.stores import DIM, KEY, embeddings, write_embeddings

HOST = work_folders._host()
NO_PID = 4_000_000
"""Of no process: the kernel's greatest is 4,194,304, and it is not reached here."""


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's temp folder of this test; nobody has swept it yet."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def name_of(pid: int, started: float, host: str = HOST) -> str:
    return f"acidburn-{pid}-{started:.0f}-{host}-x1"


# --- sweeping -----------------------------------------------------------------------------------


def test_a_folder_tells_its_process_and_goes_with_its_work(scratch: Path) -> None:
    with work_folder() as folder:
        assert folder.parent == scratch
        named = NAME.fullmatch(folder.name)
        assert named is not None
        assert int(named["pid"]) == os.getpid()
        assert abs(int(named["started"]) - psutil.Process().create_time()) <= 1
    assert list(scratch.iterdir()) == []


def test_only_folders_whose_process_is_gone_are_swept(scratch: Path) -> None:
    me = psutil.Process()
    kept = [
        name_of(me.pid, me.create_time()),
        name_of(os.getppid(), psutil.Process(os.getppid()).create_time()),
        name_of(NO_PID, 1_700_000_000, host="another-host".replace("-", "")),
        "acidburn-world-abc",
        "somebody-elses",
    ]
    swept = [
        name_of(NO_PID, 1_700_000_000),
        name_of(me.pid, me.create_time() - 3_600),  # the pid was given again
    ]
    for name in (*kept, *swept):
        (scratch / name).mkdir()
        (scratch / name / "table.parquet").write_bytes(b"half")
    (scratch / name_of(NO_PID, 1_700_000_001)).symlink_to(scratch / "somebody-elses")
    (scratch / name_of(NO_PID, 1_700_000_002)).write_bytes(b"no folder")

    with work_folder():
        pass

    left = {path.name for path in scratch.iterdir()}
    assert left == {
        *kept,
        name_of(NO_PID, 1_700_000_001),
        name_of(NO_PID, 1_700_000_002),
    }
    assert (scratch / "somebody-elses" / "table.parquet").exists()


def test_a_process_sweeps_once(scratch: Path) -> None:
    with work_folder():
        pass
    late = scratch / name_of(NO_PID, 1_700_000_000)
    late.mkdir()

    with work_folder():
        pass

    assert late.exists()


def test_what_cannot_be_swept_is_no_reason_to_stop(
    scratch: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = scratch / name_of(NO_PID, 1_700_000_000)
    theirs.mkdir()
    rmtree = shutil.rmtree

    def refuse(folder: Path) -> None:
        if folder == theirs:
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        rmtree(folder)

    monkeypatch.setattr(shutil, "rmtree", refuse)
    with caplog.at_level(logging.WARNING), work_folder() as folder:
        assert folder.is_dir()

    assert [path.name for path in scratch.iterdir()] == [theirs.name]
    assert theirs.name in caplog.text


KILLED = """
import sys, time
from pathlib import Path
from acidburn_assets.adapters.object_store import write_parquet
from acidburn_assets.adapters.object_store.file import FileStore
from acidburn_assets_tests.adapters.stores import DIM, KEY, embeddings
from acidburn_assets.core import schemas

def batches():
    yield embeddings(3_000)
    print("half way", flush=True)
    time.sleep(60)

store = FileStore(Path(sys.argv[1]))
write_parquet(store, KEY, schemas.embeddings(DIM), batches(), row_group_rows=100)
"""


def test_what_a_killed_process_left_goes_when_the_next_one_writes(
    scratch: Path, tmp_path: Path
) -> None:
    store = FileStore(tmp_path / "objects")
    worker = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "objects")],
        env={**os.environ, "TMPDIR": str(scratch)},
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
    )
    assert worker.stdout is not None
    try:
        assert worker.stdout.readline() == b"half way\n"
        (left,) = scratch.iterdir()
    finally:
        worker.send_signal(signal.SIGKILL)
        worker.wait(10)
        worker.stdout.close()
    assert (left / "table.parquet").stat().st_size > 100_000
    assert store.head(KEY) is None

    write_embeddings(store, embeddings(10))

    assert list(scratch.iterdir()) == []
    assert read_table(store, KEY).num_rows == 10


# --- a full disk --------------------------------------------------------------------------------


@pytest.fixture
def tiny_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A disk of a megabyte as the system's temp folder; only root can mount one."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "acidburn-test", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount(8) here")
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def small_files(scratch: Path) -> Iterator[Path]:
    """The kernel lets no file of this process grow past half a megabyte: as a full disk does, a
    write fails in the midst of a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))
    yield scratch
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(params=["tiny_disk", "small_files"])
def full(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


def test_a_full_disk_is_told_as_that_and_nothing_is_stored(full: Path, folder: FileStore) -> None:
    old, _ = write_embeddings(folder, embeddings(100))

    with pytest.raises(WorkFolderUnavailable, match="bytes are free") as caught:
        write_embeddings(folder, embeddings(8_000), row_group_rows=1_000)

    message = str(caught.value)
    assert isinstance(caught.value, TransientError)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno in (errno.ENOSPC, errno.EFBIG)
    assert str(full) in message
    assert "TMPDIR" in message
    assert folder.head(KEY) == old
    assert list(full.iterdir()) == []
    write_embeddings(folder, embeddings(200))
    assert read_table(folder, KEY).num_rows == 200


def test_a_temp_folder_that_is_gone_is_named(
    tmp_path: Path, folder: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))

    with pytest.raises(WorkFolderUnavailable, match=r"gone.*cannot be told.*TMPDIR"):
        write_embeddings(folder, embeddings(10))


def test_a_disk_that_fails_when_it_shall_keep_is_found_before_the_upload(
    scratch: Path, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(WorkFolderUnavailable, match="Input/output error"):
            write_embeddings(store, embeddings(10))

    assert store.head(KEY) is None
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), ConnectionResetError(104, "reset")],
)
def test_an_error_of_who_delivers_the_rows_is_not_the_disks(
    scratch: Path, folder: FileStore, error: OSError
) -> None:
    def fails() -> Iterator[pa.RecordBatch]:
        yield embeddings(300)
        raise error

    with pytest.raises(OSError, match=str(error.strerror)) as caught:
        write_parquet(folder, KEY, schemas.embeddings(DIM), fails(), row_group_rows=100)

    assert caught.value is error
    assert folder.head(KEY) is None
    assert list(scratch.iterdir()) == []


def test_the_error_that_came_first_is_the_one_that_is_told(
    tiny_disk: Path, folder: FileStore
) -> None:
    """The footer cannot be written either, and its error would hide the source's."""

    def fails() -> Iterator[pa.RecordBatch]:
        yield embeddings(100)
        fill(tiny_disk / "filler")
        yield embeddings(1)
        raise RuntimeError("the encoder died")

    with pytest.raises(RuntimeError, match="the encoder died"):
        write_parquet(folder, KEY, schemas.embeddings(DIM), fails(), row_group_rows=1_000)
    assert [path.name for path in tiny_disk.iterdir()] == ["filler"]


def fill(path: Path) -> None:
    """Appends until the disk is full."""

    def append() -> None:
        with path.open("ab", buffering=0) as file:
            while True:
                file.write(bytes(1_000))

    with pytest.raises(OSError, match="No space left"):
        append()


def test_nothing_else_is_made_of_arrows_own_errors(
    folder: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arrow raises OSError without a number for what it cannot encode: that never passes."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("Not yet implemented: an encoding")

    monkeypatch.setattr(pa.parquet.ParquetWriter, "write_table", refuse)
    with pytest.raises(OSError, match="Not yet implemented") as caught:
        write_embeddings(folder, embeddings(10))
    assert not isinstance(caught.value, WorkFolderUnavailable)
