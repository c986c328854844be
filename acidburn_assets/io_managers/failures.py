"""What failed and why, kept beside the objects: the same for every machine and Dagster home.

A failure is written when it happens, by whoever saw it; a success removes it. So what is in the
log is what is broken now, and one LIST of an empty prefix says that nothing is.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

import dagster as dg

from acidburn_assets.adapters.object_store import ObjectStore
from acidburn_assets.core import keys
from acidburn_assets.core.failures import Attempt, Failures, Kind


class FailureLog:
    """The failures of every asset partition in one store."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._known: dict[str, tuple[str, Failures]] = {}  # object key -> (etag, record)

    def of(self, key: dg.AssetKey, partition: str | None) -> Failures:
        """What is known of one partition; without attempts where nothing failed."""
        object_key = _object_key(key, partition)
        if self._objects.head(object_key) is None:
            return Failures(asset=key.to_user_string(), shard=partition)
        return Failures.from_bytes(self._objects.get_bytes(object_key), key=object_key)

    def all_of(self, key: dg.AssetKey) -> Mapping[str | None, Failures]:
        """Every partition of an asset that failed since it was last made, by one LIST.

        Records that were read before and have not changed are not read again.
        """
        found: dict[str | None, Failures] = {}
        # without the suffix: it covers the asset's folder and the object of its own name
        for listed in self._objects.list(_object_key(key, None).removesuffix(".json")):
            known = self._known.get(listed.key)
            if known is None or known[0] != listed.etag:
                record = Failures.from_bytes(self._objects.get_bytes(listed.key), key=listed.key)
                known = self._known[listed.key] = (listed.etag, record)
            if known[1].asset == key.to_user_string() and known[1].attempts:
                found[known[1].shard] = known[1]
        return found

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
                    str(one.shard): {
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
    if is_released and partition is not None:
        instance.report_runless_asset_event(quarantine_check(key, log.all_of(key).values()))
    return is_released


def _name(key: dg.AssetKey, partition: str | None) -> str:
    return key.to_user_string() + (f"/{partition}" if partition is not None else "")


def _object_key(key: dg.AssetKey, partition: str | None) -> str:
    owner, asset = key.path
    return keys.failures_key(owner, asset, partition)
