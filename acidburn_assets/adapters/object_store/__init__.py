"""Objects under keys, on a disk or in a bucket, behind one interface.

`open_store` picks the back end by URL. The contract is in `contract`, the back ends in `file` and
`s3` (through `s3_connection`), tables in `parquet` (by way of a `work_folder`), the self-test of a
configuration in `probing`, a bucket's own rules in `lifecycle`.
"""

from pathlib import Path
from urllib.parse import SplitResult, urlsplit
from urllib.request import url2pathname

from pydantic import SecretStr

from acidburn_assets.adapters.object_store.contract import ListedObject, ObjectInfo, ObjectStore
from acidburn_assets.adapters.object_store.file import FileStore
from acidburn_assets.adapters.object_store.parquet import (
    VerifiedParquet,
    iter_batches,
    read_table,
    write_parquet,
)
from acidburn_assets.adapters.object_store.probing import Probe, probe
from acidburn_assets.core.errors import ConfigError

__all__ = [
    "ListedObject",
    "ObjectInfo",
    "ObjectStore",
    "Probe",
    "VerifiedParquet",
    "iter_batches",
    "open_store",
    "probe",
    "read_table",
    "write_parquet",
]

NO_KEY = SecretStr("")


def open_store(
    url: str,
    *,
    endpoint: str = "",
    key_id: str = "",
    app_key: SecretStr = NO_KEY,
    patience_seconds: float = 1_800,
) -> ObjectStore:
    """The object store behind a URL. Nothing is read, written or connected to yet.

    Args:
        url: `file:///folder` or `s3://bucket/prefix`.
        endpoint: of the S3 service, for B2 `https://s3.<region>.backblazeb2.com`.
        key_id: B2_KEY_ID.
        app_key: B2_APP_KEY.
        patience_seconds: how long a call to a bucket is tried again before it is given up; half
            an hour outlasts the maintenance of a vault, a person who waits at a terminal wants
            less. Source: `s3_connection.Patience`.

    Raises:
        ConfigError: the URL, the endpoint or the keys cannot be used.
    """
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None:
        raise ConfigError("the store's URL holds credentials; set B2_KEY_ID and B2_APP_KEY instead")
    if parts.query or parts.fragment:
        raise ConfigError(f"the store {url!r} has a '?' or '#', which must be written %3F or %23")
    if parts.scheme == "file":
        return FileStore(_folder(url, parts))
    if parts.scheme == "s3":
        # boto3 takes a third of a second, which who works on a disk need not wait for
        from acidburn_assets.adapters.object_store.s3 import S3Store
        from acidburn_assets.adapters.object_store.s3_connection import Patience

        return S3Store(
            parts.netloc,
            parts.path.strip("/"),
            endpoint=endpoint,
            key_id=key_id,
            app_key=app_key,
            patience=Patience(total_seconds=patience_seconds),
        )
    raise ConfigError(
        f"the store {url!r} is neither file:///folder nor s3://bucket/prefix; "
        "set ACIDBURN_STORE, or B2_BUCKET alone"
    )


def _folder(url: str, parts: SplitResult) -> Path:
    folder = Path(url2pathname(parts.path))
    if parts.netloc not in ("", "localhost") or not folder.is_absolute():
        raise ConfigError(f"the store {url!r} is not an absolute path: write file:///folder")
    return folder
