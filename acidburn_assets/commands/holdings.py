"""Whether the bucket and Postgres still hold what was recorded, hash by hash.

Looking asks for each recorded object's own checksum; looking deep reads every byte of them and
counts every row. Nothing is changed: what is missing or differs is mended by `acidburn
materialize`, what is left over is for a person to delete.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, NamedTuple

import dagster as dg

from acidburn_assets.adapters import postgres as database
from acidburn_assets.adapters.object_store import ListedObject, ObjectStore
from acidburn_assets.commands.events import keys_of, owners_of, recorded_events
from acidburn_assets.core import keys
from acidburn_assets.core.audit import Holding, Holdings, LeftOver
from acidburn_assets.core.errors import ObjectCorrupt, ObjectMissing
from acidburn_assets.io_managers import history, versions
from acidburn_assets.io_managers.objects import RECORDS
from acidburn_assets.io_managers.slices import POOL_TABLES, SHARD_TABLES
from acidburn_assets.runtime import backends
from acidburn_assets.settings import Settings

_AT_ONCE = 16
"""Questions to the bucket at a time. Chosen: waiting is most of each."""


class _Expected(NamedTuple):
    """An object as an event reported it."""

    object_key: str
    asset: str
    shard: str | None
    sha256: str


def check_holdings(
    settings: Settings, instance: dg.DagsterInstance, graph: Any, target: str, *, is_deep: bool
) -> Holdings:
    """Compares what was recorded with what is there.

    Args:
        settings: for the bucket and Postgres; Postgres is asked only where something was loaded.
        instance: whose events.
        graph: the assets as the registry makes them now.
        target: a dataset, a pool with its datasets, or `all`.
        is_deep: read every byte, count every row.

    Raises:
        ConfigError: there is no such dataset or pool.
        StoreUnavailable, DatabaseUnavailable: the bucket or Postgres cannot say.
    """
    store = backends.open_store(settings)
    wanted = keys_of(graph, settings.registry, target)
    events = {key: recorded_events(instance, graph, key) for key in wanted}
    expected = [*_expected(events), *_kept(instance, events)]
    listed = _listed(store, settings, target)
    wrong = list(_check_objects(store, expected, listed, is_deep=is_deep))
    known = {one.object_key for one in expected} | _once_kept(instance, events)
    others = [one for name, one in listed.items() if name not in known]
    own = [one for one in others if _is_own(one.key)]
    slices = {
        key: found for key, found in events.items() if key.path[1] in {*SHARD_TABLES, *POOL_TABLES}
    }
    n_slices = sum(map(len, slices.values()))
    left = [LeftOver(where=one.key, n_bytes=one.n_bytes, n_rows=None) for one in others]
    left = [one for one in left if not _is_own(one.where)]
    if n_slices:
        postgres = backends.open_postgres(settings)
        for key, found in slices.items():
            wrong_slices, left_slices = _check_slices(postgres, key, found, is_deep=is_deep)
            wrong += wrong_slices
            left += left_slices
    return Holdings(
        target=target,
        is_deep=is_deep,
        n_objects=len(expected),
        n_bytes=sum(listed[one.object_key].n_bytes for one in expected if one.object_key in listed),
        n_slices=n_slices,
        wrong=tuple(wrong),
        left_over=tuple(left),
        n_own_objects=len(own),
        n_own_bytes=sum(one.n_bytes for one in own),
    )


def _expected(
    events: Mapping[dg.AssetKey, Mapping[str | None, dg.EventLogRecord]],
) -> Iterator[_Expected]:
    for key, found in events.items():
        owner, asset = key.path
        if asset in SHARD_TABLES or asset in POOL_TABLES:
            continue
        suffix = RECORDS[asset][1] if asset in RECORDS else ".parquet"
        for partition, record in found.items():
            object_key = keys.object_key(owner, asset, partition, suffix=suffix)
            yield _Expected(object_key, key.to_user_string(), partition, history.sha256_of(record))


def _kept(instance: dg.DagsterInstance, events: Iterable[dg.AssetKey]) -> Iterator[_Expected]:
    """Earlier contents whose events say that they are kept."""
    for key in events:
        if key.path[1] in history.KEPT:
            for sha256, record in _told(instance, key).items():
                if "history" in versions.figures_of(record):
                    name = f"{key.to_user_string()} of event {record.storage_id}"
                    yield _Expected(history.kept_key(key, sha256), name, None, sha256)


def _once_kept(instance: dg.DagsterInstance, events: Iterable[dg.AssetKey]) -> set[str]:
    return {
        history.kept_key(key, sha256)
        for key in events
        if key.path[1] in history.KEPT
        for sha256 in _told(instance, key)
    }


def _told(instance: dg.DagsterInstance, key: dg.AssetKey) -> dict[str, dg.EventLogRecord]:
    """Every content that was ever reported of an asset, with the newest event that did."""
    oldest_first = reversed(list(history.events(instance, key)))
    return {history.sha256_of(record): record for record in oldest_first}


def _listed(store: ObjectStore, settings: Settings, target: str) -> dict[str, ListedObject]:
    prefixes = [""]
    if target != "all":
        prefixes = [f"{owner}/" for owner in owners_of(settings.registry, target)]
    return {one.key: one for prefix in prefixes for one in store.list(prefix)}


def _is_own(object_key: str) -> bool:
    """Whether Acidburn keeps it for itself: no asset, no left-over of one."""
    first, _, rest = object_key.partition("/")
    # names of datasets and pools begin with a letter; labels are the cache of bought answers,
    # picture and page of a map lie beside its table
    return (
        first.startswith("_")
        or rest.startswith("labels/")
        or rest in ("projection.png", "map.html")
    )


def _check_objects(
    store: ObjectStore,
    expected: Sequence[_Expected],
    listed: Mapping[str, ListedObject],
    *,
    is_deep: bool,
) -> Iterator[Holding]:
    def check(one: _Expected) -> Holding | None:
        if one.object_key not in listed:
            return _object_wrong(one, "missing", "nothing")
        try:
            info = store.verify(one.object_key) if is_deep else store.head(one.object_key)
        except ObjectMissing:  # deleted since it was listed
            return _object_wrong(one, "missing", "nothing")
        except ObjectCorrupt as error:
            return _object_wrong(one, "corrupt", str(error))
        if info is None:
            return _object_wrong(one, "missing", "nothing")
        if info.sha256 != one.sha256:
            return _object_wrong(one, "differs", info.sha256 or "written by another tool")
        return None

    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="acidburn-audit") as threads:
        yield from (found for found in threads.map(check, expected) if found is not None)


def _object_wrong(
    one: _Expected, problem: Literal["missing", "differs", "corrupt"], found: str
) -> Holding:
    return Holding(
        where=one.object_key,
        asset=one.asset,
        shard=one.shard,
        problem=problem,
        recorded=one.sha256,
        found=found,
    )


def _check_slices(
    postgres: database.Postgres,
    key: dg.AssetKey,
    events: Mapping[str | None, dg.EventLogRecord],
    *,
    is_deep: bool,
) -> tuple[list[Holding], list[LeftOver]]:
    owner, asset = key.path
    loaded: dict[str | None, database.LoadState] = {}
    if asset in SHARD_TABLES:
        table: str = SHARD_TABLES[asset]
        loaded.update(database.load_ledger(postgres, SHARD_TABLES[asset], owner))
        if is_deep:
            for name in [name for name in loaded if name is not None]:
                state = database.load_state(postgres, SHARD_TABLES[asset], owner, name)
                if state is not None:
                    loaded[name] = state
    else:
        table = POOL_TABLES[asset]
        state = database.pool_load_state(postgres, POOL_TABLES[asset], owner)
        if state is not None:
            loaded[None] = state
    wrong = []
    for shard, record in events.items():
        version = versions.data_version(versions.tags_of(record))
        problem = _slice_problem(version, loaded.get(shard))
        if problem is not None:
            kind, recorded, found = problem
            wrong.append(
                Holding(
                    where=_slice_name(table, owner, shard),
                    asset=key.to_user_string(),
                    shard=shard,
                    problem=kind,
                    recorded=recorded,
                    found=found,
                )
            )
    left = [
        LeftOver(where=_slice_name(table, owner, shard), n_bytes=None, n_rows=state.n_rows)
        for shard, state in loaded.items()
        if shard not in events
    ]
    return wrong, left


def _slice_problem(
    version: str, state: database.LoadState | None
) -> tuple[Literal["missing", "differs", "rows"], str, str] | None:
    """(problem, recorded, found), or None."""
    if state is None:
        return "missing", version, "nothing"
    if state.source_sha256 != version:
        return "differs", version, state.source_sha256
    if state.n_counted is not None and state.n_counted != state.n_rows:
        return "rows", f"{state.n_rows:,} rows", f"{state.n_counted:,} rows"
    return None


def _slice_name(table: str, owner: str, shard: str | None) -> str:
    return f"acidburn.{table} {owner}" + ("" if shard is None else f"/{shard}")
