"""`acidburn materialize DATASET|POOL|all`: makes what is missing or out of date, nothing twice.

Runs the same asset graph as the UI, in this process, into the same Dagster home; every run shows
in the UI with its logs and figures.
"""

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import click
import dagster as dg

from acidburn_assets import settings
from acidburn_assets.assets import encoder
from acidburn_assets.commands.instance import only_one, open_instance
from acidburn_assets.commands.progress import LOGGER, Display, progress_logger
from acidburn_assets.core.datasets import Registry
from acidburn_assets.core.errors import AcidburnError, ConfigError
from acidburn_assets.definitions import build_defs
from acidburn_assets.io_managers import versions
from acidburn_assets.io_managers.base import FORCE_TAG, AssetIOManager, Managers
from acidburn_assets.launcher import PROCESS_TAG, this_process
from acidburn_assets.partitions import RANGE_END_TAG, RANGE_START_TAG, neighbours
from acidburn_assets.runtime import backends
from acidburn_assets.settings import Settings

_WITH_MODEL = ("plan", "chunks", "embeddings")
"""Assets that depend on the embedding model."""

_OF_DATASET = ("plan", "chunks", "embeddings", "manifest")
"""What a dataset is by itself; the rest of its assets need its pool."""


@dataclass
class Outcome:
    """What a materialization did."""

    n_made: int = 0  # asset partitions
    failures: dict[str, str] = field(default_factory=dict)  # asset -> reason
    skipped: list[str] = field(default_factory=list)  # assets whose upstream failed
    seconds: float = 0.0


@click.command()
@click.argument("target")
@click.option("--only", multiple=True, metavar="ASSET", help="Only this asset; may be repeated.")
@click.option("--force", is_flag=True, help="Make again even what is up to date.")
def command(target: str, only: tuple[str, ...], force: bool) -> None:
    """Make what is missing or out of date.

    TARGET is a dataset (plan, chunks, embeddings, manifest), a pool (all that it needs), one
    asset as OWNER/ASSET, or `all`.
    """
    outcome = materialize(target, only=only or None, is_forced=force)
    is_idle = not outcome.n_made and not outcome.failures
    click.echo(
        f"made {outcome.n_made} asset partitions in {outcome.seconds:.1f} s"
        + (": everything was up to date" if is_idle else "")
    )
    dataset = settings.load().registry.datasets.get(target)
    if dataset is not None and dataset.pool is not None and not outcome.failures:
        click.echo(f"for clusters and questions: acidburn materialize {dataset.pool}", err=True)
    if outcome.failures:
        left = f"; not tried: {', '.join(outcome.skipped)}" if outcome.skipped else ""
        raise click.ClickException(f"{len(outcome.failures)} assets failed{left}")


def materialize(
    target: str,
    *,
    only: Collection[str] | None = None,
    is_forced: bool = False,
    display: Display | None = None,
) -> Outcome:
    """Materializes a dataset, a pool or everything, asset by asset, in dependency order.

    What fails is kept in the outcome; what does not depend on it is made all the same.

    Args:
        target: a dataset, a pool, or `all`.
        only: names of assets; others are left out.
        is_forced: make again what is up to date.
        display: where progress is shown; a new one on stderr when left out.

    Raises:
        ConfigError: no such dataset, pool or asset, or another materialization is at work here.
    """
    configured = settings.load()
    with display or Display() as shown, only_one(configured), open_instance(configured) as instance:
        session = _Session(configured, instance, shown, is_forced=is_forced)
        return session.materialize(target, only)


class _Session:
    """One materialization: the graph, its managers as they are needed, and what came of it."""

    def __init__(
        self, configured: Settings, instance: dg.DagsterInstance, shown: Display, *, is_forced: bool
    ) -> None:
        self._settings = configured
        self._instance = instance
        self._shown = shown
        self._is_forced = is_forced
        definitions = build_defs(loggers={LOGGER: progress_logger(shown)})
        self._managers = Managers(definitions.resources or {})
        self._graph = definitions.resolve_asset_graph()
        self._job = definitions.resolve_implicit_global_asset_job_def()
        self._outcome = Outcome()

    def materialize(self, target: str, only: Collection[str] | None) -> Outcome:
        started = time.perf_counter()
        wanted = _select(self._graph, self._settings.registry, target, only)
        if any(key.path[-1] in _WITH_MODEL for key in wanted):
            card = backends.describe_model(self._settings)
            versions.observe_revision(self._instance, encoder.KEY, card.fingerprint)
        for key in wanted:
            name = key.to_user_string()
            parents = {parent.to_user_string() for parent in self._graph.get(key).parent_keys}
            if parents & {*self._outcome.failures, *self._outcome.skipped}:
                self._outcome.skipped.append(name)
                self._shown.skip(name, "not tried, something upstream failed")
                continue
            try:
                self._make(key, is_asked_for=only is not None)
            except AcidburnError as error:  # a back end is away: what does not need it goes on
                self._outcome.failures[name] = str(error)
                self._shown.skip(name, str(error))
        self._outcome.seconds = time.perf_counter() - started
        return self._outcome

    def _make(self, key: dg.AssetKey, *, is_asked_for: bool) -> None:
        if key.path[-1] == "plan":
            self._observe_source(key.path[0], is_asked_for=is_asked_for)
        manager = None if self._is_forced else self._managers.of(self._graph, key)
        for wanted in _ranges(self._instance, self._graph, key, manager):
            for partitions in self._leave_to_others(key, wanted):
                self._make_range(key, partitions)

    def _leave_to_others(
        self, key: dg.AssetKey, wanted: Sequence[str | None]
    ) -> Iterator[Sequence[str | None]]:
        """Without what a run is at work on; asked before each range, for the daemon may have begun
        with it meanwhile."""
        busy = versions.in_progress(
            self._instance, key, is_partitioned=self._graph.get(key).is_partitioned
        )
        taken = {one: busy[one] for one in wanted if one in busy}
        for run_id in sorted(set(taken.values())):
            self._shown.skip(
                key.to_user_string(), f"run {run_id} is at work on it, see acidburn ui"
            )
        if not taken:
            yield wanted
            return
        shards = [one for one in wanted if one is not None]
        yield from neighbours(shards, [one for one in shards if one not in taken])

    def _make_range(self, key: dg.AssetKey, partitions: Sequence[str | None]) -> None:
        name = key.to_user_string()
        self._shown.start(name, len(partitions))
        tags = {PROCESS_TAG: this_process()}
        if self._is_forced:
            tags[FORCE_TAG] = "true"
        if partitions[0] is not None and partitions[-1] is not None:
            tags |= {RANGE_START_TAG: partitions[0], RANGE_END_TAG: partitions[-1]}
        result = self._job.execute_in_process(
            instance=self._instance,
            asset_selection=[key],
            tags=tags,
            run_config={"loggers": {LOGGER: {}}},
            raise_on_error=False,
        )
        if self._shown.is_interrupted:
            raise KeyboardInterrupt
        self._outcome.n_made += self._shown.n_made
        if not result.success:
            self._outcome.failures[name] = "; ".join(self._shown.failures)

    def _observe_source(self, name: str, *, is_asked_for: bool) -> None:
        """Looks whether the dataset has changed.

        A hub's branch moves by itself, and a new revision means that all is embedded again: it is
        followed when somebody asks for the plan, not in passing.
        """
        dataset = self._settings.registry.dataset(name)
        plan = versions.latest_materialization(self._instance, dg.AssetKey([name, "plan"]), None)
        if dataset.source == "huggingface" and plan is not None and not is_asked_for:
            return
        revision = backends.open_source(self._settings, dataset).revision()
        versions.observe_revision(self._instance, dg.AssetKey([name, "source"]), revision)


def _select(
    graph: Any, registry: Registry, target: str, only: Collection[str] | None
) -> list[dg.AssetKey]:
    """Keys to look at, parents first."""
    ordered = [key for key in graph.toposorted_asset_keys if graph.get(key).is_materializable]
    known = {key.path[-1] for key in ordered}
    if only is not None and not known.issuperset(only):
        raise ConfigError(f"no asset {sorted(set(only) - known)[0]!r}; there are {sorted(known)}")
    chosen = [key for key in ordered if only is None or key.path[-1] in only]
    if target == "all":
        return chosen
    if dg.AssetKey(target.split("/")) in ordered:
        return [dg.AssetKey(target.split("/"))]
    if target in registry.datasets:
        of_dataset = only if only is not None else _OF_DATASET
        return [key for key in chosen if key.path[0] == target and key.path[-1] in of_dataset]
    if target in registry.pools:
        owners = {target, *registry.pools[target].datasets}
        return [key for key in chosen if key.path[0] in owners]
    raise ConfigError(
        f"no dataset or pool {target!r}; datasets are {sorted(registry.datasets)}, "
        f"pools are {sorted(registry.pools)}, or say all"
    )


def _ranges(
    instance: dg.DagsterInstance,
    graph: versions.AssetGraph,
    key: dg.AssetKey,
    manager: AssetIOManager | None,
) -> Iterator[Sequence[str | None]]:
    """Contiguous runs of partitions that are not up to date; all of them without a manager."""

    def is_wanted(partition: str | None) -> bool:
        return manager is None or not manager.is_current(instance, graph, key, partition)

    definition = graph.get(key).partitions_def
    if definition is None:
        if is_wanted(None):
            yield [None]
        return
    partitions = sorted(definition.get_partition_keys(dynamic_partitions_store=instance))
    yield from neighbours(partitions, [one for one in partitions if is_wanted(one)])
