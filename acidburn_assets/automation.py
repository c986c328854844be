"""Heals the graph by itself: what is missing, lost, damaged or out of date is requested again.

A condition looks at the state of things at every tick, not at what changed since the last: nothing
is forgotten, whatever was installed, switched off or killed meanwhile. It has four parts: the
partition is unsound, the dataset's policy lets it be made unasked, everything upstream is sound,
and its retry budget is not used up. The UI's Automation tab shows which part held what back.

Why not Dagster's own conditions: edge-triggered ones forget what was missing before they were
installed and never retry a second failure, level-triggered ones try a poison shard for ever, and
none looks into the bucket. Source: measured, Dagster 1.13.27.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster._core.asset_graph_view.asset_graph_view import AssetGraphView
from dagster._core.definitions.declarative_automation.automation_context import AutomationContext
from dagster._core.storage.tags import AUTO_RETRY_RUN_ID_TAG, WILL_RETRY_TAG
from dagster_shared.record import copy

from acidburn_assets.core.datasets import Automation
from acidburn_assets.core.errors import AcidburnError, TransientError
from acidburn_assets.core.failures import Budget, Failures
from acidburn_assets.io_managers import endings, identity, versions
from acidburn_assets.io_managers.base import AssetIOManager, Managers
from acidburn_assets.io_managers.failures import quarantine_check
from acidburn_assets.io_managers.health import Examined, Examiner, Finding
from acidburn_assets.partitions import RANGE_END_TAG, RANGE_START_TAG, neighbours

# beta in Dagster 1.13, which is known here and guarded by tests
warnings.filterwarnings("ignore", "Parameter `use_user_code_server`", dg.BetaWarning)

A = dg.AutomationCondition

ORIGIN_TAG = "acidburn/origin"
"""Set to `automation` on every run that nobody asked for."""

_WAITS_WHEN_NEW = ("chunks", "embeddings")
"""Reads a whole dataset, or spends the money: begun by a person unless the policy is `all`."""

_WAITS_WHEN_OUTDATED = ("plan", "chunks", "embeddings")
"""Another revision, chunker or model means that everything is paid for again; what is lost is made
again unasked only if it would be the same."""


_RETRY_BEGINS_SECONDS = 60
"""The daemon notices a failed run within seconds; it knows nothing of those from before its first
start. Chosen, not measured."""


@dataclass(frozen=True)
class Policy:
    """What may be made unasked."""

    automation: Mapping[str, Automation]  # of each dataset and pool
    is_labelling_paid: bool

    def holds(self, key: dg.AssetKey, finding: Finding, *, was_asked_for: bool) -> bool:
        """True where a person must ask for it.

        Args:
            key: of the asset.
            finding: what is wrong.
            was_asked_for: somebody started it, and it did not come to its end.
        """
        owner, asset = key.path
        policy = self.automation[owner]
        if policy != "approve":
            return policy == "manual"
        if finding.is_outdated:
            # also when a person began it: perhaps with another model than that of now
            is_paid = asset == "cluster_map" and self.is_labelling_paid
            return is_paid or asset in _WAITS_WHEN_OUTDATED
        if finding.reason != "missing" or was_asked_for:
            return False
        return asset in _WAITS_WHEN_NEW or (asset == "cluster_map" and self.is_labelling_paid)


@dataclass
class Tick:
    """The state of the graph as one tick sees it; each asset is examined once, when asked for."""

    instance: dg.DagsterInstance
    graph: versions.AssetGraph
    managers: Managers
    examiner: Examiner
    policy: Policy
    budget: Budget
    log: Any
    settled: set[tuple[dg.AssetKey, str]]
    """Runs whose end is accounted for, handed on from tick to tick."""
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    _examined: dict[dg.AssetKey, Examined | None] = field(default_factory=dict)
    _away: set[str] = field(default_factory=set)  # I/O managers whose back end does not answer
    _attempts: dict[dg.AssetKey, dict[str | None, str]] = field(default_factory=dict)
    _failures: dict[dg.AssetKey, dict[str | None, Failures]] = field(default_factory=dict)
    _pending: dict[dg.AssetKey, set[str | None]] = field(default_factory=dict)
    _log: Mapping[dg.AssetKey, Mapping[str | None, Failures]] | None = None
    _is_store_checked: bool = False

    def examined(self, key: dg.AssetKey) -> Examined | None:
        """The asset's state; None where it cannot be told now: its back end is away."""
        if key not in self._examined:
            self._examined[key] = None
            back_end = self.managers.name_of(self.graph, key)
            if back_end in self._away:
                return None
            try:
                manager = self.managers.of(self.graph, key)
                self._check_store(manager)
                self._examined[key] = self.examiner.examine(
                    self.instance, self.graph, key, manager, left_out=self.left_out
                )
                self._account(key, manager)
            except AcidburnError as error:
                # one back end that is away must not stop the healing of what does not need it
                self.log.warning(f"{key.to_user_string()} waits: {error}")
                self._examined[key] = None
                if isinstance(error, TransientError):
                    self._away.add(back_end)  # waiting for it again with each asset takes minutes
        return self._examined[key]

    def is_unsound(self, key: dg.AssetKey, partition: str | None) -> bool:
        """There is something to make."""
        examined = self.examined(key)
        return examined is not None and partition in examined.findings

    def is_allowed(self, key: dg.AssetKey, partition: str | None) -> bool:
        """Nobody need ask for it."""
        examined = self.examined(key)
        return (
            examined is not None
            and partition in examined.findings
            and not self._is_held(key, partition, examined)
        )

    def is_upstream_sound(self, key: dg.AssetKey, partition: str | None) -> bool:
        """All that it is made from is there and will not be made again first.

        What has no partitions may read further up than its parents: a cluster model is fitted on
        the shards that its manifests name. So it waits as long as anything above is being healed.
        """
        parents = self._materializable(self.graph.get(key).parent_keys)
        if not all(self._is_parent_sound(parent, partition) for parent in parents):
            return False
        above = () if partition is not None else self._materializable(self._ancestors(key))
        return not any(self._is_being_healed(one) for one in above)

    def _materializable(self, keys: Iterable[dg.AssetKey]) -> list[dg.AssetKey]:
        return [key for key in sorted(keys) if self.graph.get(key).is_materializable]

    def _ancestors(self, key: dg.AssetKey) -> set[dg.AssetKey]:
        found: set[dg.AssetKey] = set()
        waiting = [key]
        while waiting:
            new = self.graph.get(waiting.pop()).parent_keys - found
            found |= new
            waiting += new
        return found

    def _is_being_healed(self, key: dg.AssetKey) -> bool:
        """Something of it is unsound, and will be made without anybody's doing."""
        examined = self.examined(key)
        if examined is None:
            return True  # its back end is away
        is_partitioned = self.graph.get(key).is_partitioned
        for partition in examined.findings:
            if is_partitioned and self._is_stuck(key.path[0], partition):
                continue
            failures = self._failures[key].get(partition)
            is_spent = failures is not None and failures.is_quarantined(
                self.budget, self._made_from(key, partition)
            )
            if not is_spent and not self._is_held(key, partition, examined):
                return True
        return False

    def is_within_budget(self, key: dg.AssetKey, partition: str | None) -> bool:
        """It has attempts left, and the wait since the last one is over."""
        if self.examined(key) is None or partition in self._pending[key]:
            return False
        failures = self._failures[key].get(partition)
        if failures is None:
            return True
        made_from = self._made_from(key, partition)
        following = failures.next_attempt_at(self.budget, made_from)
        return not failures.is_quarantined(self.budget, made_from) and (
            following is None or following <= self.now
        )

    def left_out(self, dataset: str) -> set[str]:
        """Shards that others go on without: refused too often where they are chunked or embedded.
        One that fails further down holds up what is made from it, and can be seen."""
        return {
            partition
            for asset in ("chunks", "embeddings")
            for key in [dg.AssetKey([dataset, asset])]
            if self.examined(key) is not None
            for partition, failures in self._failures[key].items()
            if partition is not None
            and not failures.is_stopped()
            and failures.is_spent(self.budget)
        }

    def _is_stuck(self, dataset: str, partition: str | None) -> bool:
        """A shard that waits for a person where it is planned, chunked, embedded or assigned."""
        ends = {
            "plan": None,
            "chunks": partition,
            "embeddings": partition,
            "assignments": partition,
            "term_weights": partition,
        }
        for asset, end in ends.items():
            key = dg.AssetKey([dataset, asset])
            failures = self._failures[key].get(end) if self.examined(key) is not None else None
            if failures is not None and failures.is_quarantined(
                self.budget, self._made_from(key, end)
            ):
                return True
        return False

    def _is_parent_sound(self, parent: dg.AssetKey, partition: str | None) -> bool:
        examined = self.examined(parent)
        if examined is None:
            return False
        if not self.graph.get(parent).is_partitioned:
            return not self._blocks(parent, None, examined)
        if partition is not None:
            return not self._blocks(parent, partition, examined)
        left_out = self.left_out(parent.path[0])
        needed = [shard for shard in examined.versions if shard not in left_out]
        return bool(needed) and not any(self._blocks(parent, shard, examined) for shard in needed)

    def _blocks(self, parent: dg.AssetKey, partition: str | None, examined: Examined) -> bool:
        if partition not in examined.versions:
            return True  # no such shard yet: the plan is being made
        finding = examined.findings.get(partition)
        if finding is None:
            return False
        # one that is stale and waits for a person is still what its children were made from
        return finding.reason != "stale" or not self._is_held(parent, partition, examined)

    def _is_held(self, key: dg.AssetKey, partition: str | None, examined: Examined) -> bool:
        finding = examined.findings[partition]
        if finding.reason == "missing" and examined.change:
            # begun with another model: the rest would be of two
            finding = finding._replace(detail=examined.change)
        return self.policy.holds(key, finding, was_asked_for=partition in self._attempts[key])

    def _check_store(self, manager: AssetIOManager) -> None:
        """Raises StoreError where the store is another than the one worked in so far."""
        if not self._is_store_checked:
            identity.check(self.instance, manager.objects)
            self._is_store_checked = True

    def _made_from(self, key: dg.AssetKey, partition: str | None) -> str:
        examined = self.examined(key)
        if examined is None or partition not in examined.versions:
            return ""
        return examined.versions[partition].fingerprint()

    def _account(self, key: dg.AssetKey, manager: AssetIOManager) -> None:
        """Learns of runs that ended without making what they were to make, also of those that
        could not say why: their process was killed, or the bucket was away."""
        self._attempts[key], self._failures[key], self._pending[key] = {}, {}, set()
        examined = self._examined[key]
        if examined is None or not (examined.findings or self._is_log_free(manager)):
            return  # where nothing is wrong, nobody is to blame
        if self._log is None:
            self._log = manager.failures.everything()
        known = dict(self._log.get(key, {}))
        is_news = False
        for partition in set(known) - set(examined.findings):
            manager.failures.clear(key, partition)  # it is sound all the same, or planned away
            del known[partition]
            is_news = True
        attempts = versions.unfinished_attempts(
            self.instance, key, is_partitioned=self.graph.get(key).is_partitioned
        )
        self._attempts[key] = attempts
        for record, partitions in self._ended_runs(attempts):
            run = record.dagster_run
            if self._is_retried_by_dagster(record):
                self._pending[key] |= partitions
                continue
            if run.status is dg.DagsterRunStatus.CANCELED:
                for partition in partitions:
                    attempts.pop(partition, None)  # whoever stopped it does not ask for it
            if (key, run.run_id) in self.settled:
                continue
            silent = sorted(
                (
                    partition
                    for partition in partitions & set(examined.findings)
                    if partition not in known or not known[partition].has_run(run.run_id)
                ),
                key=str,
            )
            own = {
                partition: attempt
                for partition in partitions & set(known)
                for attempt in known[partition].attempts
                if attempt.run_id == run.run_id
            }
            if any(attempt.kind == "crashed" for attempt in own.values()):
                silent = []  # the one that the process died with is known
            blamed = endings.blame(self.instance, run, key, silent, own)
            if not blamed and silent and self._seconds_since(record) < _RETRY_BEGINS_SECONDS:
                self._pending[key] |= set(silent)  # it never came to them: not at once again
                continue
            for partition, kind, reason in blamed:
                known[partition] = manager.failures.add(
                    key,
                    partition,
                    run_id=run.run_id,
                    made_from=examined.versions[partition].fingerprint(),
                    kind=kind,
                    reason=reason,
                    at=datetime.fromtimestamp(record.end_time, UTC) if record.end_time else None,
                )
                is_news = is_news or known[partition].is_quarantined(self.budget)
            self.settled.add((key, run.run_id))
            self.examiner.forget_listings()
        self._failures[key] = known
        if is_news:
            self.instance.report_runless_asset_event(quarantine_check(key, known.values()))

    def _is_log_free(self, manager: AssetIOManager) -> bool:
        """Whether the log is read already, or costs nothing to read."""
        return self._log is not None or not manager.failures.is_billed

    def _is_retried_by_dagster(self, record: dg.RunRecord) -> bool:
        """A crashed run is started again by the daemon, unless that is not there to do it."""
        run = record.dagster_run
        return (
            run.tags.get(WILL_RETRY_TAG) == "true"
            and AUTO_RETRY_RUN_ID_TAG not in run.tags
            and self._seconds_since(record) < _RETRY_BEGINS_SECONDS
        )

    def _seconds_since(self, record: dg.RunRecord) -> float:
        return self.now.timestamp() - (record.end_time or 0)

    def _ended_runs(
        self, attempts: Mapping[str | None, str]
    ) -> Iterable[tuple[dg.RunRecord, set[str | None]]]:
        """Runs that failed or were stopped, each with the partitions that it left unmade."""
        by_run: dict[str, set[str | None]] = {}
        for partition, run_id in attempts.items():
            by_run.setdefault(run_id, set()).add(partition)
        if not by_run:
            return
        ended = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
        wanted = dg.RunsFilter(run_ids=list(by_run), statuses=ended)
        for record in self.instance.get_run_records(wanted):
            yield record, by_run[record.dagster_run.run_id]


class _Operand(dg.AutomationCondition):  # type: ignore[type-arg]
    """A question about single partitions of an asset, asked of the tick."""

    def __init__(self, name: str, ask: Callable[[Tick], Callable[..., bool]], healer: "Healer"):
        self._name = name
        self._ask = ask
        self._healer = healer

    @property
    def name(self) -> str:
        return self._name

    def evaluate(self, context: AutomationContext) -> dg.AutomationResult:  # type: ignore[type-arg]
        view = context.asset_graph_view
        key = context.key
        candidates = context.candidate_subset
        definition = view.asset_graph.get(key).partitions_def
        empty = view.get_empty_subset(key=key)
        answer = self._ask(self._healer.tick(view))
        if candidates.is_empty:
            return dg.AutomationResult(context, empty)
        if definition is None:
            return dg.AutomationResult(context, candidates if answer(key, None) else empty)
        chosen = {
            partition
            for partition in candidates.expensively_compute_partition_keys()
            if answer(key, partition)
        }
        subset = view.get_subset_from_partition_keys(key, definition, chosen) if chosen else empty
        return dg.AutomationResult(context, subset)


class Healer:
    """Makes the condition that all assets share, and the sensor that evaluates it.

    Args:
        open_managers: opens the I/O managers, once per process and not before the first tick.
        policy: what may be made unasked.
        budget: how often, and how far apart, a failure is tried again.
        interval_seconds: between two ticks.
        listing_seconds: how long a listing of the bucket is kept, see `Examiner`.
    """

    def __init__(
        self,
        open_managers: Callable[[], Managers],
        policy: Policy,
        *,
        budget: Budget,
        interval_seconds: int,
        listing_seconds: float,
    ) -> None:
        self._open_managers = open_managers
        self._managers: Managers | None = None
        self._policy = policy
        self._budget = budget
        self._interval_seconds = interval_seconds
        self._listing_seconds = listing_seconds
        self._examiners: dict[str, Examiner] = {}  # by Dagster home
        self._settled: set[tuple[dg.AssetKey, str]] = set()
        self._tick: tuple[AssetGraphView, Tick] | None = None

    def tick(self, view: AssetGraphView) -> Tick:
        """The tick that a view of the graph belongs to."""
        if self._tick is None or self._tick[0] is not view:
            if self._managers is None:
                self._managers = self._open_managers()
            home = view.instance.root_directory
            if home not in self._examiners:
                self._examiners[home] = Examiner(listing_seconds=self._listing_seconds)
            made = Tick(
                view.instance,
                view.asset_graph,
                self._managers,
                self._examiners[home],
                self._policy,
                self._budget,
                dg.get_dagster_logger("healing"),
                self._settled,
            )
            self._tick = (view, made)
        return self._tick[1]

    def condition(self) -> dg.AutomationCondition:  # type: ignore[type-arg]
        """Requests a partition that is unsound and can be made now."""
        # in progress first: asked later, it would race with a shard that lands in between
        return (
            ~A.in_progress()
            & _Operand("unsound", lambda tick: tick.is_unsound, self)
            & _Operand("allowed unasked", lambda tick: tick.is_allowed, self)
            & ~A.any_deps_in_progress()
            & _Operand("upstream is sound", lambda tick: tick.is_upstream_sound, self)
            & _Operand("within its retry budget", lambda tick: tick.is_within_budget, self)
        ).with_label("healing")

    def sensor(self, keys: Iterable[dg.AssetKey]) -> dg.SensorDefinition:
        """Looks at the assets again and again; on by default, and switched off in the UI."""
        return RangedSensor(
            "healing",
            target=dg.AssetSelection.assets(*keys),
            default_status=dg.DefaultSensorStatus.RUNNING,
            minimum_interval_seconds=self._interval_seconds,
            run_tags={ORIGIN_TAG: "automation"},
            emit_backfills=False,
            use_user_code_server=True,
            description="Requests what is missing, lost, damaged or out of date.",
        )


class RangedSensor(dg.AutomationConditionSensorDefinition):
    """Requests ranges of partitions, as a backfill would, but at once.

    Dagster's choice is one run for each partition, which loads a model for each, or a backfill,
    whose daemon looks once in 30 seconds, for every level of the graph.
    Source: Dagster 1.13.27, `_daemon/controller.py`; issue 18237.
    """

    def evaluate_tick(self, context: dg.SensorEvaluationContext) -> Any:
        """Evaluates the conditions, then joins requests for neighbouring partitions."""
        evaluated = super().evaluate_tick(context)
        repository = context.repository_def
        if not evaluated.run_requests or repository is None:
            return evaluated
        requests = ranged_requests(evaluated.run_requests, repository.asset_graph, context.instance)
        return copy(evaluated, run_requests=requests)


def ranged_requests(
    requests: Sequence[dg.RunRequest], graph: Any, instance: dg.DagsterInstance
) -> list[dg.RunRequest]:
    """One request for each asset and range of neighbouring partitions.

    Args:
        requests: each for one partition, or for assets without partitions.
        graph: for the assets' partitions, and how many a run takes.
        instance: which partitions there are.
    """
    whole: list[dg.RunRequest] = []
    wanted: dict[dg.AssetKey, set[str]] = {}
    tags: dict[str, str] = {}
    for request in requests:
        tags = {name: tag for name, tag in request.tags.items() if name != "dagster/partition"}
        for key in request.asset_selection or ():
            if request.partition_key is None:
                whole.append(dg.RunRequest(asset_selection=[key], tags=tags))
            else:
                wanted.setdefault(key, set()).add(request.partition_key)
    for key, partitions in sorted(wanted.items()):
        node = graph.get(key)
        ordered = sorted(node.partitions_def.get_partition_keys(dynamic_partitions_store=instance))
        limit = node.backfill_policy.max_partitions_per_run
        for chosen in neighbours(ordered, partitions):
            for start in range(0, len(chosen), limit):
                some = chosen[start : start + limit]
                whole.append(
                    dg.RunRequest(
                        asset_selection=[key],
                        tags={**tags, RANGE_START_TAG: some[0], RANGE_END_TAG: some[-1]},
                    )
                )
    return whole
