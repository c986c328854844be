"""Materializations as they were recorded: what changed with each, and what is stale now."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import dagster as dg

from acidburn_assets.commands.moments import time_of
from acidburn_assets.core.audit import Change, Event, History, Staleness, StalePartition
from acidburn_assets.core.datasets import Registry
from acidburn_assets.core.errors import ConfigError
from acidburn_assets.io_managers import history, versions


def tell_history(
    instance: dg.DagsterInstance, graph: Any, registry: Registry, target: str, *, limit: int
) -> History:
    """The newest materializations of a pool's assets, of one asset, or of one shard of it.

    Args:
        instance: whose events.
        graph: the assets as the registry makes them now.
        registry: of the pools.
        target: `POOL`, `OWNER/ASSET` or `DATASET/ASSET/SHARD`.
        limit: at most so many.

    Raises:
        ConfigError: there is no such pool or asset.
    """
    keys, partition = _choose(graph, registry, target)
    found = sorted(
        (
            (record.storage_id, key, record)
            for key in keys
            for record in islice(history.events(instance, key, partition), limit + 1)
        ),
        key=lambda one: -one[0],
    )
    before: dict[tuple[dg.AssetKey, str | None], dg.EventLogRecord] = {}
    shown = []
    for _, key, record in reversed(found):
        place = (key, record.partition_key)
        shown.append((key, record, before.get(place)))
        before[place] = record
    newest = shown[::-1][:limit]
    return History(
        target=target,
        events=tuple(
            _tell(
                key,
                record,
                earlier or _before(instance, key, record),
            )
            for key, record, earlier in newest
        ),
        has_more=len(shown) > limit,
    )


def find_stale(
    instance: dg.DagsterInstance,
    graph: Any,
    registry: Registry,
    target: str,
    *,
    left_out: versions.LeftOut = versions.none_left_out,
) -> Staleness:
    """Every partition that is not what a run would make now, and why.

    Only what Dagster recorded is looked at: whether it is still stored is `holdings`'.

    Args:
        instance: whose events.
        graph: the assets as the registry makes them now.
        registry: of datasets and pools.
        target: a dataset, a pool with its datasets, or `all`.
        left_out: shards that a dataset goes on without.

    Raises:
        ConfigError: there is no such dataset or pool.
    """
    stale: list[StalePartition] = []
    n_partitions = 0
    for key in keys_of(graph, registry, target):
        current = versions.all_versions(instance, graph, key, left_out=left_out)
        recorded = recorded_events(instance, graph, key)
        n_partitions += len(current)
        stale += [
            found
            for partition, now in current.items()
            if (found := _judge(key, partition, now, recorded.get(partition))) is not None
        ]
    return Staleness(target=target, n_partitions=n_partitions, stale=tuple(stale))


def keys_of(graph: Any, registry: Registry, target: str) -> list[dg.AssetKey]:
    """The materializable assets of a dataset, of a pool and its datasets, or of all; parents first.

    Raises:
        ConfigError: there is no such dataset or pool.
    """
    ordered = [key for key in graph.toposorted_asset_keys if graph.get(key).is_materializable]
    return [key for key in ordered if key.path[0] in owners_of(registry, target)]


def owners_of(registry: Registry, target: str) -> list[str]:
    """The datasets and pools that a target names.

    Raises:
        ConfigError: there is no such dataset or pool.
    """
    if target == "all":
        return [*registry.datasets, *registry.pools]
    if target in registry.datasets:
        return [target]
    if target in registry.pools:
        return [*registry.pools[target].datasets, target]
    raise ConfigError(
        f"no dataset or pool {target!r}; datasets are {sorted(registry.datasets)}, "
        f"pools are {sorted(registry.pools)}, or say all"
    )


def recorded_events(
    instance: dg.DagsterInstance, graph: Any, key: dg.AssetKey
) -> Mapping[str | None, dg.EventLogRecord]:
    """The newest materialization of every partition that the plan has."""
    found: dict[str | None, dg.EventLogRecord] = {}
    if graph.get(key).is_partitioned:
        found.update(history.latest_events(instance, key))
    elif (record := versions.latest_materialization(instance, key, None)) is not None:
        found[None] = record
    return found


def _choose(
    graph: Any, registry: Registry, target: str
) -> tuple[Sequence[dg.AssetKey], str | None]:
    if target in registry.pools:
        keys = [key for key in graph.toposorted_asset_keys if key.path[0] == target]
        return keys, None
    owner, _, rest = target.partition("/")
    asset, _, shard = rest.partition("/")
    key = dg.AssetKey([owner, asset])
    if not graph.has(key):
        owned = sorted(one.path[1] for one in graph.get_all_asset_keys() if one.path[0] == owner)
        known = f"{owner!r} has {owned}" if owned else f"pools are {sorted(registry.pools)}"
        raise ConfigError(
            f"{target!r} is neither a pool nor an asset, such as notes/embeddings, nor a shard of "
            f"one, such as notes/embeddings/000000; {known}"
        )
    return [key], shard or None


def _tell(key: dg.AssetKey, record: dg.EventLogRecord, earlier: dg.EventLogRecord | None) -> Event:
    tags = versions.tags_of(record)
    figures = versions.figures_of(record)
    return Event(
        event_id=record.storage_id,
        asset=key.to_user_string(),
        shard=record.partition_key,
        made_at=time_of(record),
        run_id=record.run_id,
        data_version=versions.data_version(tags),
        code_version=versions.code_version(tags),
        n_rows=figures.get("rows"),
        is_reused=bool(figures.get("reused", False)),
        changed=None if earlier is None else tuple(_changed(versions.tags_of(earlier), tags)),
    )


def _before(
    instance: dg.DagsterInstance, key: dg.AssetKey, record: dg.EventLogRecord
) -> dg.EventLogRecord | None:
    earlier = history.events(instance, key, record.partition_key, before=record.storage_id)
    return next(earlier, None)


def _changed(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[str]:
    if versions.data_version(before) != versions.data_version(after):
        yield "content"
    if versions.code_version(before) != versions.code_version(after):
        yield "code"
    then, now = versions.input_versions(before), versions.input_versions(after)
    yield from sorted(name for name in {*then, *now} if then.get(name) != now.get(name))


def _judge(
    key: dg.AssetKey,
    partition: str | None,
    current: versions.Versions,
    record: dg.EventLogRecord | None,
) -> StalePartition | None:
    if record is None:
        return StalePartition(
            asset=key.to_user_string(),
            shard=partition,
            reason="missing",
            changes=(),
            event_id=None,
            made_at=None,
        )
    tags = versions.tags_of(record)
    names = current.changed_since(tags)
    if not names:
        return None
    then = {"code": versions.code_version(tags), **versions.input_versions(tags)}
    now = {
        "code": current.code,
        **{parent.to_user_string(): version for parent, version in current.inputs.items()},
    }
    return StalePartition(
        asset=key.to_user_string(),
        shard=partition,
        reason="changed",
        changes=tuple(
            Change(what=name, recorded=then.get(name), current=now.get(name)) for name in names
        ),
        event_id=record.storage_id,
        made_at=time_of(record),
    )
