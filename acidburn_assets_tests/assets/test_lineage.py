"""`P/lineage`: what is counted is what was recorded, or nothing is; the UI shows the largest."""

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq

from acidburn_assets.adapters.object_store import write_parquet
from acidburn_assets.core.lineage import largest_clusters, sources_of
from acidburn_assets.io_managers import history, versions
from acidburn_assets_tests import samples
from acidburn_assets_tests.worlds import World, acidburn

LINEAGE = dg.AssetKey(["library", "lineage"])
SHARD = "notes/assignments/000001.parquet"


def count_again() -> str:
    """Counts once more, in vain; the line that says why."""
    finished = acidburn("materialize", "library/lineage", "--force")
    assert finished.code == 1
    line = finished.err.splitlines()[0]
    assert line.startswith("library/lineage: ")
    return line


def newest(world: World) -> dg.EventLogRecord:
    with world.instance() as instance:
        return versions.require_materialization(instance, LINEAGE, None)


def test_every_shard_says_what_it_was_made_from(world: World) -> None:
    table = pq.read_table(world.object_path("library/lineage.parquet"))
    sources = sources_of(table.schema, key="lineage")
    assert [(one.dataset, one.shard) for one in sources.shards] == [
        (dataset, shard) for dataset in ("articles", "notes") for shard in samples.SHARDS[dataset]
    ]
    assert len(sources.cluster_models) == 1
    for one in sources.shards:
        stored = world.store.head(f"{one.dataset}/assignments/{one.shard}.parquet")
        assert stored is not None
        assert stored.sha256 == one.assignments_sha256


def test_it_is_kept_under_the_hash_that_its_event_tells(world: World) -> None:
    record = newest(world)
    sha256 = history.sha256_of(record)
    assert sha256 == versions.data_version(versions.tags_of(record))
    key = f"library/history/lineage/{sha256}.parquet"
    current = world.store.get_bytes("library/lineage.parquet")
    assert world.store.get_bytes(key) == current
    told = versions.figures_of(record)["history"]
    assert told.replace("<sha256>", sha256) == world.store.uri(key)


def test_the_ui_shows_the_largest_clusters_and_who_fed_them(world: World) -> None:
    table = pq.read_table(world.object_path("library/lineage.parquet"))
    records = versions.figures_of(newest(world))["largest"].records
    shown = [dict(record.data) for record in records]
    largest = largest_clusters(table, n_clusters=50, n_shards=3)
    assert [(row["cluster"], row["chunks"], row["shards"]) for row in shown] == [
        (fed.cluster_id, fed.n_chunks, fed.n_shards) for fed in largest
    ]
    first = largest[0].largest[0]
    assert shown[0]["fed most by"].startswith(f"{first.dataset}/{first.shard} ({first.n_chunks}")


def test_assignments_that_are_not_the_recorded_ones_are_not_counted(copied_world: World) -> None:
    before = copied_world.snapshot()
    table = pq.read_table(copied_world.object_path(SHARD))
    write_parquet(copied_world.store, SHARD, table.schema, table.slice(1).to_batches())
    assert f"'{SHARD}' holds" in count_again()
    assert "library/lineage.parquet" not in copied_world.snapshot().rewritten_since(before)


def test_assignments_of_other_embeddings_are_not_counted(copied_world: World) -> None:
    """Else a shard would be told to be of vectors that never placed its chunks."""
    _report_as_of_other_embeddings(copied_world)
    expected = "notes/assignments, shard '000001' was made from other embeddings"
    assert expected in count_again()


def _report_as_of_other_embeddings(world: World) -> None:
    key = dg.AssetKey(["notes", "assignments"])
    embeddings = dg.AssetKey(["notes", "embeddings"])
    with world.instance() as instance:
        record = versions.require_materialization(instance, key, "000001")
        tags = dict(versions.tags_of(record))
        (name,) = [tag for tag in tags if tag.endswith("input_data_version/notes/embeddings")]
        assert tags[name] == versions.input_version(tags, embeddings)
        instance.report_runless_asset_event(
            dg.AssetMaterialization(key, partition="000001", tags={**tags, name: "others"})
        )


def test_in_postgres_it_is_the_same(world: World) -> None:
    with world.instance() as instance:
        loaded = versions.require_materialization(
            instance, dg.AssetKey(["library", "lineage_table"]), None
        )
    counted: pa.Table = pq.read_table(world.object_path("library/lineage.parquet"))
    assert versions.figures_of(loaded)["rows"] == len(counted)
    assert versions.data_version(versions.tags_of(loaded)) == history.sha256_of(newest(world))
