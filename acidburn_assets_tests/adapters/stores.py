"""Stores of both kinds for tests, and what is put into them."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pyarrow as pa
import pytest
from pydantic import SecretStr

from acidburn_assets.adapters.object_store import (
    ObjectStore,
    write_parquet,
)
from acidburn_assets.adapters.object_store.file import FileStore
from acidburn_assets.adapters.object_store.s3 import S3Store
from acidburn_assets.adapters.object_store.s3_connection import Patience
from acidburn_assets.core import schemas
from acidburn_assets_tests.adapters.faulty_s3 import FaultyS3
from acidburn_assets_tests.s3_server import BUCKET

__all__ = ["bucket", "folder", "prefix", "raw_s3", "rot", "store"]

SECRET = "do-not-show-me"
HASTY = Patience(
    total_seconds=5,
    first_wait_seconds=0.01,
    longest_wait_seconds=0.02,
    n_attempts=1,
    silence_seconds=20,
)
KEY = "gutenberg/chunks/000012.parquet"


def s3_store(endpoint: str, prefix: str, **options: Any) -> S3Store:
    defaults: dict[str, Any] = {
        "endpoint": endpoint,
        "key_id": "any",
        "app_key": SecretStr(SECRET),
        "patience": HASTY,
        "n_listed": 10,
    }
    return S3Store(BUCKET, prefix, **(defaults | options))


@pytest.fixture(scope="session")
def raw_s3(moto_endpoint: str) -> Any:
    """A plain client, to look behind the store's back."""
    return boto3.client(
        "s3",
        endpoint_url=moto_endpoint,
        region_name="us-east-1",
        aws_access_key_id="any",
        aws_secret_access_key="any",
    )


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """A place in the bucket that no other test uses."""
    return f"t/{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]}"


@pytest.fixture
def bucket(faulty: FaultyS3, prefix: str) -> S3Store:
    return s3_store(faulty.endpoint, prefix)


@pytest.fixture
def folder(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "objects")


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest) -> ObjectStore:
    found: ObjectStore = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def rot(store: ObjectStore, tmp_path: Path, raw_s3: Any, prefix: str) -> Callable[..., None]:
    """Changes one byte of a stored object, as a disk may, leaving all that is known of it."""

    def flip(key: str, position: int) -> None:
        if isinstance(store, FileStore):
            path = tmp_path / "objects" / key
            times = path.stat().st_atime_ns, path.stat().st_mtime_ns
            path.write_bytes(flipped(path.read_bytes(), position))
            os.utime(path, ns=times)
        else:
            name = f"{prefix}/{key}"
            stored = raw_s3.get_object(Bucket=BUCKET, Key=name)
            content = flipped(stored["Body"].read(), position)
            raw_s3.put_object(Bucket=BUCKET, Key=name, Body=content, Metadata=stored["Metadata"])

    return flip


def flipped(content: bytes, position: int) -> bytes:
    changed = bytearray(content)
    changed[position] ^= 1
    return bytes(changed)


DIM = 64
BYTE_STREAM_SPLIT = {"embedding.list.element": "BYTE_STREAM_SPLIT"}


def embeddings(n_rows: int, *, seed: int = 0) -> pa.RecordBatch:
    rng = np.random.default_rng(seed)
    ids = [hashlib.sha256(f"{seed} {row}".encode()).digest()[:16] for row in range(n_rows)]
    values = pa.array(rng.standard_normal(n_rows * DIM).astype(np.float32))
    vectors = pa.FixedSizeListArray.from_arrays(values, type=schemas.vector_type(DIM))
    schema = schemas.embeddings(DIM)
    return pa.record_batch([pa.array(ids, schemas.CHUNK_ID), vectors], schema=schema)


def write_embeddings(store: ObjectStore, batch: pa.RecordBatch, **options: Any) -> Any:
    return write_parquet(
        store,
        KEY,
        schemas.embeddings(DIM),
        [batch],
        column_encoding=BYTE_STREAM_SPLIT,
        **options,
    )
