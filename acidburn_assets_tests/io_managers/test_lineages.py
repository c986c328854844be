"""A lineage in the bucket: who asks of one cluster reads its rows and no others."""

from pathlib import Path

import pytest

from acidburn_assets.adapters.object_store import (
    ObjectStore,
    VerifiedParquet,
    open_store,
    write_parquet,
)
from acidburn_assets.core import schemas
from acidburn_assets.core.errors import SchemaError
from acidburn_assets.core.lineage import clusters_of, merge, shards_of
from acidburn_assets.io_managers.lineages import LineageTable
from acidburn_assets_tests.lineage_samples import count, lineage, source, sources

KEY = "library/lineage.parquet"


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store((tmp_path / "objects").as_uri())


def test_it_answers_as_the_whole_table_does(store: ObjectStore) -> None:
    table = lineage()
    # a row to a group: cluster 2 lies in two of them
    write_parquet(store, KEY, table.schema, table.to_batches(), row_group_rows=1)
    asked = LineageTable(store, KEY)
    for cluster in range(4):
        assert asked.shards_of(cluster) == shards_of(table, cluster)
    assert len(asked.shards_of(2)) == 2
    assert asked.clusters_of(dataset="papers", shard="000000") == clusters_of(
        table, dataset="papers", shard="000000"
    )
    assert asked.last_cluster() == 2
    assert [one.shard for one in asked.sources.shards] == ["000000", "000000", "000001"]


def test_of_one_cluster_few_rows_are_read(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = merge(
        [count("000000", *[(cluster, False) for cluster in range(100)])], sources(source())
    )
    write_parquet(store, KEY, table.schema, table.to_batches(), row_group_rows=10)
    read: list[int] = []
    read_row_groups = VerifiedParquet.read_row_groups

    def counted(file: VerifiedParquet, row_groups: list[int]) -> object:
        read.extend(row_groups)
        return read_row_groups(file, row_groups)

    monkeypatch.setattr(VerifiedParquet, "read_row_groups", counted)
    assert [row.cluster_id for row in LineageTable(store, KEY).shards_of(57)] == [57]
    assert read == [5]


def test_a_lineage_without_a_chunk_has_no_cluster(store: ObjectStore) -> None:
    table = merge([], sources())
    write_parquet(store, KEY, table.schema, table.to_batches())
    asked = LineageTable(store, KEY)
    assert asked.shards_of(0) == []
    assert asked.last_cluster() == -1
    assert asked.sources == sources()


def test_one_of_an_older_version_says_what_to_do(store: ObjectStore) -> None:
    write_parquet(store, KEY, schemas.LINEAGE, lineage().to_batches())
    with pytest.raises(SchemaError, match=r"materialize the pool's lineage again"):
        LineageTable(store, KEY).shards_of(0)
