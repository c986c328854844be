"""What a bucket does by itself: forget replaced versions, unfinished uploads and parts of work.

B2 keeps every version of a key and every part of an upload that was cut off, and bills them, until
a lifecycle rule removes them; millions of versions of one key end in refused uploads. Objects are
`s3`'s; here is the bucket itself, and the key that a rented machine gets.

What the rules are is `lifecycle_rules`'.
"""

import shlex
from collections.abc import Sequence
from typing import NamedTuple

from botocore.exceptions import ClientError

from acidburn_assets.adapters.object_store import s3_errors
from acidburn_assets.adapters.object_store.contract import ObjectStore
from acidburn_assets.adapters.object_store.lifecycle_rules import (
    Rule,
    b2_command,
    describe,
    merge,
    names_of,
    prefix_of,
    signatures,
    wanted_rules,
)
from acidburn_assets.adapters.object_store.s3 import S3Store
from acidburn_assets.core.errors import ConfigError, StoreError
from acidburn_assets.core.keys import PARTS_FOLDER

BOX_KEY_SECONDS = 24 * 3600
"""Life of a rented machine's key. Chosen, not measured: longer than a rental should last."""

BOX_CAPABILITIES = "listAllBucketNames,listFiles,readFiles,writeFiles"
"""Without deleteFiles: what the key replaces or hides stays as a version. Source:
backblaze.com/docs/cloud-storage-s3-compatible-app-keys (S3 clients need listAllBucketNames),
docs/cloud-storage-application-key-capabilities."""

NOT_SUPPORTED = (400, 501)
"""Statuses for what a service does not have, unlike 403 for what a key may not do."""


class BucketReport(NamedTuple):
    """What a bucket does by itself now, and what it refused to."""

    bucket: str
    prefix: str  # of the store, with a slash at its end, or ""
    is_created: bool  # by this call; or would have been
    is_changed: bool  # its rules were, by this call; or would have been
    rules: tuple[str, ...]  # in words, as read back; as planned where nothing was done
    refusals: tuple[str, ...]  # what is not as it should be, and why
    b2_command: str  # sets the same rules without S3


def prepare_bucket(
    store: ObjectStore, *, keep_versions_days: int, is_dry_run: bool = False
) -> BucketReport:
    """Makes the bucket if there is none, sets our rules beside those of others, reads them back.

    A second call changes nothing.

    Args:
        store: whose bucket and prefix are meant.
        keep_versions_days: how long a replaced or hidden version can be brought back.
        is_dry_run: only looks.

    Raises:
        ConfigError: the store is no bucket.
        StoreError: there is no bucket and it cannot be made, or it cannot be listed.
        StoreUnavailable: the store does not answer.
    """
    if not isinstance(store, S3Store):
        raise ConfigError(f"the store {store.url!r} is no bucket: there is nothing to set")
    bucket, prefix = store.connection.bucket, store.prefix
    wanted = wanted_rules(prefix, keep_versions_days=keep_versions_days)
    is_created = not _exists(store)
    if is_created and not is_dry_run:
        _create(store)
    try:
        # of a bucket that would be made nothing can be read
        present = _read_rules(store) if not (is_created and is_dry_run) else []
    except StoreError as error:
        refusal = (
            f"the rules cannot be read, so none are set: {error}. The command below replaces all "
            f"rules of the bucket: look at them first with `b2 bucket get {bucket}`"
        )
        return BucketReport(
            bucket, prefix, is_created, False, (), (refusal,), b2_command(bucket, wanted)
        )

    planned, conflicts = merge(present, wanted)
    is_changed = signatures(planned) != signatures(present)
    command = b2_command(bucket, planned)
    if is_dry_run:
        words = tuple(describe(rule) for rule in planned)
        return BucketReport(
            bucket, prefix, is_created, is_changed, words, tuple(conflicts), command
        )
    refusals = _set_rules(store, present, planned) if is_changed else []
    found = _read_rules(store) if is_changed else present
    missing = signatures(planned) - signatures(found)
    if missing and not refusals:
        refusals = [f"accepted, but not shown afterwards: {names_of(planned, missing)}"]
    return BucketReport(
        bucket,
        prefix,
        is_created,
        signatures(found) != signatures(present),
        tuple(describe(rule) for rule in found),
        (*conflicts, *refusals),
        command,
    )


def box_key_command(bucket: str, prefix: str) -> str:
    """The line for B2's own tool that makes a key for a rented machine.

    Args:
        bucket: the only one that the key opens.
        prefix: of the keys that it opens, with a slash at its end, or "" for all.
    """
    limit = ["--name-prefix", shlex.quote(prefix)] if prefix else []
    return " ".join(
        [
            *("b2 key create --bucket", shlex.quote(bucket), *limit),
            *("--duration", str(BOX_KEY_SECONDS), "acidburn-box", BOX_CAPABILITIES),
        ]
    )


def _exists(store: S3Store) -> bool:
    def attempt() -> bool:
        try:
            # the prefix, because a key that is limited to it may list nothing else
            store.connection.client.list_objects_v2(
                Bucket=store.connection.bucket, Prefix=store.prefix, MaxKeys=1
            )
        except ClientError as error:
            if s3_errors.code_of(error) == "NoSuchBucket":
                return False
            raise
        return True

    return store.connection.patiently(store.connection.bucket, attempt)


def _create(store: S3Store) -> None:
    bucket, region = store.connection.bucket, store.connection.region
    # S3's first region is the one that must not be named
    place = {"CreateBucketConfiguration": {"LocationConstraint": region}}
    options = place if region != "us-east-1" else {}

    def attempt() -> None:
        try:
            store.connection.client.create_bucket(Bucket=bucket, **options)
        except ClientError as error:
            # perhaps just the first answer was lost
            if s3_errors.code_of(error) != "BucketAlreadyOwnedByYou":
                raise

    try:
        store.connection.patiently(bucket, attempt)
    except StoreError as error:
        raise StoreError(
            f"there is no bucket {bucket!r}, and it cannot be made: {error}. If the name is free "
            f"(names are shared by all customers), make it with `b2 bucket create {bucket} "
            "allPrivate` or on the web, then run this again"
        ) from error


def _read_rules(store: S3Store) -> list[Rule]:
    def attempt() -> list[Rule]:
        try:
            answer = store.connection.client.get_bucket_lifecycle_configuration(
                Bucket=store.connection.bucket
            )
        except ClientError as error:
            if s3_errors.code_of(error) == "NoSuchLifecycleConfiguration":
                return []
            raise
        return list(answer.get("Rules", ()))

    return store.connection.patiently("the lifecycle rules", attempt)


def _set_rules(store: S3Store, present: Sequence[Rule], planned: Sequence[Rule]) -> list[str]:
    """Sets all rules, or where they may not overlap all but ours for parts of work.

    Returns:
        What was refused, in words.
    """
    refused = _put_rules(store, planned)
    if refused is None:
        return []
    parts = f"{store.prefix}{PARTS_FOLDER}"
    kept = [rule for rule in planned if rule in present or prefix_of(rule) != parts]
    is_smaller = len(kept) < len(planned)
    if not (is_smaller and s3_errors.status_of(refused.__cause__ or refused) in NOT_SUPPORTED):
        return [f"no rules of ours are set: {refused}"]
    again = None if signatures(kept) == signatures(present) else _put_rules(store, kept)
    if again is not None:
        return [f"no rules of ours are set: {again}"]
    return [
        f"no rules for {parts!r}: {refused}. Where B2's own tool is refused too, what is left "
        "there must be deleted by hand"
    ]


def _put_rules(store: S3Store, rules: Sequence[Rule]) -> StoreError | None:
    """The error if they were refused."""

    def attempt() -> None:
        store.connection.client.put_bucket_lifecycle_configuration(
            Bucket=store.connection.bucket, LifecycleConfiguration={"Rules": list(rules)}
        )

    try:
        store.connection.patiently("the lifecycle rules", attempt)
    except StoreError as error:
        return error
    return None
