"""The contract against OpenStack Swift: signatures, payloads and parts are checked by the server.

moto believes any signature and any body; Swift does not, and keeps bodies on disk. Everything goes
through the proxy that refuses what B2 refuses.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import SecretStr

from acidburn_assets.adapters.object_store import read_table
from acidburn_assets.adapters.object_store.lifecycle import prepare_bucket
from acidburn_assets.adapters.object_store.s3 import S3Store
from acidburn_assets.core.errors import ObjectMissing, StoreError, StoreUnavailable
from acidburn_assets_tests import swift_server
from acidburn_assets_tests.adapters import faulty_s3
from acidburn_assets_tests.adapters.faulty_s3 import ALWAYS, Fault, FaultyS3
from acidburn_assets_tests.adapters.stores import HASTY, KEY, embeddings, write_embeddings
from acidburn_assets_tests.swift_server import SwiftServer

pytestmark = [
    pytest.mark.swift,
    pytest.mark.skipif(
        not swift_server.is_installed(),
        reason="the package `swift` is not installed: pip install swift",
    ),
]

BUCKET = "acidburn-swift"
MB = 1 << 20


@pytest.fixture(scope="module")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SwiftServer]:
    with swift_server.running(tmp_path_factory.mktemp("swift")) as server:
        yield server


@pytest.fixture(scope="module")
def _proxy(swift: SwiftServer) -> Iterator[FaultyS3]:
    with faulty_s3.running(swift.endpoint) as proxy:
        store_of(proxy, swift).connection.client.create_bucket(Bucket=BUCKET)
        yield proxy


@pytest.fixture
def faulty(_proxy: FaultyS3) -> FaultyS3:
    _proxy.reset()
    return _proxy


@pytest.fixture
def bucket(faulty: FaultyS3, swift: SwiftServer, prefix: str) -> S3Store:
    return store_of(faulty, swift, prefix)


def store_of(proxy: FaultyS3, swift: SwiftServer, prefix: str = "", **options: Any) -> S3Store:
    defaults: dict[str, Any] = {
        "endpoint": proxy.endpoint,
        "key_id": swift.key_id,
        "app_key": SecretStr(swift.secret),
        "patience": HASTY._replace(n_attempts=3),
        "n_listed": 10,
    }
    return S3Store(BUCKET, prefix, **(defaults | options))


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """40 MB: three parts."""
    path = tmp_path / "large"
    with path.open("wb") as file:
        for _ in range(40):
            file.write(os.urandom(MB))
    return path


def test_objects_are_put_got_listed_and_deleted(bucket: S3Store) -> None:
    metadata = {"title": "  «quotes» %41 +\n", "Case": "Kept", "語": "\U0001f600"}
    keys = [f"d/naïve 語 {index:02d}" for index in range(12)]
    for key in keys:
        written = bucket.put_bytes(key, key.encode(), metadata=metadata)
        assert bucket.head(key) == written == bucket.verify(key)
        assert written.metadata == metadata

    assert [found.key for found in bucket.list("d/")] == keys
    assert bucket.get_bytes(keys[3]) == keys[3].encode()
    bucket.delete(keys[0])
    bucket.delete(keys[0])
    assert bucket.head(keys[0]) is None
    with pytest.raises(ObjectMissing, match="naïve"):
        bucket.get_bytes(keys[0])
    assert len(list(bucket.list(""))) == 11


def test_a_large_file_goes_up_in_parts_and_comes_back_whole(
    bucket: S3Store, faulty: FaultyS3, large: Path
) -> None:
    written = bucket.put_file(KEY, large, metadata={"n_rows": "5"})

    assert faulty.count("UploadPart") == 3
    assert written.n_bytes == 40 * MB
    assert bucket.verify(KEY) == written
    assert hashlib.sha256(bucket.get_bytes(KEY)).hexdigest() == written.sha256
    assert [(found.key, found.n_bytes, found.etag) for found in bucket.list("")] == [
        (KEY, 40 * MB, written.etag)
    ]


def test_a_table_is_read_by_column(bucket: S3Store, faulty: FaultyS3) -> None:
    batch = embeddings(4_000)
    write_embeddings(bucket, batch, row_group_rows=1_000)
    faulty.requests.clear()

    assert read_table(bucket, KEY, columns=["chunk_id"]).column(0).to_pylist() == (
        batch.column(0).to_pylist()
    )
    assert sum(request.n_sent for request in faulty.requests) < batch.nbytes // 4


@pytest.mark.parametrize("operation", ["PutObject", "UploadPart"])
def test_a_body_that_is_altered_on_its_way_each_time_leaves_the_old_object(
    swift: SwiftServer, faulty: FaultyS3, prefix: str, large: Path, operation: str
) -> None:
    """Its sha256 is signed, and the server compares it."""
    bucket = store_of(faulty, swift, prefix, patience=HASTY._replace(total_seconds=0.5))
    old = bucket.put_bytes(KEY, b"old")
    if operation == "PutObject":
        large.write_bytes(b"new")
    faulty.faults = [Fault(operation, "flip_sent_bit", n_times=ALWAYS)]

    with pytest.raises(StoreUnavailable, match="400 XAmzContentSHA256Mismatch"):
        bucket.put_file(KEY, large)

    assert faulty.count(operation, kind="flip_sent_bit") >= 1
    assert bucket.head(KEY) == old
    assert bucket.get_bytes(KEY) == b"old"


def test_an_upload_altered_once_is_sent_again(
    bucket: S3Store, faulty: FaultyS3, large: Path
) -> None:
    faulty.faults = [Fault("UploadPart", "flip_sent_bit")]

    written = bucket.put_file(KEY, large)

    assert faulty.count("UploadPart") > 3
    assert bucket.verify(KEY) == written


def test_a_wrong_secret_is_refused_and_explained(
    faulty: FaultyS3, swift: SwiftServer, prefix: str
) -> None:
    store = store_of(faulty, swift, prefix, app_key=SecretStr("not-the-secret"))

    with pytest.raises(StoreError, match="B2_APP_KEY is not the secret") as caught:
        store.put_bytes(KEY, b"x")
    assert "not-the-secret" not in str(caught.value)
    assert len(faulty.requests) == 1
    unknown = store_of(faulty, swift, prefix, key_id="acidburn:nobody")
    with pytest.raises(StoreError, match="403"):
        unknown.put_bytes(KEY, b"x")


def test_a_cut_upload_and_lost_answers_leave_the_object_right(
    bucket: S3Store, faulty: FaultyS3, large: Path
) -> None:
    faulty.faults = [
        Fault("UploadPart", "cut_upload"),
        Fault("UploadPart", "lose_answer"),
        Fault("CompleteMultipartUpload", "lose_answer"),
        Fault("GetObject", "truncate"),
    ]

    written = bucket.put_file(KEY, large)

    assert bucket.verify(KEY) == written
    assert [fault.n_times for fault in faulty.faults] == [0, 0, 0, 0]


def test_neither_putting_nor_verifying_needs_the_whole_object_in_memory(
    bucket: S3Store, large: Path
) -> None:
    bucket.put_bytes("warm", b"x")
    bucket.verify("warm")
    before_bytes = psutil.Process().memory_info().rss

    for _ in range(3):
        bucket.put_file(KEY, large)
        bucket.verify(KEY)

    # the proxy is in this process too
    assert psutil.Process().memory_info().rss - before_bytes < 60 * MB


def test_a_service_without_lifecycle_rules_is_told_as_that(bucket: S3Store) -> None:
    report = prepare_bucket(bucket, keep_versions_days=7)

    assert not report.is_changed
    (refusal,) = report.refusals
    # its schema for rules is older than the operation, which it has not either
    assert "no rules of ours are set" in refusal
    assert "400 MalformedXML" in refusal
