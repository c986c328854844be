"""A real Postgres with pgvector for every ring of tests: one server, a fresh database per test.

Import the fixtures where they are needed: `from acidburn_assets_tests.postgres_server import
database, dsn, postgres_server`.
"""

import atexit
import shutil
import tempfile
from collections.abc import Iterator
from functools import cache
from itertools import count
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
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


@pytest.fixture
def dsn(postgres_server: EmbeddedPostgres) -> Iterator[str]:
    """An empty database with pgvector, as a superuser."""
    name = f"acidburn_{next(_numbers)}"
    with psycopg.connect(postgres_server.dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    dsn = make_conninfo(postgres_server.dsn, dbname=name)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("create schema extensions")
        connection.execute("create extension vector with schema extensions")
    yield dsn
    # dropped, because roles are the server's: one with rights in any database cannot be dropped
    with psycopg.connect(postgres_server.dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture
def database(dsn: str) -> Postgres:
    """The same database, migrated."""
    postgres = Postgres(SecretStr(dsn))
    migrate(postgres)
    return postgres
