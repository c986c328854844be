"""`acidburn materialize DATASET|POOL|all`: makes what is missing or out of date, nothing twice.

Runs the same asset graph as the UI, in this process, into the same Dagster home; every run shows
in the UI with its logs and figures.
"""

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import click
import dagster as dg

from acidburn_assets import settings
from acidburn_assets.commands.instance import PROCESS_TAG, open_instance, process_tag
from acidburn_assets.commands.progress import LOGGER, Display, progress_logger
from acidburn_assets.core.datasets import Registry
from acidburn_assets.core.errors import ConfigError
from acidburn_assets.definitions import build_defs
from acidburn_assets.io_managers import versions
from acidburn_assets.io_managers.base import FORCE_TAG, AssetIOManager
from acidburn_assets.runtime import backends

_RANGE_START = "dagster/asset_partition_range_start"
_RANGE_END = "dagster/asset_partition_range_end"

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
@click.option("--force", is_flag=True, help="Make everything again, even what is up to date.")
def command(target: str, force: bool) -> None:
    """Make what is missing or out of date.

    TARGET is a dataset (plan, chunks, embeddings, manifest), a pool (all that it needs), or
    `all`.
    """
    outcome = materialize(target, is_forced=force)
    click.echo(
        f"made {outcome.n_made} asset partitions in {outcome.seconds:.1f} s"
        + ("" if outcome.n_made else ": everything was up to date")
    )
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

    Args:
        target: a dataset, a pool, or `all`.
        only: names of assets; others are left out.
        is_forced: make again what is up to date.
        display: where progress is shown; a new one on stderr when left out.

    Raises:
        ConfigError: no such dataset or pool.
    """
    started = time.perf_counter()
    configured = settings.load()
    outcome = Outcome()
    with display or Display() as shown:
        definitions = build_defs(loggers={LOGGER: progress_logger(shown)})
        graph = definitions.resolve_asset_graph()
        job = definitions.resolve_implicit_global_asset_job_def()
        wanted = [
            key
            for key in _select(graph, configured.registry, target)
            if only is None or key.path[-1] in only
        ]
        managers = _managers(definitions, {_manager_of(graph, key) for key in wanted})
        with open_instance(configured) as instance:
            for key in wanted:
                name = key.to_user_string()
                parents = {parent.to_user_string() for parent in graph.get(key).parent_keys}
                if parents & {*outcome.failures, *outcome.skipped}:
                    outcome.skipped.append(name)
                    shown.skip(name, "not tried, something upstream failed")
                    continue
                if key.path[-1] == "plan":
                    dataset = configured.registry.dataset(key.path[0])
                    revision = backends.open_source(configured, dataset).revision()
                    versions.observe_revision(
                        instance, dg.AssetKey([dataset.name, "source"]), revision
                    )
                manager = managers[_manager_of(graph, key)]
                ranges = _ranges(instance, graph, key, None if is_forced else manager)
                for partitions in ranges:
                    shown.start(name, len(partitions))
                    tags = {PROCESS_TAG: process_tag()}
                    if is_forced:
                        tags[FORCE_TAG] = "true"
                    if partitions[0] is not None and partitions[-1] is not None:
                        tags |= {_RANGE_START: partitions[0], _RANGE_END: partitions[-1]}
                    result = job.execute_in_process(
                        instance=instance,
                        asset_selection=[key],
                        tags=tags,
                        run_config={"loggers": {LOGGER: {}}},
                        raise_on_error=False,
                    )
                    outcome.n_made += shown.n_made
                    if not result.success:
                        outcome.failures[name] = "; ".join(shown.failures)
    outcome.seconds = time.perf_counter() - started
    return outcome


def _select(graph: Any, registry: Registry, target: str) -> list[dg.AssetKey]:
    """Keys to look at, parents first."""
    ordered = [key for key in graph.toposorted_asset_keys if graph.get(key).is_materializable]
    if target == "all":
        return ordered
    if target in registry.datasets:
        return [key for key in ordered if key.path[0] == target and key.path[-1] in _OF_DATASET]
    if target in registry.pools:
        owners = {target, *registry.pools[target].datasets}
        return [key for key in ordered if key.path[0] in owners]
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
    node = graph.get(key)
    partitions: list[str | None] = [None]
    if node.partitions_def is not None:
        partitions = sorted(
            node.partitions_def.get_partition_keys(dynamic_partitions_store=instance)
        )
    stale = [
        (position, partition)
        for position, partition in enumerate(partitions)
        if manager is None or not manager.is_current(instance, graph, key, partition)
    ]
    # consecutive positions share the difference between position and rank
    for _, group in groupby(enumerate(stale), key=lambda ranked: ranked[1][0] - ranked[0]):
        yield [partition for _, (_, partition) in group]


def _manager_of(graph: Any, key: dg.AssetKey) -> str:
    name: str = graph.get(key).assets_def.get_io_manager_key_for_asset_key(key)
    return name


def _managers(definitions: dg.Definitions, names: Collection[str]) -> dict[str, AssetIOManager]:
    """Opens what the wanted assets are stored in, and nothing else: a plan needs no Postgres."""
    context = dg.build_init_resource_context()
    resources = definitions.resources or {}
    return {name: resources[name].create_io_manager(context) for name in names}
