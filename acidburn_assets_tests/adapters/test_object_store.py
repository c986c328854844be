"""The contract that both back ends keep, and which URL and endpoint make a store."""

import hashlib
import json
import os
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from acidburn_assets.adapters.object_store import (
    ObjectStore,
    contract,
    open_store,
    probe,
)
from acidburn_assets.adapters.object_store.s3_connection import region_of
from acidburn_assets.core.errors import (
    ConfigError,
    ObjectCorrupt,
    ObjectMissing,
    StoreError,
)
from acidburn_assets_tests.adapters.stores import KEY, SECRET, flipped

ODD_KEYS = ["d/naïve 語.json", "d/a+b %20#?&='.json", "d/under_score-and.dots/..x", "d/ lead"]


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
    assert [found.key for found in store.list("d/chunks")] == sorted([*keys, *others[1:3]])
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
        store.verify,
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

    found = hashlib.sha256(flipped(b"some content", 3)).hexdigest()
    with pytest.raises(ObjectCorrupt, match=f"{KEY}.*{planned}.*{found}"):
        store.get_bytes(KEY)


def test_a_rotten_object_is_healed_by_putting_it_again(
    store: ObjectStore, rot: Callable[..., None]
) -> None:
    store.put_bytes(KEY, b"some content")
    rot(KEY, 3)
    store.put_bytes(KEY, b"some content")

    assert store.get_bytes(KEY) == b"some content"


def test_verifying_tells_what_is_stored(store: ObjectStore) -> None:
    written = store.put_bytes(KEY, b"some content", metadata={"n_rows": "3"})

    assert store.verify(KEY) == written == store.head(KEY)


def test_verifying_finds_rot_and_what_is_missing(
    store: ObjectStore, rot: Callable[..., None]
) -> None:
    planned = store.put_bytes(KEY, b"some content").sha256
    rot(KEY, 3)

    found = hashlib.sha256(flipped(b"some content", 3)).hexdigest()
    with pytest.raises(ObjectCorrupt, match=f"{KEY}.*{planned}.*{found}") as caught:
        store.verify(KEY)
    assert caught.value.key == KEY
    with pytest.raises(ObjectMissing, match="d/nothing"):
        store.verify("d/nothing")


def test_verifying_a_large_object_takes_little_memory(store: ObjectStore, tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(os.urandom(1 << 20) * 24)
    written = store.put_file(KEY, path)

    tracemalloc.start()
    try:
        assert store.verify(KEY) == written
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak_bytes < 6 << 20


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
