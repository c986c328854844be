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
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import UTC
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError
from pydantic import SecretStr

from acidburn_assets.adapters.object_store import contract, s3_errors
from acidburn_assets.adapters.object_store.contract import ListedObject, ObjectInfo
from acidburn_assets.adapters.object_store.parquet import VerifiedParquet
from acidburn_assets.adapters.object_store.s3_connection import PATIENT, Patience, S3Connection
from acidburn_assets.core.errors import (
    ObjectCorrupt,
    ObjectMissing,
    StoreError,
    StoreUnavailable,
)

SHA256 = "sha256"
METADATA = "acidburn"
"""Names of our two headers, after `x-amz-meta-`."""

BLOCK_BYTES = 1 << 20
"""Read at once where an object is not kept. Chosen, not measured."""

TRANSFER = TransferConfig(
    # 4 parts in flight fill a home uplink and hold 64 MB. Source: measured, 115 MB peak memory
    multipart_threshold=16 << 20,
    multipart_chunksize=16 << 20,
    max_concurrency=4,
    # the CRT client goes to AWS whatever the endpoint. Source: boto3 issue 4839
    preferred_transfer_client="classic",
)


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
        contract.check_prefix(prefix)
        self.connection = S3Connection(
            bucket, endpoint=endpoint, key_id=key_id, app_key=app_key, patience=patience
        )
        self.prefix = f"{prefix}/" if prefix else ""
        """Before every key; with a slash at its end, or ""."""
        self.url = f"s3://{bucket}/{prefix}".removesuffix("/")
        self._bucket = bucket
        self._endpoint = endpoint
        self._client = self.connection.client
        self._patiently = self.connection.patiently
        self._n_listed = n_listed
        self._has_bucket_answered = False

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

    def verify(self, key: str) -> ObjectInfo:
        stored, found = self._digest(key)
        if stored.sha256 and found != stored.sha256:
            # read once more, as in `get_bytes`
            stored, found = self._digest(key)
            contract.check_sha256(key, found, sha256=stored.sha256, n_bytes=stored.n_bytes)
        return stored

    def head(self, key: str) -> ObjectInfo | None:
        name = self._name(key)
        return self._patiently(key, lambda: self._head(key, name))

    def list(self, prefix: str) -> Iterator[ListedObject]:
        contract.check_prefix(prefix)
        page: dict[str, Any] = {}
        while not page or page["IsTruncated"]:
            wanted = {"Prefix": self.prefix + prefix, "MaxKeys": self._n_listed}
            if page:
                wanted["ContinuationToken"] = page["NextContinuationToken"]
            page = self._patiently(prefix, partial(self._list, wanted))
            for entry in page.get("Contents", ()):
                yield ListedObject(
                    key=entry["Key"].removeprefix(self.prefix),
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
        contract.check_key(self.prefix + key)
        return self.prefix + key

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
                    f"{self._endpoint!r}; store it again",
                    key=key,
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

    def _digest(self, key: str) -> tuple[ObjectInfo, str]:
        """What is stored, and the sha256 of what is read."""
        name = self._name(key)

        def attempt() -> tuple[ObjectInfo, str]:
            answer = self._client.get_object(Bucket=self._bucket, Key=name)
            digest = hashlib.sha256()
            with closing(answer["Body"]) as body:
                for block in body.iter_chunks(BLOCK_BYTES):
                    digest.update(block)
            return _object_info(key, answer), digest.hexdigest()

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
        return _object_info(key, answer)

    def _list(self, wanted: dict[str, Any]) -> dict[str, Any]:
        page: dict[str, Any] = self._client.list_objects_v2(Bucket=self._bucket, **wanted)
        self._has_bucket_answered = True
        return page


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


def _object_info(key: str, answer: Mapping[str, Any]) -> ObjectInfo:
    """What the answer to a HEAD or a GET tells of an object."""
    return ObjectInfo(
        key=key,
        n_bytes=answer["ContentLength"],
        sha256=answer["Metadata"].get(SHA256, ""),
        metadata=json.loads(answer["Metadata"].get(METADATA, "{}")),
        modified=answer["LastModified"].astimezone(UTC),
        etag=answer["ETag"].strip('"'),
    )


def _is_same(stored: ObjectInfo, n_bytes: int, sha256: str, metadata: Mapping[str, str]) -> bool:
    return (stored.n_bytes, stored.sha256, stored.metadata) == (n_bytes, sha256, dict(metadata))
