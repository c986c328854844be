"""What is wrong with the partitions of an asset, told by one listing and a few queries.

Truth is what is stored, not the event log: a partition is sound when it was reported, when what a
listing shows of it is what was reported, and when it was made from the code and the inputs of now.
Nothing is read or loaded to find out; a damage that a listing cannot show is a scrub's to find.
"""

import time
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

import dagster as dg

from acidburn_assets.io_managers import versions
from acidburn_assets.io_managers.base import ETAG, AssetIOManager

Reason = Literal["missing", "gone", "changed", "stale"]
"""missing: never made. gone: reported, but no longer stored. changed: what is stored is not what
was reported. stale: made from other code or inputs than those of now."""


class Finding(NamedTuple):
    """What is wrong with one partition."""

    reason: Reason
    detail: str = ""  # of an outdated one: what changed

    @property
    def is_outdated(self) -> bool:
        """What was made of it, lost or not, is of other code or inputs than those of now."""
        return bool(self.detail)

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


class Examined(NamedTuple):
    """An asset at one moment."""

    findings: Mapping[str | None, Finding]  # partitions that are sound have none
    versions: Mapping[str | None, versions.Versions]  # what every partition would be made from
    change: str  # why some are outdated; "" where none is


class _Reported(NamedTuple):
    """What the event of a materialization says."""

    etag: str
    tags: Mapping[str, str]


class _Listing(NamedTuple):
    """What was stored at one moment."""

    at: float  # of the monotonic clock, seconds
    newest_event: int  # that was known then
    etags: Mapping[str | None, str]


class Examiner:
    """Examines assets; what it read of an event it keeps, because events never change.

    Args:
        listing_seconds: how long a listing that costs money is kept. What was reported since then
            was stored and verified since; what was lost since is found with the next.
    """

    def __init__(self, *, listing_seconds: float = 0) -> None:
        self._listing_seconds = listing_seconds
        self._reported: dict[int, _Reported] = {}  # by storage id of the event
        self._listings: dict[dg.AssetKey, _Listing] = {}

    def examine(
        self,
        instance: dg.DagsterInstance,
        graph: versions.AssetGraph,
        key: dg.AssetKey,
        manager: AssetIOManager,
        *,
        left_out: versions.LeftOut = versions.none_left_out,
    ) -> "Examined":
        """Finds every partition that is not sound, of those that the plan has.

        Args:
            instance: whose events.
            graph: the assets as they are now.
            key: of one asset.
            manager: of that asset.
            left_out: shards that others go on without.
        """
        current = versions.all_versions(instance, graph, key, left_out=left_out)
        events = versions.latest_events(instance, key, graph.get(key).is_partitioned)
        reported = self._read(instance, key, events, current)
        listed = self._list(key, manager, events, reported)
        found: dict[str | None, Finding] = {}
        for partition, now in current.items():
            finding = _judge(reported.get(partition), listed.get(partition), now)
            if finding is not None:
                found[partition] = finding
        changes = (finding.detail for finding in found.values() if finding.is_outdated)
        return Examined(found, current, next(changes, ""))

    def forget_listings(self) -> None:
        """Lists everything anew: a run failed, perhaps because something is not where it was."""
        self._listings.clear()

    def _list(
        self,
        key: dg.AssetKey,
        manager: AssetIOManager,
        events: Mapping[str | None, int],
        reported: Mapping[str | None, "_Reported"],
    ) -> Mapping[str | None, str]:
        known = self._listings.get(key)
        now = time.monotonic()
        if known is None or now - known.at >= self._listing_seconds:
            newest = max(events.values(), default=0)
            known = _Listing(now, newest, dict(manager.listed(key)))
            if manager.is_listing_billed:
                self._listings[key] = known
        since = {
            partition: one.etag
            for partition, one in reported.items()
            if events[partition] > known.newest_event
        }
        return {**known.etags, **since}

    def _read(
        self,
        instance: dg.DagsterInstance,
        key: dg.AssetKey,
        events: Mapping[str | None, int],
        wanted: Iterable[str | None],
    ) -> dict[str | None, _Reported]:
        by_partition = {partition: events[partition] for partition in wanted if partition in events}
        unknown = [event for event in by_partition.values() if event not in self._reported]
        for start in range(0, len(unknown), _EVENTS_PER_QUERY):
            some = unknown[start : start + _EVENTS_PER_QUERY]
            self._fetch(instance, key, some)
        return {partition: self._reported[event] for partition, event in by_partition.items()}

    def _fetch(self, instance: dg.DagsterInstance, key: dg.AssetKey, events: list[int]) -> None:
        wanted = dg.AssetRecordsFilter(asset_key=key, storage_ids=events)
        for record in instance.fetch_materializations(wanted, limit=len(events)).records:
            self._reported[record.storage_id] = _Reported(
                str(versions.figures_of(record).get(ETAG, "")), versions.tags_of(record)
            )


_EVENTS_PER_QUERY = 500
"""SQLite binds 999 values in the versions that some systems still have."""


def _judge(
    reported: _Reported | None, listed_etag: str | None, current: versions.Versions
) -> Finding | None:
    if reported is None:
        return Finding("missing")
    detail = ", ".join(f"{name} changed" for name in current.changed_since(reported.tags))
    if listed_etag is None:
        return Finding("gone", detail)
    if listed_etag != reported.etag:
        return Finding("changed", detail)
    return Finding("stale", detail) if detail else None
