"""`acidburn audit …`: where things came from and went, what is stale, what is still there.

What is asked is answered in `auditor`, `moments`, `events` and `holdings`, and shown by `trails`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click
from rich.console import Console

from acidburn_assets import settings
from acidburn_assets.commands import trails
from acidburn_assets.commands.auditor import Auditor
from acidburn_assets.commands.events import find_stale, tell_history
from acidburn_assets.commands.holdings import check_holdings
from acidburn_assets.commands.instance import open_instance

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _as_json(function: _Command) -> _Command:
    option = click.option("--json", "is_json", is_flag=True, help="Print the record as JSON.")
    return option(function)


def _where(function: _Command) -> _Command:
    option = click.option(
        "--dataset",
        "where",
        metavar="DATASET[/SHARD]",
        help="Where to look; all chunks are searched without it, which takes a while.",
    )
    return option(function)


@click.group()
def command() -> None:
    """Say what was recorded: lineage both ways, history, what is stale, what is still there."""


@command.command()
@click.argument("identifier", metavar="NUMBER")
@click.option("--pool", help="Pool of the cluster; may be left out where there is one.")
@click.option(
    "--at",
    metavar="EVENT",
    help="As it stood then: the number of an event of the pool's lineage, cluster_map or "
    "cluster_model (see history), the first digits of a run, or an ISO time in UTC.",
)
@_as_json
def cluster(identifier: str, pool: str | None, at: str | None, is_json: bool) -> None:
    """Which shards fed a cluster, as it stands or as it stood."""
    with _auditor() as auditor:
        _show(auditor.cluster(identifier, pool, at), is_json=is_json)


@command.command()
@click.option("--pool", help="Whose; may be left out where there is one.")
@click.option("--generation", type=click.IntRange(0), help="An earlier one; the first is 0.")
@_as_json
def migration(pool: str | None, generation: int | None, is_json: bool) -> None:
    """What became of the clusters when they were found anew."""
    with _auditor() as auditor:
        _show(auditor.migration(pool, generation), is_json=is_json)


@command.command()
@click.argument("identifier", metavar="DATASET/SHARD")
@_as_json
def shard(identifier: str, is_json: bool) -> None:
    """Where a shard went."""
    with _auditor() as auditor:
        _show(auditor.shard(identifier), is_json=is_json)


@command.command()
@click.argument("identifier", metavar="ID")
@_where
@_as_json
def document(identifier: str, where: str | None, is_json: bool) -> None:
    """Where a document went, by its id in the dataset."""
    with _auditor() as auditor:
        _show(auditor.document(identifier, where), is_json=is_json)


@command.command()
@click.argument("identifier", metavar="CHUNK_ID")
@_where
@_as_json
def passage(identifier: str, where: str | None, is_json: bool) -> None:
    """Where a passage of an answer stands, by its chunk id."""
    with _auditor() as auditor:
        _show(auditor.passage(identifier, where), is_json=is_json)


command.add_command(passage, "chunk")


@command.command()
@click.argument("target", metavar="POOL|OWNER/ASSET[/SHARD]")
@click.option("--limit", default=30, show_default=True, type=click.IntRange(1))
@_as_json
def history(target: str, limit: int, is_json: bool) -> None:
    """Materializations, newest first, and what changed with each."""
    with _auditor() as auditor:
        registry = auditor.settings.registry
        told = tell_history(auditor.instance, auditor.graph, registry, target, limit=limit)
        _show(told, is_json=is_json)


@command.command()
@click.argument("target", metavar="[POOL|DATASET|all]", default="all")
@_as_json
def stale(target: str, is_json: bool) -> None:
    """What is not as a run would make it now, and why."""
    with _auditor() as auditor:
        registry = auditor.settings.registry
        found = find_stale(
            auditor.instance, auditor.graph, registry, target, left_out=auditor.left_out
        )
        _show(found, is_json=is_json)


@command.command()
@click.argument("target", metavar="[POOL|DATASET|all]", default="all")
@click.option("--deep", "is_deep", is_flag=True, help="Read every byte and count every row.")
@_as_json
def bucket(target: str, is_deep: bool, is_json: bool) -> None:
    """Whether the bucket and Postgres hold what was recorded; exit code 1 where they do not."""
    with _auditor() as auditor:
        found = check_holdings(
            auditor.settings, auditor.instance, auditor.graph, target, is_deep=is_deep
        )
        _show(found, is_json=is_json)
    if found.wrong:
        raise SystemExit(1)


@contextmanager
def _auditor() -> Iterator[Auditor]:
    configured = settings.load()
    with open_instance(configured) as instance:
        yield Auditor(configured, instance)


def _show(answer: trails.Answer, *, is_json: bool) -> None:
    if is_json:
        click.echo(answer.model_dump_json(indent=2))
    else:
        trails.show(answer, Console(highlight=False))
