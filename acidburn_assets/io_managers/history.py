"""What assets were before they were made anew: earlier events, and contents kept under their hash.

Objects are replaced in place, so an event alone tells that something was, not what. Of the assets
in `KEPT` every reported content is kept beside, under its own sha256, which the event names; it is
there before the event is, and nothing overwrites it.
"""

import hashlib
from collections.abc import Iterable, Iterator

import dagster as dg

from acidburn_assets.adapters.object_store import ObjectStore
from acidburn_assets.core import keys
from acidburn_assets.core.errors import ObjectCorrupt, ObjectMissing
from acidburn_assets.io_managers import versions
from acidburn_assets.io_managers.objects import RECORDS

KEPT = ("lineage", "cluster_map", "cluster_model")
"""With the first two, any cluster is known as it was, with its name; with the third, which one it
is of those before and after."""

_EVENTS_PER_QUERY = 500
"""SQLite binds 999 values in the versions that some systems still have."""

_EVENTS_PER_PAGE = 100
"""Mostly the first few are wanted. Chosen, not measured."""


def keep(store: ObjectStore, key: dg.AssetKey) -> None:
    """Copies what is stored of an asset to its place in the history, unless it is there.

    Args:
        store: where.
        key: of an asset in `KEPT`.

    Raises:
        ObjectMissing, ObjectCorrupt: nothing is stored, or something else than was written.
    """
    current = store.head(_object_key(key))
    if current is not None and store.head(kept_key(key, current.sha256)) is not None:
        return
    content = store.get_bytes(_object_key(key))
    # by what was read: another process may have replaced the object since it was looked at
    store.put_bytes(kept_key(key, hashlib.sha256(content).hexdigest()), content)


def kept_key(key: dg.AssetKey, sha256: str) -> str:
    """Where that content of an asset is kept: `P/history/lineage/<sha256>.parquet`."""
    owner, asset = key.path
    return keys.object_key(owner, f"history/{asset}", sha256, suffix=_suffix(asset))


def kept_keys(store: ObjectStore, key: dg.AssetKey) -> str:
    """How the kept contents of an asset are called, as an address for people."""
    return store.uri(kept_key(key, "sha256")).replace("sha256.", "<sha256>.")


def find(store: ObjectStore, key: dg.AssetKey, sha256: str) -> str:
    """The object that holds that content of an asset.

    Raises:
        ObjectMissing: it was not kept, and is not what is stored now.
    """
    kept = kept_key(key, sha256)
    if store.head(kept) is not None:
        return kept
    current = store.head(_object_key(key))
    if current is not None and current.sha256 == sha256:
        return current.key
    raise ObjectMissing(
        f"{store.uri(kept)} is not there: that content of {key.to_user_string()} was made before "
        "its history was kept, or somebody deleted it; `acidburn audit history "
        f"{key.to_user_string()}` lists the others"
    )


def last_content(
    instance: dg.DagsterInstance, store: ObjectStore, key: dg.AssetKey
) -> bytes | None:
    """What is stored of an asset in `KEPT`, or where that is lost what was reported last; None
    where nothing was, or where it was not kept."""
    try:
        return store.get_bytes(_object_key(key))
    except (ObjectMissing, ObjectCorrupt):
        record = versions.latest_materialization(instance, key, None)
    try:
        return None if record is None else store.get_bytes(find(store, key, sha256_of(record)))
    except ObjectMissing:
        return None


def sha256_of(record: dg.EventLogRecord) -> str:
    """The sha256 of the object that an event reported; its data version where it does not tell,
    which for tables is the same."""
    version = versions.data_version(versions.tags_of(record))
    return str(versions.figures_of(record).get("sha256", version))


def event(
    instance: dg.DagsterInstance, key: dg.AssetKey, storage_id: int
) -> dg.EventLogRecord | None:
    """The materialization of that storage id, or None where it is none of this asset."""
    return read_events(instance, key, [storage_id]).get(storage_id)


def read_events(
    instance: dg.DagsterInstance, key: dg.AssetKey, storage_ids: Iterable[int]
) -> dict[int, dg.EventLogRecord]:
    """Materializations of one asset by storage id, in as few queries as can be."""
    wanted = sorted(set(storage_ids))
    found = {}
    for start in range(0, len(wanted), _EVENTS_PER_QUERY):
        some = wanted[start : start + _EVENTS_PER_QUERY]
        records = instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=key, storage_ids=some), limit=len(some)
        ).records
        found.update({record.storage_id: record for record in records})
    return found


def latest_events(instance: dg.DagsterInstance, key: dg.AssetKey) -> dict[str, dg.EventLogRecord]:
    """The newest materialization of every shard that the plan has, in a few queries."""
    latest = {shard: found[0] for shard, found in versions.latest_shards(instance, key).items()}
    records = read_events(instance, key, latest.values())
    return {shard: records[storage_id] for shard, storage_id in latest.items()}


def events(
    instance: dg.DagsterInstance,
    key: dg.AssetKey,
    partition: str | None = None,
    *,
    before: int | None = None,
) -> Iterator[dg.EventLogRecord]:
    """All materializations of an asset, the newest first; read as they are asked for.

    Args:
        instance: whose.
        key: of the asset.
        partition: of this shard only.
        before: only those with a lower storage id.
    """
    cursor: str | None = None
    while True:
        page = instance.fetch_materializations(
            dg.AssetRecordsFilter(
                asset_key=key,
                asset_partitions=None if partition is None else [partition],
                before_storage_id=before,
            ),
            limit=_EVENTS_PER_PAGE,
            cursor=cursor,
        )
        yield from page.records
        if not page.has_more:
            return
        cursor = page.cursor


def _object_key(key: dg.AssetKey) -> str:
    owner, asset = key.path
    return keys.object_key(owner, asset, suffix=_suffix(asset))


def _suffix(asset: str) -> str:
    return RECORDS[asset][1] if asset in RECORDS else ".parquet"
