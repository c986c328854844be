"""`acidburn unload POOL`: removes a pool from Postgres; the bucket keeps everything."""

import click

from acidburn_assets import settings
from acidburn_assets.adapters import postgres as database
from acidburn_assets.core.errors import ConfigError
from acidburn_assets.runtime import backends


@click.command()
@click.argument("pool")
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(pool: str, yes: bool) -> None:
    """Remove POOL's vectors, texts, memberships and headers from Postgres.

    A pool holds the vectors of one model: unload it before another model's are loaded. Nothing in
    the bucket is touched; `acidburn materialize POOL` loads it again.
    """
    configured = settings.load()
    postgres = backends.open_postgres(configured)
    # not by the registry: what is unloaded may have left it
    if database.pool_state(postgres, pool) is None:
        raise ConfigError(f"nothing of the pool {pool!r} is in Postgres ({postgres.where})")
    if not yes:
        click.confirm(f"remove {pool} from {postgres.where}?", abort=True, err=True)
    removed = database.unload(postgres, pool)
    for table, n_rows in sorted(removed.items()):
        click.echo(f"{table}: {n_rows:,} rows removed")
