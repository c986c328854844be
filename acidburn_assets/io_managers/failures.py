"""What failed and why, kept beside the objects: the same for every machine and Dagster home.

A failure is written when it happens, by whoever saw it; a success removes it. So what is in the
log is what is broken now, and one LIST of an empty prefix says that nothing is.
"""

import logging
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

import dagster as dg

from acidburn_assets.adapters.object_store import ObjectStore
from acidburn_assets.core import keys
from acidburn_assets.core.errors import ObjectCorrupt, ObjectMissing, SchemaError
from acidburn_assets.core.failures import Attempt, Failures, Kind
from acidburn_assets.core.manifest import LeftOut
from acidburn_assets.io_managers import versions
from acidburn_assets.partitions import shard_keys

_logger = logging.getLogger(__name__)


class FailureLog:
    """The failures of every asset partition in one store."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._known: dict[str, tuple[str, Failures]] = {}  # object key -> (etag, record)
        self.is_billed = not objects.url.startswith("file:")

    def of(self, key: dg.AssetKey, partition: str | None) -> Failures:
        """What is known of one partition; without attempts where nothing failed."""
        object_key = _object_key(key, partition)
        nothing = Failures(asset=key.to_user_string(), shard=partition)
        if self._objects.head(object_key) is None:
            return nothing
        return self._read(object_key) or nothing

    def all_of(self, key: dg.AssetKey) -> Mapping[str | None, Failures]:
        """Every partition of an asset that failed since it was last made, by one LIST."""
        # without the suffix: it covers the asset's folder and the object of its own name
        return self._list(_object_key(key, None).removesuffix(".json")).get(key, {})

    def everything(self) -> Mapping[dg.AssetKey, Mapping[str | None, Failures]]:
        """Every asset with partitions that failed since they were last made, by one LIST."""
        return self._list(keys.FAILURES_FOLDER)

    def _list(self, prefix: str) -> dict[dg.AssetKey, dict[str | None, Failures]]:
        """Records that were read before and have not changed are not read again."""
        found: dict[dg.AssetKey, dict[str | None, Failures]] = {}
        for listed in self._objects.list(prefix):
            known = self._known.get(listed.key)
            if known is None or known[0] != listed.etag:
                record = self._read(listed.key)
                if record is None:
                    continue
                known = self._known[listed.key] = (listed.etag, record)
            of_asset = dg.AssetKey(known[1].asset.split("/"))
            found.setdefault(of_asset, {})[known[1].shard] = known[1]
        return found

    def _read(self, object_key: str) -> Failures | None:
        """None where it is gone or cannot be read: it then holds up nothing, and is removed."""
        try:
            return Failures.from_bytes(self._objects.get_bytes(object_key), key=object_key)
        except ObjectMissing:
            return None
        except (SchemaError, ObjectCorrupt) as error:
            _logger.warning("a record of failures is dropped: %s", error)
            self._objects.delete(object_key)
            return None

    def add(
        self,
        key: dg.AssetKey,
        partition: str | None,
        *,
        run_id: str,
        made_from: str,
        kind: Kind,
        reason: str,
        at: datetime | None = None,
    ) -> Failures:
        """Records a failure, once per run.

        Args:
            key: of the asset.
            partition: that failed.
            run_id: in which.
            made_from: fingerprint of its code and inputs.
            kind: whose fault it was.
            reason: for people.
            at: when; now, when it is left out.

        Returns:
            What is known of the partition now.
        """
        known = self.of(key, partition)
        attempt = Attempt(
            run_id=run_id,
            at=at or datetime.now(UTC),
            kind=kind,
            reason=reason[:2_000],
            made_from=made_from,
        )
        failures = known.add(attempt)
        if failures != known:
            self._objects.put_bytes(_object_key(key, partition), failures.to_bytes())
        return failures

    def clear(self, key: dg.AssetKey, partition: str | None) -> bool:
        """Forgets a partition's failures: it was made.

        Returns:
            Whether there were any.
        """
        object_key = _object_key(key, partition)
        if self._objects.head(object_key) is None:
            return False
        self._objects.delete(object_key)
        return True

    def release(self, key: dg.AssetKey, partition: str | None) -> bool:
        """Has a partition tried again; which runs failed stays known, so none counts once more.

        Returns:
            Whether there was anything that counted.
        """
        known = self.of(key, partition)
        if not known.counted():
            return False
        self._objects.put_bytes(_object_key(key, partition), known.forgiven().to_bytes())
        return True


class LeftOutShards:
    """Shards that a dataset goes on without: refused too often where they are chunked or embedded.

    Args:
        instance: what was reported, and of what.
        graph: the assets as they are now.
        log: what failed.
        objects: what is stored.
    """

    def __init__(
        self,
        instance: dg.DagsterInstance,
        graph: versions.AssetGraph,
        log: FailureLog,
        objects: ObjectStore,
    ) -> None:
        self._instance = instance
        self._graph = graph
        self._log = log
        self._objects = objects

    def __call__(self, dataset: str) -> dict[str, LeftOut]:
        """By shard, each with where it is stuck and why."""
        planned = set(shard_keys(self._instance, dataset))
        found: dict[str, LeftOut] = {}
        for asset in ("chunks", "embeddings"):
            key = dg.AssetKey([dataset, asset])
            for shard, failures in self._log.all_of(key).items():
                if shard in planned and shard is not None and self._is_stuck(key, shard, failures):
                    found.setdefault(
                        shard,
                        LeftOut(shard=shard, asset=failures.asset, reason=failures.last_reason()),
                    )
        return found

    def _is_stuck(self, key: dg.AssetKey, shard: str, failures: Failures) -> bool:
        if failures.is_stopped() or not failures.is_spent():
            return False
        # one that is there, made from what is there now, was only to be made once more
        record = versions.latest_materialization(self._instance, key, shard)
        if record is None:
            return True
        current = versions.current_versions(self._instance, self._graph, key, shard)
        # not by its code: in a run, an asset that was not selected has none
        if set(current.changed_since(versions.tags_of(record))) - {"code"}:
            return True
        owner, asset = key.path
        stored = self._objects.head(keys.object_key(owner, asset, shard, suffix=".parquet"))
        return stored is None or stored.etag != versions.figures_of(record).get("etag")


QUARANTINE_CHECK = "no_shard_is_quarantined"
"""Name of the check by which the UI shows what is left to a person."""


def quarantine_check(key: dg.AssetKey, failures: Iterable[Failures]) -> dg.AssetCheckEvaluation:
    """What the UI shows of an asset's failures.

    Args:
        key: of the asset.
        failures: of its partitions.
    """
    known = [one for one in failures if one.counted()]
    quarantined = [one for one in known if one.is_quarantined()]
    return dg.AssetCheckEvaluation(
        asset_key=key,
        check_name=QUARANTINE_CHECK,
        passed=not quarantined,
        metadata={
            "quarantined": len(quarantined),
            "failing": len(known) - len(quarantined),
            "shards": dg.MetadataValue.json(
                {
                    one.shard or "the asset": {
                        "reason": one.last_reason(),
                        "attempts": len(one.counted()),
                        "last_run": one.attempts[-1].run_id,
                        "release": f"acidburn release {_name(key, one.shard)}",
                    }
                    for one in quarantined[:_SHOWN_SHARDS]
                }
            ),
        },
    )


_SHOWN_SHARDS = 100
"""Of an asset in the UI; the log in the bucket has all."""


def release(
    instance: dg.DagsterInstance, log: FailureLog, key: dg.AssetKey, partition: str | None
) -> bool:
    """Has the automation try a partition again, with a whole budget.

    Args:
        instance: where the UI learns of it.
        log: where the failures are.
        key: of the asset.
        partition: its shard, or None where it has none.

    Returns:
        Whether there was anything to release.
    """
    is_released = log.release(key, partition)
    if is_released:
        instance.report_runless_asset_event(quarantine_check(key, log.all_of(key).values()))
    return is_released


def _name(key: dg.AssetKey, partition: str | None) -> str:
    return key.to_user_string() + (f"/{partition}" if partition is not None else "")


def _object_key(key: dg.AssetKey, partition: str | None) -> str:
    owner, asset = key.path
    return keys.failures_key(owner, asset, partition)
