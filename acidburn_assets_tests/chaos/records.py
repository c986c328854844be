"""What Dagster's records, the bucket and Postgres say of single partitions while the stack runs.

Only read: whatever heals, heals without this.
"""

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import dagster as dg
import psycopg

from acidburn_assets.io_managers import versions
from acidburn_assets.io_managers.base import ETAG
from acidburn_assets.launcher import process_of
from acidburn_assets.partitions import RANGE_END_TAG, RANGE_START_TAG
from acidburn_assets_tests.chaos.stack import Bucket

SHARDED = (
    *("chunks", "embeddings", "term_weights", "assignments"),
    *("chunk_embeddings", "chunk_clusters"),
)
OF_DATASET = ("plan", "manifest")
OF_POOL = (
    "cluster_model",
    "centroids",
    "cluster_map",
    "lineage",
    "projection",
    "cluster_headers",
    "lineage_table",
    "retrieval_report",
)
IN_POSTGRES = ("chunk_embeddings", "chunk_clusters", "cluster_headers", "lineage_table")

_SUFFIX = {"cluster_model": ".npz"} | dict.fromkeys(
    ("plan", "manifest", "cluster_map", "retrieval_report"), ".json"
)

UNFINISHED = [
    status
    for status in dg.DagsterRunStatus
    if status
    not in (
        dg.DagsterRunStatus.SUCCESS,
        dg.DagsterRunStatus.FAILURE,
        dg.DagsterRunStatus.CANCELED,
    )
]


class Place(NamedTuple):
    """One partition of one asset."""

    owner: str
    asset: str
    shard: str | None

    @property
    def key(self) -> dg.AssetKey:
        """Of the asset."""
        return dg.AssetKey([self.owner, self.asset])

    @property
    def object_key(self) -> str:
        """Where it lies in the bucket; of those that do."""
        middle = f"/{self.shard}" if self.shard is not None else ""
        return f"{self.owner}/{self.asset}{middle}{_SUFFIX.get(self.asset, '.parquet')}"

    def __str__(self) -> str:
        return "/".join(part for part in self if part is not None)


class Worker(NamedTuple):
    """A process that executes a run."""

    run_id: str
    pid: int
    places: tuple[Place, ...]  # what it is to make, in order

    @property
    def asset(self) -> str:
        """What it is at work on."""
        return self.places[0].asset


class Newest(NamedTuple):
    """The newest materialization of a place."""

    event: int  # its storage id; 0 where there is none
    etag: str


class Records:
    """Of one world."""

    def __init__(self, home: Path, bucket: Bucket, dsn: str, pools: dict[str, str]) -> None:
        """Reads nothing yet.

        Args:
            home: the stack's ACIDBURN_HOME.
            bucket: where its objects are.
            dsn: of its database.
            pools: pool of each dataset.
        """
        self.instance = dg.DagsterInstance.from_config(str(home / "dagster"))
        self.bucket = bucket
        self.dsn = dsn
        self.pools = pools

    def planned(self) -> dict[str, list[str]]:
        """Shards of each dataset, as its stored plan has them."""
        stored = self.bucket.etags()
        return {
            dataset: [
                shard["key"]
                for shard in json.loads(self.bucket.read(f"{dataset}/plan.json")[0])["shards"]
            ]
            for dataset in self.pools
            if f"{dataset}/plan.json" in stored
        }

    def places(self, left_out: Iterable[tuple[str, str]] = ()) -> list[Place]:
        """Everything that there should be, by the plans.

        Args:
            left_out: dataset and shard of what cannot be made.
        """
        without = set(left_out)
        found = []
        for dataset, shards in self.planned().items():
            found += [Place(dataset, asset, None) for asset in OF_DATASET]
            found += [
                Place(dataset, asset, shard)
                for asset in SHARDED
                for shard in shards
                if (dataset, shard) not in without
            ]
        return found + [
            Place(pool, asset, None)
            for pool in dict.fromkeys(self.pools.values())
            for asset in OF_POOL
        ]

    def newest(self, place: Place) -> Newest:
        """Its newest event."""
        record = versions.latest_materialization(self.instance, place.key, place.shard)
        if record is None:
            return Newest(0, "")
        return Newest(record.storage_id, str(versions.figures_of(record).get(ETAG, "")))

    def stored(self, place: Place) -> str:
        """ETag of what is stored now, "" where nothing is."""
        if place.asset in IN_POSTGRES:
            return self._ledger().get(place, "")
        return self.bucket.etags(place.object_key).get(place.object_key, "")

    def is_sound(self, place: Place, *, after: int = 0) -> bool:
        """Reported since that event, and what is stored is what was reported."""
        newest = self.newest(place)
        return newest.event > after and newest.etag == self.stored(place) != ""

    def unsound(self, places: Iterable[Place]) -> list[Place]:
        """Those that are not sound, by a few queries for all."""
        etags = self.bucket.etags()
        ledger = self._ledger()
        reported: dict[tuple[dg.AssetKey, str | None], str] = {}
        wanted = list(places)
        for key in {place.key for place in wanted}:
            is_sharded = key.path[-1] in SHARDED
            events = versions.latest_events(self.instance, key, is_sharded)
            records = self.instance.fetch_materializations(
                dg.AssetRecordsFilter(asset_key=key, storage_ids=list(events.values())),
                limit=max(1, len(events)),
            ).records
            for record in records:
                shard = record.partition_key if is_sharded else None
                reported[key, shard] = str(versions.figures_of(record).get(ETAG, ""))
        found = []
        for place in wanted:
            told = reported.get((place.key, place.shard), "")
            if place.asset in IN_POSTGRES:
                stored = ledger.get(place, "")
            else:
                stored = etags.get(place.object_key, "")
            if not told or told != stored:
                found.append(place)
        return found

    def workers(self) -> list[Worker]:
        """Processes that are at work on a run now."""
        found = []
        started = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])
        for run in self.instance.get_runs(started):
            process = process_of(self.instance, run)
            if process is None or not process.is_alive():
                continue
            places = self.places_of(run)
            if places:
                found.append(Worker(run.run_id, process.pid, places))
        return found

    def places_of(self, run: dg.DagsterRun) -> tuple[Place, ...]:
        """What a run is to make, in order."""
        found: list[Place] = []
        for key in sorted(run.asset_selection or ()):
            owner, asset = key.path
            start, end = run.tags.get(RANGE_START_TAG), run.tags.get(RANGE_END_TAG)
            if start is None or end is None:
                found.append(Place(owner, asset, None))
                continue
            shards = sorted(self.instance.get_dynamic_partitions(f"{owner}_shards"))
            found += [Place(owner, asset, shard) for shard in shards if start <= shard <= end]
        return tuple(found)

    def in_hand(self, run_id: str, places: tuple[Place, ...]) -> Place | None:
        """The first that a run has not reported; None when it has reported all."""
        events = self.instance.get_records_for_run(
            run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION
        ).records
        made = set()
        for record in events:
            event = record.event_log_entry.dagster_event
            if event is not None and event.asset_key is not None:
                owner, asset = event.asset_key.path
                made.add(Place(owner, asset, event.partition))
        return next((place for place in places if place not in made), None)

    def n_unfinished(self, key: dg.AssetKey | None = None) -> int:
        """Runs that wait or are at work: all, or those of an asset."""
        runs = self.instance.get_runs(dg.RunsFilter(statuses=UNFINISHED))
        return sum(key is None or key in (run.asset_selection or ()) for run in runs)

    def heard_of_daemon(self) -> float:
        """When its sensors were last alive, seconds since the epoch."""
        beats = self.instance.get_daemon_heartbeats()
        return beats["SENSOR"].timestamp if "SENSOR" in beats else 0.0

    def _ledger(self) -> dict[Place, str]:
        """What of everything that is in Postgres the ledger says; nothing while Postgres is away
        or before it has tables."""
        found: dict[Place, str] = {}
        with (
            suppress(psycopg.OperationalError, psycopg.errors.UndefinedTable),
            psycopg.connect(self.dsn, autocommit=True, connect_timeout=5) as connection,
        ):
            rows = connection.execute(
                "select dataset, table_name, shard, source_sha256 from acidburn.loads"
                " join acidburn.shards using (shard_id) union all"
                " select name, table_name, null, source_sha256 from acidburn.pool_loads"
                " join acidburn.pools using (pool_id)"
            )
            for owner, table, shard, version in rows:
                asset = "lineage_table" if table == "lineage" else table
                found[Place(owner, asset, shard)] = version
        return found
