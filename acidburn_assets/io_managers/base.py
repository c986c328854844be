"""The template of every I/O manager: one partition after the other, each reported as it finishes.

An asset returns `Work`: a function that makes one partition. The template asks for each partition
of the run in turn, leaves out what is stored already from the same code and inputs, writes what
was made, and logs the materialization at once, so that a killed run loses at most the partition
in its hands. A failed partition does not stop the others; the run fails at its end and names them.

Truth is what is stored, not the event log: every object and slice carries a fingerprint of the
code and inputs that it was made from, so what a killed run stored but could not report, or what
another machine made, is adopted and not made again.

A failure is written into the failure log beside the objects, and a success removes it: from it
the automation knows when to try again, and when to leave a partition to a person.

Why the framework does not report: its own events come at the end of the step, all with one
version, and claim partitions that were never made (of eight ways tried, this is the one that
survives a crash with right counts). `Output` metadata `__source_asset_observation__` makes it
leave them out; a test guards this one private constant.
Source: measured, Dagster 1.13.27.
"""

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, NamedTuple, Protocol

import dagster as dg

from acidburn_assets.adapters.object_store import ObjectStore
from acidburn_assets.core.errors import (
    AcidburnError,
    ObjectCorrupt,
    ObjectMissing,
    StoreError,
    StoreUnavailable,
    TransientError,
)
from acidburn_assets.core.failures import kind_of
from acidburn_assets.io_managers import identity, versions
from acidburn_assets.io_managers.failures import FailureLog, LeftOutShards, quarantine_check

# the generator form of handle_output is what lets each partition be reported as it finishes; that
# it is beta in Dagster 1.13 is known here and guarded by tests, and needs no line per partition
warnings.filterwarnings("ignore", "Yielding metadata from an IOManager", dg.BetaWarning)

_NO_FRAMEWORK_EVENTS = {"__source_asset_observation__": True}

FORCE_TAG = "acidburn/force"
"""A run with this tag set to `true` makes every partition again, reusable or not."""

ETAG = "etag"
"""Figure of every materialization: compared with a listing, it tells whether the content that was
reported is still there, without reading it."""


Figures = Mapping[str, Any] | Callable[[], Mapping[str, Any]]
"""What the UI shows of a partition; a function where it is known late or dear to find out."""


@dataclass(frozen=True)
class Made:
    """One partition as an asset hands it over."""

    value: Any
    figures: Figures = field(default_factory=dict)
    """Asked for after the value was written: a stream of batches is counted while it flows."""


class Stored(NamedTuple):
    """One partition as it lies in the bucket or in Postgres."""

    data_version: str  # content hash
    made_from: str  # fingerprint of code and inputs; empty where it is not known
    etag: str  # what a listing shows of this very content
    figures: Figures


class Versioned(Protocol):
    """A record that knows its version, as Dagster recorded it."""

    def content_version(self) -> str: ...


class Work(NamedTuple):
    """What an asset returns: how to make one partition (None: the asset has no partitions)."""

    make: Callable[[str | None], Made]
    read: Mapping[dg.AssetKey, str]
    before_event: Callable[[], None] | None


def work(
    make: Callable[[str | None], Made],
    *,
    read: Mapping[dg.AssetKey, Versioned] | None = None,
    before_event: Callable[[], None] | None = None,
) -> dg.Output[Work]:
    """Wraps the maker for the I/O manager.

    Args:
        make: called once per partition that is to be made, in order.
        read: inputs that were read before the first partition is made. They count with the
            version that was read: one that is made anew meanwhile must leave the result stale.
        before_event: called when a partition is stored, whether it was made or reused, and before
            it is reported.
    """
    versions_read = {key: record.content_version() for key, record in (read or {}).items()}
    return dg.Output(Work(make, versions_read, before_event), metadata=_NO_FRAMEWORK_EVENTS)


def is_forced(run: dg.DagsterRun) -> bool:
    """Whether somebody asked for what is up to date to be made again."""
    return run.tags.get(FORCE_TAG) == "true"


class AssetIOManager(dg.IOManager):
    """Owns the loop, reuse, versions, events and failures; a subclass stores one format.

    Args:
        objects: the bucket, where failures are kept whatever the subclass stores.
    """

    is_listing_billed = False
    """Whether `listed` costs money: it is then not asked for at every look."""

    def __init__(self, objects: ObjectStore) -> None:
        self.objects = objects
        self.failures = FailureLog(objects)
        self._is_store_remembered = False

    def store(
        self,
        key: dg.AssetKey,
        partition: str | None,
        made: Made,
        *,
        made_from: str,
        run_id: str,
        is_forced: bool,
    ) -> Stored:
        """Writes one partition so that it is wholly there or not at all."""
        raise NotImplementedError

    def stored(self, key: dg.AssetKey, partition: str | None) -> Stored | None:
        """What is stored now, or None."""
        raise NotImplementedError

    def listed(self, key: dg.AssetKey) -> Mapping[str | None, str]:
        """The etag of every stored partition, by one listing or query."""
        raise NotImplementedError

    def sizes(self, key: dg.AssetKey) -> Mapping[str | None, int]:
        """Bytes of every stored partition that reading it whole would fetch from a bucket."""
        raise NotImplementedError

    def is_intact(self, key: dg.AssetKey, partition: str | None) -> bool:
        """Whether what is stored is what was written, every byte of it."""
        raise NotImplementedError

    def discard_if_damaged(self, key: dg.AssetKey, partition: str | None) -> bool:
        """Reads what is stored, and makes it count as gone where it is not what was written.

        Returns:
            Whether it was damaged.
        """
        raise NotImplementedError

    def handle_output(  # type: ignore[override]  # Dagster takes a generator, its stub says None
        self, context: dg.OutputContext, obj: Work
    ) -> Iterator[dict[str, Any]]:
        # a generator: Dagster stores the events logged so far at each yield
        step = context.step_context
        key = context.asset_key
        is_forced_run = is_forced(step.dagster_run)
        partitions = (
            sorted(context.asset_partition_keys) if context.has_asset_partitions else [None]
        )
        failed: dict[str | None, str] = {}
        graph = step.job_def.asset_layer
        left_out = LeftOutShards(step.instance, graph, self.failures, self.objects)
        is_check_news = False
        for partition in partitions:
            # versions first: what changes upstream while we work must make the result stale
            current = versions.current_versions(
                step.instance, graph, key, partition, left_out=left_out
            ).with_inputs(obj.read)
            started = time.perf_counter()
            try:
                record = versions.latest_materialization(step.instance, key, partition)
                kept = None if is_forced_run else self._reusable(key, partition, current)
                if kept is not None and self._is_trusted(key, partition, kept, record):
                    event = _event_of_kept(key, partition, current, kept, record)
                else:
                    made = _once(obj.make(partition))
                    new = self.store(
                        key,
                        partition,
                        made,
                        made_from=current.fingerprint(),
                        run_id=step.run_id,
                        is_forced=is_forced_run,
                    )
                    event = _event_of_new(key, partition, current, made, new, started)
                if obj.before_event is not None:
                    obj.before_event()
                self._remember_store(step.instance)
                is_check_news |= self.failures.clear(key, partition)
            except Exception as error:
                failed[partition] = _reason(error)
                context.log.error(failed[partition], exc_info=error)
                is_check_news |= self._keep_failure(context, partition, current, error)
                if isinstance(error, TransientError):
                    break  # what was away for this one is away for the next
                continue
            context.log_event(event)
            yield {}
        if is_check_news:
            known = self.failures.all_of(key)
            step.instance.report_runless_asset_event(quarantine_check(key, known.values()))
        if failed:
            raise dg.Failure(
                _summary(failed, partitions),
                metadata={"failed": dg.MetadataValue.json({str(k): v for k, v in failed.items()})},
                allow_retries=False,
            )

    def is_current(
        self,
        instance: dg.DagsterInstance,
        graph: versions.AssetGraph,
        key: dg.AssetKey,
        partition: str | None,
    ) -> bool:
        """True when a run would change nothing: recorded, stored, and of this code and inputs."""
        record = versions.latest_materialization(instance, key, partition)
        left_out = LeftOutShards(instance, graph, self.failures, self.objects)
        current = versions.current_versions(instance, graph, key, partition, left_out=left_out)
        if record is None or not current.are_recorded_in(versions.tags_of(record)):
            return False
        kept = self._reusable(key, partition, current)
        return (
            kept is not None
            and kept.data_version == versions.data_version(versions.tags_of(record))
            and kept.etag == versions.figures_of(record).get(ETAG)
        )

    def _keep_failure(
        self,
        context: dg.OutputContext,
        partition: str | None,
        current: versions.Versions,
        error: Exception,
    ) -> bool:
        """Returns whether a person must know now."""
        try:
            if isinstance(error, ObjectCorrupt) and error.key:
                self.discard_corrupt(error.key)
            known = self.failures.add(
                context.asset_key,
                partition,
                run_id=context.step_context.run_id,
                made_from=current.fingerprint(),
                kind=kind_of(error),
                reason=_reason(error),
            )
            return known.is_quarantined()
        except (StoreUnavailable, StoreError) as unkept:
            # the run's own end still tells of the failure, and the automation keeps it later
            context.log.warning(f"the failure could not be kept: {unkept}")
            return False

    def _remember_store(self, instance: dg.DagsterInstance) -> None:
        if not self._is_store_remembered:
            identity.remember(instance, self.objects)
            self._is_store_remembered = True

    def discard_corrupt(self, object_key: str) -> bool:
        """Deletes an object that is not what was stored, after reading it once more: it then
        counts as missing, and is made again. A bucket keeps the deleted version for a while.

        Returns:
            Whether it was corrupt.

        Raises:
            StoreUnavailable, StoreError: the store cannot say, or refuses.
        """
        before = self.objects.head(object_key)
        try:
            self.objects.verify(object_key)
        except ObjectCorrupt:
            # not one that another run has put there meanwhile
            if self.objects.head(object_key) == before:
                self.objects.delete(object_key)
            return True
        except ObjectMissing:
            pass  # gone is what it shall be
        return False

    def _reusable(
        self, key: dg.AssetKey, partition: str | None, current: versions.Versions
    ) -> Stored | None:
        kept = self.stored(key, partition)
        return kept if kept is not None and kept.made_from == current.fingerprint() else None

    def _is_trusted(
        self,
        key: dg.AssetKey,
        partition: str | None,
        kept: Stored,
        record: dg.EventLogRecord | None,
    ) -> bool:
        """What is not the content that was reported last may still say so of itself: it is read."""
        if record is None or versions.figures_of(record).get(ETAG) == kept.etag:
            return True
        return self.is_intact(key, partition)


def _once(made: Made) -> Made:
    """Its figures are asked for by the object and by the event, and may hold a picture."""
    return replace(made, figures=cache(made.figures)) if callable(made.figures) else made


def _event_of_new(
    key: dg.AssetKey,
    partition: str | None,
    current: versions.Versions,
    made: Made,
    new: Stored,
    started: float,
) -> dg.AssetMaterialization:
    figures = {**_resolve(new.figures), **_resolve(made.figures), ETAG: new.etag}
    seconds = time.perf_counter() - started
    figures["seconds"] = round(seconds, 3)
    if "rows" in figures:
        figures["rows_per_second"] = round(figures["rows"] / seconds, 1)
    return dg.AssetMaterialization(
        key, partition=partition, metadata=figures, tags=current.tags(new.data_version)
    )


def _event_of_kept(
    key: dg.AssetKey,
    partition: str | None,
    current: versions.Versions,
    kept: Stored,
    record: dg.EventLogRecord | None,
) -> dg.AssetMaterialization:
    """Reported again: a later failure of this run would else show the partition as failed."""
    if record is not None and versions.data_version(versions.tags_of(record)) == kept.data_version:
        materialization = record.asset_materialization
        figures = dict(materialization.metadata) if materialization else {}
    else:  # stored by a run that could not report it, or by another machine
        figures = dict(_resolve(kept.figures))
    return dg.AssetMaterialization(
        key,
        partition=partition,
        metadata={**figures, **_resolve(kept.figures), ETAG: kept.etag, "reused": True},
        tags=current.tags(kept.data_version),
    )


def _resolve(figures: Figures) -> Mapping[str, Any]:
    return figures() if callable(figures) else figures


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, AcidburnError) else f"{type(error).__name__}: {error}"


def _summary(failed: Mapping[str | None, str], partitions: Sequence[str | None]) -> str:
    first, reason = next(iter(failed.items()))
    if first is None:
        return reason
    if len(partitions) == 1:
        return f"{first}: {reason}"
    names = ", ".join(map(str, failed))
    return f"{len(failed)} of {len(partitions)} shards failed ({names}); {first}: {reason}"


class Managers:
    """The I/O managers among the resources of a graph, each opened when first asked for: without
    Postgres there is still much that can be made.

    Args:
        resources: by name.
    """

    def __init__(self, resources: Mapping[str, Any]) -> None:
        self._resources = resources
        self._opened: dict[str, AssetIOManager] = {}

    def name_of(self, graph: versions.AssetGraph, key: dg.AssetKey) -> str:
        """Of the manager of an asset."""
        return str(graph.get(key).assets_def.get_io_manager_key_for_asset_key(key))

    def of(self, graph: versions.AssetGraph, key: dg.AssetKey) -> AssetIOManager:
        """The manager of an asset."""
        name = self.name_of(graph, key)
        if name not in self._opened:
            context = dg.build_init_resource_context()
            self._opened[name] = self._resources[name].create_io_manager(context)
        return self._opened[name]
