"""Objects in a bucket behind the S3 protocol, as Backblaze B2 speaks it.

Only what B2 has is used: no checksum headers (it refused them), no conditional writes, no bulk
delete. Integrity is ours instead: every payload is signed with its sha256, which the server
checks on the way in; the sha256 stays in the object's metadata and is compared on the way out.
B2 keeps every version of a key: a bucket needs lifecycle rules for replaced versions and for
uploads that were cut off.
Source: home-assistant/core issue 143995, obsidian-s3-sync pull request 84 (refused headers);
backblaze.com/docs/cloud-storage-s3-compatible-api-bucket-versions.
"""

import hashlib
import io
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import UTC
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import boto3
import botocore.loaders
import botocore.session
import pyarrow as pa
import tenacity
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError
from pydantic import SecretStr

from acidburn_assets.adapters.object_store import contract, s3_errors
from acidburn_assets.adapters.object_store.contract import ListedObject, ObjectInfo
from acidburn_assets.adapters.object_store.parquet import VerifiedParquet
from acidburn_assets.core.errors import (
    ConfigError,
    ObjectCorrupt,
    ObjectMissing,
    StoreError,
    StoreUnavailable,
)

LOGGER = logging.getLogger(__name__)

Answer = TypeVar("Answer")

SHA256 = "sha256"
METADATA = "acidburn"
"""Names of our two headers, after `x-amz-meta-`."""

REGIONAL_HOST = re.compile(r"s3\.([a-z0-9-]+)\.(?:backblazeb2|amazonaws)\.com")

TRANSFER = TransferConfig(
    # 4 parts in flight fill a home uplink and hold 64 MB. Source: measured, 115 MB peak memory
    multipart_threshold=16 << 20,
    multipart_chunksize=16 << 20,
    max_concurrency=4,
    # the CRT client goes to AWS whatever the endpoint. Source: boto3 issue 4839
    preferred_transfer_client="classic",
)

NO_AWS_FILES = {
    "profile": (None, None, None, None),
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
}
"""A profile or file of the AWS command line must not change how we reach another service."""

SERVICE_MODELS = botocore.loaders.create_loader()
"""Read once for all stores of a process: a client then takes 10 ms to make, not 70. Source:
measured."""


class Patience(NamedTuple):
    """How long a call is tried again.

    botocore tries each request, so each part of an upload, `n_attempts` times; then the whole
    call is tried again after a random wait that grows from the shortest to the longest.
    """

    total_seconds: float = 600
    shortest_wait_seconds: float = 1
    longest_wait_seconds: float = 60
    n_attempts: int = 8


PATIENT = Patience()


class S3Store:
    """The contract of `ObjectStore` over a bucket, or a prefix of one."""

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint: str,
        key_id: str,
        app_key: SecretStr,
        patience: Patience = PATIENT,
        n_listed: int = 1_000,
    ) -> None:
        """Makes a client; nothing is connected to yet.

        Args:
            bucket: its name.
            prefix: before every key, without slashes at its ends; "" for none.
            endpoint: `https://s3.<region>.backblazeb2.com`.
            key_id: B2_KEY_ID.
            app_key: B2_APP_KEY.
            patience: how long to try again.
            n_listed: objects in one answer to a LIST.

        Raises:
            ConfigError: one of them is missing or cannot be right.
        """
        if not bucket:
            raise ConfigError(
                "the store's URL names no bucket: write s3://bucket or s3://bucket/prefix"
            )
        if not key_id or not app_key.get_secret_value():
            raise ConfigError(f"the bucket {bucket!r} needs B2_KEY_ID and B2_APP_KEY")
        contract.check_prefix(prefix)
        region = region_of(endpoint)
        self.url = f"s3://{bucket}/{prefix}".removesuffix("/")
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._endpoint = endpoint
        self._patience = patience
        self._n_listed = n_listed
        self._has_bucket_answered = False
        isolated = botocore.session.Session(session_vars=NO_AWS_FILES)
        isolated.register_component("data_loader", SERVICE_MODELS)
        session = boto3.session.Session(
            aws_access_key_id=key_id,
            aws_secret_access_key=app_key.get_secret_value(),
            region_name=region,
            botocore_session=isolated,
        )
        self._client: Any = session.client(
            "s3",
            endpoint_url=endpoint,
            config=Config(
                signature_version="s3v4",
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                retries={"mode": "standard", "total_max_attempts": patience.n_attempts},
                connect_timeout=10,
                read_timeout=120,
                s3={"addressing_style": "path", "payload_signing_enabled": True},
            ),
        )
        self._client.meta.events.register_first("needs-retry.s3", self._pause_as_asked)

    def __repr__(self) -> str:
        return f"S3Store({self.url!r}, endpoint={self._endpoint!r})"

    def put_file(self, key: str, path: Path, *, metadata: Mapping[str, str] = {}) -> ObjectInfo:
        def send(name: str, headers: dict[str, str]) -> None:
            self._client.upload_file(
                str(path), self._bucket, name, ExtraArgs={"Metadata": headers}, Config=TRANSFER
            )

        try:
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            return self._put(key, send, path.stat().st_size, sha256, metadata)
        except OSError as error:
            raise StoreError(
                f"cannot read {str(path)!r} to store it as {key!r}: {error.strerror}"
            ) from error

    def put_bytes(
        self, key: str, content: bytes, *, metadata: Mapping[str, str] = {}
    ) -> ObjectInfo:
        def send(name: str, headers: dict[str, str]) -> None:
            self._client.put_object(Bucket=self._bucket, Key=name, Body=content, Metadata=headers)

        return self._put(key, send, len(content), hashlib.sha256(content).hexdigest(), metadata)

    def get_bytes(self, key: str) -> bytes:
        content, sha256 = self._read(key)
        if sha256 and hashlib.sha256(content).hexdigest() != sha256:
            # read once more: who finds an object corrupt makes it again, for more than a second GET
            content, sha256 = self._read(key)
            contract.check_content(key, content, sha256=sha256)
        return content

    def head(self, key: str) -> ObjectInfo | None:
        name = self._name(key)
        return self._patiently(key, lambda: self._head(key, name))

    def list(self, prefix: str) -> Iterator[ListedObject]:
        contract.check_prefix(prefix)
        page: dict[str, Any] = {}
        while not page or page["IsTruncated"]:
            wanted = {"Prefix": self._prefix + prefix, "MaxKeys": self._n_listed}
            if page:
                wanted["ContinuationToken"] = page["NextContinuationToken"]
            page = self._patiently(prefix, partial(self._list, wanted))
            for entry in page.get("Contents", ()):
                yield ListedObject(
                    key=entry["Key"].removeprefix(self._prefix),
                    n_bytes=entry["Size"],
                    etag=entry["ETag"].strip('"'),
                    modified=entry["LastModified"].astimezone(UTC),
                )

    def delete(self, key: str) -> None:
        name = self._name(key)
        self._patiently(key, lambda: self._client.delete_object(Bucket=self._bucket, Key=name))

    def open_parquet(self, key: str) -> VerifiedParquet:
        stored = self.head(key)
        if stored is None:
            raise ObjectMissing(f"no object {key!r} in {self.url!r}")
        ranges = _Ranges(partial(self._read_range, stored), stored.n_bytes)
        return VerifiedParquet(pa.PythonFile(ranges, mode="r"), key=key)

    def uri(self, key: str) -> str:
        return f"s3://{self._bucket}/{self._name(key)}"

    def _name(self, key: str) -> str:
        contract.check_key(key)
        contract.check_key(self._prefix + key)
        return self._prefix + key

    def _put(
        self,
        key: str,
        send: Callable[[str, dict[str, str]], None],
        n_bytes: int,
        sha256: str,
        metadata: Mapping[str, str],
    ) -> ObjectInfo:
        name = self._name(key)
        headers = {SHA256: sha256, METADATA: contract.metadata_to_ascii(name, metadata)}

        def attempt() -> ObjectInfo:
            try:
                send(name, headers)
            except s3_errors.FOREIGN as error:
                # perhaps just the answer was lost: look before a shard is sent once more
                stored = self._head(key, name) if s3_errors.is_transient(error) else None
                if stored is None or not _is_same(stored, n_bytes, sha256, metadata):
                    raise
                return stored
            stored = self._head(key, name)
            if stored is not None and stored.sha256 == sha256 and stored.n_bytes != n_bytes:
                raise ObjectCorrupt(
                    f"{key!r} was sent with {n_bytes:,} bytes and {stored.n_bytes:,} arrived at "
                    f"{self._endpoint!r}; store it again"
                )
            if stored is None or not _is_same(stored, n_bytes, sha256, metadata):
                raise StoreUnavailable(
                    f"{key!r} was accepted by {self._endpoint!r} but is not there: the store lost "
                    "it, or another writer stores something else under the same key"
                )
            return stored

        return self._patiently(key, attempt)

    def _read(self, key: str) -> tuple[bytes, str]:
        """Content and the sha256 that was stored with it ("" where another tool stored it)."""
        name = self._name(key)

        def attempt() -> tuple[bytes, str]:
            # a body that breaks off is not asked for again by botocore, but by `_patiently`
            answer = self._client.get_object(Bucket=self._bucket, Key=name)
            with closing(answer["Body"]) as body:
                return body.read(), answer["Metadata"].get(SHA256, "")

        return self._patiently(key, attempt)

    def _read_range(self, stored: ObjectInfo, start: int, n_bytes: int) -> bytes:
        name = self._name(stored.key)

        def attempt() -> tuple[bytes, str]:
            span = f"bytes={start}-{start + n_bytes - 1}"
            answer = self._client.get_object(Bucket=self._bucket, Key=name, Range=span)
            with closing(answer["Body"]) as body:
                return body.read(), answer["ETag"].strip('"')

        content, etag = self._patiently(stored.key, attempt)
        if etag != stored.etag or len(content) != n_bytes:
            raise StoreUnavailable(
                f"{stored.key!r} was replaced while it was being read; read it again"
            )
        return content

    def _head(self, key: str, name: str) -> ObjectInfo | None:
        try:
            answer = self._client.head_object(Bucket=self._bucket, Key=name)
        except ClientError as error:
            if s3_errors.is_transient(error):
                raise
            is_absent = s3_errors.status_of(error) == 404
            if not (is_absent and self._has_bucket_answered):
                # an answer to HEAD has no body, hence no reason; a LIST is refused for the same
                # one and says it: no such bucket, for example, which is not "no such object"
                self._list({"Prefix": name, "MaxKeys": 1})
            if is_absent:
                return None
            raise
        self._has_bucket_answered = True
        return ObjectInfo(
            key=key,
            n_bytes=answer["ContentLength"],
            sha256=answer["Metadata"].get(SHA256, ""),
            metadata=json.loads(answer["Metadata"].get(METADATA, "{}")),
            modified=answer["LastModified"].astimezone(UTC),
            etag=answer["ETag"].strip('"'),
        )

    def _list(self, wanted: dict[str, Any]) -> dict[str, Any]:
        page: dict[str, Any] = self._client.list_objects_v2(Bucket=self._bucket, **wanted)
        self._has_bucket_answered = True
        return page

    def _patiently(self, key: str, attempt: Callable[[], Answer]) -> Answer:
        """Calls until it succeeds, is refused for good, or patience ends."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(s3_errors.is_transient),
            wait=self._wait_seconds,
            stop=tenacity.stop_before_delay(self._patience.total_seconds),
            before_sleep=partial(self._log_wait, key),
            reraise=True,
        )
        try:
            return retrying(attempt)
        except s3_errors.FOREIGN as error:
            raise self._translated(error, key) from error

    def _wait_seconds(self, state: tenacity.RetryCallState) -> float:
        """Full jitter, or longer where the store asks for it."""
        patience = self._patience
        jitter = tenacity.wait_random_exponential(
            multiplier=patience.shortest_wait_seconds,
            min=patience.shortest_wait_seconds,
            max=patience.longest_wait_seconds,
        )
        error = state.outcome.exception() if state.outcome else None
        asked = s3_errors.retry_after_seconds(error) if error else 0
        return max(jitter(state), asked)

    def _log_wait(self, key: str, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if error is not None:
            reason = self._translated(error, key)
            LOGGER.warning("trying again in %.1f s: %s", state.upcoming_sleep, reason)

    def _translated(self, error: BaseException, key: str) -> BaseException:
        if not isinstance(error, s3_errors.FOREIGN):
            return error
        return s3_errors.translate(error, endpoint=self._endpoint, bucket=self._bucket, key=key)

    def _pause_as_asked(self, response: Any, attempts: int, **_: Any) -> float | None:
        """Makes botocore wait between its own attempts as long as the store asks for; left alone
        it ignores Retry-After. None: let botocore decide."""
        if response is None or attempts >= self._patience.n_attempts:
            return None
        answer = response[0]
        if answer.status_code not in s3_errors.TRANSIENT_STATUSES:
            return None
        asked = s3_errors.parse_retry_after(answer.headers.get("retry-after"))
        return min(asked, self._patience.longest_wait_seconds) or None


class _Ranges(io.RawIOBase):
    """An object as a seekable file; each read is one GET of just those bytes."""

    def __init__(self, read: Callable[[int, int], bytes], n_bytes: int) -> None:
        super().__init__()
        self._read_range = read
        self._n_bytes = n_bytes
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._n_bytes}[whence]
        self._position = start + offset
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        left = max(self._n_bytes - self._position, 0)
        wanted = left if size is None or size < 0 else min(size, left)
        if not wanted:
            return b""
        content = self._read_range(self._position, wanted)
        self._position += wanted
        return content


def region_of(endpoint: str) -> str:
    """The region that requests to an endpoint are signed for.

    Raises:
        ConfigError: the endpoint is missing or cannot be one.
    """
    hint = "it looks like https://s3.<region>.backblazeb2.com and is shown beside the bucket"
    if not endpoint:
        raise ConfigError(f"a bucket needs B2_ENDPOINT: {hint}")
    parts = urlsplit(endpoint)
    if parts.username is not None or parts.password is not None:
        raise ConfigError(f"B2_ENDPOINT holds credentials; {hint}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"B2_ENDPOINT {endpoint!r} lacks https:// in front; {hint}")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ConfigError(f"B2_ENDPOINT {endpoint!r} has more than a host; {hint}")
    regional = REGIONAL_HOST.fullmatch(parts.hostname)
    if parts.hostname.endswith("backblazeb2.com"):
        if parts.scheme != "https":
            raise ConfigError(
                f"B2_ENDPOINT {endpoint!r} must start with https://: B2 answers no other"
            )
        if regional is None:
            raise ConfigError(f"B2_ENDPOINT {endpoint!r} is not B2's S3 endpoint; {hint}")
    # servers without regions, on a LAN or a laptop, sign for AWS's first one
    return regional[1] if regional else "us-east-1"


def _is_same(stored: ObjectInfo, n_bytes: int, sha256: str, metadata: Mapping[str, str]) -> bool:
    return (stored.n_bytes, stored.sha256, stored.metadata) == (n_bytes, sha256, dict(metadata))
