"""Assets as slices of Postgres: the ledger says what is loaded, the rows say whether it is so."""

import dagster as dg
import pytest

from acidburn_assets.adapters.postgres import LoadResult, Postgres
from acidburn_assets.io_managers.base import Made
from acidburn_assets.io_managers.slices import SliceIOManager
from acidburn_assets_tests import postgres_samples

EMBEDDINGS = dg.AssetKey(["books", "chunk_embeddings"])
CLUSTERS = dg.AssetKey(["books", "chunk_clusters"])
HEADERS = dg.AssetKey(["library", "cluster_headers"])
SAMPLE = postgres_samples.make()


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


def test_nothing_is_stored_before_a_load(database: Postgres) -> None:
    manager = SliceIOManager(database)
    assert manager.stored(EMBEDDINGS, "000000") is None
    assert manager.stored(CLUSTERS, "000000") is None
    assert manager.stored(HEADERS, None) is None


def test_a_loaded_slice_is_known_without_an_event(database: Postgres) -> None:
    manager = SliceIOManager(database)
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
def test_a_slice_that_lost_a_row_counts_as_not_loaded(database: Postgres, table: str) -> None:
    manager = SliceIOManager(database)
    store(manager, "run-1")
    with database.connect(purpose="spoiling") as connection:
        connection.execute(
            f"delete from acidburn.{table} where chunk_id in"
            f" (select chunk_id from acidburn.{table} limit 1)".encode()
        )
    assert manager.stored(EMBEDDINGS, "000000") is None
    store(manager, "run-2")
    assert run_of(manager) == "run-2"


def test_the_same_slice_is_written_again_only_by_force(database: Postgres) -> None:
    manager = SliceIOManager(database)
    store(manager, "run-1")
    store(manager, "run-2")
    assert run_of(manager) == "run-1"
    store(manager, "run-3", is_forced=True)
    assert run_of(manager) == "run-3"


def test_a_slice_is_no_input(database: Postgres) -> None:
    context = dg.build_input_context(asset_key=EMBEDDINGS)
    with pytest.raises(NotImplementedError, match="books/chunk_embeddings is read by SQL"):
        SliceIOManager(database).load_input(context)
