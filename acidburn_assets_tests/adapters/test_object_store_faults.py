"""Each thing that a network or a busy B2 does to a request, and what is there afterwards.

Every test asserts the state: the object is whole and right, or the old one, or absent; how often
the store was asked; and what a person reads.
"""

import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tenacity
from botocore.exceptions import ClientError
from botocore.response import StreamingBody
from urllib3.exceptions import SSLError

from acidburn_assets.adapters.object_store import ObjectStore, read_table, s3_errors
from acidburn_assets.adapters.object_store.s3 import S3Store
from acidburn_assets.adapters.object_store.s3_connection import PATIENT, Patience
from acidburn_assets.core.errors import ObjectCorrupt, StoreError, StoreUnavailable
from acidburn_assets_tests.adapters.faulty_s3 import (
    ALWAYS,
    Fault,
    FaultyS3,
    Kind,
    cap_exceeded,
)
from acidburn_assets_tests.adapters.stores import (
    HASTY,
    KEY,
    SECRET,
    embeddings,
    s3_store,
    write_embeddings,
)
from acidburn_assets_tests.s3_server import BUCKET

MB = 1 << 20
BRIEF = HASTY._replace(total_seconds=0.3)

BEFORE: tuple[Kind, ...] = ("status", "reset", "cut_upload", "swallow")
"""Faults after which the server has nothing."""


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A file that goes up in two parts, no two megabytes of it alike."""
    path = tmp_path / "large"
    path.write_bytes(b"".join(bytes([index]) * MB for index in range(17)))
    return path


@pytest.fixture
def pending(raw_s3: Any, prefix: str) -> Callable[[], int]:
    """Counts uploads that were begun and never finished."""

    def count() -> int:
        listed = raw_s3.list_multipart_uploads(Bucket=BUCKET, Prefix=prefix)
        return len(listed.get("Uploads", ()))

    return count


# --- one request --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code"),
    [
        *((503, "SlowDown"), (500, "InternalError"), (429, "TooManyRequests")),
        *((408, "RequestTimeout"), (400, "RequestTimeout"), (400, "XAmzContentSHA256Mismatch")),
    ],
)
def test_a_burst_of_busy_answers_is_outlasted_by_every_operation(
    bucket: S3Store,
    faulty: FaultyS3,
    status: int,
    code: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    operations = ["PutObject", "GetObject", "ListObjectsV2", "DeleteObject"]
    if status != 400:  # an answer to HEAD has no code that would tell a 400 apart
        operations.append("HeadObject")
    faulty.faults = [
        Fault(operation, "status", n_times=3, status=status, code=code) for operation in operations
    ]

    bucket.put_bytes(KEY, b"content")
    assert bucket.get_bytes(KEY) == b"content"
    assert [found.key for found in bucket.list("")] == [KEY]
    bucket.delete(KEY)
    assert bucket.head(KEY) is None
    assert [faulty.count(operation, kind="status") for operation in operations] == (
        [3] * len(operations)
    )
    assert f"{status} {code} for '{KEY}'" in caplog.text


@pytest.mark.parametrize("kind", BEFORE)
def test_an_upload_that_did_not_arrive_is_sent_again(
    bucket: S3Store, faulty: FaultyS3, kind: Kind
) -> None:
    content = os.urandom(3 * MB)
    bucket.put_bytes(KEY, b"old")
    faulty.requests.clear()
    faulty.faults = [Fault("PutObject", kind, n_times=2)]

    info = bucket.put_bytes(KEY, content, metadata={"n": "1"})

    assert bucket.get_bytes(KEY) == content
    assert info.metadata == {"n": "1"}
    assert faulty.count("PutObject", kind=kind) == 2
    assert faulty.count("PutObject") == 3


@pytest.mark.parametrize("kind", BEFORE)
def test_an_upload_that_never_arrives_leaves_the_old_object(
    faulty: FaultyS3, prefix: str, kind: Kind
) -> None:
    store = s3_store(faulty.endpoint, prefix, patience=BRIEF)
    old = store.put_bytes(KEY, b"old")
    faulty.faults = [Fault("PutObject", kind, n_times=ALWAYS)]

    with pytest.raises(StoreUnavailable, match=KEY) as caught:
        store.put_bytes(KEY, os.urandom(3 * MB))

    faulty.faults = []
    assert store.head(KEY) == old
    assert store.get_bytes(KEY) == b"old"
    assert faulty.endpoint in str(caught.value)


def test_a_cut_upload_breaks_off_within_the_body(bucket: S3Store, faulty: FaultyS3) -> None:
    faulty.faults = [Fault("PutObject", "cut_upload", n_bytes=1 * MB)]

    bucket.put_bytes(KEY, bytes(4 * MB))

    cut, whole = (found for found in faulty.requests if found.operation == "PutObject")
    assert 1 * MB <= cut.n_received < 2 * MB
    assert (cut.status, whole.n_received, whole.status) == (0, 4 * MB, 200)


def test_an_upload_whose_answer_is_lost_is_not_sent_again(
    bucket: S3Store, faulty: FaultyS3
) -> None:
    faulty.faults = [Fault("PutObject", "lose_answer")]

    bucket.put_bytes(KEY, b"content")

    assert faulty.count("PutObject") == 1
    assert bucket.get_bytes(KEY) == b"content"


def test_answers_that_are_lost_of_whatever_operation_change_nothing(
    bucket: S3Store, faulty: FaultyS3
) -> None:
    operations = ["HeadObject", "GetObject", "ListObjectsV2", "DeleteObject"]
    faulty.faults = [Fault(operation, "lose_answer") for operation in operations]

    written = bucket.put_bytes(KEY, b"content")
    assert bucket.head(KEY) == written
    assert bucket.get_bytes(KEY) == b"content"
    assert [found.etag for found in bucket.list("")] == [written.etag]
    bucket.delete(KEY)
    assert bucket.head(KEY) is None
    assert [faulty.count(operation, kind="lose_answer") for operation in operations] == [1] * 4


def test_a_thin_line_is_not_taken_for_a_dead_one(faulty: FaultyS3, prefix: str) -> None:
    store = s3_store(faulty.endpoint, prefix, patience=HASTY._replace(silence_seconds=10))
    content = os.urandom(400_000)
    faulty.faults = [Fault("PutObject", "slow_upload", bytes_per_second=400_000)]

    started = time.monotonic()
    store.put_bytes(KEY, content)

    assert time.monotonic() - started >= 0.9
    assert faulty.count("PutObject") == 1
    assert store.get_bytes(KEY) == content


def test_an_upload_that_the_store_forgets_is_told_as_that(faulty: FaultyS3, prefix: str) -> None:
    store = s3_store(faulty.endpoint, prefix, patience=BRIEF)
    faulty.faults = [Fault("PutObject", "swallow", n_times=ALWAYS)]

    with pytest.raises(StoreUnavailable, match=f"{KEY}.*is not there"):
        store.put_bytes(KEY, b"content")


# --- reading ------------------------------------------------------------------------------------


READS: dict[str, Callable[[ObjectStore], Any]] = {
    "whole": lambda store: hashlib.sha256(store.get_bytes(KEY)).hexdigest(),
    "verified": lambda store: store.verify(KEY).sha256,
    "by column": lambda store: read_table(store, KEY, columns=["embedding"]),
    "listed": lambda store: [found.key for found in store.list("")],
}


@pytest.mark.parametrize("how", READS)
@pytest.mark.parametrize("kind", ["status", "reset", "truncate", "stall", "lose_answer"])
def test_a_body_that_does_not_come_whole_is_asked_for_again(
    faulty: FaultyS3, prefix: str, kind: Kind, how: str
) -> None:
    store = s3_store(faulty.endpoint, prefix, patience=HASTY._replace(silence_seconds=0.4))
    write_embeddings(store, embeddings(2_000), row_group_rows=1_000)
    expected = READS[how](store)
    operation = "ListObjectsV2" if how == "listed" else "GetObject"
    n_undisturbed = faulty.count(operation)
    faulty.requests.clear()
    faulty.faults = [Fault(operation, kind, n_times=2, seconds=0.8)]

    assert READS[how](store) == expected
    assert faulty.count(operation, kind=kind) == 2
    assert faulty.count(operation) == n_undisturbed + 2


@pytest.mark.parametrize("how", ["whole", "verified"])
def test_a_bit_flipped_on_the_way_is_not_an_object_gone_bad(
    bucket: S3Store, faulty: FaultyS3, how: str
) -> None:
    sha256 = bucket.put_bytes(KEY, b"content").sha256
    faulty.faults = [Fault("GetObject", "flip_bit")]

    assert READS[how](bucket) == sha256
    assert faulty.count("GetObject") == 2


@pytest.mark.parametrize("how", ["whole", "verified"])
def test_a_bit_that_is_flipped_each_time_is(bucket: S3Store, faulty: FaultyS3, how: str) -> None:
    bucket.put_bytes(KEY, b"content")
    faulty.faults = [Fault("GetObject", "flip_bit", n_times=2)]

    with pytest.raises(ObjectCorrupt, match=f"{KEY}.*was stored.*was read") as caught:
        READS[how](bucket)
    assert caught.value.key == KEY
    assert faulty.count("GetObject") == 2


def test_a_listing_that_is_no_xml_is_asked_for_again(bucket: S3Store, faulty: FaultyS3) -> None:
    """botocore's parser raises what is none of botocore's own errors."""
    bucket.put_bytes(KEY, b"content")
    faulty.faults = [Fault("ListObjectsV2", "flip_bit")]

    assert [found.key for found in bucket.list("")] == [KEY]
    assert faulty.count("ListObjectsV2", kind="flip_bit") == 1
    assert faulty.count("ListObjectsV2") == 2


def test_a_body_that_tls_finds_damaged_is_asked_for_again(
    bucket: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """botocore lets urllib3's own error pass where it comes in the midst of a body."""
    bucket.put_bytes(KEY, b"content")
    read = StreamingBody.read
    n_read = 0

    def damaged_first(body: StreamingBody, amt: int | None = None) -> bytes:
        nonlocal n_read
        n_read += 1
        if n_read == 1:
            raise SSLError("bad record mac")
        content: bytes = read(body, amt)
        return content

    monkeypatch.setattr(StreamingBody, "read", damaged_first)

    assert bucket.get_bytes(KEY) == b"content"
    assert n_read == 2


# --- uploads in parts ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "kind", "n_sent"),
    [
        ("CreateMultipartUpload", "status", 2),
        ("CreateMultipartUpload", "reset", 2),
        ("UploadPart", "status", 3),
        ("UploadPart", "reset", 3),
        ("UploadPart", "cut_upload", 3),
        ("UploadPart", "lose_answer", 3),
        ("CompleteMultipartUpload", "status", 2),
        ("CompleteMultipartUpload", "reset", 2),
        ("CompleteMultipartUpload", "lose_answer", 2),
    ],
)
def test_of_a_large_file_only_the_request_that_failed_is_sent_again(
    faulty: FaultyS3,
    prefix: str,
    large: Path,
    pending: Callable[[], int],
    operation: str,
    kind: Kind,
    n_sent: int,
) -> None:
    store = s3_store(faulty.endpoint, prefix, patience=HASTY._replace(n_attempts=3))
    faulty.faults = [Fault(operation, kind)]

    info = store.put_file(KEY, large, metadata={"n_rows": "5"})

    assert store.get_bytes(KEY) == large.read_bytes()
    assert info.metadata == {"n_rows": "5"}
    assert faulty.count(operation) == n_sent
    assert faulty.count("UploadPart") == (3 if operation == "UploadPart" else 2)
    assert pending() == 0


@pytest.mark.parametrize("kind", ["status", "cut_upload", "lose_answer"])
def test_a_large_file_one_of_whose_parts_is_given_up_is_sent_as_a_whole_again(
    faulty: FaultyS3, prefix: str, large: Path, pending: Callable[[], int], kind: Kind
) -> None:
    store = s3_store(faulty.endpoint, prefix)  # each request is tried once
    faulty.faults = [Fault("UploadPart", kind, query="partNumber=2")]

    store.put_file(KEY, large)

    assert store.get_bytes(KEY) == large.read_bytes()
    assert faulty.count("CreateMultipartUpload") == 2
    assert pending() == 0


def test_an_upload_begun_twice_leaves_one_for_the_lifecycle_rule(
    faulty: FaultyS3, prefix: str, large: Path, pending: Callable[[], int]
) -> None:
    """Nobody knows the id of an upload whose first answer was lost."""
    store = s3_store(faulty.endpoint, prefix, patience=HASTY._replace(n_attempts=3))
    faulty.faults = [Fault("CreateMultipartUpload", "lose_answer")]

    store.put_file(KEY, large)

    assert store.get_bytes(KEY) == large.read_bytes()
    assert pending() == 1


def test_a_large_file_whose_last_answer_is_lost_is_there(
    faulty: FaultyS3, prefix: str, large: Path
) -> None:
    """The second CompleteMultipartUpload is answered NoSuchUpload, though all is well."""
    store = s3_store(faulty.endpoint, prefix, patience=HASTY._replace(n_attempts=2))
    faulty.faults = [
        Fault("CompleteMultipartUpload", "lose_answer"),
        Fault("CompleteMultipartUpload", "status", status=404, code="NoSuchUpload"),
    ]

    store.put_file(KEY, large)

    assert faulty.count("UploadPart") == 2
    assert store.get_bytes(KEY) == large.read_bytes()


def test_a_large_upload_that_fails_leaves_nothing(
    faulty: FaultyS3, prefix: str, large: Path, pending: Callable[[], int]
) -> None:
    store = s3_store(faulty.endpoint, prefix, patience=BRIEF)
    faulty.faults = [Fault("UploadPart", "status", n_times=ALWAYS, query="partNumber=2")]

    with pytest.raises(StoreUnavailable, match=f"503 SlowDown.*{KEY}"):
        store.put_file(KEY, large)

    assert store.head(KEY) is None
    assert pending() == 0


def test_a_bad_day_ends_with_every_object_right(
    faulty: FaultyS3, prefix: str, tmp_path: Path
) -> None:
    """A fifth of all requests fail, each in its own way."""
    kinds: list[Kind] = ["status", "reset", "lose_answer", "truncate", "flip_bit", "cut_upload"]
    faulty.faults = [Fault("", kind, n_times=ALWAYS, probability=0.04) for kind in kinds]
    # a bit flipped in a listing or a header is nobody's to find
    faulty.faults[4].operation = "GetObject"
    store = s3_store(faulty.endpoint, prefix, patience=HASTY._replace(total_seconds=60))
    contents = {f"d/{index:03d}": os.urandom(20_000) for index in range(40)}

    for key, content in contents.items():
        store.put_bytes(key, content)

    assert {key: store.get_bytes(key) for key in contents} == contents
    assert [found.key for found in store.list("")] == sorted(contents)
    assert sum(bool(request.kind) for request in faulty.requests) > 10


# --- patience -----------------------------------------------------------------------------------


def test_patience_lasts_half_an_hour_by_default() -> None:
    assert PATIENT.total_seconds == 1_800
    assert PATIENT.longest_wait_seconds == 300


def waits_after(store: S3Store, n_failures: int, n: int) -> list[float]:
    """Waits that are drawn after so many failures."""
    state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
    state.attempt_number = n_failures
    return [store.connection._wait_seconds(state) for _ in range(n)]


@pytest.mark.parametrize(
    ("n_failures", "limit"), [(1, 1), (5, 16), (9, 256), (10, 300), (5_000, 300)]
)
def test_waits_are_spread_over_all_of_a_growing_limit(
    prefix: str, n_failures: int, limit: float
) -> None:
    store = s3_store("http://127.0.0.1:9", prefix, patience=PATIENT)

    waits = waits_after(store, n_failures, 2_000)

    assert max(waits) <= limit
    assert max(waits) > 0.9 * limit
    assert min(waits) < 0.1 * limit
    assert sum(waits) / len(waits) == pytest.approx(limit / 2, rel=0.1)


@pytest.mark.parametrize("n_attempts", [1, 4])
def test_retry_after_is_honoured_by_botocore_and_by_us(
    faulty: FaultyS3, prefix: str, n_attempts: int
) -> None:
    patience = Patience(
        total_seconds=30, first_wait_seconds=0.001, longest_wait_seconds=2, n_attempts=n_attempts
    )
    store = s3_store(faulty.endpoint, prefix, patience=patience)
    faulty.faults = [Fault("PutObject", "status", retry_after="1")]

    started = time.monotonic()
    store.put_bytes(KEY, b"x")

    assert time.monotonic() - started >= 1


def test_who_is_asked_to_come_back_too_late_does_not_wait(faulty: FaultyS3, prefix: str) -> None:
    store = s3_store(faulty.endpoint, prefix, patience=HASTY._replace(total_seconds=60))
    faulty.faults = [Fault("GetObject", "status", n_times=ALWAYS, retry_after="3600")]

    started = time.monotonic()
    with pytest.raises(StoreUnavailable, match="503 SlowDown"):
        store.get_bytes(KEY)

    assert time.monotonic() - started < 10
    assert faulty.count("GetObject") == 1


def test_a_store_that_stays_away_is_given_up_in_time(faulty: FaultyS3, prefix: str) -> None:
    patience = Patience(
        total_seconds=1, first_wait_seconds=0.05, longest_wait_seconds=0.1, n_attempts=1
    )
    store = s3_store(faulty.endpoint, prefix, patience=patience)
    faulty.faults = [Fault("GetObject", "status", n_times=ALWAYS)]

    started = time.monotonic()
    with pytest.raises(StoreUnavailable, match="503 SlowDown"):
        store.get_bytes(KEY)

    assert 0.5 < time.monotonic() - started < 10
    assert faulty.count("GetObject") > 3


def test_a_call_longer_than_all_patience_gets_a_second_try(prefix: str) -> None:
    """An upload over a thin line once failed for good where it took longer than the patience."""
    store = s3_store("http://127.0.0.1:9", prefix, patience=HASTY._replace(total_seconds=0.2))
    outcomes: Iterator[str] = iter(["busy", "done"])

    def long_call() -> str:
        time.sleep(0.3)
        outcome = next(outcomes)
        if outcome == "busy":
            answer = {"Error": {"Code": "SlowDown"}, "ResponseMetadata": {"HTTPStatusCode": 503}}
            raise ClientError(answer, "UploadPart")
        return outcome

    assert store.connection.patiently(KEY, long_call) == "done"


def test_every_wait_is_logged_with_its_reason(
    bucket: S3Store, faulty: FaultyS3, caplog: pytest.LogCaptureFixture
) -> None:
    faulty.faults = [Fault("PutObject", "reset", n_times=2)]

    with caplog.at_level(logging.WARNING):
        bucket.put_bytes(KEY, b"x")

    told = [record.message for record in caplog.records if "trying again in" in record.message]
    assert len(told) == 2
    assert all(faulty.endpoint in line and KEY in line for line in told)


@pytest.mark.parametrize(
    ("header", "expected"), [(None, 0), ("", 0), ("7", 7), ("soon", 0), ("-1", 0)]
)
def test_retry_after_is_read_as_seconds(header: str | None, expected: float) -> None:
    assert s3_errors.parse_retry_after(header) == expected


# --- refusals -----------------------------------------------------------------------------------


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
        "PutObject": lambda: bucket.put_bytes(KEY, b"x"),
        "GetObject": lambda: bucket.get_bytes(KEY),
        "ListObjectsV2": lambda: list(bucket.list("")),
        "DeleteObject": lambda: bucket.delete(KEY),
    }
    for operation, call in calls.items():
        faulty.reset()
        faulty.faults = [Fault(operation, "status", 9, status=status, code=code, message=message)]
        with pytest.raises(StoreError, match=expected) as caught:
            call()
        assert faulty.endpoint in str(caught.value)
        assert SECRET not in str(caught.value)
        assert len(faulty.requests) == 1


def test_a_refused_head_says_why_though_its_answer_has_no_body(
    bucket: S3Store, faulty: FaultyS3
) -> None:
    refused = {"status": 403, "code": "InvalidAccessKeyId"}
    faulty.faults = [
        Fault("HeadObject", "status", **refused),  # type: ignore[arg-type]  # both are known
        Fault("ListObjectsV2", "status", **refused),  # type: ignore[arg-type]
    ]

    with pytest.raises(StoreError, match="endpoint's region"):
        bucket.head(KEY)

    faulty.faults = [Fault("HeadObject", "status", status=403, code="AccessDenied")]
    with pytest.raises(StoreError, match="data caps"):
        bucket.head(KEY)


def test_a_reached_cap_ends_a_large_upload_at_once_and_leaves_nothing(
    faulty: FaultyS3, prefix: str, large: Path, pending: Callable[[], int]
) -> None:
    store = s3_store(faulty.endpoint, prefix, patience=HASTY._replace(n_attempts=3))
    store.put_bytes(KEY, b"old")
    faulty.faults = [cap_exceeded("UploadPart")]

    with pytest.raises(StoreError, match=r"403 AccessDenied.*storage cap exceeded.*Caps & Alerts"):
        store.put_file(KEY, large)

    assert faulty.count("UploadPart") <= 2  # both parts were on their way
    assert faulty.count("CreateMultipartUpload") == 1
    assert store.get_bytes(KEY) == b"old"
    assert pending() == 0


def test_a_bucket_of_another_region_is_explained(bucket: S3Store, faulty: FaultyS3) -> None:
    """B2 answers as if the key were wrong."""
    faulty.region = "eu-central-003"

    with pytest.raises(StoreError, match=r"endpoint's region is not the bucket's.*only then"):
        bucket.put_bytes(KEY, b"x")
    assert len(faulty.requests) == 1
