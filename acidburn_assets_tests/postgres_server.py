"""A real Postgres with pgvector for every ring of tests: one server, a fresh database per test.

The fixtures are there for every test; a module that imports them has its own copy, which joins the
same server.
"""

import atexit
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import count
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pydantic import SecretStr

from acidburn_assets.adapters import embedded_postgres
from acidburn_assets.adapters.embedded_postgres import EmbeddedPostgres
from acidburn_assets.adapters.postgres import Postgres, migrate

__all__ = ["database", "dsn", "postgres_server"]

_numbers = count()


@cache
def server_folder() -> Path:
    """One folder for all modules of this run.

    Not pytest's own: as root, the server runs as another account, and every pytest that starts on
    the machine closes /tmp/pytest-of-root to it again.
    """
    folder = tempfile.mkdtemp(prefix="acidburn-tests-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[EmbeddedPostgres]:
    """Started once per run of the tests, stopped at its end.

    Each module that imports this fixture has its own copy of it; the second joins the first's
    server.
    """
    with embedded_postgres.start(server_folder()) as server:
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            # nothing here outlives the run, and a database per test is mostly waiting for the disk
            connection.execute("alter system set fsync = off")
            connection.execute("select pg_reload_conf()")
        yield server


@contextmanager
def new_database(server: EmbeddedPostgres, *, copy_of: str | None = None) -> Iterator[str]:
    """The DSN, as a superuser, of an empty database with pgvector or of a copy of another one.

    Args:
        server: where.
        copy_of: DSN of a database of the same server; whoever is connected to it is thrown out.
    """
    name = f"acidburn_{next(_numbers)}"
    dsn = make_conninfo(server.dsn, dbname=name)
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        if copy_of is None:
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        else:
            source = conninfo_to_dict(copy_of)["dbname"]
            connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s",
                [source],
            )
            connection.execute(
                sql.SQL("create database {} template {}").format(
                    sql.Identifier(name), sql.Identifier(str(source))
                )
            )
    if copy_of is None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("create schema extensions")
            connection.execute("create extension vector with schema extensions")
    try:
        yield dsn
    finally:
        # roles are the server's, and one with rights in any database cannot be dropped
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute(
                sql.SQL("drop database {} with (force)").format(sql.Identifier(name))
            )


@pytest.fixture
def dsn(postgres_server: EmbeddedPostgres) -> Iterator[str]:
    """An empty database with pgvector, as a superuser."""
    with new_database(postgres_server) as dsn:
        yield dsn


@pytest.fixture
def database(dsn: str) -> Postgres:
    """The same database, migrated."""
    postgres = Postgres(SecretStr(dsn))
    migrate(postgres)
    return postgres
