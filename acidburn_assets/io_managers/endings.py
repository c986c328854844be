"""Why a run ended without making what it was to make, where the partitions could not say so.

A process that was killed writes nothing, and a bucket that is away takes no failure. What is left
are the run's own events: how far it came, and the error that ended it.
"""

from collections.abc import Collection, Sequence

import dagster as dg

from acidburn_assets.core import errors
from acidburn_assets.core.failures import Kind

Blame = tuple[str | None, Kind, str]
"""A partition, whose fault its failure was, and the reason for people."""

_INTERRUPTED = ("DagsterExecutionInterruptedError", "KeyboardInterrupt")


def blame(
    instance: dg.DagsterInstance,
    run: dg.DagsterRun,
    key: dg.AssetKey,
    silent: Sequence[str | None],
    known: Collection[str | None] = (),
) -> list[Blame]:
    """Which partitions of an ended run failed, of those that said nothing themselves.

    Args:
        instance: where its events are.
        run: that failed or was stopped.
        key: of the asset.
        silent: its partitions without a failure of their own.
        known: its partitions with one.

    Returns:
        Nothing where the run never came to the asset: that is no partition's failure.
    """
    if not silent:
        return []
    if run.status is dg.DagsterRunStatus.CANCELED:
        return [(one, "stopped", f"run {run.run_id} was stopped by a person") for one in silent]
    steps = {dg.DagsterEventType.STEP_START, dg.DagsterEventType.STEP_FAILURE}
    events = _events(instance, run, steps)
    own = [event for event in events if event.step_key == "__".join(key.path)]
    failed = [event for event in own if event.is_step_failure]
    if not failed and own:
        culprit = _in_its_hands(instance, run, key, known)
        reason = f"the process of run {run.run_id} died"
        return [(one, "crashed", reason) for one in silent if one == culprit]
    if not failed:
        return []
    kind, reason = _cause_of(failed[-1])
    return [(one, kind, reason) for one in silent]


def _in_its_hands(
    instance: dg.DagsterInstance,
    run: dg.DagsterRun,
    key: dg.AssetKey,
    failed: Collection[str | None],
) -> str | None:
    """The partition that a process was at when it died: they are made in order."""
    kinds = {
        dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
        dg.DagsterEventType.ASSET_MATERIALIZATION,
    }
    planned: set[str | None] = set()
    made: set[str | None] = set()
    for event in _events(instance, run, kinds):
        if event.asset_key == key:
            is_made = event.event_type is dg.DagsterEventType.ASSET_MATERIALIZATION
            (made if is_made else planned).add(event.partition)
    return min(planned - made - set(failed), key=str, default=None)


def _events(
    instance: dg.DagsterInstance, run: dg.DagsterRun, kinds: set[dg.DagsterEventType]
) -> list[dg.DagsterEvent]:
    records = instance.get_records_for_run(run.run_id, of_type=kinds).records
    found = [record.event_log_entry.dagster_event for record in records]
    return [event for event in found if event is not None]


def _cause_of(event: dg.DagsterEvent) -> tuple[Kind, str]:
    """Whose fault it was that a step failed before it came to single partitions, by the name of
    the error that began it: something was away, or a person must mend something for all."""
    error = event.step_failure_data.error
    while error is not None and error.cause is not None:
        error = error.cause
    if error is None:
        return "held", event.message or "unknown"
    known = getattr(errors, error.cls_name or "", None)
    is_away = isinstance(known, type) and issubclass(known, errors.TransientError)
    # our own failure at the end of a run stands for partitions that it could not even begin
    is_ours = error.cls_name in ("Failure", *_INTERRUPTED)
    return "unavailable" if is_away or is_ours else "held", error.message.strip()
