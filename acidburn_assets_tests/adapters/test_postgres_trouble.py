"""A database in trouble: full, read-only, slow, silent. What is said, and what is left."""

import os
import pwd
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr

from acidburn_assets.adapters.postgres import PassageSearch, Postgres, load, load_state, migrate
from acidburn_assets.core.errors import DatabaseError, DatabaseUnavailable
from acidburn_assets.core.ranking import Query
from acidburn_assets_tests import postgres_samples
from acidburn_assets_tests.postgres_server import database, dsn, postgres_server

__all__ = ["database", "dsn", "postgres_server"]

OLD = postgres_samples.make(40)
QUERY = Query(OLD.halves[0], {}, lexical_share=0)


def held(dsn: str) -> set[bytes]:
    with psycopg.connect(dsn) as connection:
        rows = connection.execute("select uuid_send(chunk_id) from acidburn.chunk_texts").fetchall()
    return {chunk_id for (chunk_id,) in rows}


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 24 MB that the server may write to."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    folder = Path(tempfile.mkdtemp(prefix="acidburn-tests-disk-"))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        folder.rmdir()
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        account = pwd.getpwnam("pgserver")
        os.chown(folder, account.pw_uid, account.pw_gid)
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()


def test_a_full_disk_leaves_the_old_shard_and_says_what_to_do(
    database: Postgres, dsn: str, small_disk: Path
) -> None:
    postgres_samples.load(database, OLD)
    name = sql.Identifier(f"small_{os.getpid()}")
    tables = ("chunk_embeddings", "chunk_texts")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            sql.SQL("create tablespace {} location {}").format(name, str(small_disk))
        )
        for table in tables:
            connection.execute(
                sql.SQL("alter table acidburn.{} set tablespace {}").format(
                    sql.Identifier(table), name
                )
            )
    try:
        big = postgres_samples.make(30_000, seed=1, text_chars=1500)
        with pytest.raises(
            DatabaseError,
            match=r"'books/000000' into chunk_embeddings: could not .* No space left on device;"
            r" nothing was changed.*Enlarge the database's disk, or unload a pool",
        ):
            postgres_samples.load(database, big)
        assert held(dsn) == set(OLD.chunk_ids)
        assert postgres_samples.load(database, OLD).is_skipped
        assert PassageSearch(database, "library").everywhere(QUERY, limit=1).hits
    finally:
        with psycopg.connect(dsn, autocommit=True) as connection:
            for table in tables:
                connection.execute(
                    sql.SQL("alter table acidburn.{} set tablespace pg_default").format(
                        sql.Identifier(table)
                    )
                )
            connection.execute(sql.SQL("drop tablespace {}").format(name))


def test_a_read_only_database_answers_and_takes_nothing(database: Postgres, dsn: str) -> None:
    postgres_samples.load(database, OLD)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            sql.SQL("alter database {} set default_transaction_read_only = on").format(
                sql.Identifier(connection.info.dbname)
            )
        )
    for is_forced in (False, True):
        with pytest.raises(DatabaseError, match=r"read-only transaction.*enlarge the disk"):
            postgres_samples.load(database, postgres_samples.make(40, seed=1), is_forced=is_forced)
    assert held(dsn) == set(OLD.chunk_ids)
    assert migrate(database) == []
    state = load_state(database, "chunk_embeddings", "books", "000000")
    assert state is not None
    assert state.n_counted == 40
    search = PassageSearch(database, "library")
    assert search.everywhere(QUERY, limit=1).hits[0].chunk_id == OLD.chunk_ids[0]
    search.close()


def test_a_shard_that_another_load_holds_is_waited_for_and_then_given_up(
    database: Postgres, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres_samples.load(database, OLD)
    monkeypatch.setattr(load, "_LOCK_SECONDS", 1)
    with psycopg.connect(dsn) as other:
        other.execute(
            "select pg_advisory_xact_lock(hashtextextended('acidburn shard books/000000', 0))"
        )
        with pytest.raises(
            DatabaseUnavailable, match=r"another transaction holds what it needs .*rolled back"
        ):
            postgres_samples.load(database, postgres_samples.make(40, seed=1))
    assert held(dsn) == set(OLD.chunk_ids)


def test_a_load_slower_than_its_limit_is_stopped_whole(
    database: Postgres, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres_samples.load(database, OLD)
    monkeypatch.setattr(load, "_STATEMENT_SECONDS", 1)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "create function public.dawdle() returns trigger language plpgsql as"
            " 'begin perform pg_sleep(0.1); return new; end'"
        )
        connection.execute(
            "create trigger dawdle before insert on acidburn.chunk_texts for each row"
            " execute function public.dawdle()"
        )
    with pytest.raises(DatabaseUnavailable, match=r"stopped before it ended .*rolled back"):
        postgres_samples.load(database, postgres_samples.make(40, seed=1))
    assert held(dsn) == set(OLD.chunk_ids)


def test_a_default_limit_of_the_login_does_not_stop_a_load(database: Postgres, dsn: str) -> None:
    """Supabase stops every statement after two minutes; here after a tenth of a second."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        name = sql.Identifier(connection.info.dbname)
        for limit in ("statement_timeout", "transaction_timeout"):
            connection.execute(
                sql.SQL("alter database {} set {} = '100ms'").format(name, sql.Identifier(limit))
            )
        connection.execute(
            "create function public.dawdle() returns trigger language plpgsql as"
            " 'begin perform pg_sleep(0.01); return new; end'"
        )
        connection.execute(
            "create trigger dawdle before insert on acidburn.chunk_texts for each row"
            " execute function public.dawdle()"
        )
    assert postgres_samples.load(database, OLD).n_rows == 40


def test_a_server_that_never_answers_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        postgres = Postgres(
            SecretStr(f"host=127.0.0.1 port={port} user=postgres connect_timeout=2 password=hush")
        )
        with pytest.raises(DatabaseUnavailable, match=f"no connection to 127.0.0.1:{port}") as told:
            postgres.open()
    assert "hush" not in str(told.value)


def test_a_server_that_stops_between_two_batches_leaves_nothing_half(
    database: Postgres, dsn: str
) -> None:
    """What a restart or a failover looks like to a load."""
    postgres_samples.load(database, OLD)
    new = postgres_samples.make(4000, seed=1)

    def stopping() -> Iterator[object]:
        for number, batch in enumerate(new.chunks.to_batches(max_chunksize=500)):
            if number == 6:
                with psycopg.connect(dsn, autocommit=True) as other:
                    other.execute(
                        "select pg_terminate_backend(pid) from pg_stat_activity"
                        " where application_name = 'acidburn' and datname = current_database()"
                    )
            yield batch

    with pytest.raises(DatabaseUnavailable):
        load.replace_chunk_embeddings(
            database,
            new.facts,
            new.load,
            **{**new.batches(), "chunks": stopping()},
            store_text="postgres",
        )
    assert held(dsn) == set(OLD.chunk_ids)
    assert not [one for one in threading.enumerate() if one.name.startswith("acidburn-load")]
