"""Assets as slices of Postgres: the ledger says what is loaded, the rows say whether it is so."""

from pathlib import Path

import dagster as dg
import pytest

from acidburn_assets.adapters.object_store import open_store
from acidburn_assets.adapters.postgres import LoadResult, Postgres, replace_lineage
from acidburn_assets.core.lineage import sources_of
from acidburn_assets.io_managers.base import Made
from acidburn_assets.io_managers.slices import SliceIOManager
from acidburn_assets_tests import lineage_samples, postgres_samples

EMBEDDINGS = dg.AssetKey(["books", "chunk_embeddings"])
CLUSTERS = dg.AssetKey(["books", "chunk_clusters"])
HEADERS = dg.AssetKey(["library", "cluster_headers"])
LINEAGE = dg.AssetKey(["library", "lineage_table"])
SAMPLE = postgres_samples.make()


@pytest.fixture
def manager(database: Postgres, tmp_path: Path) -> SliceIOManager:
    """Of an empty database, with failures kept in a folder."""
    return SliceIOManager(database, open_store((tmp_path / "objects").as_uri()))


def load(postgres: Postgres, made_from: str, run_id: str, is_forced: bool) -> LoadResult:
    """What an asset hands over."""
    sample = SAMPLE.with_load(made_from=made_from, run_id=run_id)
    return postgres_samples.load(postgres, sample, is_forced=is_forced)


def store(manager: SliceIOManager, run_id: str, *, is_forced: bool = False) -> None:
    manager.store(
        EMBEDDINGS,
        "000000",
        Made(load),
        made_from="code and inputs",
        run_id=run_id,
        is_forced=is_forced,
    )


def run_of(manager: SliceIOManager) -> object:
    """The run that the ledger names."""
    found = manager.stored(EMBEDDINGS, "000000")
    assert found is not None
    return (found.figures() if callable(found.figures) else found.figures)["load_run"]


def test_nothing_is_stored_before_a_load(manager: SliceIOManager) -> None:
    assert manager.stored(EMBEDDINGS, "000000") is None
    assert manager.stored(CLUSTERS, "000000") is None
    assert manager.stored(HEADERS, None) is None
    assert manager.stored(LINEAGE, None) is None
    assert [manager.listed(key) for key in (EMBEDDINGS, CLUSTERS, HEADERS, LINEAGE)] == [{}] * 4


def test_a_loaded_slice_is_known_without_an_event(manager: SliceIOManager) -> None:
    store(manager, "run-1")
    found = manager.stored(EMBEDDINGS, "000000")
    assert found is not None
    assert found.made_from == "code and inputs"
    assert found.figures == {
        "rows": len(SAMPLE.chunk_ids),
        "table": "acidburn.chunk_embeddings",
        "load_run": "run-1",
    }
    assert manager.stored(CLUSTERS, "000000") is None


@pytest.mark.parametrize("table", ["chunk_embeddings", "chunk_texts"])
def test_a_slice_that_lost_a_row_counts_as_not_loaded(manager: SliceIOManager, table: str) -> None:
    store(manager, "run-1")
    with manager.postgres.connect(purpose="spoiling") as connection:
        connection.execute(
            f"delete from acidburn.{table} where chunk_id in"
            f" (select chunk_id from acidburn.{table} limit 1)".encode()
        )
    assert manager.stored(EMBEDDINGS, "000000") is None
    store(manager, "run-2")
    assert run_of(manager) == "run-2"


def load_lineage(postgres: Postgres, made_from: str, run_id: str, is_forced: bool) -> LoadResult:
    """What `P/lineage_table` hands over."""
    table = lineage_samples.lineage()
    return replace_lineage(
        postgres,
        postgres_samples.POOL,
        lineage=table.to_batches(),
        sources=sources_of(table.schema, key="lineage"),
        source_sha256="lineage 1",
        run_id=run_id,
        made_from=made_from,
        is_forced=is_forced,
    )


def test_a_pools_slice_is_known_without_an_event(manager: SliceIOManager) -> None:
    made = Made(load_lineage)
    manager.store(LINEAGE, None, made, made_from="code and inputs", run_id="run-1", is_forced=False)
    found = manager.stored(LINEAGE, None)
    assert found is not None
    assert (found.data_version, found.made_from, found.etag) == (
        *("lineage 1", "code and inputs"),
        "lineage 1",
    )
    assert found.figures == {"rows": 4, "table": "acidburn.lineage", "load_run": "run-1"}
    assert manager.listed(LINEAGE) == {None: "lineage 1"}
    assert manager.stored(HEADERS, None) is None


def test_a_slice_that_lost_rows_is_forgotten_and_loaded_again(manager: SliceIOManager) -> None:
    made = Made(load_lineage)
    manager.store(LINEAGE, None, made, made_from="", run_id="run-1", is_forced=False)
    assert not manager.discard_if_damaged(LINEAGE, None)
    assert set(manager.listed(LINEAGE)) == {None}
    with manager.postgres.connect(purpose="a test") as connection:
        connection.execute("delete from acidburn.lineage")
    assert set(manager.listed(LINEAGE)) == {None}  # the ledger does not know
    assert manager.discard_if_damaged(LINEAGE, None)
    assert manager.listed(LINEAGE) == {}
    assert manager.stored(LINEAGE, None) is None
    manager.store(LINEAGE, None, made, made_from="", run_id="run-2", is_forced=False)
    assert manager.stored(LINEAGE, None) is not None


def test_the_same_slice_is_written_again_only_by_force(manager: SliceIOManager) -> None:
    store(manager, "run-1")
    store(manager, "run-2")
    assert run_of(manager) == "run-1"
    store(manager, "run-3", is_forced=True)
    assert run_of(manager) == "run-3"


def test_a_slice_is_no_input(manager: SliceIOManager) -> None:
    context = dg.build_input_context(asset_key=EMBEDDINGS)
    with pytest.raises(NotImplementedError, match="books/chunk_embeddings is read by SQL"):
        manager.load_input(context)
