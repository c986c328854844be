"""Assets as objects: where they lie, what travels with them, and what a reader is told."""

from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from acidburn_assets.adapters.object_store import ObjectStore, open_store
from acidburn_assets.core import schemas
from acidburn_assets.core.errors import NotMaterialized, ObjectCorrupt, SchemaError
from acidburn_assets.core.manifest import Manifest
from acidburn_assets.io_managers.base import Made
from acidburn_assets.io_managers.objects import (
    Batches,
    ParquetIOManager,
    RecordIOManager,
    Tables,
    load_record,
)

LINEAGE = dg.AssetKey(["notes", "lineage"])
MANIFEST = dg.AssetKey(["notes", "manifest"])


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store((tmp_path / "objects").as_uri())


def table(*clusters: int) -> pa.Table:
    """Rows of `schemas.LINEAGE`."""
    rows = [
        {
            "dataset": "notes",
            "shard": "000000",
            "cluster_id": cluster,
            "n_chunks": 1,
            "n_noise": 0,
        }
        for cluster in clusters
    ]
    return pa.Table.from_pylist(rows, schema=schemas.LINEAGE)


def put(store: ObjectStore, rows: pa.Table, partition: str | None, **figures: Any) -> Any:
    """Stores a table as an asset of a run would."""
    made = Made(Batches(schemas.LINEAGE, rows.to_batches(max_chunksize=2)), figures)
    return ParquetIOManager(store).store(
        LINEAGE, partition, made, made_from="code and inputs", run_id="run-1", is_forced=False
    )


def manifest(**changes: Any) -> Manifest:
    """A sealed list without a shard."""
    facts = {"dataset": "notes", "revision": "r1", "model": "m", "dim": 8, "entries": ()}
    return Manifest.model_validate({**facts, **changes})


def test_a_table_lies_under_its_shards_key_and_reads_back(store: ObjectStore) -> None:
    put(store, table(0, 1, 2), "000003")
    tables = Tables(store, LINEAGE)
    assert [listed.key for listed in store.list("")] == ["notes/lineage/000003.parquet"]
    assert tables.read("000003").equals(table(0, 1, 2))
    read = pa.Table.from_batches(tables.batches("000003", ["cluster_id"]))
    assert read.equals(table(0, 1, 2).select(["cluster_id"]))


def test_what_was_stored_is_known_without_an_event(store: ObjectStore) -> None:
    new = put(store, table(0, 1, 2), "000000", tokens=7, model="m", picture=dg.MetadataValue.md(""))
    found = ParquetIOManager(store).stored(LINEAGE, "000000")
    assert found is not None
    assert (found.data_version, found.made_from) == (new.data_version, "code and inputs")
    assert found.data_version == Tables(store, LINEAGE).info("000000").sha256
    figures = dict(found.figures() if callable(found.figures) else found.figures)
    uri = figures.pop("uri")
    assert uri == dg.MetadataValue.url(store.uri("notes/lineage/000000.parquet"))
    info = Tables(store, LINEAGE).info("000000")
    assert figures == {
        "rows": 3,
        "bytes": info.n_bytes,
        "sha256": info.sha256,
        "tokens": 7,
        "model": "m",
    }


def test_figures_are_asked_for_after_the_rows_have_flowed(store: ObjectStore) -> None:
    seen: list[int] = []

    def batches() -> Any:
        for batch in table(0, 1, 2).to_batches(max_chunksize=1):
            seen.append(batch.num_rows)
            yield batch

    made = Made(Batches(schemas.LINEAGE, batches()), lambda: {"seen": len(seen)})
    stored = ParquetIOManager(store).store(
        LINEAGE, None, made, made_from="", run_id="run-1", is_forced=False
    )
    figures = stored.figures() if callable(stored.figures) else stored.figures
    assert figures["seen"] == 3


def test_a_table_that_fails_half_way_leaves_the_old_one(store: ObjectStore) -> None:
    put(store, table(0, 1), None)

    def batches() -> Any:
        yield from table(5).to_batches()
        raise OSError("the source went away")

    with pytest.raises(OSError, match="went away"):
        ParquetIOManager(store).store(
            LINEAGE,
            None,
            Made(Batches(schemas.LINEAGE, batches())),
            made_from="",
            run_id="run-2",
            is_forced=False,
        )
    assert Tables(store, LINEAGE).read(None).equals(table(0, 1))


def test_what_is_not_there_names_its_place_and_its_asset(store: ObjectStore) -> None:
    assert ParquetIOManager(store).stored(LINEAGE, "000000") is None
    expected = r"notes/lineage/000000\.parquet is not there: materialize notes/lineage first"
    for read in (Tables(store, LINEAGE).read, Tables(store, LINEAGE).info):
        with pytest.raises(NotMaterialized, match=expected):
            read("000000")
    with pytest.raises(NotMaterialized, match=expected):
        next(Tables(store, LINEAGE).batches("000000"))
    with pytest.raises(NotMaterialized, match=r"manifest\.json is not there: materialize"):
        load_record(store, MANIFEST)


def test_a_records_version_is_its_own_and_not_its_bytes(store: ObjectStore) -> None:
    manager = RecordIOManager(store)
    record = manifest()
    stored = manager.store(
        MANIFEST, None, Made(record), made_from="f", run_id="run-1", is_forced=False
    )
    assert stored.data_version == record.content_version()
    assert stored.data_version != record.content_hash()
    assert load_record(store, MANIFEST) == record
    found = manager.stored(MANIFEST, None)
    assert found is not None
    assert (found.data_version, found.made_from) == (record.content_version(), "f")


def test_a_record_of_another_kind_is_refused(store: ObjectStore) -> None:
    store.put_bytes("notes/manifest.json", b'{"dataset": "notes"}')
    with pytest.raises(SchemaError, match=r"'notes/manifest\.json' is not a Manifest"):
        load_record(store, MANIFEST)


def test_an_object_that_was_changed_by_hand_is_not_read(store: ObjectStore, tmp_path: Path) -> None:
    RecordIOManager(store).store(
        MANIFEST, None, Made(manifest()), made_from="f", run_id="run-1", is_forced=False
    )
    path = tmp_path / "objects" / "notes" / "manifest.json"
    path.write_bytes(manifest(dim=16).to_bytes())
    with pytest.raises(ObjectCorrupt, match=r"notes/manifest\.json"):
        load_record(store, MANIFEST)
    found = RecordIOManager(store).stored(MANIFEST, None)
    assert found is not None
    assert found.made_from == ""  # so it is made again
