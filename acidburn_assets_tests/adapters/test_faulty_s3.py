"""The stand-in itself: refuses what B2 refuses, fails as it is told, and is small in memory."""

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from acidburn_assets_tests.adapters import faulty_s3
from acidburn_assets_tests.adapters.b2_rules import bad_lifecycle, operation_of
from acidburn_assets_tests.adapters.faulty_s3 import ALWAYS, Fault, FaultyS3
from acidburn_assets_tests.s3_server import BUCKET


def plain_client(endpoint: str, **options: Any) -> Any:
    """boto3 as it is, or with some of its options; each request is tried once."""
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="any",
        aws_secret_access_key="any",
        config=Config(retries={"total_max_attempts": 1}, **options),
    )


def careful_client(endpoint: str) -> Any:
    """boto3 that sends no checksum headers and signs payloads."""
    return plain_client(
        endpoint,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path", "payload_signing_enabled": True},
    )


@pytest.mark.parametrize(
    ("method", "target", "operation"),
    [
        ("PUT", "/b/k", "PutObject"),
        ("PUT", "/b/k?partNumber=2&uploadId=x", "UploadPart"),
        ("POST", "/b/k?uploads", "CreateMultipartUpload"),
        ("POST", "/b/k?uploadId=x", "CompleteMultipartUpload"),
        ("DELETE", "/b/k?uploadId=x", "AbortMultipartUpload"),
        ("DELETE", "/b/k", "DeleteObject"),
        ("GET", "/b/d/k?x-id=GetObject", "GetObject"),
        ("HEAD", "/b/k", "HeadObject"),
        ("GET", "/b?list-type=2&prefix=p", "ListObjectsV2"),
        ("GET", "/b/?lifecycle", "GetBucketLifecycleConfiguration"),
        ("PUT", "/b", "CreateBucket"),
        ("PUT", "/b/k?tagging", "PUT tagging"),
        ("GET", "/", "ListBuckets"),
    ],
)
def test_operations_are_told_apart(method: str, target: str, operation: str) -> None:
    path, _, query = target.partition("?")
    assert operation_of(method, path, query) == operation


@pytest.mark.parametrize(
    ("code", "call"),
    [
        (
            "NotImplemented",
            lambda s3: s3.put_object(Bucket=BUCKET, Key="k", Body=b"x", IfNoneMatch="*"),
        ),
        (
            "InvalidArgument",
            lambda s3: s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": "k"}]}),
        ),
        (
            "NotImplemented",
            lambda s3: s3.get_object_tagging(Bucket=BUCKET, Key="k"),
        ),
        (
            "InvalidArgument",
            lambda s3: s3.put_object(Bucket=BUCKET, Key="k", Body=b"x", Tagging="a=b"),
        ),
        (
            "InvalidArgument",
            lambda s3: s3.put_object(Bucket=BUCKET, Key="k", Body=b"x", ACL="public-read"),
        ),
        (
            "InvalidArgument",
            lambda s3: s3.put_object(
                Bucket=BUCKET, Key="k", Body=b"x", ServerSideEncryption="aws:kms"
            ),
        ),
        (
            "InvalidStorageClass",
            lambda s3: s3.put_object(Bucket=BUCKET, Key="k", Body=b"x", StorageClass="GLACIER"),
        ),
        (
            "KeyTooLongError",
            lambda s3: s3.put_object(Bucket=BUCKET, Key="k" * 1_025, Body=b"x"),
        ),
    ],
)
def test_what_b2_refuses_is_refused(
    faulty: FaultyS3, code: str, call: Callable[[Any], Any]
) -> None:
    with pytest.raises(ClientError) as caught:
        call(careful_client(faulty.endpoint))
    assert caught.value.response["Error"]["Code"] == code


@pytest.mark.parametrize(
    "options",
    [
        {"request_checksum_calculation": "when_supported"},
        {
            "request_checksum_calculation": "when_required",
            "s3": {"payload_signing_enabled": False},
            "signature_version": UNSIGNED,
        },
    ],
)
def test_checksum_headers_and_unsigned_requests_are_refused(
    faulty: FaultyS3, options: dict[str, Any]
) -> None:
    with pytest.raises(ClientError) as caught:
        plain_client(faulty.endpoint, **options).put_object(Bucket=BUCKET, Key="k", Body=b"x")
    assert caught.value.response["Error"]["Code"] in ("InvalidArgument", "AccessDenied")


def rules(*bodies: str) -> bytes:
    """A lifecycle configuration of such rules, each enabled."""
    inner = "".join(f"<Rule><Status>Enabled</Status>{body}</Rule>" for body in bodies)
    return f'<LifecycleConfiguration xmlns="urn:x">{inner}</LifecycleConfiguration>'.encode()


def below(prefix: str) -> str:
    return f"<Filter><Prefix>{prefix}</Prefix></Filter>"


OLD = (
    "<NoncurrentVersionExpiration><NoncurrentDays>7</NoncurrentDays></NoncurrentVersionExpiration>"
)
GONE = "<Expiration><Days>7</Days></Expiration>"
MARKS = "<Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (rules(below("") + OLD), None),
        (rules(below("a/") + GONE, below("a/") + MARKS), None),
        (rules(below("a/") + GONE), "not a pair"),
        (rules(below("a/") + GONE, below("b/") + MARKS), "not a pair"),
        (rules(below("") + "<Transition><Days>1</Days></Transition>"), "Transition"),
        (rules("<Filter><Tag><Key>a</Key></Tag></Filter>" + OLD), "Tag"),
        (rules("<Prefix>a</Prefix>" + OLD), "Prefix"),
        (rules(below("") + OLD).replace(b"Enabled", b"Disabled"), "Status Disabled"),
        (rules(below("") + MARKS.replace("true", "false")), "Marker false"),
        (rules(below("") + OLD, below("a/") + OLD), "overlap"),
        (rules(below("a/") + OLD, below("b/") + OLD), None),
    ],
)
def test_lifecycle_rules_that_b2_has_not_are_refused(body: bytes, expected: str | None) -> None:
    refused = bad_lifecycle(body, is_overlap_refused=True)

    if expected is None:
        assert refused is None
    else:
        assert refused is not None
        assert (refused[:2], expected in refused[2]) == ((400, "NotSupported"), True)


def test_faults_hit_by_operation_key_and_turn(faulty: FaultyS3) -> None:
    s3 = careful_client(faulty.endpoint)
    faulty.faults = [Fault("PutObject", "status", n_times=2, after=1, key="chosen")]
    statuses = []
    for key in ("t/chosen", "t/other", "t/chosen", "t/chosen", "t/chosen"):
        try:
            s3.put_object(Bucket=BUCKET, Key=key, Body=b"x")
            statuses.append(200)
        except ClientError as error:
            statuses.append(error.response["ResponseMetadata"]["HTTPStatusCode"])

    assert statuses == [200, 200, 503, 503, 200]
    assert [request.status for request in faulty.requests] == statuses


def test_chance_repeats_itself_with_the_same_seed(moto_endpoint: str) -> None:
    def outcome(seed: int) -> list[str]:
        with faulty_s3.running(moto_endpoint, seed=seed) as proxy:
            proxy.faults = [Fault("HeadBucket", "status", n_times=ALWAYS, probability=0.5)]
            s3 = careful_client(proxy.endpoint)
            for _ in range(24):
                try:
                    s3.head_bucket(Bucket=BUCKET)
                except ClientError:
                    continue
            return [request.kind for request in proxy.requests]

    first = outcome(7)

    assert outcome(7) == first
    assert outcome(8) != first
    assert 4 < first.count("status") < 20


def test_bodies_pass_a_block_at_a_time(faulty: FaultyS3, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(1 << 20) * 24)
    s3 = careful_client(faulty.endpoint)

    tracemalloc.start()
    try:
        with source.open("rb") as file:
            s3.put_object(Bucket=BUCKET, Key="t/stream", Body=file)
        with target.open("wb") as file:
            for block in s3.get_object(Bucket=BUCKET, Key="t/stream")["Body"].iter_chunks(1 << 16):
                file.write(block)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert target.read_bytes() == source.read_bytes()
    assert peak_bytes < 6 << 20
    passed = {request.operation: request for request in faulty.requests}
    assert passed["PutObject"].n_received == passed["GetObject"].n_sent == 24 << 20
