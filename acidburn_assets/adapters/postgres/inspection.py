"""What a database is, for whoever wants to know whether it can hold the corpus."""

import time
from typing import NamedTuple

from acidburn_assets.adapters.postgres.connection import Postgres
from acidburn_assets.adapters.postgres.migrations import migrate
from acidburn_assets.core.errors import DatabaseError

MIN_VERSION = 15
"""Postgres major version. Source: Supabase serves 15 and 17; the tables were tried on 16 and 18."""

MIN_PGVECTOR = (0, 7)
"""halfvec came with 0.7.0. Source: pgvector, CHANGELOG."""


class Inspection(NamedTuple):
    """A usable database."""

    where: str
    version: str
    pgvector_version: str  # "" where the extension can be created but is not yet
    pending: tuple[str, ...]  # migrations that will be applied
    seconds: float  # of a round trip, connection included


def inspect(postgres: Postgres) -> Inspection:
    """Looks at a database; changes nothing.

    Raises:
        DatabaseError: it is too old, or has no pgvector to create.
        DatabaseUnavailable, ConfigError: it cannot be reached.
    """
    started = time.perf_counter()
    with postgres.connect(purpose="looking at the database") as connection:
        row = connection.execute(
            "select current_setting('server_version'),"
            " current_setting('server_version_num')::int / 10000, installed_version,"
            " default_version"
            " from (values ('vector')) as wanted (name)"
            " left join pg_available_extensions using (name)"
        ).fetchone()
    seconds = time.perf_counter() - started
    if row is None:
        raise DatabaseError(f"{postgres.where} says nothing of itself; is it Postgres?")
    version, major, installed, available = row
    if major < MIN_VERSION:
        raise DatabaseError(
            f"{postgres.where} is Postgres {version}; {MIN_VERSION} or newer is needed"
        )
    pgvector = installed or available
    if pgvector is None:
        raise DatabaseError(
            f"{postgres.where} has no pgvector: install the extension `vector` on the server (on "
            "Supabase: Database, Extensions, vector)"
        )
    if tuple(map(int, pgvector.split(".")[:2])) < MIN_PGVECTOR:
        wanted = ".".join(map(str, MIN_PGVECTOR))
        raise DatabaseError(
            f"{postgres.where} has pgvector {pgvector}; {wanted} or newer is needed: "
            "alter extension vector update"
        )
    pending = tuple(migrate(postgres, dry_run=True))
    return Inspection(postgres.where, version, installed or "", pending, seconds)
