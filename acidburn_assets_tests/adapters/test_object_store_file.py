"""What a folder does when a disk, another process or a person interferes."""

import errno
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from acidburn_assets.adapters.object_store.file import FileStore
from acidburn_assets.core.errors import (
    ObjectCorrupt,
    ObjectMissing,
    StoreError,
)
from acidburn_assets_tests.adapters.stores import (
    KEY,
)


def test_the_first_put_makes_the_folder_and_looking_makes_nothing(tmp_path: Path) -> None:
    root = tmp_path / "not" / "yet"
    store = FileStore(root)

    assert (store.head(KEY), list(store.list(""))) == (None, [])
    store.delete(KEY)
    assert not root.exists()
    store.put_bytes(KEY, b"x")
    assert (root / KEY).read_bytes() == b"x"
    assert store.uri(KEY) == (root / KEY).as_uri()


@pytest.mark.parametrize("is_overwrite", [False, True])
@pytest.mark.parametrize("step", range(16))
def test_a_put_that_fails_at_any_step_leaves_one_whole_object(
    folder: FileStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: int,
    is_overwrite: bool,
) -> None:
    if is_overwrite:
        folder.put_bytes(KEY, b"old", metadata={"is": "old"})
    n_left = step

    def failing(call: Callable[..., Any]) -> Callable[..., Any]:
        def fail_in_turn(*args: Any, **options: Any) -> Any:
            nonlocal n_left
            n_left -= 1
            if n_left < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return call(*args, **options)

        return fail_in_turn

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing(os.fsync))
        patch.setattr(os, "replace", failing(os.replace))
        failure = None
        try:
            folder.put_bytes(KEY, b"new!", metadata={"is": "new!"})
        except StoreError as error:
            failure = str(error)

    has_failed = failure is not None
    assert has_failed or step > 5
    assert failure is None or (KEY in failure and "No space left" in failure)
    info = folder.head(KEY)
    if info is None:
        assert has_failed
        assert not is_overwrite
        assert list(folder.list("")) == []
    else:
        assert info.metadata == {"is": folder.get_bytes(KEY).decode()}
        assert has_failed or info.metadata == {"is": "new!"}
    assert list(tmp_path.glob("objects/.tmp/*")) == []


def test_readers_and_writers_at_once_see_whole_versions_only(tmp_path: Path) -> None:
    root = tmp_path / "objects"
    contents = [bytes([65 + index]) * (5_000 + index % 2) for index in range(4)]
    FileStore(root).put_bytes(KEY, contents[0], metadata={"first": "A"})
    sha256s = {chr(content[0]): hashlib.sha256(content).hexdigest() for content in contents}
    problems: list[str] = []
    is_over = threading.Event()

    def write(mine: list[bytes]) -> None:
        store = FileStore(root)
        for turn in range(60):
            content = mine[turn % 2]
            store.put_bytes(KEY, content, metadata={"first": chr(content[0])})

    def read() -> None:
        store = FileStore(root)
        while not is_over.is_set():
            if (content := store.get_bytes(KEY)) not in contents:
                problems.append(f"read {len(content)} bytes of a mixture")
            info = store.head(KEY)
            assert info is not None
            if info.metadata.get("first") not in sha256s:
                problems.append(f"metadata {info.metadata}")
            elif info.sha256 != sha256s[info.metadata["first"]]:
                problems.append("metadata of another version")

    writers = [threading.Thread(target=write, args=(contents[:2],))]
    writers.append(threading.Thread(target=write, args=(contents[2:],)))
    reader = threading.Thread(target=read)
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    is_over.set()
    reader.join()

    assert problems == []
    last = FileStore(root).get_bytes(KEY)
    info = FileStore(root).head(KEY)
    assert info is not None
    assert info.metadata == {"first": chr(last[0])}


def test_a_file_changed_by_hand_is_told_as_it_is(folder: FileStore, tmp_path: Path) -> None:
    planned = folder.put_bytes(KEY, b"ours", metadata={"run": "1"}).sha256
    (tmp_path / "objects" / KEY).write_bytes(b"theirs")

    info = folder.head(KEY)

    found = hashlib.sha256(b"theirs").hexdigest()
    assert info is not None
    assert (info.sha256, info.metadata, info.n_bytes) == (found, {}, 6)
    with pytest.raises(ObjectCorrupt, match=f"{planned}.*{found}"):
        folder.get_bytes(KEY)


def test_a_file_put_there_by_hand_is_an_object_without_metadata(
    folder: FileStore, tmp_path: Path
) -> None:
    path = tmp_path / "objects" / KEY
    path.parent.mkdir(parents=True)
    path.write_bytes(b"by hand")

    info = folder.head(KEY)

    assert info is not None
    assert (info.sha256, info.metadata) == (hashlib.sha256(b"by hand").hexdigest(), {})
    assert folder.get_bytes(KEY) == b"by hand"
    assert [found.etag for found in folder.list("")] == [info.etag]


def test_a_copied_folder_keeps_its_metadata(folder: FileStore, tmp_path: Path) -> None:
    folder.put_bytes(KEY, b"x", metadata={"run": "1"})
    shutil.copytree(tmp_path / "objects", tmp_path / "copy", copy_function=shutil.copyfile)

    copy = FileStore(tmp_path / "copy")

    info = copy.head(KEY)
    assert info is not None
    assert info.metadata == {"run": "1"}
    assert copy.get_bytes(KEY) == b"x"


def test_records_of_replaced_and_deleted_objects_go_with_them(
    folder: FileStore, tmp_path: Path
) -> None:
    for content in (b"1", b"2", b"33"):
        folder.put_bytes(KEY, content)
    assert len(list(tmp_path.glob("objects/.meta/**/*.json"))) == 1
    folder.delete(KEY)
    assert list(tmp_path.glob("objects/.meta/**/*.json")) == []


def test_versions_are_stamped_by_us_not_by_the_kernels_coarse_clock(
    folder: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two versions of one size within 4 ms would otherwise share a time, and so a record."""
    now = 1_800_000_000_123_456_789
    monkeypatch.setattr(time, "time_ns", lambda: now)

    assert folder.put_bytes(KEY, b"x").etag == f"{now:x}-1"


def test_an_object_replaced_while_it_is_opened_comes_with_its_own_record(
    folder: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.put_bytes(KEY, b"old", metadata={"is": "old"})
    read_text = Path.read_text
    is_first = True

    def replaced_first(path: Path, **options: Any) -> str:
        nonlocal is_first
        if is_first:
            is_first = False
            folder.put_bytes(KEY, b"new", metadata={"is": "new"})
        return read_text(path, **options)

    monkeypatch.setattr(Path, "read_text", replaced_first)
    info = folder.head(KEY)

    assert info is not None
    assert info.metadata == {"is": "new"}
    assert info.sha256 == hashlib.sha256(b"new").hexdigest()


def test_what_a_killed_process_left_goes_after_a_day(folder: FileStore, tmp_path: Path) -> None:
    scratch = tmp_path / "objects" / ".tmp"
    for name, hours in (("dead", 25), ("alive", 23)):
        (scratch / name).mkdir(parents=True)
        (scratch / name / "content").write_bytes(b"half")
        moment = time.time() - hours * 3600
        os.utime(scratch / name, (moment, moment))

    assert list(folder.list("")) == []
    folder.put_bytes(KEY, b"x")

    assert [path.name for path in scratch.iterdir()] == ["alive"]
    assert [found.key for found in folder.list("")] == [KEY]


def test_a_key_that_is_the_folder_of_another_is_refused(folder: FileStore) -> None:
    folder.put_bytes("a/b", b"x")

    with pytest.raises(StoreError, match="the folder of another"):
        folder.put_bytes("a", b"y")
    with pytest.raises(StoreError, match="the folder of another"):
        folder.put_bytes("a/b/c", b"y")
    folder.delete("a")
    assert (folder.head("a"), folder.head("a/b/c")) == (None, None)
    with pytest.raises(ObjectMissing):
        folder.open_parquet("a")
    assert folder.get_bytes("a/b") == b"x"


def test_a_folder_that_cannot_be_listed_is_not_an_empty_one(
    folder: FileStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.put_bytes(KEY, b"x")
    scan = os.scandir

    def refused(path: Any) -> Any:
        if Path(path).name == "chunks":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(StoreError, match="Permission denied"):
        folder.list("")
