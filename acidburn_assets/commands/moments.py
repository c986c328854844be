"""An earlier moment of a pool: which lineage, map and model held at an event, in a run, at a time.

A cluster keeps its number from one cluster model to the next, but not its members or its title. So
what answers together must be of one model: the lineage whose chunks it assigned, the map whose
titles it named.
"""

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import NamedTuple

import dagster as dg

from acidburn_assets.adapters.object_store import ObjectStore
from acidburn_assets.core.errors import ConfigError
from acidburn_assets.io_managers import history, versions
from acidburn_assets.io_managers.lineages import LineageTable

TELLING = ("lineage", "cluster_map", "cluster_model")
"""Assets of a pool whose events are moments; of one run, the first of them counts."""

_RUN_ID = re.compile(r"[0-9a-f]{4,8}|[0-9a-f]{8}-[0-9a-f-]*")


class Standing(NamedTuple):
    """Events that together say how a pool's clusters stood."""

    lineage: dg.EventLogRecord
    table: LineageTable
    cluster_map: dg.EventLogRecord | None  # None: no map of that model is known
    cluster_model: dg.EventLogRecord | None


def find_standing(
    instance: dg.DagsterInstance, store: ObjectStore, pool: str, at: str | None
) -> Standing:
    """How a pool's clusters stood.

    Args:
        instance: whose events.
        store: where contents are kept.
        pool: its name.
        at: storage id of an event of the pool's lineage, cluster_map or cluster_model, the first
            digits of a run that made one of them, or an ISO time (UTC unless it says otherwise),
            which means the newest lineage at that moment; None: as it stands.

    Raises:
        ConfigError: there is no such event, run or time, or no lineage belongs to it.
        NotMaterialized: the pool has no lineage at all.
        ObjectMissing: what the lineage held was not kept.
    """
    lineage_key = dg.AssetKey([pool, "lineage"])
    moments = _Moments(instance, store, pool)
    newest = versions.require_materialization(instance, lineage_key, None)
    if at is None:
        lineage, moment = newest, newest.storage_id
    elif at.isdecimal():
        lineage, moment = moments.of_event(int(at))
    elif _RUN_ID.fullmatch(at):
        lineage, moment = moments.of_run(at)
    else:
        lineage, moment = moments.of_time(at)
    table = moments.table(lineage)
    model = max(table.sources.cluster_models.items(), key=lambda item: (item[1], item[0]))[0]
    map_key = dg.AssetKey([pool, "cluster_map"])
    model_key = dg.AssetKey([pool, "cluster_model"])
    # as it stands, the newest titles count; earlier, those of that moment
    until = moment if at is not None else None
    return Standing(
        lineage,
        table,
        _nearest(
            history.events(instance, map_key),
            until,
            lambda one: versions.input_version(versions.tags_of(one), model_key) == model,
        ),
        _nearest(
            history.events(instance, model_key),
            until,
            lambda one: versions.data_version(versions.tags_of(one)) == model,
        ),
    )


class _Moments:
    """Finds the lineage that belongs to what a person names."""

    def __init__(self, instance: dg.DagsterInstance, store: ObjectStore, pool: str) -> None:
        self._instance = instance
        self._store = store
        self._pool = pool

    def table(self, lineage: dg.EventLogRecord) -> LineageTable:
        """The content that a lineage event reported."""
        key = self._key("lineage")
        return LineageTable(self._store, history.find(self._store, key, history.sha256_of(lineage)))

    def of_event(self, storage_id: int) -> tuple[dg.EventLogRecord, int]:
        """The lineage of an event, and the event."""
        for asset in TELLING:
            record = history.event(self._instance, self._key(asset), storage_id)
            if record is not None:
                return self._lineage_of(asset, record), record.storage_id
        raise ConfigError(
            f"event {storage_id} is none of the pool's {', '.join(TELLING)}: "
            f"acidburn audit history {self._pool} lists them"
        )

    def of_run(self, prefix: str) -> tuple[dg.EventLogRecord, int]:
        """The lineage of a run, and the run's event."""
        for asset in TELLING:
            made = [
                record
                for record in history.events(self._instance, self._key(asset))
                if record.run_id.startswith(prefix)
            ]
            if len({record.run_id for record in made}) > 1:
                raise ConfigError(
                    f"several runs that made {self._pool}/{asset} begin with {prefix!r}, as "
                    f"{made[0].run_id} and {made[-1].run_id}: say more of its digits"
                )
            if made:
                return self._lineage_of(asset, made[0]), made[0].storage_id
        raise ConfigError(
            f"no run that begins with {prefix!r} made the pool's {', '.join(TELLING)}: "
            f"acidburn audit history {self._pool} lists those that did"
        )

    def of_time(self, text: str) -> tuple[dg.EventLogRecord, int]:
        """The newest lineage at a time."""
        try:
            moment = datetime.fromisoformat(text)
        except ValueError as error:
            raise ConfigError(
                f"{text!r} is neither the number of an event, nor the first digits of a run, nor "
                "an ISO time such as 2026-11-24T12:00"
            ) from error
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        oldest = None
        for record in history.events(self._instance, self._key("lineage")):
            if record.timestamp <= moment.timestamp():
                return record, record.storage_id
            oldest = record
        first = "" if oldest is None else f", its first is of {time_of(oldest)}"
        raise ConfigError(f"the pool {self._pool!r} had no lineage at {text!r}{first}")

    def _lineage_of(self, asset: str, record: dg.EventLogRecord) -> dg.EventLogRecord:
        if asset == "lineage":
            return record
        tags = versions.tags_of(record)
        model = (
            versions.data_version(tags)
            if asset == "cluster_model"
            else versions.input_version(tags, self._key("cluster_model"))
        )
        found = _nearest(
            history.events(self._instance, self._key("lineage")),
            record.storage_id,
            lambda one: model in self._models_of(one),
        )
        if found is None:
            raise ConfigError(
                f"no lineage was counted of the cluster model {model[:12]} that event "
                f"{record.storage_id} belongs to: nothing says which shards fed its clusters"
            )
        return found

    def _models_of(self, lineage: dg.EventLogRecord) -> Iterable[str]:
        figures = versions.figures_of(lineage)
        if "cluster_models" in figures:
            models: Iterable[str] = figures["cluster_models"]
            return models
        # a lineage that was adopted, or made before its figures told
        key = history.kept_key(self._key("lineage"), history.sha256_of(lineage))
        if self._store.head(key) is None:
            return ()
        return LineageTable(self._store, key).sources.cluster_models

    def _key(self, asset: str) -> dg.AssetKey:
        return dg.AssetKey([self._pool, asset])


def time_of(record: dg.EventLogRecord) -> str:
    """When an event was reported, ISO 8601, UTC."""
    return datetime.fromtimestamp(record.timestamp, UTC).isoformat()


def _nearest(
    newest_first: Iterable[dg.EventLogRecord],
    moment: int | None,
    is_wanted: Callable[[dg.EventLogRecord], bool],
) -> dg.EventLogRecord | None:
    """The newest at that moment; where there was none yet, the first after it."""
    later = None
    for record in newest_first:
        if is_wanted(record):
            if moment is None or record.storage_id <= moment:
                return record
            later = record
    return later
