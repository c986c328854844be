import pyarrow as pa
import pytest

from acidburn_assets.core import schemas
from acidburn_assets.core.errors import SchemaError
from acidburn_assets.core.lineage import (
    Fed,
    LineageRow,
    clusters_of,
    count_shard,
    largest_clusters,
    merge,
    shards_of,
    sources_of,
)
from acidburn_assets_tests.lineage_samples import count, lineage, source, sources

FIRST = count("000000", (0, False), (0, False), (2, True), (0, True), (2, False))
SECOND = count("000001", (2, False), (2, False))
SOURCES = sources(source(), source("000001"))


def test_a_shard_is_counted_by_cluster_with_noise_apart() -> None:
    assert FIRST.schema == schemas.LINEAGE
    assert [LineageRow(**row) for row in FIRST.to_pylist()] == [
        LineageRow(0, "papers", "000000", 2, 1),
        LineageRow(2, "papers", "000000", 1, 1),
    ]


def test_a_shard_without_chunks_has_no_row() -> None:
    assert count("000003").num_rows == 0


def test_a_table_without_clusters_is_refused() -> None:
    with pytest.raises(SchemaError, match=r"papers/assignments/000000.*cluster_id"):
        count_shard(pa.table({"is_noise": [True]}), dataset="papers", shard="000000")


def test_counts_are_merged_into_one_order_of_clusters() -> None:
    merged = lineage()
    assert merged["cluster_id"].to_pylist() == [0, 1, 2, 2]
    assert merged["dataset"].to_pylist() == ["papers", "books", "papers", "papers"]
    assert merged["shard"].to_pylist() == ["000000", "000000", "000000", "000001"]
    assert merge([SECOND, FIRST], SOURCES).equals(merge([FIRST, SECOND], SOURCES))


def test_no_count_merges_to_an_empty_table() -> None:
    assert merge([], sources()).equals(schemas.LINEAGE.empty_table())


def test_a_shard_that_is_counted_twice_is_named() -> None:
    with pytest.raises(SchemaError, match="papers/000001 is counted twice"):
        merge([FIRST, SECOND, SECOND], SOURCES)


def test_a_shard_without_a_source_is_named() -> None:
    with pytest.raises(SchemaError, match="papers/000001 is counted but has no source"):
        merge([FIRST, SECOND], sources(source()))


def test_a_table_says_what_it_was_counted_from() -> None:
    found = sources_of(merge([FIRST, SECOND], SOURCES).schema, key="k")
    assert found == SOURCES
    assert found.of("papers", "000001") == source("000001")
    assert found.cluster_models == {"model 1": 2}


def test_shards_of_two_cluster_models_are_told_apart() -> None:
    mixed = sources(source(), source("000001", cluster_model="model 2"))
    assert mixed.cluster_models == {"model 1": 1, "model 2": 1}


def test_a_table_that_does_not_say_so_is_refused() -> None:
    with pytest.raises(SchemaError, match=r"'pool/lineage\.parquet'.*materialize"):
        sources_of(schemas.LINEAGE, key="pool/lineage.parquet")


def test_a_cluster_names_the_shards_that_fed_it_most_first() -> None:
    assert [(row.shard, row.n_chunks) for row in shards_of(lineage(), 2)] == [
        ("000001", 2),
        ("000000", 1),
    ]
    assert shards_of(lineage(), 3) == []


def test_a_shard_names_the_clusters_it_fed_most_first() -> None:
    rows = clusters_of(lineage(), dataset="papers", shard="000000")
    assert [(row.cluster_id, row.n_chunks, row.n_noise) for row in rows] == [(0, 2, 1), (2, 1, 1)]
    assert clusters_of(lineage(), dataset="papers", shard="000009") == []
    assert clusters_of(lineage(), dataset="other", shard="000000") == []


def test_the_largest_clusters_name_who_fed_them_most() -> None:
    largest = largest_clusters(lineage(), n_clusters=2, n_shards=1)
    assert largest == [
        Fed(2, 3, 1, 2, [LineageRow(2, "papers", "000001", 2, 0)]),
        Fed(0, 2, 1, 1, [LineageRow(0, "papers", "000000", 2, 1)]),
    ]
    assert largest_clusters(lineage().slice(0, 0), n_clusters=2, n_shards=1) == []
