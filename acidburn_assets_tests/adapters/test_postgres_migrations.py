import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import errors, sql
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr

from acidburn_assets.adapters import embedded_postgres
from acidburn_assets.adapters.embedded_postgres import EmbeddedPostgres
from acidburn_assets.adapters.postgres import Postgres, migrate
from acidburn_assets.adapters.postgres.migrations import shipped
from acidburn_assets.core.errors import DatabaseError
from acidburn_assets_tests import postgres_samples
from acidburn_assets_tests.postgres_server import database, dsn, new_database, postgres_server

__all__ = ["database", "dsn", "postgres_server"]

FROZEN = {
    "20261124120000_acidburn.sql": (
        "a173b84126a49730760d35579eedc50ab93f69454ae8b244ce776c5f50317a7e"
    ),
    "20261124150000_lineage.sql": (
        "890a3cd36603bc56a7a8237167bd2b118edcb29e26a250c206cb9a92c2570a5a"
    ),
    "20261128090000_cells.sql": (
        "82915e1a63e72d8efaadbeec332f7f6231ad6c6aff753eeac46b4c7f5309a430"
    ),
}


def test_shipped_migrations_never_change() -> None:
    """A new line goes in for a new file; a hash is never edited."""
    assert {migration.file: migration.sha256 for migration in shipped()} == FROZEN


def test_versions_are_in_the_form_of_the_supabase_cli_and_in_order() -> None:
    versions = [migration.version for migration in shipped()]
    assert all(len(version) == 14 and version.isdigit() for version in versions)
    assert versions == sorted(set(versions))


def test_migrating_twice_changes_nothing(dsn: str) -> None:
    postgres = Postgres(SecretStr(dsn))
    assert migrate(postgres, dry_run=True) == list(FROZEN)
    assert migrate(postgres) == list(FROZEN)
    assert migrate(postgres, dry_run=True) == []
    assert migrate(postgres) == []


def test_processes_that_migrate_at_once_do_it_once(dsn: str) -> None:
    applied: list[str] = []
    threads = [
        threading.Thread(target=lambda: applied.extend(migrate(Postgres(SecretStr(dsn)))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert applied == list(FROZEN)


def test_file_changed_after_it_was_applied_is_refused(database: Postgres, dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("update acidburn.migrations set sha256 = 'another'")
    with pytest.raises(DatabaseError, match=r"20261124120000_acidburn\.sql.*put the old file back"):
        migrate(database)


def test_database_newer_than_the_package_is_refused(database: Postgres, dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("insert into acidburn.migrations values ('29990101000000', 'n', 's')")
    with pytest.raises(DatabaseError, match=r"'29990101000000'.*upgrade Acidburn"):
        migrate(database)


def test_file_that_the_supabase_cli_applied_is_left_alone(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("create schema supabase_migrations")
        connection.execute(
            "create table supabase_migrations.schema_migrations (version text, name text)"
        )
        for migration in shipped():
            connection.execute(migration.sql.encode())
            connection.execute(
                "insert into supabase_migrations.schema_migrations values (%s, %s)",
                [migration.version, migration.name],
            )
    assert migrate(Postgres(SecretStr(dsn))) == []


def test_pgvector_in_another_schema_says_how_to_move_it(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("alter extension vector set schema public")
    with pytest.raises(DatabaseError, match=r'pgvector 0.7 or newer .*found 0.* in "public"'):
        migrate(Postgres(SecretStr(dsn)))


def test_missing_pgvector_says_how_to_get_it(dsn: str) -> None:
    """Who may not create the extension is told who may."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("drop extension vector")
        connection.execute("create role plain login")
        connection.execute("grant all on schema extensions to plain")
        connection.execute(
            sql.SQL("grant create on database {} to plain").format(
                sql.Identifier(connection.info.dbname)
            )
        )
    try:
        with pytest.raises(DatabaseError, match=r"create extension vector with schema extensions"):
            migrate(Postgres(SecretStr(make_conninfo(dsn, user="plain"))))
    finally:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("drop owned by plain")
            connection.execute("drop role plain")


@pytest.fixture(scope="module")
def server_of_roles() -> Iterator[EmbeddedPostgres]:
    """Roles are a server's, and none with rights in any of its databases can be dropped: this one
    has no database of other tests."""
    folder = Path(tempfile.mkdtemp(prefix="acidburn-tests-roles-"))
    try:
        with embedded_postgres.start(folder) as server:
            yield server
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def supabase(server_of_roles: EmbeddedPostgres) -> Iterator[str]:
    """The database as Supabase hands it over: an owner that is no superuser, web roles."""
    with new_database(server_of_roles) as dsn:
        yield from _as_supabase(dsn)


def _as_supabase(dsn: str) -> Iterator[str]:
    roles = ("acidburn_loader", "acidburn_reader", "anon", "authenticated", "owner")
    roles = (*roles, "a_reader", "a_loader")
    with psycopg.connect(dsn, autocommit=True) as connection:
        for role in roles:
            connection.execute(sql.SQL("drop role if exists {}").format(sql.Identifier(role)))
        connection.execute("create role owner login createrole createdb bypassrls")
        connection.execute("create role anon login")
        connection.execute("create role authenticated login")
        connection.execute("grant all on schema extensions to owner with grant option")
        # what made tables world readable in Supabase's own default
        connection.execute("alter default privileges grant all on tables to anon, authenticated")
        connection.execute(
            sql.SQL("grant create on database {} to owner").format(
                sql.Identifier(connection.info.dbname)
            )
        )
    yield dsn
    with psycopg.connect(dsn, autocommit=True) as connection:
        for role in roles:
            name = sql.Identifier(role)
            found = connection.execute("select from pg_roles where rolname = %s", [role])
            if found.fetchone() is not None:
                connection.execute(sql.SQL("drop owned by {} cascade").format(name))
        for role in roles:
            connection.execute(sql.SQL("drop role if exists {}").format(sql.Identifier(role)))


def test_roles_can_do_their_work_and_no_more(supabase: str) -> None:
    owner = Postgres(SecretStr(make_conninfo(supabase, user="owner")))
    migrate(owner)
    postgres_samples.load(owner, postgres_samples.make())
    with psycopg.connect(make_conninfo(supabase, user="owner"), autocommit=True) as connection:
        connection.execute("create role a_reader login in role acidburn_reader")
        connection.execute("create role a_loader login bypassrls in role acidburn_loader")

    def run(user: str, statement: str) -> int:
        dsn = make_conninfo(supabase, user=user)
        with psycopg.connect(dsn, autocommit=True) as connection:
            return connection.execute(statement.encode()).rowcount

    tables = ("pools", "shards", "loads", "pool_loads", "cluster_headers", "migrations")
    tables = (*tables, "chunk_embeddings", "chunk_texts", "chunk_clusters")
    tables = (*tables, "lineage", "lineage_shards")
    for table in tables:
        assert run("a_reader", f"select from acidburn.{table}") >= 0
        for user in ("anon", "authenticated"):
            with pytest.raises(errors.InsufficientPrivilege):
                run(user, f"select from acidburn.{table}")
        for user in ("a_reader", "anon", "authenticated"):
            with pytest.raises(errors.InsufficientPrivilege):
                run(user, f"delete from acidburn.{table}")
        with pytest.raises(errors.InsufficientPrivilege):
            run("a_loader", f"drop table acidburn.{table}")
    assert run("a_reader", "select from acidburn.chunk_texts") == 20
    loader = Postgres(SecretStr(make_conninfo(supabase, user="a_loader")))
    second = postgres_samples.make(shard="000001")
    assert postgres_samples.load(loader, second).n_rows == 20
    assert postgres_samples.load(loader, second).is_skipped
    with pytest.raises(errors.InsufficientPrivilege):
        run("a_loader", "create table acidburn.mine (a int)")


def test_grants_to_the_web_are_refused_by_row_level_security(supabase: str) -> None:
    """Should somebody grant the schema to anon after all, its rows stay hidden."""
    owner = Postgres(SecretStr(make_conninfo(supabase, user="owner")))
    migrate(owner)
    postgres_samples.load(owner, postgres_samples.make())
    with psycopg.connect(supabase, autocommit=True) as connection:
        connection.execute("grant usage on schema acidburn to anon")
        connection.execute("grant select on all tables in schema acidburn to anon")
    with psycopg.connect(make_conninfo(supabase, user="anon")) as connection:
        assert connection.execute("select from acidburn.chunk_texts").rowcount == 0
