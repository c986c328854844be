"""`acidburn bucket init`: what a person sees, and what a bucket has afterwards."""

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest

from acidburn_assets_tests.adapters import faulty_s3
from acidburn_assets_tests.adapters.faulty_s3 import ALWAYS, Fault, FaultyS3
from acidburn_assets_tests.s3_server import S3Key
from acidburn_assets_tests.worlds import acidburn

BUCKET = "acidburn-init-test"
SECRET = "do-not-show-me"


@pytest.fixture
def s3(moto_endpoint: str) -> Iterator[Any]:
    """A plain client; the bucket is not there before, nor afterwards."""
    client = boto3.client(
        "s3",
        endpoint_url=moto_endpoint,
        region_name="us-east-1",
        aws_access_key_id="any",
        aws_secret_access_key="any",
    )
    yield client
    if BUCKET in names(client):
        client.delete_bucket(Bucket=BUCKET)


@pytest.fixture
def proxy(moto_endpoint: str, s3: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    """As strict as B2; the settings name a store behind it."""
    with faulty_s3.running(moto_endpoint) as server:
        monkeypatch.setenv("B2_ENDPOINT", server.endpoint)
        monkeypatch.setenv("B2_KEY_ID", "any")
        monkeypatch.setenv("B2_APP_KEY", SECRET)
        monkeypatch.setenv("ACIDBURN_STORE", f"s3://{BUCKET}/corpus")
        yield server


def names(client: Any) -> set[str]:
    return {found["Name"] for found in client.list_buckets()["Buckets"]}


def test_a_folder_has_nothing_to_set() -> None:
    finished = acidburn("bucket", "init")
    assert (finished.code, finished.err) == (0, "")
    assert "there is nothing to set" in finished.out

    as_json = json.loads(acidburn("bucket", "init", "--json").out)
    assert as_json["url"].startswith("file:///")
    assert "nothing to set" in as_json["remark"]


def test_a_person_sees_the_rules_and_how_to_make_a_boxs_key(proxy: FaultyS3, s3: Any) -> None:
    finished = acidburn("bucket", "init", "--keep-versions-days", "14")

    assert (finished.code, finished.err) == (0, "")
    assert f"bucket {BUCKET}: made" in finished.out
    assert "below 'corpus/': replaced versions go after 14 days" in finished.out
    assert f"b2 key create --bucket {BUCKET} --name-prefix corpus/ --duration 86400" in finished.out
    assert "It cannot delete a version" in finished.out
    assert "brought back for 14 days" in finished.out
    assert "b2 bucket update" not in finished.out
    assert SECRET not in finished.out
    assert len(s3.get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"]) == 5

    again = acidburn("bucket", "init", "--keep-versions-days", "14")
    assert f"bucket {BUCKET}: is there\nlifecycle rules: nothing to change" in again.out


def test_a_dry_run_says_what_would_be_done_and_does_nothing(proxy: FaultyS3, s3: Any) -> None:
    finished = acidburn("bucket", "init", "--dry-run")

    assert finished.code == 0
    assert f"bucket {BUCKET}: would be made\nlifecycle rules: would be set" in finished.out
    assert "replaced versions go after 7 days" in finished.out
    assert BUCKET not in names(s3)


def test_json_holds_what_a_program_needs(proxy: FaultyS3, s3: Any) -> None:
    outcome = json.loads(acidburn("bucket", "init", "--json").out)

    assert (outcome["bucket"], outcome["prefix"]) == (BUCKET, "corpus/")
    assert (outcome["is_created"], outcome["is_changed"], outcome["refusals"]) == (True, True, [])
    assert len(outcome["rules"]) == 5
    assert outcome["b2_command"].startswith("b2 bucket update --lifecycle-rule")
    assert outcome["box_key_command"].startswith("b2 key create")


def test_a_refusal_is_shown_with_the_line_that_sets_the_rules(proxy: FaultyS3, s3: Any) -> None:
    refused = Fault("PutBucketLifecycleConfiguration", "status", ALWAYS, status=501, code="None")
    proxy.faults = [refused]

    finished = acidburn("bucket", "init")

    assert finished.code == 1
    assert finished.err == f"Error: the bucket '{BUCKET}' is not as it should be\n"
    assert "no rules of ours are set" in finished.out
    assert '"daysFromHidingToDeleting": 7' in finished.out
    outcome = acidburn("bucket", "init", "--json")
    assert outcome.code == 1
    assert len(json.loads(outcome.out)["refusals"]) == 1


def test_a_key_that_may_not_is_told_and_never_shown(
    proxy: FaultyS3, s3: Any, limited_key: S3Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server itself checks the key's rights here; the key may use objects only."""
    monkeypatch.setenv("B2_KEY_ID", limited_key.key_id)
    monkeypatch.setenv("B2_APP_KEY", limited_key.secret)

    finished = acidburn("bucket", "init")

    assert finished.code == 1
    assert f"there is no bucket '{BUCKET}', and it cannot be made" in finished.err
    assert "b2 bucket create" in finished.err
    assert limited_key.secret not in finished.out + finished.err


def test_zero_days_are_wrong_usage() -> None:
    finished = acidburn("bucket", "init", "--keep-versions-days", "0")
    assert finished.code == 2
