"""`acidburn release OWNER/ASSET[/SHARD]`: has the automation try a quarantined partition again."""

import click
import dagster as dg

from acidburn_assets import settings
from acidburn_assets.commands.instance import open_instance
from acidburn_assets.core.errors import ConfigError
from acidburn_assets.definitions import build_defs
from acidburn_assets.io_managers.failures import FailureLog, release
from acidburn_assets.io_managers.versions import AssetGraph
from acidburn_assets.runtime import backends


@click.command()
@click.argument("targets", nargs=-1, metavar="[OWNER/ASSET[/SHARD]]...")
@click.option("--all", "is_all", is_flag=True, help="Release everything that is quarantined.")
def command(targets: tuple[str, ...], is_all: bool) -> None:
    """Release what failed so often that it is left alone; without a target, show what that is.

    A released partition is requested again at the next look, with its whole retry budget.
    """
    configured = settings.load()
    log = FailureLog(backends.open_store(configured, patience_seconds=30))
    graph = build_defs().resolve_asset_graph()
    if not targets:
        failing = [
            (key, shard, failures)
            for key in sorted(graph.materializable_asset_keys)
            for shard, failures in sorted(log.all_of(key).items(), key=str)
            if failures.counted()
        ]
        for key, shard, failures in failing:
            state = "quarantined" if failures.is_quarantined() else "tried again by itself"
            click.echo(f"{_name(key, shard)}: {state}, {len(failures.counted())} failures")
            click.echo(f"    {failures.last_reason()}")
        if not failing:
            click.echo("nothing has failed since it was last made")
        if not is_all:
            return
        wanted = [(key, shard) for key, shard, one in failing if one.is_quarantined()]
    else:
        wanted = [_parse(target, graph) for target in targets]
    with open_instance(configured) as instance:
        for key, shard in wanted:
            if not release(instance, log, key, shard):
                raise ConfigError(
                    f"nothing of {_name(key, shard)!r} has failed; acidburn release shows what has"
                )
            click.echo(f"{_name(key, shard)}: released")


def _parse(target: str, graph: AssetGraph) -> tuple[dg.AssetKey, str | None]:
    parts = target.split("/")
    key = dg.AssetKey(parts[:2])
    if len(parts) not in (2, 3) or not graph.has(key):
        raise ConfigError(f"{target!r} is not OWNER/ASSET or OWNER/ASSET/SHARD of this registry")
    return key, parts[2] if len(parts) == 3 else None


def _name(key: dg.AssetKey, shard: str | None) -> str:
    return key.to_user_string() + (f"/{shard}" if shard is not None else "")
