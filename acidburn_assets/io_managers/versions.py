"""Versions of an asset partition: what Dagster recorded, what holds now, and whether they agree.

The tags are Dagster's own, so the UI's staleness and lineage understand them. They are written by
us because the framework gives every partition of a ranged run one common version.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, Protocol

import dagster as dg
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_IS_USER_PROVIDED_TAG,
    DATA_VERSION_TAG,
    NULL_EVENT_POINTER,
    extract_data_version_from_entry,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)

from acidburn_assets.core.errors import NotMaterialized
from acidburn_assets.partitions import shard_keys

_INPUT_PREFIX = get_input_data_version_tag(dg.AssetKey("")).rstrip("/") + "/"

MISSING_VERSION = "missing"
"""Recorded for an input that has never been made."""


class AssetGraph(Protocol):
    """What we need of Dagster's asset graph, in a run or outside one."""

    def get(self, asset_key: dg.AssetKey) -> Any: ...
    def has(self, asset_key: dg.AssetKey) -> bool: ...


class Versions(NamedTuple):
    """What a partition is made from: code and inputs, each with the event that made it."""

    code: str
    inputs: Mapping[dg.AssetKey, str]  # data version of each parent
    pointers: Mapping[dg.AssetKey, int | None]  # storage id of its event

    def tags(self, data_version: str) -> dict[str, str]:
        """The tags of a materialization made from these.

        Args:
            data_version: content hash of what was made.
        """
        tags = {
            DATA_VERSION_TAG: data_version,
            DATA_VERSION_IS_USER_PROVIDED_TAG: "true",
            CODE_VERSION_TAG: self.code,
        }
        for key, version in self.inputs.items():
            tags[get_input_data_version_tag(key)] = version
            pointer = self.pointers[key]
            tags[get_input_event_pointer_tag(key)] = (
                str(pointer) if pointer is not None else NULL_EVENT_POINTER
            )
        return tags

    def with_inputs(self, read: Mapping[dg.AssetKey, str]) -> "Versions":
        """The same, but with these versions of inputs that were read earlier."""
        return self._replace(inputs={**self.inputs, **read})

    def are_recorded_in(self, tags: Mapping[str, str]) -> bool:
        """True when a materialization with these tags was made from the same code and inputs."""
        return not self.changed_since(tags)

    def changed_since(self, tags: Mapping[str, str]) -> tuple[str, ...]:
        """What differs from a materialization with these tags: `code`, or the names of inputs."""
        recorded = input_versions(tags)
        current = {key.to_user_string(): version for key, version in self.inputs.items()}
        changed = sorted(
            name for name in {*recorded, *current} if recorded.get(name) != current.get(name)
        )
        return (*(["code"] if tags.get(CODE_VERSION_TAG) != self.code else []), *changed)

    def fingerprint(self) -> str:
        """sha256 over code and inputs, hex: stored with what was made from them."""
        inputs = {key.to_user_string(): version for key, version in self.inputs.items()}
        content = json.dumps([self.code, inputs], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


LeftOut = Callable[[str], Collection[str]]
"""Dataset to the shards that others go on without."""


def none_left_out(_: str) -> Collection[str]:
    """Every shard counts."""
    return ()


def current_versions(
    instance: dg.DagsterInstance,
    graph: AssetGraph,
    key: dg.AssetKey,
    partition: str | None,
    *,
    left_out: LeftOut = none_left_out,
) -> Versions:
    """What this partition would be made from now.

    A partitioned parent of a partitioned asset counts with the same partition; one of an
    unpartitioned asset (a fan-in) counts with all its partitions, as one hash over their
    versions, and its pointer is the newest of their events. A shard that is left out counts as
    missing: what is made without it is stale when it is there, and the other way round.
    """
    node = graph.get(key)
    inputs: dict[dg.AssetKey, str] = {}
    pointers: dict[dg.AssetKey, int | None] = {}
    for parent in sorted(node.parent_keys):
        parent_node = graph.get(parent)
        if parent_node.is_partitioned and partition is None:
            inputs[parent], pointers[parent] = _fan_in(
                instance,
                parent,
                parent_node.partitions_def.get_partition_keys(dynamic_partitions_store=instance),
                left_out(parent.path[0]),
            )
            continue
        inputs[parent], pointers[parent] = _version_of(
            instance, parent, partition if parent_node.is_partitioned else None
        )
    return Versions(node.code_version or "", inputs, pointers)


def all_versions(
    instance: dg.DagsterInstance,
    graph: AssetGraph,
    key: dg.AssetKey,
    *,
    left_out: LeftOut = none_left_out,
) -> dict[str | None, Versions]:
    """`current_versions` of every partition (None: of the asset without any), by one query for
    each parent instead of one for each partition; without pointers."""
    node = graph.get(key)
    if not node.is_partitioned:
        return {None: current_versions(instance, graph, key, None, left_out=left_out)}
    shared: dict[dg.AssetKey, str] = {}
    by_shard: dict[dg.AssetKey, Mapping[str, str]] = {}
    for parent in sorted(node.parent_keys):
        if graph.get(parent).is_partitioned:
            by_shard[parent] = _data_versions(instance, parent)
        else:
            shared[parent], _ = _version_of(instance, parent, None)
    return {
        shard: Versions(
            node.code_version or "",
            {
                **shared,
                **{parent: of.get(shard, MISSING_VERSION) for parent, of in by_shard.items()},
            },
            {},
        )
        for shard in shard_keys(instance, key.path[0])
    }


def latest_events(
    instance: dg.DagsterInstance, key: dg.AssetKey, is_partitioned: bool
) -> dict[str | None, int]:
    """Storage id of every partition's newest materialization; of partitions that a newer plan no
    longer has, too."""
    if is_partitioned:
        kind = dg.DagsterEventType.ASSET_MATERIALIZATION
        found = instance.event_log_storage.get_latest_storage_id_by_partition(key, kind)
        return dict(found.items())
    record = latest_materialization(instance, key, None)
    return {} if record is None else {None: record.storage_id}


def unfinished_attempts(
    instance: dg.DagsterInstance, key: dg.AssetKey, *, is_partitioned: bool
) -> dict[str | None, str]:
    """Partitions that were to be made and were not, or not yet: partition to the run's id."""
    storage = instance.event_log_storage
    if is_partitioned:
        found = (
            storage.get_latest_asset_partition_materialization_attempts_without_materializations(
                key
            )
        )
        return {partition: run_id for partition, (run_id, _) in found.items()}
    records = storage.get_asset_records([key])
    if not records:
        return {}
    entry = records[0].asset_entry
    planned = entry.last_planned_materialization_run_id
    made = entry.last_materialization
    return {} if planned is None or (made and made.run_id == planned) else {None: planned}


def in_progress(
    instance: dg.DagsterInstance, key: dg.AssetKey, *, is_partitioned: bool
) -> dict[str | None, str]:
    """Partitions that a run is making or will make: partition to the run's id."""
    attempts = unfinished_attempts(instance, key, is_partitioned=is_partitioned)
    if not attempts:
        return {}
    runs = instance.get_runs(dg.RunsFilter(run_ids=sorted(set(attempts.values()))))
    working = {run.run_id for run in runs if not run.is_finished}
    return {partition: run_id for partition, run_id in attempts.items() if run_id in working}


def latest_shards(instance: dg.DagsterInstance, key: dg.AssetKey) -> dict[str, tuple[int, str]]:
    """Every present partition's latest materialization: (storage id of its event, data version).

    Dagster keeps the events of partitions that a newer plan no longer has; they are left out.
    """
    kind = dg.DagsterEventType.ASSET_MATERIALIZATION
    events = instance.event_log_storage.get_latest_storage_id_by_partition(key, kind)
    made = _data_versions(instance, key)
    present = set(shard_keys(instance, key.path[0]))
    return {
        partition: (event, made.get(partition, MISSING_VERSION))
        for partition, event in events.items()
        if partition in present
    }


def latest_materialization(
    instance: dg.DagsterInstance, key: dg.AssetKey, partition: str | None
) -> dg.EventLogRecord | None:
    """The newest materialization event of a partition, or None."""
    records = instance.fetch_materializations(
        dg.AssetRecordsFilter(
            asset_key=key, asset_partitions=None if partition is None else [partition]
        ),
        limit=1,
    ).records
    return records[0] if records else None


def observe_revision(instance: dg.DagsterInstance, key: dg.AssetKey, revision: str) -> None:
    """Records the revision at which an external asset was seen, when it is a new one.

    Reported at once and outside the step: what is planned next has it among its input versions.
    """
    record = instance.get_latest_data_version_record(key, is_source=True)
    known = extract_data_version_from_entry(record.event_log_entry) if record else None
    if known is None or known.value != revision:
        instance.report_runless_asset_event(
            dg.AssetObservation(key, tags={DATA_VERSION_TAG: revision})
        )


def require_materialization(
    instance: dg.DagsterInstance, key: dg.AssetKey, partition: str | None
) -> dg.EventLogRecord:
    """The newest materialization event of a partition.

    Raises:
        NotMaterialized: there is none.
    """
    record = latest_materialization(instance, key, partition)
    if record is None:
        name = key.to_user_string() + (f", shard {partition!r}" if partition is not None else "")
        raise NotMaterialized(f"{name} has not been made: materialize it first")
    return record


def figures_of(record: dg.EventLogRecord) -> dict[str, Any]:
    """The metadata of a materialization event as plain values."""
    materialization = record.asset_materialization
    metadata = materialization.metadata if materialization else {}
    return {name: value.value for name, value in metadata.items()}


def tags_of(record: dg.EventLogRecord) -> Mapping[str, str]:
    """The tags of a materialization event."""
    materialization = record.asset_materialization
    return (materialization.tags if materialization else None) or {}


def data_version(tags: Mapping[str, str]) -> str:
    """The recorded content hash; `missing` where there is none."""
    return tags.get(DATA_VERSION_TAG, MISSING_VERSION)


def input_version(tags: Mapping[str, str], key: dg.AssetKey) -> str:
    """The recorded version of one input; `missing` where there is none."""
    return tags.get(get_input_data_version_tag(key), MISSING_VERSION)


def input_versions(tags: Mapping[str, str]) -> dict[str, str]:
    """The recorded version of every input, by its name."""
    return {
        tag.removeprefix(_INPUT_PREFIX): version
        for tag, version in tags.items()
        if tag.startswith(_INPUT_PREFIX)
    }


def code_version(tags: Mapping[str, str]) -> str:
    """The recorded code version; empty where there is none."""
    return tags.get(CODE_VERSION_TAG, "")


def _version_of(
    instance: dg.DagsterInstance, key: dg.AssetKey, partition: str | None
) -> tuple[str, int | None]:
    """Newest data version of one partition, and the event that says so."""
    # not by whether the node is external: in a run, whatever was not selected looks external
    record = instance.get_latest_data_version_record(key, partition_key=partition)
    version = extract_data_version_from_entry(record.event_log_entry) if record else None
    return version.value if version else MISSING_VERSION, record.storage_id if record else None


def _data_versions(instance: dg.DagsterInstance, key: dg.AssetKey) -> dict[str, str]:
    """Newest data version of every partition, in one query."""
    tags = instance.event_log_storage.get_latest_tags_by_partition(
        key, dg.DagsterEventType.ASSET_MATERIALIZATION, [DATA_VERSION_TAG]
    )
    return {partition: found[DATA_VERSION_TAG] for partition, found in tags.items()}


def _fan_in(
    instance: dg.DagsterInstance,
    key: dg.AssetKey,
    partitions: list[str],
    left_out: Collection[str],
) -> tuple[str, int | None]:
    latest = {
        shard: made for shard, made in latest_shards(instance, key).items() if shard not in left_out
    }
    lines = [f"{name} {latest.get(name, (0, MISSING_VERSION))[1]}\n" for name in sorted(partitions)]
    events = [latest[name][0] for name in partitions if name in latest]
    return hashlib.sha256("".join(lines).encode()).hexdigest(), max(events, default=None)
