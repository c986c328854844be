"""Reading a pool: chosen rows in their order, nothing that is not what was sealed."""

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest

from acidburn_assets import settings
from acidburn_assets.adapters.object_store import write_parquet
from acidburn_assets.core.errors import ModelError, NotMaterialized, ObjectCorrupt, SchemaError
from acidburn_assets.core.samples import Place
from acidburn_assets.io_managers.objects import Tables
from acidburn_assets.io_managers.pools import PoolTables
from acidburn_assets_tests import samples
from acidburn_assets_tests.worlds import World


def pool_tables(world: World) -> PoolTables:
    """Of the pool `library`."""
    return PoolTables(world.store, settings.load().registry.pool("library"))


def rewrite(world: World, dataset: str, asset: str, shard: str, table: pa.Table) -> None:
    """Puts another table in the place of a shard's."""
    key = Tables(world.store, dg.AssetKey([dataset, asset])).object_key(shard)
    write_parquet(world.store, key, table.schema, table.to_batches())


def test_chosen_rows_come_in_the_order_of_shards_and_rows(world: World) -> None:
    tables = pool_tables(world)
    chosen = {
        "notes/000001": np.array([0, 3, 14]),
        "articles/000000": np.array([7]),
        "notes/000000": np.array([], dtype=np.int64),
    }
    taken = tables.take("chunks", chosen, ["doc_id", "chunk_id"])
    expected = [
        tables.table(dataset, "chunks").read(shard).to_pylist()[row]["chunk_id"]
        for dataset, shard, row in (
            ("articles", "000000", 7), ("notes", "000001", 0),
            ("notes", "000001", 3), ("notes", "000001", 14),
        )
    ]  # fmt: skip
    assert taken["chunk_id"].to_pylist() == expected


def test_chunks_are_counted_by_shard_as_they_were_sealed(world: World) -> None:
    tables = pool_tables(world)
    counts = tables.chunks_by_shard(tables.manifests())
    assert set(counts) == {
        f"{dataset}/{shard}"
        for dataset in ("notes", "articles")
        for shard in samples.SHARDS[dataset]
    }
    for name, count in counts.items():
        dataset, shard = name.split("/")
        assert len(tables.table(dataset, "embeddings").read(shard)) == count


def test_vectors_come_in_the_order_of_their_places(world: World) -> None:
    tables = pool_tables(world)
    table = tables.table("notes", "embeddings").read("000001")
    ids, vectors = table["chunk_id"].to_pylist(), table["embedding"].to_pylist()
    places = {
        4: [Place(ids[row], "notes/000001", row) for row in (9, 2, 5)],
        1: [Place(ids[0], "notes/000001", 0)],
        3: [],
    }
    found = tables.vectors_of(places)
    assert set(found) == {4, 1}
    assert np.array_equal(found[4], np.array([vectors[row] for row in (9, 2, 5)], np.float32))
    assert tables.vectors_of({}) == {}


def test_what_a_label_is_made_from_is_none_of_what_it_is_scored_on(world: World) -> None:
    tables = pool_tables(world)
    manifests = tables.manifests()
    centroids = Tables(world.store, dg.AssetKey(["library", "centroids"])).read(None)
    texts = tables.cluster_texts(manifests, centroids, n_members=3, n_held_out=2)
    more = tables.cluster_texts(manifests, centroids, n_members=3, n_held_out=4)
    assert more.members == texts.members
    for cluster in texts.medoids:
        members = {place.chunk_id for place in texts.members[cluster]}
        held_out = {place.chunk_id for place in texts.held_out[cluster]}
        assert (len(members), len(held_out)) == (3, 2)
        assert members.isdisjoint(held_out)
        assert {passage.chunk_id for passage in texts.of(cluster).members} == {
            chunk_id.hex() for chunk_id in members
        }
        medoids = centroids["medoid_ids"].to_pylist()[cluster]
        assert [passage.chunk_id for passage in texts.of(cluster).medoids] == [
            chunk_id.hex() for chunk_id in medoids
        ]
        for quoted, whole in zip(
            texts.quoted_medoids(cluster), texts.of(cluster).medoids, strict=True
        ):
            assert quoted.chunk_id == whole.chunk_id
            assert quoted.dataset in {"notes", "articles"}
            assert " ".join(whole.text.split()).startswith(quoted.text.removesuffix("…"))
            assert 0 < len(quoted.text) <= 240


def test_a_pool_of_two_models_is_refused(copied_world: World) -> None:
    path = copied_world.object_path("notes/manifest.json")
    tables = pool_tables(copied_world)
    sealed = tables.manifests()["notes"]
    copied_world.store.put_bytes(
        "notes/manifest.json", sealed.model_copy(update={"model": "another"}).to_bytes()
    )
    assert path.is_file()
    with pytest.raises(ModelError, match="embedded by different models"):
        tables.manifests()


def test_vectors_of_another_dimension_than_the_manifest_s_are_refused(
    copied_world: World,
) -> None:
    tables = pool_tables(copied_world)
    manifests = {
        name: sealed.model_copy(update={"dim": 1024}) for name, sealed in tables.manifests().items()
    }
    chosen = {"notes/000000": np.array([0])}
    with pytest.raises(SchemaError, match=r"notes/embeddings/000000.*\[384\], not .*\[1024\]"):
        tables.take_embeddings(chosen, manifests)


def test_a_shard_that_is_not_the_sealed_one_is_refused(copied_world: World) -> None:
    tables = pool_tables(copied_world)
    manifests = tables.manifests()
    shard = tables.table("notes", "embeddings").read("000001")
    rewrite(copied_world, "notes", "embeddings", "000001", shard.slice(1))
    tables.take_embeddings({"notes/000000": np.array([0])}, manifests)
    with pytest.raises(ObjectCorrupt, match=r"notes/embeddings/000001.*notes/manifest again"):
        tables.take_embeddings({"notes/000001": np.array([0])}, manifests)


def test_assignments_of_other_embeddings_are_refused(copied_world: World) -> None:
    tables = pool_tables(copied_world)
    placed = tables.table("articles", "assignments").read("000002")
    turned = placed.take(list(range(len(placed)))[::-1])
    rewrite(copied_world, "articles", "assignments", "000002", turned)
    with pytest.raises(SchemaError, match="articles/000002: the assignments are not of the chunks"):
        list(tables.placed(tables.manifests()))


def test_a_manifest_that_is_missing_is_named(copied_world: World) -> None:
    copied_world.object_path("articles/manifest.json").unlink()
    with pytest.raises(NotMaterialized, match="materialize articles/manifest first"):
        pool_tables(copied_world).manifests()


def test_an_empty_pool_says_why(world: World) -> None:
    with pytest.raises(SchemaError, match=r"every document of .* was skipped"):
        pool_tables(world).take("chunks", {}, ["chunk_id"])
