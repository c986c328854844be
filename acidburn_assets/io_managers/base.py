"""The template of every I/O manager: one partition after the other, each reported as it finishes.

An asset returns `Work`: a function that makes one partition. The template asks for each partition
of the run in turn, leaves out what is stored already from the same code and inputs, writes what
was made, and logs the materialization at once, so that a killed run loses at most the partition
in its hands. A failed partition does not stop the others; the run fails at its end and names them.

Truth is what is stored, not the event log: every object and slice carries a fingerprint of the
code and inputs that it was made from, so what a killed run stored but could not report, or what
another machine made, is adopted and not made again.

Why the framework does not report: its own events come at the end of the step, all with one
version, and claim partitions that were never made (of eight ways tried, this is the one that
survives a crash with right counts). `Output` metadata `__source_asset_observation__` makes it
leave them out; a test guards this one private constant.
Source: measured, Dagster 1.13.27.
"""

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, NamedTuple, Protocol

import dagster as dg

from acidburn_assets.core.errors import AcidburnError
from acidburn_assets.io_managers import versions

# the generator form of handle_output is what lets each partition be reported as it finishes; that
# it is beta in Dagster 1.13 is known here and guarded by tests, and needs no line per partition
warnings.filterwarnings("ignore", "Yielding metadata from an IOManager", dg.BetaWarning)

_NO_FRAMEWORK_EVENTS = {"__source_asset_observation__": True}

FORCE_TAG = "acidburn/force"
"""A run with this tag set to `true` makes every partition again, reusable or not."""


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


class AssetIOManager(dg.IOManager):
    """Owns the loop, reuse, versions, events and failures; a subclass stores one format."""

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

    def handle_output(  # type: ignore[override]  # Dagster takes a generator, its stub says None
        self, context: dg.OutputContext, obj: Work
    ) -> Iterator[dict[str, Any]]:
        # a generator: Dagster stores the events logged so far at each yield
        step = context.step_context
        key = context.asset_key
        is_forced = step.dagster_run.tags.get(FORCE_TAG) == "true"
        partitions = (
            sorted(context.asset_partition_keys) if context.has_asset_partitions else [None]
        )
        failed: dict[str | None, str] = {}
        for partition in partitions:
            # versions first: what changes upstream while we work must make the result stale
            current = versions.current_versions(
                step.instance, step.job_def.asset_layer, key, partition
            ).with_inputs(obj.read)
            started = time.perf_counter()
            try:
                kept = None if is_forced else self._reusable(key, partition, current)
                if kept is not None:
                    event = _event_of_kept(step.instance, key, partition, current, kept)
                else:
                    made = _once(obj.make(partition))
                    new = self.store(
                        key,
                        partition,
                        made,
                        made_from=current.fingerprint(),
                        run_id=step.run_id,
                        is_forced=is_forced,
                    )
                    event = _event_of_new(key, partition, current, made, new, started)
                if obj.before_event is not None:
                    obj.before_event()
            except Exception as error:
                failed[partition] = _reason(error)
                context.log.error(failed[partition], exc_info=error)
                continue
            context.log_event(event)
            yield {}
        if failed:
            raise dg.Failure(
                _summary(failed, len(partitions)),
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
        current = versions.current_versions(instance, graph, key, partition)
        if record is None or not current.are_recorded_in(versions.tags_of(record)):
            return False
        kept = self._reusable(key, partition, current)
        return kept is not None and kept.data_version == versions.data_version(
            versions.tags_of(record)
        )

    def _reusable(
        self, key: dg.AssetKey, partition: str | None, current: versions.Versions
    ) -> Stored | None:
        kept = self.stored(key, partition)
        return kept if kept is not None and kept.made_from == current.fingerprint() else None


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
    figures = {**_resolve(new.figures), **_resolve(made.figures)}
    seconds = time.perf_counter() - started
    figures["seconds"] = round(seconds, 3)
    if "rows" in figures:
        figures["rows_per_second"] = round(figures["rows"] / seconds, 1)
    return dg.AssetMaterialization(
        key, partition=partition, metadata=figures, tags=current.tags(new.data_version)
    )


def _event_of_kept(
    instance: dg.DagsterInstance,
    key: dg.AssetKey,
    partition: str | None,
    current: versions.Versions,
    kept: Stored,
) -> dg.AssetMaterialization:
    """Reported again: a later failure of this run would else show the partition as failed."""
    record = versions.latest_materialization(instance, key, partition)
    if record is not None and versions.data_version(versions.tags_of(record)) == kept.data_version:
        materialization = record.asset_materialization
        figures = dict(materialization.metadata) if materialization else {}
    else:  # stored by a run that could not report it, or by another machine
        figures = dict(_resolve(kept.figures))
    return dg.AssetMaterialization(
        key,
        partition=partition,
        metadata={**figures, "reused": True},
        tags=current.tags(kept.data_version),
    )


def _resolve(figures: Figures) -> Mapping[str, Any]:
    return figures() if callable(figures) else figures


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, AcidburnError) else f"{type(error).__name__}: {error}"


def _summary(failed: Mapping[str | None, str], n_partitions: int) -> str:
    first, reason = next(iter(failed.items()))
    if first is None:
        return reason
    if n_partitions == 1:
        return f"{first}: {reason}"
    names = ", ".join(map(str, failed))
    return f"{len(failed)} of {n_partitions} shards failed ({names}); {first}: {reason}"
