"""The loop that every asset goes through: reporting, reuse, adoption, failure, interruption."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from acidburn_assets.adapters.object_store.file import FileStore
from acidburn_assets.core.errors import SourceError, StoreUnavailable
from acidburn_assets.io_managers import versions
from acidburn_assets.io_managers.base import FORCE_TAG, AssetIOManager, Made, Stored, Work, work
from acidburn_assets.settings import PROJECT_ROOT

SHARDS = dg.DynamicPartitionsDefinition(name="d_shards")
KEYS = ["000000", "000001", "000002"]
CHUNKS = dg.AssetKey(["d", "chunks"])
EMBEDDINGS = dg.AssetKey(["d", "embeddings"])
MANIFEST = dg.AssetKey(["d", "manifest"])
REPORT = dg.AssetKey(["d", "report"])


class MemoryManager(AssetIOManager):
    """Stores values in a dict, as an object store would; failures go into a folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(FileStore(folder))
        self.slots: dict[tuple[dg.AssetKey, str | None], Stored] = {}
        self.rotten: set[tuple[dg.AssetKey, str | None]] = set()

    def store(
        self, key: dg.AssetKey, partition: str | None, made: Made, *, made_from: str, **_: str
    ) -> Stored:
        etag = f"{made.value} {len(self.slots)}"
        self.slots[key, partition] = Stored(str(made.value), made_from, etag, {"rows": 1})
        return self.slots[key, partition]

    def stored(self, key: dg.AssetKey, partition: str | None) -> Stored | None:
        return self.slots.get((key, partition))

    def is_intact(self, key: dg.AssetKey, partition: str | None) -> bool:
        return (key, partition) not in self.rotten

    def load_input(self, _: dg.InputContext) -> None:
        return None


class Graph:
    """chunks[shard] -> embeddings[shard] -> manifest -> report, made by a function tests swap."""

    def __init__(self, folder: Path) -> None:
        self.manager = MemoryManager(folder)
        self.calls: list[tuple[str, str | None]] = []
        self.content: Callable[[str, str | None], str] = lambda asset, partition: (
            f"{asset}{partition}"
        )
        self.chunks_code = "1"

    def definitions(self) -> dg.Definitions:
        def asset(key: dg.AssetKey, deps: list[dg.AssetKey], code: str, *, is_sharded: bool):
            def body(context) -> dg.Output[Work]:
                def make(partition: str | None) -> Made:
                    self.calls.append((key.path[-1], partition))
                    return Made(self.content(key.path[-1], partition))

                return work(make)

            return dg.asset(
                key=key,
                deps=deps,
                io_manager_key="memory",
                code_version=code,
                partitions_def=SHARDS if is_sharded else None,
                backfill_policy=dg.BackfillPolicy.multi_run(64) if is_sharded else None,
            )(body)

        return dg.Definitions(
            assets=[
                asset(CHUNKS, [], self.chunks_code, is_sharded=True),
                asset(EMBEDDINGS, [CHUNKS], "1", is_sharded=True),
                asset(MANIFEST, [EMBEDDINGS], "1", is_sharded=False),
                asset(REPORT, [MANIFEST], "1", is_sharded=False),
            ],
            resources={"memory": self.manager},
            executor=dg.in_process_executor,
        )

    def run(
        self, instance: dg.DagsterInstance, *keys: dg.AssetKey, **tags: str
    ) -> dg.ExecuteInProcessResult:
        job = self.definitions().resolve_implicit_global_asset_job_def()
        shards = {
            "dagster/asset_partition_range_start": KEYS[0],
            "dagster/asset_partition_range_end": KEYS[-1],
        }
        return job.execute_in_process(
            instance=instance,
            asset_selection=list(keys),
            tags={**(shards if keys[0] in (CHUNKS, EMBEDDINGS) else {}), **tags},
            raise_on_error=False,
        )


@pytest.fixture
def instance(quick_records: None) -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as made:
        made.add_dynamic_partitions("d_shards", KEYS)
        yield made


@pytest.fixture
def graph(tmp_path: Path) -> Graph:
    return Graph(tmp_path / "objects")


def events(instance: dg.DagsterInstance, key: dg.AssetKey) -> list[tuple[str | None, str]]:
    """(partition, data version) of every materialization, oldest first."""
    records = instance.fetch_materializations(key, limit=100).records
    return [
        (record.partition_key, versions.data_version(versions.tags_of(record)))
        for record in reversed(records)
    ]


def test_each_shard_is_reported_once_with_its_own_version(instance, graph):
    """Guards the private constant: the framework must add no events of its own."""
    assert graph.run(instance, CHUNKS).success
    assert events(instance, CHUNKS) == [(key, f"chunks{key}") for key in KEYS]


def test_a_downstream_asset_runs_in_the_same_run(instance, graph):
    assert graph.run(instance, CHUNKS, EMBEDDINGS).success
    assert events(instance, EMBEDDINGS) == [(key, f"embeddings{key}") for key in KEYS]


def test_a_failed_shard_is_named_and_does_not_stop_the_others(instance, graph):
    def poisoned(asset: str, partition: str | None) -> str:
        if partition == "000001":
            raise SourceError("the file is gone; put it back")
        return f"{asset}{partition}"

    graph.content = poisoned
    result = graph.run(instance, CHUNKS)
    assert not result.success
    assert [partition for partition, _ in events(instance, CHUNKS)] == ["000000", "000002"]
    (failure,) = [e for e in result.all_events if e.event_type_value == "STEP_FAILURE"]
    description = failure.event_specific_data.user_failure_data.description
    assert description == ("1 of 3 shards failed (000001); 000001: the file is gone; put it back")


def test_a_failure_is_kept_with_its_reason_and_forgotten_when_it_is_made(instance, graph):
    def poisoned(asset: str, partition: str | None) -> str:
        if partition == "000001":
            raise SourceError("the file is gone; put it back")
        return f"{asset}{partition}"

    graph.content = poisoned
    result = graph.run(instance, CHUNKS)
    (known,) = graph.manager.failures.all_of(CHUNKS).values()
    assert (known.asset, known.shard) == ("d/chunks", "000001")
    (attempt,) = known.attempts
    assert attempt.run_id == result.run_id
    assert (attempt.kind, attempt.reason) == ("refused", "the file is gone; put it back")
    graph.content = lambda asset, partition: f"{asset}{partition}"
    graph.run(instance, CHUNKS)
    assert graph.manager.failures.all_of(CHUNKS) == {}


def test_what_is_away_for_one_shard_is_not_waited_for_with_each(instance, graph):
    """Half an hour of patience for every shard of a run would be a day."""

    def away(asset: str, partition: str | None) -> str:
        if partition != "000000":
            raise StoreUnavailable("no answer")
        return f"{asset}{partition}"

    graph.content = away
    assert not graph.run(instance, CHUNKS).success
    assert graph.calls == [("chunks", "000000"), ("chunks", "000001")]
    (known,) = graph.manager.failures.all_of(CHUNKS).values()
    assert known.shard == "000001"
    assert known.attempts[0].kind == "unavailable"


def test_content_that_is_not_what_was_reported_is_read_before_it_is_kept(instance, graph):
    """Overwritten with its own metadata, an object still says that it is right."""
    graph.run(instance, CHUNKS)
    graph.calls.clear()
    for shard in ("000001", "000002"):
        slot = graph.manager.slots[CHUNKS, shard]
        graph.manager.slots[CHUNKS, shard] = slot._replace(etag="touched")
    graph.manager.rotten.add((CHUNKS, "000002"))
    graph.run(instance, CHUNKS)
    assert graph.calls == [("chunks", "000002")]
    record = versions.require_materialization(instance, CHUNKS, "000001")
    assert versions.figures_of(record)["etag"] == "touched"
    assert versions.figures_of(record)["reused"] is True


def test_a_retry_makes_only_what_is_missing_and_reports_all(instance, graph):
    graph.content = lambda _, partition: str(1 // (partition != "000001"))
    graph.run(instance, CHUNKS)
    graph.calls.clear()
    graph.content = lambda *_: "1"
    assert graph.run(instance, CHUNKS).success
    assert graph.calls == [("chunks", "000001")]
    assert len(events(instance, CHUNKS)) == 2 + 3


_KILLED = """
import os, pathlib, sys
import dagster as dg
from acidburn_assets_tests.io_managers.test_base import CHUNKS, KEYS, Graph

graph = Graph(pathlib.Path(sys.argv[1], "objects"))
graph.content = lambda _, partition: os._exit(9) if partition == KEYS[2] else partition
with dg.DagsterInstance.from_config(sys.argv[1]) as instance:
    instance.add_dynamic_partitions("d_shards", KEYS)
    graph.run(instance, CHUNKS)
"""


def test_a_killed_run_keeps_what_it_had_reported(tmp_path):
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}")
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED, str(tmp_path)],
        env={"PYTHONPATH": str(PROJECT_ROOT), "PATH": os.defpath},
        capture_output=True,
        check=False,
    )
    assert killed.returncode == 9
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert events(instance, CHUNKS) == [(key, key) for key in KEYS[:2]]


def test_what_was_stored_but_never_reported_is_adopted(instance, graph):
    """A run killed between the PUT and the event must not pay for the shard again."""
    graph.run(instance, CHUNKS)
    graph.calls.clear()
    with dg.instance_for_test() as other:
        other.add_dynamic_partitions("d_shards", KEYS)
        assert graph.run(other, CHUNKS).success
        assert graph.calls == []
        assert events(other, CHUNKS) == [(key, f"chunks{key}") for key in KEYS]


def test_a_lost_object_is_made_again_though_it_was_reported(instance, graph):
    graph.run(instance, CHUNKS)
    graph.calls.clear()
    del graph.manager.slots[CHUNKS, "000001"]
    graph.run(instance, CHUNKS)
    assert graph.calls == [("chunks", "000001")]


def test_new_code_makes_every_shard_again(instance, graph):
    graph.run(instance, CHUNKS)
    graph.calls.clear()
    graph.chunks_code = "2"
    graph.run(instance, CHUNKS)
    assert graph.calls == [("chunks", key) for key in KEYS]


def test_a_changed_input_makes_only_its_own_shard_again(instance, graph):
    graph.run(instance, CHUNKS, EMBEDDINGS)
    graph.calls.clear()
    graph.chunks_code = "2"
    graph.content = lambda asset, partition: (
        f"{asset}{partition}" + (" new" if (asset, partition) == ("chunks", "000001") else "")
    )
    graph.run(instance, CHUNKS, EMBEDDINGS)
    assert [call for call in graph.calls if call[0] == "embeddings"] == [("embeddings", "000001")]


def test_a_fan_in_is_current_until_a_shard_changes(instance, graph):
    graph.run(instance, CHUNKS, EMBEDDINGS)
    graph.run(instance, MANIFEST)
    asset_graph = graph.definitions().resolve_asset_graph()
    assert graph.manager.is_current(instance, asset_graph, MANIFEST, None)
    graph.content = lambda asset, partition: f"{asset}{partition} new"
    graph.run(instance, EMBEDDINGS, **{FORCE_TAG: "true"})
    assert not graph.manager.is_current(instance, asset_graph, MANIFEST, None)


def test_an_input_outside_the_run_counts_as_outside_a_run(instance, graph):
    """Dagster shows a run what it did not select as external; the version was then `missing`."""
    graph.run(instance, CHUNKS, EMBEDDINGS)
    graph.run(instance, MANIFEST)
    graph.run(instance, REPORT)
    record = versions.require_materialization(instance, REPORT, None)
    assert versions.input_version(versions.tags_of(record), MANIFEST) == "manifestNone"
    asset_graph = graph.definitions().resolve_asset_graph()
    assert graph.manager.is_current(instance, asset_graph, REPORT, None)


def test_a_forced_run_makes_everything_again(instance, graph):
    graph.run(instance, CHUNKS)
    graph.calls.clear()
    graph.run(instance, CHUNKS, **{FORCE_TAG: "true"})
    assert graph.calls == [("chunks", key) for key in KEYS]


def test_changed_inputs_are_named(instance, graph):
    graph.run(instance, CHUNKS, EMBEDDINGS)
    record = versions.require_materialization(instance, EMBEDDINGS, "000001")
    graph.content = lambda asset, partition: f"{asset}{partition} new"
    graph.run(instance, CHUNKS, **{FORCE_TAG: "true"})
    asset_graph = graph.definitions().resolve_asset_graph()
    current = versions.current_versions(instance, asset_graph, EMBEDDINGS, "000001")
    assert current.changed_since(versions.tags_of(record)) == ("d/chunks",)


def test_figures_are_found_out_once(instance, graph, tmp_path):
    """They may hold a picture: it was drawn for the object and drawn again for the event."""
    asked: list[str] = []

    class Asking(MemoryManager):
        def store(self, key: dg.AssetKey, partition: str | None, made: Made, **facts) -> Stored:
            return super().store(key, partition, Made(made.figures()), **facts)

    def make(partition: str | None) -> Made:
        return Made(partition, lambda: {"asked": asked.append(str(partition)) or len(asked)})

    @dg.asset(key=CHUNKS, io_manager_key="memory", partitions_def=SHARDS)
    def chunks(context) -> dg.Output[Work]:
        return work(make)

    graph.manager = Asking(tmp_path)
    graph.definitions = lambda: dg.Definitions(
        assets=[chunks], resources={"memory": graph.manager}, executor=dg.in_process_executor
    )
    assert graph.run(instance, CHUNKS).success
    assert asked == KEYS
