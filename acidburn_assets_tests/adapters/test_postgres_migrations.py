import re
import threading

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr

from acidburn_assets.adapters.postgres import Postgres, migrate, migrations
from acidburn_assets.adapters.postgres.migrations import shipped
from acidburn_assets.core.errors import DatabaseError
from acidburn_assets_tests import postgres_samples
from acidburn_assets_tests.adapters.supabase import Cloud, server_of_roles, supabase
from acidburn_assets_tests.postgres_server import database, dsn, postgres_server

__all__ = ["database", "dsn", "postgres_server", "server_of_roles", "supabase"]

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
    "20261128100000_rights.sql": (
        "11b88ad8d413d040cf595dfca8cea1fdc3c825a98592fae9a320b4795beacab2"
    ),
    "20261128110000_terms.sql": (
        "4270014b668dc735922836dbd0e81736cf34a12847fbc5a04ca1927b9a5d20a7"
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


def test_tables_of_an_older_version_are_brought_up_to_date_with_what_they_hold(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres = Postgres(SecretStr(dsn))
    every = shipped()
    monkeypatch.setattr(migrations, "shipped", lambda: every[:2])
    migrate(postgres)
    monkeypatch.undo()
    sample = postgres_samples.make()
    with pytest.raises(DatabaseError, match=r"cell_id.* older .* run `acidburn db migrate`"):
        postgres_samples.load(postgres, sample)
    assert migrate(postgres) == [migration.file for migration in every[2:]]
    assert postgres_samples.load(postgres, sample).n_rows == 20


def test_a_role_that_may_not_migrate_says_who_may(
    supabase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = shipped()
    monkeypatch.setattr(migrations, "shipped", lambda: every[:2])
    cloud = Cloud(supabase)
    migrate(cloud.as_role("owner"))
    cloud.run("owner", "create role a_loader login bypassrls in role acidburn_loader")
    monkeypatch.undo()
    with pytest.raises(
        DatabaseError, match=r"lack 20261128090000_cells\.sql.*`acidburn db migrate` as their owner"
    ):
        migrate(cloud.as_role("a_loader"))
    assert migrate(cloud.as_role("a_loader"), dry_run=True) == [one.file for one in every[2:]]


def test_no_migration_holds_a_secret() -> None:
    for migration in shipped():
        assert not re.search(r"password|secret|api_?key", migration.sql, re.IGNORECASE)
