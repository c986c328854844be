"""A bucket's own rules, through a proxy that takes only what B2 takes."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from acidburn_assets.adapters.object_store.file import FileStore
from acidburn_assets.adapters.object_store.lifecycle import (
    BOX_KEY_SECONDS,
    BucketReport,
    box_key_command,
    prepare_bucket,
)
from acidburn_assets.adapters.object_store.lifecycle_rules import (
    Rule,
    b2_command,
    describe,
    merge,
    wanted_rules,
)
from acidburn_assets.adapters.object_store.s3 import S3Store
from acidburn_assets.core.errors import ConfigError, StoreError
from acidburn_assets_tests.adapters.faulty_s3 import ALWAYS, Fault, FaultyS3
from acidburn_assets_tests.adapters.stores import HASTY, SECRET
from acidburn_assets_tests.s3_server import S3Key

OURS = [
    "below 'corpus/': replaced versions go after 7 days",
    "below 'corpus/': unfinished uploads go after 1 day",
    "below 'corpus/_parts/': objects go after 7 days",
    "below 'corpus/_parts/': marks of deleted objects go with the last version",
    "below 'corpus/_parts/': replaced versions go after 1 day",
]
PUT = "PutBucketLifecycleConfiguration"


@pytest.fixture
def new_bucket(raw_s3: Any, prefix: str) -> Iterator[str]:
    """The name of a bucket that is not there yet."""
    name = f"bucket-{prefix.removeprefix('t/')}"
    yield name
    if name in {found["Name"] for found in raw_s3.list_buckets()["Buckets"]}:
        raw_s3.delete_bucket(Bucket=name)


@pytest.fixture
def new_store(faulty: FaultyS3, new_bucket: str) -> S3Store:
    return bucket_store(faulty.endpoint, new_bucket)


@pytest.fixture
def made_store(new_store: S3Store, new_bucket: str, raw_s3: Any) -> S3Store:
    """A store whose bucket is there, without rules."""
    raw_s3.create_bucket(Bucket=new_bucket)
    return new_store


def bucket_store(endpoint: str, bucket: str, prefix: str = "corpus", **options: Any) -> S3Store:
    defaults: dict[str, Any] = {
        "endpoint": endpoint,
        "key_id": "any",
        "app_key": SecretStr(SECRET),
        "patience": HASTY,
    }
    return S3Store(bucket, prefix, **(defaults | options))


def stored_rules(raw_s3: Any, bucket: str) -> list[Rule]:
    """Rules as the server has them."""
    answer = raw_s3.get_bucket_lifecycle_configuration(Bucket=bucket)
    return list(answer["Rules"])


def prepare(store: S3Store, **options: Any) -> BucketReport:
    return prepare_bucket(store, **({"keep_versions_days": 7} | options))


def theirs(prefix: str = "other/", days: int = 90, **deed: Any) -> Rule:
    """A rule that somebody else set."""
    return {
        "ID": "theirs",
        "Status": "Enabled",
        "Filter": {"Prefix": prefix},
        **(deed or {"NoncurrentVersionExpiration": {"NoncurrentDays": days}}),
    }


def set_rules(raw_s3: Any, bucket: str, *rules: Rule) -> None:
    raw_s3.put_bucket_lifecycle_configuration(
        Bucket=bucket, LifecycleConfiguration={"Rules": list(rules)}
    )


# --- setting ------------------------------------------------------------------------------------


def test_a_bucket_is_made_and_gets_its_rules(
    new_store: S3Store, new_bucket: str, raw_s3: Any
) -> None:
    report = prepare(new_store)

    assert (report.is_created, report.is_changed, report.refusals) == (True, True, ())
    assert sorted(report.rules) == sorted(OURS)
    assert sorted(describe(rule) for rule in stored_rules(raw_s3, new_bucket)) == sorted(OURS)
    assert new_store.put_bytes("d/x", b"x").n_bytes == 1
    new_store.delete("d/x")


def test_a_second_run_changes_nothing(made_store: S3Store, faulty: FaultyS3) -> None:
    first = prepare(made_store)
    faulty.requests.clear()

    second = prepare(made_store)

    assert second == first._replace(is_created=False, is_changed=False)
    assert faulty.count(PUT) == 0


def test_other_days_replace_our_own_rule_only(
    made_store: S3Store, new_bucket: str, raw_s3: Any
) -> None:
    prepare(made_store)

    report = prepare(made_store, keep_versions_days=30)

    assert report.refusals == ()
    found = {describe(rule) for rule in stored_rules(raw_s3, new_bucket)}
    assert found == {OURS[0].replace("7 days", "30 days"), *OURS[1:]}
    assert len(stored_rules(raw_s3, new_bucket)) == len(OURS)


def test_rules_of_others_are_kept(made_store: S3Store, new_bucket: str, raw_s3: Any) -> None:
    set_rules(raw_s3, new_bucket, theirs())

    report = prepare(made_store)

    assert report.refusals == ()
    found = stored_rules(raw_s3, new_bucket)
    assert [rule for rule in found if rule["ID"] == "theirs"] == [theirs()]
    assert len(found) == 1 + len(OURS)


def test_two_stores_in_one_bucket_keep_each_others_rules(
    made_store: S3Store, new_bucket: str, faulty: FaultyS3, raw_s3: Any
) -> None:
    prepare(made_store)

    report = prepare(bucket_store(faulty.endpoint, new_bucket, "second"))

    assert report.refusals == ()
    assert len(stored_rules(raw_s3, new_bucket)) == 2 * len(OURS)


def test_a_dry_run_only_looks(
    new_store: S3Store, new_bucket: str, faulty: FaultyS3, raw_s3: Any
) -> None:
    planned = prepare(new_store, is_dry_run=True)

    assert (planned.is_created, planned.is_changed) == (True, True)
    assert list(planned.rules) == OURS
    assert {request.method for request in faulty.requests} == {"GET"}
    assert new_bucket not in {found["Name"] for found in raw_s3.list_buckets()["Buckets"]}
    assert sorted(prepare(new_store).rules) == sorted(planned.rules)


def test_busy_answers_and_lost_ones_are_outlasted(new_store: S3Store, faulty: FaultyS3) -> None:
    faulty.faults = [
        Fault("CreateBucket", "lose_answer"),
        Fault("CreateBucket", "status", status=409, code="BucketAlreadyOwnedByYou"),
        Fault("GetBucketLifecycleConfiguration", "status"),
        Fault(PUT, "lose_answer"),
    ]

    report = prepare(new_store)

    assert report.refusals == ()
    assert sorted(report.rules) == sorted(OURS)
    assert [fault.n_times for fault in faulty.faults] == [0, 0, 0, 0]


def test_a_folder_has_nothing_to_set(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no bucket"):
        prepare_bucket(FileStore(tmp_path), keep_versions_days=7)


# --- refusals -----------------------------------------------------------------------------------


def test_where_prefixes_may_not_overlap_all_but_the_parts_are_set(
    made_store: S3Store, new_bucket: str, faulty: FaultyS3, raw_s3: Any
) -> None:
    faulty.is_overlap_refused = True
    set_rules(raw_s3, new_bucket, theirs())

    report = prepare(made_store)

    assert sorted(report.rules) == sorted([*OURS[:2], describe(theirs())])
    (refusal,) = report.refusals
    assert "no rules for 'corpus/_parts/'" in refusal
    assert "overlap" in refusal
    again = prepare(made_store)
    assert again == report._replace(is_changed=False)


def test_a_service_without_lifecycle_rules_is_told_as_that(
    made_store: S3Store, faulty: FaultyS3
) -> None:
    faulty.faults = [Fault(PUT, "status", n_times=ALWAYS, status=501, code="NotImplemented")]

    report = prepare(made_store)

    (refusal,) = report.refusals
    assert "no rules of ours are set" in refusal
    assert "501 NotImplemented" in refusal
    assert (report.rules, report.is_changed) == ((), False)


def test_rules_that_were_accepted_but_are_not_there_are_missed(
    made_store: S3Store, faulty: FaultyS3
) -> None:
    faulty.faults = [Fault(PUT, "swallow")]

    report = prepare(made_store)

    (refusal,) = report.refusals
    assert refusal.startswith("accepted, but not shown afterwards: below 'corpus/'")


def test_a_rule_of_others_for_the_same_is_kept_and_told(
    made_store: S3Store, new_bucket: str, raw_s3: Any
) -> None:
    set_rules(raw_s3, new_bucket, theirs("corpus/", days=90))

    report = prepare(made_store)

    (refusal,) = report.refusals
    assert "wanted, but not set: below 'corpus/': replaced versions go after 7 days" in refusal
    assert "'theirs'" in refusal
    assert "90 days" in refusal
    assert len(stored_rules(raw_s3, new_bucket)) == len(OURS)


def test_an_equal_rule_of_whatever_id_is_enough(
    made_store: S3Store, new_bucket: str, raw_s3: Any
) -> None:
    """B2 keeps rules by prefix; nothing says that it keeps their IDs."""
    prepare(made_store)
    renamed = [
        {**rule, "ID": f"given-by-the-service-{index}"}
        for index, rule in enumerate(stored_rules(raw_s3, new_bucket))
    ]
    set_rules(raw_s3, new_bucket, *renamed)

    report = prepare(made_store)

    assert (report.refusals, report.is_changed) == ((), False)
    assert stored_rules(raw_s3, new_bucket) == renamed


def test_a_bucket_that_cannot_be_made_says_how_it_can(
    new_store: S3Store, new_bucket: str, faulty: FaultyS3
) -> None:
    faulty.faults = [
        Fault("CreateBucket", "status", status=403, code="AccessDenied", message="not entitled")
    ]
    with pytest.raises(StoreError, match=f"b2 bucket create {new_bucket} allPrivate"):
        prepare(new_store)

    faulty.faults = [
        Fault("CreateBucket", "status", status=409, code="BucketAlreadyExists", message="taken")
    ]
    with pytest.raises(StoreError, match=r"409 BucketAlreadyExists.*shared by all customers"):
        prepare(new_store)


def test_a_key_that_may_not_look_at_rules_is_told_and_sets_none(
    made_store: S3Store, new_bucket: str, faulty: FaultyS3, limited_key: S3Key, raw_s3: Any
) -> None:
    """The server itself checks the key's rights here, through the proxy."""
    store = bucket_store(
        faulty.endpoint,
        new_bucket,
        key_id=limited_key.key_id,
        app_key=SecretStr(limited_key.secret),
    )

    report = prepare(store)

    (refusal,) = report.refusals
    assert "the rules cannot be read, so none are set" in refusal
    assert "403" in refusal
    assert f"b2 bucket get {new_bucket}" in refusal
    assert limited_key.secret not in str(report)
    assert faulty.count(PUT) == 0


# --- words and commands -------------------------------------------------------------------------


def test_the_line_for_b2s_own_tool_sets_the_same_rules() -> None:
    words = shlex.split(b2_command("my-bucket", wanted_rules("c d/", keep_versions_days=7)))

    assert words[:3] == ["b2", "bucket", "update"]
    assert words[-1] == "my-bucket"
    assert words[3:-1:2] == ["--lifecycle-rule"] * 2
    assert [json.loads(rule) for rule in words[4:-1:2]] == [
        {
            "fileNamePrefix": "c d/",
            "daysFromHidingToDeleting": 7,
            "daysFromStartingToCancelingUnfinishedLargeFiles": 1,
        },
        {
            "fileNamePrefix": "c d/_parts/",
            "daysFromUploadingToHiding": 7,
            "daysFromHidingToDeleting": 1,
        },
    ]


def test_a_boxs_key_opens_only_the_prefix_and_ends() -> None:
    words = shlex.split(box_key_command("my-bucket", "corpus/"))

    assert words == [
        *("b2", "key", "create", "--bucket", "my-bucket", "--name-prefix", "corpus/"),
        *("--duration", str(BOX_KEY_SECONDS), "acidburn-box"),
        "listAllBucketNames,listFiles,readFiles,writeFiles",
    ]
    assert "--name-prefix" not in box_key_command("my-bucket", "")


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (theirs("", Expiration={"Days": 1}), "everywhere: objects go after 1 day"),
        (
            {"ID": "x", "Status": "Disabled", "Prefix": "a/", "Expiration": {"Days": 2}},
            "below 'a/': objects go after 2 days (switched off)",
        ),
        (
            theirs("a/", Transitions=[{"Days": 1, "StorageClass": "GLACIER"}]),
            "below 'a/': Transitions [{'Days': 1, 'StorageClass': 'GLACIER'}]",
        ),
    ],
)
def test_rules_are_told_in_words(rule: Rule, expected: str) -> None:
    assert describe(rule) == expected


def test_a_rule_that_is_switched_off_is_no_rule() -> None:
    off = {**theirs("corpus/", days=90), "Status": "Disabled"}

    planned, conflicts = merge([off], wanted_rules("corpus/", keep_versions_days=7))

    assert conflicts == []
    assert planned[0] == off
    assert len(planned) == 1 + len(OURS)


def test_a_rule_that_does_several_things_stands_for_each() -> None:
    both = theirs(
        "corpus/",
        NoncurrentVersionExpiration={"NoncurrentDays": 7},
        AbortIncompleteMultipartUpload={"DaysAfterInitiation": 3},
    )

    planned, conflicts = merge([both], wanted_rules("corpus/", keep_versions_days=7))

    assert len(planned) == 1 + len(OURS) - 2
    (conflict,) = conflicts
    assert "unfinished uploads go after 1 day" in conflict


def test_ids_are_short_and_differ_by_prefix() -> None:
    def ids(prefix: str) -> set[str]:
        return {rule["ID"] for rule in wanted_rules(prefix, keep_versions_days=7)}

    assert len(ids("a/") | ids("b/")) == 2 * len(OURS)
    assert max(map(len, ids("x" * 900 + "/"))) <= 255
