import pyarrow as pa
import pytest

from acidburn_assets.core import schemas
from acidburn_assets.core.errors import SchemaError
from acidburn_assets.core.lineage import LineageRow, clusters_of, count_shard, merge, shards_of


def placed(*rows: tuple[int, bool]) -> pa.Table:
    return pa.table(
        {
            "cluster_id": pa.array([cluster for cluster, _ in rows], pa.int32()),
            "is_noise": pa.array([is_noise for _, is_noise in rows], pa.bool_()),
        }
    )


def count(shard: str, *rows: tuple[int, bool], dataset: str = "papers") -> pa.RecordBatch:
    return count_shard(
        placed(*rows),
        dataset=dataset,
        shard=shard,
        assignments_sha256=f"a{shard}",
        embeddings_sha256=f"e{shard}",
    )


FIRST = count("000000", (0, False), (0, False), (2, True), (0, True), (2, False))
SECOND = count("000001", (2, False), (2, False))


def test_a_shard_is_counted_by_cluster_with_noise_apart() -> None:
    assert FIRST.schema == schemas.LINEAGE
    assert [LineageRow(**row) for row in FIRST.to_pylist()] == [
        LineageRow("papers", "000000", 0, 2, 1, "a000000", "e000000"),
        LineageRow("papers", "000000", 2, 1, 1, "a000000", "e000000"),
    ]


def test_a_shard_without_chunks_has_no_row() -> None:
    assert count("000003").num_rows == 0


def test_a_table_without_clusters_is_refused() -> None:
    with pytest.raises(SchemaError, match=r"papers/assignments/000000.*cluster_id"):
        count_shard(
            pa.table({"is_noise": [True]}),
            dataset="papers",
            shard="000000",
            assignments_sha256="",
            embeddings_sha256="",
        )


def test_counts_are_merged_into_one_order() -> None:
    other = count("000000", (0, False), dataset="books")
    merged = merge([SECOND, FIRST, other])
    assert merged.equals(merge([other, FIRST, SECOND]))
    assert merged["dataset"].to_pylist() == ["books", "papers", "papers", "papers"]
    assert merged["shard"].to_pylist() == ["000000", "000000", "000000", "000001"]


def test_no_count_merges_to_an_empty_table() -> None:
    assert merge([]).equals(schemas.LINEAGE.empty_table())


def test_a_shard_that_is_counted_twice_is_named() -> None:
    with pytest.raises(SchemaError, match="papers/000001 is counted twice"):
        merge([FIRST, SECOND, SECOND])


def test_a_cluster_names_the_shards_that_fed_it_most_first() -> None:
    lineage = merge([FIRST, SECOND])
    assert [(row.shard, row.n_chunks) for row in shards_of(lineage, 2)] == [
        ("000001", 2),
        ("000000", 1),
    ]
    assert shards_of(lineage, 1) == []


def test_a_shard_names_the_clusters_it_fed_most_first() -> None:
    lineage = merge([FIRST, SECOND, count("000000", (1, False), dataset="books")])
    rows = clusters_of(lineage, dataset="papers", shard="000000")
    assert [(row.cluster_id, row.n_chunks, row.n_noise) for row in rows] == [(0, 2, 1), (2, 1, 1)]
    assert clusters_of(lineage, dataset="papers", shard="000009") == []
