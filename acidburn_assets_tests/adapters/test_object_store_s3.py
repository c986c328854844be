"""What a bucket costs in requests, and what its answers are made into."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from acidburn_assets.adapters.object_store import (
    iter_batches,
    probe,
    read_table,
)
from acidburn_assets.adapters.object_store.s3 import S3Store
from acidburn_assets.core.errors import (
    StoreError,
    StoreUnavailable,
)
from acidburn_assets_tests.adapters.faulty_s3 import FaultyS3
from acidburn_assets_tests.adapters.stores import (
    HASTY,
    KEY,
    SECRET,
    embeddings,
    s3_store,
    write_embeddings,
)
from acidburn_assets_tests.s3_server import BUCKET, S3Key


def test_a_missing_bucket_is_not_taken_for_a_missing_object(faulty: FaultyS3) -> None:
    """HEAD answers 404 for both; a shard would be made again for money, and not stored."""
    store = S3Store(
        "no-such-bucket",
        endpoint=faulty.endpoint,
        key_id="any",
        app_key=SecretStr(SECRET),
        patience=HASTY,
    )
    for call in (store.head, store.get_bytes, lambda key: list(store.list(key)), store.delete):
        with pytest.raises(StoreError, match=r"no bucket 'no-such-bucket' at 'http://127"):
            call(KEY)


def test_wrong_keys_are_told_apart(moto_endpoint: str, limited_key: S3Key, prefix: str) -> None:
    good = s3_store(
        moto_endpoint, prefix, key_id=limited_key.key_id, app_key=SecretStr(limited_key.secret)
    )
    good.put_bytes(KEY, b"x")
    assert good.get_bytes(KEY) == b"x"

    wrong_secret = s3_store(moto_endpoint, prefix, key_id=limited_key.key_id)
    with pytest.raises(StoreError, match="B2_APP_KEY is not the secret") as caught:
        wrong_secret.head(KEY)
    assert SECRET not in f"{caught.value} {caught.value.__cause__!r} {wrong_secret!r}"

    unknown = s3_store(moto_endpoint, prefix, key_id="AKIANOBODY")
    with pytest.raises(StoreError, match="only then doubt B2_KEY_ID"):
        unknown.head(KEY)


def test_the_probe_is_content_with_a_key_that_may_not_delete(
    moto_endpoint: str, limited_key: S3Key, prefix: str
) -> None:
    store = s3_store(
        moto_endpoint, prefix, key_id=limited_key.key_id, app_key=SecretStr(limited_key.secret)
    )

    found = probe(store)

    assert not found.can_delete
    assert "may not delete, which is fine" in found.remark
    assert [listed.key.split("/")[0] for listed in store.list("")] == [".probe"]


def test_an_endpoint_that_does_not_resolve_is_shown(prefix: str) -> None:
    store = s3_store(
        "http://s3.nowhere.invalid", prefix, patience=HASTY._replace(total_seconds=0.1)
    )

    with pytest.raises(StoreUnavailable, match=r"http://s3\.nowhere\.invalid.*B2_ENDPOINT"):
        store.head(KEY)


def test_objects_of_other_tools_can_be_read(bucket: S3Store, raw_s3: Any, prefix: str) -> None:
    raw_s3.put_object(Bucket=BUCKET, Key=f"{prefix}/{KEY}", Body=b"x", Metadata={"by": "rclone"})

    info = bucket.head(KEY)

    assert info is not None
    assert (info.sha256, info.metadata, info.n_bytes) == ("", {}, 1)
    assert bucket.get_bytes(KEY) == b"x"


def test_a_column_of_a_wide_table_costs_its_own_bytes(bucket: S3Store, faulty: FaultyS3) -> None:
    info, _ = write_embeddings(bucket, embeddings(20_000), row_group_rows=5_000)
    with bucket.open_parquet(KEY) as file:
        row_groups = [file.metadata.row_group(index) for index in range(4)]
        n_column_bytes = sum(group.column(0).total_compressed_size for group in row_groups)
    faulty.requests.clear()

    table = read_table(bucket, KEY, columns=["chunk_id"])

    gets = [request for request in faulty.requests if request.method == "GET"]
    n_footer_bytes = 1 << 16
    assert table.num_rows == 20_000
    assert len(gets) == 1 + len(row_groups)
    assert sum(get.n_sent for get in gets) == n_column_bytes + n_footer_bytes
    assert n_column_bytes + n_footer_bytes < info.n_bytes / 8


def test_batches_are_fetched_as_they_are_taken(bucket: S3Store, faulty: FaultyS3) -> None:
    write_embeddings(bucket, embeddings(20_000), row_group_rows=5_000)
    faulty.requests.clear()

    batches = iter_batches(bucket, KEY, columns=["chunk_id", "embedding"])
    next(batches)

    n_footer, n_row_group = 1, 1
    assert faulty.count("GetObject") == n_footer + n_row_group


def test_a_table_replaced_while_it_is_read_is_not_mixed(bucket: S3Store) -> None:
    write_embeddings(bucket, embeddings(2_000, seed=1))
    with bucket.open_parquet(KEY) as file:
        write_embeddings(bucket, embeddings(2_000, seed=2))
        with pytest.raises(StoreUnavailable, match=f"{KEY}.*was replaced"):
            file.read()


def test_the_command_lines_own_configuration_changes_nothing(
    faulty: FaultyS3, prefix: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config").write_text("[default]\nregion = mars-1\nsignature_version = s3\n")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://elsewhere.invalid")
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_supported")

    store = s3_store(faulty.endpoint, prefix)

    assert store.put_bytes(KEY, b"x").n_bytes == 1
    assert "/us-east-1/s3/" in faulty.requests[0].headers["Authorization"]
