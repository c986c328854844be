"""What tests of adapters put between us and a server."""

from collections.abc import Iterator

import pytest

from acidburn_assets_tests.adapters import faulty_s3
from acidburn_assets_tests.adapters.stores import bucket, folder, prefix, raw_s3, rot, store

__all__ = ["bucket", "folder", "prefix", "raw_s3", "rot", "store"]


@pytest.fixture(scope="session")
def _proxy(moto_endpoint: str) -> Iterator[faulty_s3.FaultyS3]:
    with faulty_s3.running(moto_endpoint) as server:
        yield server


@pytest.fixture
def faulty(_proxy: faulty_s3.FaultyS3) -> faulty_s3.FaultyS3:
    """The S3 server seen through a proxy as strict as B2; no fault is set."""
    _proxy.reset()
    return _proxy
