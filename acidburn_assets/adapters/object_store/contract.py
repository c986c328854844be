"""What an object store promises, whatever stands behind it.

One contract, two back ends: `file` and `s3`. A test suite that both pass holds them together.
Neither is imported here; tables are read and written in `parquet`.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, Protocol

import pyarrow.parquet as pq

from acidburn_assets.core.errors import ObjectCorrupt, StoreError

KEY_LIMIT_BYTES = 1_024
"""Longest name of an object.

Source: S3 and B2 (backblaze.com/docs/cloud-storage-file-names): 1,024 bytes of UTF-8.
"""

HEADERS_LIMIT_BYTES = 1_900
"""Longest key and metadata together, for every back end, so that what a laptop takes a bucket
takes too.

Source: B2 allows 2,048 bytes for an object's name and metadata where the bucket is encrypted
(backblaze.com/apidocs/b2-upload-file), S3 2,048 for metadata; 148 are left for our own names.
"""

OWN_FOLDERS = (".meta", ".tmp")
"""Where `file` keeps its records and unfinished objects; no key may lie there."""


class ObjectInfo(NamedTuple):
    """One object as it is stored."""

    key: str
    n_bytes: int
    sha256: str  # hex; "" only where another tool put the object into a bucket
    metadata: dict[str, str]  # what the writer gave; {} where another tool wrote it
    modified: datetime  # UTC
    etag: str  # the same as in a listing: tells versions of a key apart without reading them


class ListedObject(NamedTuple):
    """What a listing tells of an object."""

    key: str
    n_bytes: int
    etag: str
    modified: datetime  # UTC


class ObjectStore(Protocol):
    """Whole objects under keys: `gutenberg/chunks/000012.parquet`.

    A put is atomic: readers see the old object or the new one, and a put that fails leaves the
    old one. Of two writers to one key the last wins. Nothing is renamed. Any method raises
    `StoreUnavailable` where the store does not answer, and `StoreError` where it refuses.
    """

    url: str
    """`file:///…` or `s3://bucket/prefix`, without credentials."""

    def put_file(self, key: str, path: Path, *, metadata: Mapping[str, str] = {}) -> ObjectInfo:
        """Stores a local file and verifies that it is there.

        Args:
            key: where.
            path: a finished file; it is left alone.
            metadata: small facts that travel with the object.

        Raises:
            StoreError: the key or the metadata cannot be used, or the store refused.
        """
        ...

    def put_bytes(
        self, key: str, content: bytes, *, metadata: Mapping[str, str] = {}
    ) -> ObjectInfo:
        """Stores bytes; otherwise as `put_file`."""
        ...

    def get_bytes(self, key: str) -> bytes:
        """The whole object, compared with the sha256 that was stored with it.

        Raises:
            ObjectMissing: no such key.
            ObjectCorrupt: the content is not what was stored.
        """
        ...

    def verify(self, key: str) -> ObjectInfo:
        """Reads the whole object, a block at a time, and compares it with its sha256.

        Memory does not grow with the object: this is for whoever checks all of a store. An object
        that another tool put there has nothing to be compared with and passes, its `sha256` told
        as `head` tells it.

        Raises:
            ObjectMissing: no such key.
            ObjectCorrupt: the content is not what was stored.
        """
        ...

    def head(self, key: str) -> ObjectInfo | None:
        """What is stored under a key; None where nothing is."""
        ...

    def list(self, prefix: str) -> Iterator[ListedObject]:
        """Objects whose key starts with `prefix`, ordered by key; "" lists all.

        The prefix need not end at a slash.
        """
        ...

    def delete(self, key: str) -> None:
        """Removes an object; does nothing where there is none."""
        ...

    def open_parquet(self, key: str) -> pq.ParquetFile:
        """Opens a table so that only what is asked for is read: a `parquet.VerifiedParquet`.

        Raises:
            ObjectMissing: no such key.
            ObjectCorrupt: the footer, or later a page, is damaged.
        """
        ...

    def uri(self, key: str) -> str:
        """The object's full address, for people and logs."""
        ...


def check_key(key: str) -> None:
    """Refuses a key that some back end could not hold, or that would leave its folder.

    Raises:
        StoreError: says what is wrong with it.
    """
    parts = key.split("/")
    if "" in parts:
        problem = "has an empty part; keys look like 'gutenberg/chunks/000012.parquet'"
    elif "." in parts or ".." in parts:
        problem = "has a part '.' or '..'"
    elif parts[0] in OWN_FOLDERS:
        problem = f"starts with {parts[0]!r}, which the store keeps for itself"
    elif "\\" in key:
        problem = "has a backslash; use '/'"
    elif not key.isprintable():
        problem = "has a character that cannot be printed"
    elif len(key.encode()) > KEY_LIMIT_BYTES:
        problem = f"is longer than {KEY_LIMIT_BYTES:,} bytes"
    else:
        return
    raise StoreError(f"the key {key!r} {problem}")


def check_prefix(prefix: str) -> None:
    """Refuses a prefix that no key can have.

    Raises:
        StoreError: says what is wrong with it.
    """
    if prefix:
        check_key(prefix.removesuffix("/"))


def metadata_to_ascii(key: str, metadata: Mapping[str, str]) -> str:
    """One line of printable ASCII without blanks: what any HTTP header carries unchanged.

    One header for all of it, because servers differ in the names they pass on (underscores are
    dropped by some) and in how many they take (10 in B2's first API).

    Raises:
        StoreError: too long together with the key.
    """
    line = json.dumps(dict(metadata), separators=(",", ":")).replace(" ", "\\u0020")
    if len(key.encode()) + len(line) > HEADERS_LIMIT_BYTES:
        raise StoreError(
            f"{key!r} and its metadata need more than {HEADERS_LIMIT_BYTES:,} bytes; "
            f"put what is long into the object itself: {sorted(metadata)}"
        )
    return line


def check_content(key: str, content: bytes, *, sha256: str) -> None:
    """Compares what was read with what was stored.

    Raises:
        ObjectCorrupt: names the key and both checksums.
    """
    check_sha256(key, hashlib.sha256(content).hexdigest(), sha256=sha256, n_bytes=len(content))


def check_sha256(key: str, found: str, *, sha256: str, n_bytes: int) -> None:
    """Compares the checksum of what was read with the one that was stored.

    Args:
        key: of the object.
        found: sha256 of what was read.
        sha256: that was stored with it.
        n_bytes: that were read.

    Raises:
        ObjectCorrupt: names the key and both checksums.
    """
    if found != sha256:
        raise ObjectCorrupt(
            f"{key!r} is corrupt: sha256 {sha256} was stored, {found} was read "
            f"({n_bytes:,} bytes). Delete the object and materialize it again",
            key=key,
        )
