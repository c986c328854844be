"""One contract that both back ends keep, then what each does when things go wrong."""

import errno
import hashlib
import itertools
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from acidburn_assets.adapters.object_store import (
    ObjectStore,
    contract,
    iter_batches,
    open_store,
    probe,
    read_table,
    s3_errors,
    write_parquet,
)
from acidburn_assets.adapters.object_store.file import FileStore
from acidburn_assets.adapters.object_store.s3 import Patience, S3Store, region_of
from acidburn_assets.core import schemas
from acidburn_assets.core.errors import (
    ConfigError,
    ObjectCorrupt,
    ObjectMissing,
    SchemaError,
    StoreError,
    StoreUnavailable,
)
from acidburn_assets_tests.adapters.faulty_s3 import Fault, FaultyS3
from acidburn_assets_tests.s3_server import BUCKET, S3Key

SECRET = "do-not-show-me"
HASTY = Patience(
    total_seconds=5, shortest_wait_seconds=0.01, longest_wait_seconds=0.02, n_attempts=1
)
KEY = "gutenberg/chunks/000012.parquet"
ODD_KEYS = ["d/naïve 語.json", "d/a+b %20#?&='.json", "d/under_score-and.dots/..x", "d/ lead"]


# --- stores -------------------------------------------------------------------------------------


def s3_store(endpoint: str, prefix: str, **options: Any) -> S3Store:
    defaults: dict[str, Any] = {
        "endpoint": endpoint,
        "key_id": "any",
        "app_key": SecretStr(SECRET),
        "patience": HASTY,
        "n_listed": 10,
    }
    return S3Store(BUCKET, prefix, **(defaults | options))


@pytest.fixture(scope="session")
def raw_s3(moto_endpoint: str) -> Any:
    """A plain client, to look behind the store's back."""
    return boto3.client(
        "s3",
        endpoint_url=moto_endpoint,
        region_name="us-east-1",
        aws_access_key_id="any",
        aws_secret_access_key="any",
    )


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """A place in the bucket that no other test uses."""
    return f"t/{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]}"


@pytest.fixture
def bucket(faulty: FaultyS3, prefix: str) -> S3Store:
    return s3_store(faulty.endpoint, prefix)


@pytest.fixture
def folder(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "objects")


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest) -> ObjectStore:
    return request.getfixturevalue(request.param)


@pytest.fixture
def rot(store: ObjectStore, tmp_path: Path, raw_s3: Any, prefix: str) -> Callable[..., None]:
    """Changes one byte of a stored object, as a disk may, leaving all that is known of it."""

    def flip(key: str, position: int) -> None:
        if isinstance(store, FileStore):
            path = tmp_path / "objects" / key
            times = path.stat().st_atime_ns, path.stat().st_mtime_ns
            path.write_bytes(_flipped(path.read_bytes(), position))
            os.utime(path, ns=times)
        else:
            name = f"{prefix}/{key}"
            stored = raw_s3.get_object(Bucket=BUCKET, Key=name)
            content = _flipped(stored["Body"].read(), position)
            raw_s3.put_object(Bucket=BUCKET, Key=name, Body=content, Metadata=stored["Metadata"])

    return flip


def _flipped(content: bytes, position: int) -> bytes:
    changed = bytearray(content)
    changed[position] ^= 1
    return bytes(changed)


# --- the contract -------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"a", bytes(range(256)) * 5_000])
def test_what_was_put_is_read_back(store: ObjectStore, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "local"
    path.write_bytes(content)

    written = [
        store.put_bytes("d/bytes", content, metadata={"n_rows": "3"}),
        store.put_file("d/file", path, metadata={"n_rows": "3"}),
    ]

    for info in written:
        assert store.get_bytes(info.key) == content
        assert store.head(info.key) == info
        assert info.n_bytes == len(content)
        assert info.sha256 == hashlib.sha256(content).hexdigest()
        assert info.metadata == {"n_rows": "3"}
        assert abs(info.modified - datetime.now(UTC)) < timedelta(minutes=1)
    assert path.read_bytes() == content


def test_a_missing_object_names_its_key(store: ObjectStore) -> None:
    assert store.head(KEY) is None
    for read in (store.get_bytes, store.open_parquet):
        with pytest.raises(ObjectMissing, match=KEY):
            read(KEY)


def test_an_overwritten_object_is_the_new_one(store: ObjectStore) -> None:
    old = store.put_bytes(KEY, b"old", metadata={"run": "1", "gone": "x"})
    new = store.put_bytes(KEY, b"new", metadata={"run": "2"})

    assert store.get_bytes(KEY) == b"new"
    assert store.head(KEY) == new
    assert new.metadata == {"run": "2"}
    assert new.etag != old.etag
    assert [found.key for found in store.list("")] == [KEY]


def test_a_deleted_object_is_gone_and_deleting_again_is_no_error(store: ObjectStore) -> None:
    store.put_bytes(KEY, b"x")
    store.put_bytes(KEY + ".json", b"y")

    store.delete(KEY)
    store.delete(KEY)

    assert store.head(KEY) is None
    assert [found.key for found in store.list("")] == [KEY + ".json"]


@pytest.mark.parametrize("key", ODD_KEYS)
def test_keys_of_any_printable_characters_work(store: ObjectStore, key: str) -> None:
    store.put_bytes(key, b"x")

    assert store.get_bytes(key) == b"x"
    assert [found.key for found in store.list(key)] == [key]
    store.delete(key)
    assert list(store.list("d/")) == []


def test_metadata_of_any_characters_comes_back(store: ObjectStore) -> None:
    metadata = {
        "code_version": "1.2-β",
        "title": "  two  blanks, «quotes» \"'\\ %41 +\n\t\r end ",
        "Case": "Kept",
        "empty": "",
        "語": "\U0001f600",
        "sha256": "mine",
    }

    assert store.put_bytes(KEY, b"x", metadata=metadata).metadata == metadata
    found = store.head(KEY)
    assert found is not None
    assert found.metadata == metadata
    assert found.sha256 == hashlib.sha256(b"x").hexdigest()


def test_metadata_that_a_bucket_cannot_hold_is_refused(store: ObjectStore) -> None:
    with pytest.raises(StoreError, match=r"1,900 bytes.*note"):
        store.put_bytes(KEY, b"x", metadata={"note": "x" * 2_000})
    assert store.head(KEY) is None


def test_a_listing_longer_than_a_page_is_whole_and_ordered(store: ObjectStore) -> None:
    keys = [f"d/chunks/{index:06d}.parquet" for index in range(23)]
    others = ["d-2/chunks/000001.parquet", "d/chunks.json", "d/chunks-2/a", "e"]
    written = {key: store.put_bytes(key, key.encode()) for key in reversed(keys + others)}

    listed = list(store.list("d/chunks/"))
    assert [found.key for found in listed] == keys
    for found in listed:
        assert (found.n_bytes, found.etag) == (len(found.key), written[found.key].etag)
        assert abs(found.modified - written[found.key].modified) < timedelta(seconds=1)
    assert [found.key for found in store.list("d/chunks/00000")] == keys[:10]
    assert [found.key for found in store.list("")] == sorted(keys + others)


def test_listing_nothing_is_empty(store: ObjectStore) -> None:
    assert list(store.list("")) == []
    assert list(store.list("d/chunks/")) == []


@pytest.mark.parametrize(
    "key",
    [
        *("", "/a", "a/", "a//b", "../a", "a/../b", "a/./b", ".meta/a", ".tmp"),
        *("a\\b", "a\nb", "a\0b", "a\udc80b", "x" * 1_025),
    ],
)
def test_keys_that_could_leave_their_place_are_refused(key: str) -> None:
    with pytest.raises(StoreError, match="the key"):
        contract.check_key(key)


@pytest.mark.parametrize("wrong", ["/", "../", ".meta/", ".tmp/x"])
def test_prefixes_that_no_key_has_are_refused(wrong: str) -> None:
    with pytest.raises(StoreError, match="the key"):
        contract.check_prefix(wrong)


def test_every_method_refuses_a_wrong_key(store: ObjectStore) -> None:
    calls: list[Callable[[str], Any]] = [
        store.head,
        store.get_bytes,
        store.open_parquet,
        store.delete,
        store.uri,
        lambda key: store.put_bytes(key, b"x"),
        lambda key: store.put_file(key, Path(__file__)),
        lambda key: list(store.list(key)),
    ]
    for call in calls:
        with pytest.raises(StoreError, match=r"the key '\.\./a'"):
            call("../a")


def test_a_local_file_that_is_missing_is_named(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nowhere"):
        store.put_file(KEY, tmp_path / "nowhere")
    assert list(store.list("")) == []


def test_a_rotten_object_is_reported_with_both_checksums(
    store: ObjectStore, rot: Callable[..., None]
) -> None:
    planned = store.put_bytes(KEY, b"some content").sha256
    rot(KEY, 3)

    found = hashlib.sha256(_flipped(b"some content", 3)).hexdigest()
    with pytest.raises(ObjectCorrupt, match=f"{KEY}.*{planned}.*{found}"):
        store.get_bytes(KEY)


def test_a_rotten_object_is_healed_by_putting_it_again(
    store: ObjectStore, rot: Callable[..., None]
) -> None:
    store.put_bytes(KEY, b"some content")
    rot(KEY, 3)
    store.put_bytes(KEY, b"some content")

    assert store.get_bytes(KEY) == b"some content"


def test_the_probe_of_a_good_store_finds_nothing_and_leaves_nothing(store: ObjectStore) -> None:
    found = probe(store)

    assert found.can_delete
    assert found.remark == ""
    assert found.url == store.url
    assert list(store.list("")) == []


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=60), max_size=5))
def test_metadata_becomes_one_line_that_headers_carry_and_turns_back(
    metadata: dict[str, str],
) -> None:
    line = contract.metadata_to_ascii("k", metadata)

    assert json.loads(line) == metadata
    assert all(33 <= ord(character) < 127 for character in line)


# --- tables -------------------------------------------------------------------------------------


DIM = 64
BYTE_STREAM_SPLIT = {"embedding.list.element": "BYTE_STREAM_SPLIT"}


def embeddings(n_rows: int, *, seed: int = 0) -> pa.RecordBatch:
    rng = np.random.default_rng(seed)
    ids = [hashlib.sha256(f"{seed} {row}".encode()).digest()[:16] for row in range(n_rows)]
    values = pa.array(rng.standard_normal(n_rows * DIM).astype(np.float32))
    vectors = pa.FixedSizeListArray.from_arrays(values, type=schemas.vector_type(DIM))
    schema = schemas.embeddings(DIM)
    return pa.record_batch([pa.array(ids, schemas.CHUNK_ID), vectors], schema=schema)


def write_embeddings(store: ObjectStore, batch: pa.RecordBatch, **options: Any) -> Any:
    return write_parquet(
        store,
        KEY,
        schemas.embeddings(DIM),
        [batch],
        column_encoding=BYTE_STREAM_SPLIT,
        **options,
    )


def test_a_table_is_read_back_whole_by_column_and_in_batches(store: ObjectStore) -> None:
    batch = embeddings(2_500)
    info, n_rows = write_embeddings(store, batch, row_group_rows=1_000, metadata={"n_rows": "2500"})

    assert n_rows == 2_500
    assert store.head(KEY) == info
    assert info.metadata == {"n_rows": "2500"}
    whole = pa.table(batch)
    assert read_table(store, KEY) == whole
    assert read_table(store, KEY, columns=["chunk_id"]) == whole.select(["chunk_id"])
    for columns in (None, ["embedding"]):
        batches = list(iter_batches(store, KEY, columns=columns, batch_rows=600))
        assert [len(batch) for batch in batches] == [600, 400, 600, 400, 500]
        expected = whole.select(columns or whole.column_names)
        assert pa.Table.from_batches(batches) == expected
    with store.open_parquet(KEY) as file:
        assert file.read_row_group(1) == whole.slice(1_000, 1_000)
        assert file.read_row_groups([0, 2], columns=["chunk_id"]).num_rows == 1_500


def test_a_table_is_stored_as_the_design_says(folder: FileStore) -> None:
    write_embeddings(folder, embeddings(2_500), row_group_rows=1_000)

    with folder.open_parquet(KEY) as file:
        footer = file.metadata
        assert file.schema_arrow == schemas.embeddings(DIM)
    assert [footer.row_group(index).num_rows for index in range(3)] == [1_000, 1_000, 500]
    ids, vectors = footer.row_group(0).column(0), footer.row_group(0).column(1)
    assert vectors.path_in_schema == "embedding.list.element"
    assert "BYTE_STREAM_SPLIT" in vectors.encodings
    assert {ids.compression, vectors.compression} == {"ZSTD"}
    assert not ids.has_dictionary_page
    assert not vectors.has_dictionary_page


def test_a_table_of_no_rows_is_a_table(store: ObjectStore) -> None:
    _info, n_rows = write_parquet(store, KEY, schemas.CHUNKS, [])

    assert n_rows == 0
    assert read_table(store, KEY) == schemas.CHUNKS.empty_table()
    assert read_table(store, KEY, columns=["text"]).schema.names == ["text"]
    assert list(iter_batches(store, KEY)) == []


TEXTS = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("text", pa.string()),
        pa.field("vector", schemas.vector_type(3), nullable=False),
        pa.field("ids", pa.list_(schemas.CHUNK_ID), nullable=False),
    ]
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cuts=st.lists(st.integers(0, 150), max_size=6), row_group_rows=st.integers(1, 160))
def test_equal_rows_make_equal_bytes_however_they_are_cut(
    folder: FileStore, cuts: list[int], row_group_rows: int
) -> None:
    """A shard that was resumed in parts has the sha256 of one that was made at a stretch."""
    n_rows = 150
    table = pa.table(
        [
            pa.array(range(n_rows)),
            pa.array([None if row % 7 == 0 else "é" * row for row in range(n_rows)]),
            pa.FixedSizeListArray.from_arrays(
                pa.array(np.arange(n_rows * 3, dtype=np.float32)), type=schemas.vector_type(3)
            ),
            pa.array([[bytes([row]) * 16] * (row % 3) for row in range(n_rows)], TEXTS[3].type),
        ],
        schema=TEXTS,
    )
    borders = [0, *sorted(cuts), n_rows]
    pieces = [
        batch
        for start, end in itertools.pairwise(borders)
        for batch in table.slice(start, end - start).to_batches()
    ]

    whole, _ = write_parquet(
        folder, "whole", TEXTS, table.to_batches(), row_group_rows=row_group_rows
    )
    cut, n_written = write_parquet(folder, "cut", TEXTS, pieces, row_group_rows=row_group_rows)

    assert n_written == n_rows
    assert cut.sha256 == whole.sha256
    assert read_table(folder, "cut") == table


@pytest.mark.parametrize("row_group_rows", [3_500, 10_000])
def test_pages_do_not_depend_on_how_rows_are_cut(folder: FileStore, row_group_rows: int) -> None:
    """Arrow closes a page when it passes 1 MB, but looks only between pieces of 1,024 rows."""
    rng = np.random.default_rng(0)
    schema = pa.schema([("text", pa.string())])
    rows = pa.array([rng.bytes(500).hex() for _ in range(4_000)])
    batch = pa.record_batch([rows], schema=schema)
    pieces = [batch.slice(start, 700) for start in range(0, 4_000, 700)]

    whole, _ = write_parquet(folder, "whole", schema, [batch], row_group_rows=row_group_rows)
    cut, _ = write_parquet(folder, "cut", schema, pieces, row_group_rows=row_group_rows)

    assert batch.nbytes > 3 << 20
    assert cut.sha256 == whole.sha256


def test_a_source_that_fails_midway_leaves_the_old_table_and_no_temporary_file(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    old, _ = write_embeddings(store, embeddings(10))

    def fails() -> Iterator[pa.RecordBatch]:
        yield embeddings(3_000)
        raise RuntimeError("the encoder died")

    for key in (KEY, "new"):
        with pytest.raises(RuntimeError, match="the encoder died"):
            write_parquet(store, key, schemas.embeddings(DIM), fails(), row_group_rows=100)

    assert store.head(KEY) == old
    assert [found.key for found in store.list("")] == [KEY]
    assert list(scratch.iterdir()) == []
    assert list(tmp_path.glob("objects/.tmp/*")) == []


def test_batches_that_do_not_fit_the_schema_are_refused(folder: FileStore) -> None:
    good = embeddings(4)
    wrong = {
        "lacks the column 'embedding'": good.select(["chunk_id"]),
        "not fixed_size_list": good.set_column(1, "embedding", pa.array([1.0] * 4)),
        "'extra', which its schema does not know": good.append_column(
            "extra", pa.array([1, 2, 3, 4])
        ),
        "'chunk_id' with nulls": good.set_column(
            0, "chunk_id", pa.array([None] * 4, schemas.CHUNK_ID)
        ),
    }
    for reason, batch in wrong.items():
        with pytest.raises(SchemaError, match=f"{KEY}.*{reason}"):
            write_parquet(folder, KEY, schemas.embeddings(DIM), [good, batch])
    assert folder.head(KEY) is None


def test_columns_in_another_order_are_put_right(folder: FileStore) -> None:
    batch = embeddings(4)
    write_embeddings(folder, batch.select(["embedding", "chunk_id"]))

    assert read_table(folder, KEY) == pa.table(batch)


def test_an_encoding_for_no_column_is_refused(folder: FileStore) -> None:
    with pytest.raises(SchemaError, match=r"'embedding'.*embedding\.list\.element"):
        write_parquet(
            folder, KEY, schemas.embeddings(DIM), [], column_encoding={"embedding": "PLAIN"}
        )


def test_a_column_that_is_not_there_is_named(store: ObjectStore) -> None:
    write_embeddings(store, embeddings(4))

    with pytest.raises(SchemaError, match=r"no column 'vector'.*chunk_id.*embedding"):
        read_table(store, KEY, columns=["chunk_id", "vector"])
    with pytest.raises(SchemaError, match="no column 'vector'"):
        list(iter_batches(store, KEY, columns=["vector"]))


def test_a_rotten_page_is_found_by_whoever_reads_it(
    store: ObjectStore, rot: Callable[..., None]
) -> None:
    write_embeddings(store, embeddings(2_000), row_group_rows=1_000)
    with store.open_parquet(KEY) as file:
        vectors = file.metadata.row_group(1).column(1)
    rot(KEY, vectors.data_page_offset + vectors.total_compressed_size // 2)

    assert read_table(store, KEY, columns=["chunk_id"]).num_rows == 2_000
    readers: list[Callable[[], Any]] = [
        lambda: read_table(store, KEY, columns=["embedding"]),
        lambda: read_table(store, KEY),
        lambda: list(iter_batches(store, KEY, columns=["embedding"])),
        lambda: list(iter_batches(store, KEY)),
        lambda: store.open_parquet(KEY).read_row_group(1),
        lambda: store.open_parquet(KEY).read_row_groups([1]),
    ]
    for read in readers:
        with pytest.raises(ObjectCorrupt, match=KEY):
            read()
    first = next(iter_batches(store, KEY, columns=["embedding"]))
    assert first.num_rows == 1_000


def test_what_is_not_parquet_is_named(store: ObjectStore) -> None:
    store.put_bytes(KEY, b'{"this": "is JSON"}' * 10)

    for columns in (None, ["text"]):
        with pytest.raises(ObjectCorrupt, match=f"{KEY}.*cannot be read as Parquet"):
            read_table(store, KEY, columns=columns)


# --- a folder -----------------------------------------------------------------------------------


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


# --- a bucket -----------------------------------------------------------------------------------


def n_requests(faulty: FaultyS3, method: str) -> int:
    return sum(request.method == method for request in faulty.requests)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        *((503, "SlowDown"), (500, "InternalError"), (429, "TooManyRequests")),
        *((408, "RequestTimeout"), (400, "RequestTimeout")),
    ],
)
def test_what_may_pass_is_tried_again(
    bucket: S3Store,
    faulty: FaultyS3,
    status: int,
    code: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    methods = ["PUT", "GET", "DELETE"]
    if status != 400:  # an answer to HEAD has no code that would tell a 400 apart
        methods.append("HEAD")
    faulty.faults = [
        Fault(method, "status", n_times=3, status=status, code=code) for method in methods
    ]

    bucket.put_bytes(KEY, b"content")
    assert bucket.get_bytes(KEY) == b"content"
    assert [found.key for found in bucket.list("")] == [KEY]
    bucket.delete(KEY)
    assert bucket.head(KEY) is None
    assert [fault.n_times for fault in faulty.faults] == [0] * len(methods)
    assert f"{status} {code} for '{KEY}'" in caplog.text


@pytest.mark.parametrize("n_attempts", [1, 4])
def test_retry_after_is_honoured_by_botocore_and_by_us(
    faulty: FaultyS3, prefix: str, n_attempts: int
) -> None:
    patience = Patience(30, 0.001, 2, n_attempts)
    store = s3_store(faulty.endpoint, prefix, patience=patience)
    faulty.faults = [Fault("PUT", "status", retry_after="1")]

    started = time.monotonic()
    store.put_bytes(KEY, b"x")

    assert time.monotonic() - started >= 1


def test_a_body_that_breaks_off_is_read_again(bucket: S3Store, faulty: FaultyS3) -> None:
    content = os.urandom(300_000)
    bucket.put_bytes("whole", content)
    write_embeddings(bucket, embeddings(2_000), row_group_rows=1_000)
    faulty.requests.clear()

    faulty.faults = [Fault("GET", "truncate", n_times=2)]
    assert bucket.get_bytes("whole") == content
    assert n_requests(faulty, "GET") == 3

    faulty.faults = [Fault("GET", "truncate", n_times=2, after=1)]
    assert read_table(bucket, KEY, columns=["embedding"]).num_rows == 2_000
    assert faulty.faults[0].n_times == 0


def test_an_upload_whose_answer_is_lost_is_not_sent_again(
    bucket: S3Store, faulty: FaultyS3
) -> None:
    faulty.faults = [Fault("PUT", "lose_answer")]

    bucket.put_bytes(KEY, b"content")

    assert n_requests(faulty, "PUT") == 1
    assert bucket.get_bytes(KEY) == b"content"


def test_an_upload_that_the_store_forgets_is_sent_again(bucket: S3Store, faulty: FaultyS3) -> None:
    faulty.faults = [Fault("PUT", "swallow")]

    bucket.put_bytes(KEY, b"content")

    assert bucket.get_bytes(KEY) == b"content"


def test_an_upload_that_never_arrives_is_an_error(faulty: FaultyS3, prefix: str) -> None:
    store = s3_store(faulty.endpoint, prefix, patience=HASTY._replace(total_seconds=0.2))
    faulty.faults = [Fault("PUT", "swallow", n_times=1_000)]

    with pytest.raises(StoreUnavailable, match=f"{KEY}.*is not there"):
        store.put_bytes(KEY, b"content")


def test_a_large_file_goes_up_in_parts_one_of_which_may_fail(
    faulty: FaultyS3, prefix: str, tmp_path: Path, raw_s3: Any
) -> None:
    path = tmp_path / "large"
    path.write_bytes(os.urandom(1 << 20) * 33)
    store = s3_store(faulty.endpoint, prefix, patience=HASTY._replace(n_attempts=3))
    faulty.faults = [Fault("PUT", "status", query="partNumber=2", status=500, code="Internal")]

    info = store.put_file(KEY, path, metadata={"n_rows": "5"})

    assert store.get_bytes(KEY) == path.read_bytes()
    assert info.metadata == {"n_rows": "5"}
    assert n_requests(faulty, "PUT") == 4
    assert "Uploads" not in raw_s3.list_multipart_uploads(Bucket=BUCKET)


def test_a_large_file_whose_last_answer_is_lost_is_there(
    faulty: FaultyS3, prefix: str, tmp_path: Path
) -> None:
    """The second CompleteMultipartUpload is answered NoSuchUpload, though all is well."""
    path = tmp_path / "large"
    path.write_bytes(bytes(17 << 20))
    store = s3_store(faulty.endpoint, prefix, patience=HASTY._replace(n_attempts=2))
    faulty.faults = [
        Fault("POST", "lose_answer", query="uploadId="),
        Fault("POST", "status", query="uploadId=", status=404, code="NoSuchUpload"),
    ]

    store.put_file(KEY, path)

    assert n_requests(faulty, "PUT") == 2
    assert store.get_bytes(KEY) == path.read_bytes()


def test_an_upload_that_fails_leaves_nothing(
    faulty: FaultyS3, prefix: str, tmp_path: Path, raw_s3: Any
) -> None:
    path = tmp_path / "large"
    path.write_bytes(bytes(17 << 20))
    store = s3_store(faulty.endpoint, prefix, patience=HASTY._replace(total_seconds=0.1))
    faulty.faults = [Fault("PUT", "status", n_times=1_000, query="partNumber=2")]

    with pytest.raises(StoreUnavailable, match=f"503 SlowDown.*{KEY}"):
        store.put_file(KEY, path)

    assert store.head(KEY) is None
    assert "Uploads" not in raw_s3.list_multipart_uploads(Bucket=BUCKET)


def test_a_store_that_stays_away_is_given_up_in_time(faulty: FaultyS3, prefix: str) -> None:
    patience = Patience(1, 0.05, 0.1, 1)
    store = s3_store(faulty.endpoint, prefix, patience=patience)
    faulty.faults = [Fault("GET", "status", n_times=10_000)]

    started = time.monotonic()
    with pytest.raises(StoreUnavailable, match="503 SlowDown"):
        store.get_bytes(KEY)

    assert time.monotonic() - started < 10
    assert n_requests(faulty, "GET") > 1


@pytest.mark.parametrize(
    ("status", "code", "message", "expected"),
    [
        (
            403,
            "InvalidAccessKeyId",
            "The key 'x' is not valid",
            r"endpoint's region is not the bucket's.*compare.*shown beside.*only then doubt",
        ),
        (403, "InvalidAccessKeyId", "Malformed Access Key Id", r"master key is refused"),
        (403, "SignatureDoesNotMatch", "…", r"B2_APP_KEY is not the secret"),
        (403, "AccessDenied", "cap exceeded", r"data caps"),
        (403, "RequestTimeTooSkewed", "…", r"clock is wrong"),
        (404, "NoSuchBucket", "…", r"no bucket 'acidburn-test'.*B2_BUCKET"),
        (400, "InvalidArgument", "Unsupported header", r"Unsupported header"),
        (501, "NotImplemented", "A header you provided", r"501 NotImplemented"),
    ],
)
def test_what_is_refused_for_good_is_refused_at_once_and_explained(
    bucket: S3Store, faulty: FaultyS3, status: int, code: str, message: str, expected: str
) -> None:
    calls: dict[str, Callable[[], Any]] = {
        "PUT": lambda: bucket.put_bytes(KEY, b"x"),
        "GET": lambda: bucket.get_bytes(KEY),
        "DELETE": lambda: bucket.delete(KEY),
    }
    for method, call in calls.items():
        faulty.reset()
        faulty.faults = [Fault(method, "status", 9, status=status, code=code, message=message)]
        with pytest.raises(StoreError, match=expected) as caught:
            call()
        assert faulty.endpoint in str(caught.value)
        assert SECRET not in str(caught.value)
        assert len(faulty.requests) == 1


def test_a_refused_head_says_why_though_its_answer_has_no_body(
    bucket: S3Store, faulty: FaultyS3
) -> None:
    refusal = {"status": 403, "code": "InvalidAccessKeyId"}
    faulty.faults = [Fault("HEAD", "status", **refusal), Fault("GET", "status", **refusal)]

    with pytest.raises(StoreError, match="endpoint's region"):
        bucket.head(KEY)

    faulty.faults = [Fault("HEAD", "status", status=403, code="AccessDenied")]
    with pytest.raises(StoreError, match="data caps"):
        bucket.head(KEY)


def test_a_missing_bucket_is_not_taken_for_a_missing_object(faulty: FaultyS3) -> None:
    """HEAD answers 404 for both; a shard would be made again for money, and not stored."""
    store = S3Store(
        "no-such-bucket",
        endpoint=faulty.endpoint,
        key_id="any",
        app_key=SecretStr(SECRET),
        patience=HASTY,
    )
    for call in (store.head, store.get_bytes, lambda key: list(store.list(key)), store.delete):
        with pytest.raises(StoreError, match=r"no bucket 'no-such-bucket' at 'http://127"):
            call(KEY)


def test_a_bit_flipped_on_the_way_is_not_an_object_gone_bad(
    bucket: S3Store, faulty: FaultyS3
) -> None:
    bucket.put_bytes(KEY, b"content")
    faulty.faults = [Fault("GET", "flip_bit")]

    assert bucket.get_bytes(KEY) == b"content"


def test_wrong_keys_are_told_apart(moto_endpoint: str, limited_key: S3Key, prefix: str) -> None:
    good = s3_store(
        moto_endpoint, prefix, key_id=limited_key.key_id, app_key=SecretStr(limited_key.secret)
    )
    good.put_bytes(KEY, b"x")
    assert good.get_bytes(KEY) == b"x"

    wrong_secret = s3_store(moto_endpoint, prefix, key_id=limited_key.key_id)
    with pytest.raises(StoreError, match="B2_APP_KEY is not the secret") as caught:
        wrong_secret.head(KEY)
    assert SECRET not in f"{caught.value} {caught.value.__cause__!r} {wrong_secret!r}"

    unknown = s3_store(moto_endpoint, prefix, key_id="AKIANOBODY")
    with pytest.raises(StoreError, match="only then doubt B2_KEY_ID"):
        unknown.head(KEY)


def test_the_probe_is_content_with_a_key_that_may_not_delete(
    moto_endpoint: str, limited_key: S3Key, prefix: str
) -> None:
    store = s3_store(
        moto_endpoint, prefix, key_id=limited_key.key_id, app_key=SecretStr(limited_key.secret)
    )

    found = probe(store)

    assert not found.can_delete
    assert "may not delete, which is fine" in found.remark
    assert [listed.key.split("/")[0] for listed in store.list("")] == [".probe"]


def test_an_endpoint_that_does_not_resolve_is_shown(prefix: str) -> None:
    store = s3_store(
        "http://s3.nowhere.invalid", prefix, patience=HASTY._replace(total_seconds=0.1)
    )

    with pytest.raises(StoreUnavailable, match=r"http://s3\.nowhere\.invalid.*B2_ENDPOINT"):
        store.head(KEY)


def test_objects_of_other_tools_can_be_read(bucket: S3Store, raw_s3: Any, prefix: str) -> None:
    raw_s3.put_object(Bucket=BUCKET, Key=f"{prefix}/{KEY}", Body=b"x", Metadata={"by": "rclone"})

    info = bucket.head(KEY)

    assert info is not None
    assert (info.sha256, info.metadata, info.n_bytes) == ("", {}, 1)
    assert bucket.get_bytes(KEY) == b"x"


def test_a_column_of_a_wide_table_costs_its_own_bytes(bucket: S3Store, faulty: FaultyS3) -> None:
    info, _ = write_embeddings(bucket, embeddings(20_000), row_group_rows=5_000)
    with bucket.open_parquet(KEY) as file:
        row_groups = [file.metadata.row_group(index) for index in range(4)]
        n_column_bytes = sum(group.column(0).total_compressed_size for group in row_groups)
    faulty.requests.clear()

    table = read_table(bucket, KEY, columns=["chunk_id"])

    gets = [request for request in faulty.requests if request.method == "GET"]
    n_footer_bytes = 1 << 16
    assert table.num_rows == 20_000
    assert len(gets) == 1 + len(row_groups)
    assert sum(get.n_sent for get in gets) == n_column_bytes + n_footer_bytes
    assert n_column_bytes + n_footer_bytes < info.n_bytes / 8


def test_batches_are_fetched_as_they_are_taken(bucket: S3Store, faulty: FaultyS3) -> None:
    write_embeddings(bucket, embeddings(20_000), row_group_rows=5_000)
    faulty.requests.clear()

    batches = iter_batches(bucket, KEY, columns=["chunk_id", "embedding"])
    next(batches)

    n_footer, n_row_group = 1, 1
    assert n_requests(faulty, "GET") == n_footer + n_row_group


def test_a_table_replaced_while_it_is_read_is_not_mixed(bucket: S3Store) -> None:
    write_embeddings(bucket, embeddings(2_000, seed=1))
    with bucket.open_parquet(KEY) as file:
        write_embeddings(bucket, embeddings(2_000, seed=2))
        with pytest.raises(StoreUnavailable, match=f"{KEY}.*was replaced"):
            file.read()


def test_the_command_lines_own_configuration_changes_nothing(
    faulty: FaultyS3, prefix: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config").write_text("[default]\nregion = mars-1\nsignature_version = s3\n")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://elsewhere.invalid")
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_supported")

    store = s3_store(faulty.endpoint, prefix)

    assert store.put_bytes(KEY, b"x").n_bytes == 1
    assert "/us-east-1/s3/" in faulty.requests[0].headers["Authorization"]


# --- configuration ------------------------------------------------------------------------------


def test_urls_become_stores(tmp_path: Path) -> None:
    folder = open_store((tmp_path / "with blank").as_uri())
    bucket = open_store(
        "s3://my-bucket/some/prefix/",
        endpoint="https://s3.us-west-004.backblazeb2.com",
        key_id="id",
        app_key=SecretStr(SECRET),
    )

    assert folder.uri("a b") == (tmp_path / "with blank" / "a b").as_uri()
    assert folder.put_bytes("k", b"x").n_bytes == 1
    assert (tmp_path / "with blank" / "k").exists()
    assert bucket.url == "s3://my-bucket/some/prefix"
    assert bucket.uri("a/b") == "s3://my-bucket/some/prefix/a/b"
    assert SECRET not in repr(bucket)
    assert SECRET not in repr(vars(bucket))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("", "neither file:///folder nor s3://"),
        ("/a/folder", "neither file:///folder nor s3://"),
        ("gs://bucket", "neither file:///folder nor s3://"),
        ("file://objects", "write file:///folder"),
        ("file:objects", "write file:///folder"),
        ("file:///a#b", "'[?]' or '#'"),
        ("s3://", "names no bucket"),
        ("s3://id:hidden@bucket/x", "holds credentials"),
    ],
)
def test_urls_that_cannot_be_stores_are_explained(url: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected) as caught:
        open_store(url, endpoint="https://s3.x.backblazeb2.com", key_id="i", app_key=SecretStr("s"))
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("", "needs B2_ENDPOINT"),
        ("s3.us-west-004.backblazeb2.com", "lacks https://"),
        ("s3.us-west-004.backblazeb2.com:443", "lacks https://"),
        ("http://s3.us-west-004.backblazeb2.com", "must start with https://"),
        ("https://f004.backblazeb2.com", "not B2's S3 endpoint"),
        ("https://s3.us-west-004.backblazeb2.com/bucket", "more than a host"),
        ("https://id:hidden@s3.us-west-004.backblazeb2.com", "holds credentials"),
    ],
)
def test_endpoints_that_cannot_be_right_are_explained(endpoint: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected) as caught:
        open_store("s3://bucket", endpoint=endpoint, key_id="id", app_key=SecretStr(SECRET))
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(("key_id", "app_key"), [("", "secret"), ("id", "")])
def test_a_bucket_without_keys_names_what_is_missing(key_id: str, app_key: str) -> None:
    with pytest.raises(ConfigError, match="B2_KEY_ID and B2_APP_KEY"):
        open_store(
            "s3://bucket",
            endpoint="https://s3.us-west-004.backblazeb2.com",
            key_id=key_id,
            app_key=SecretStr(app_key),
        )


@pytest.mark.parametrize(
    ("endpoint", "region"),
    [
        ("https://s3.us-west-004.backblazeb2.com", "us-west-004"),
        ("https://s3.eu-central-003.backblazeb2.com/", "eu-central-003"),
        ("https://s3.eu-west-1.amazonaws.com", "eu-west-1"),
        ("http://127.0.0.1:9000", "us-east-1"),
        ("https://minio.lan", "us-east-1"),
    ],
)
def test_the_region_is_the_endpoints(endpoint: str, region: str) -> None:
    assert region_of(endpoint) == region


@pytest.mark.parametrize(
    ("header", "expected"), [(None, 0), ("", 0), ("7", 7), ("soon", 0), ("-1", 0)]
)
def test_retry_after_is_read_as_seconds(header: str | None, expected: float) -> None:
    assert s3_errors.parse_retry_after(header) == expected
