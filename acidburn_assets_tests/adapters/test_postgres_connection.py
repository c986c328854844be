import socket
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pydantic import SecretStr

from acidburn_assets.adapters.embedded_postgres import EmbeddedPostgres
from acidburn_assets.adapters.postgres import Postgres, conninfo_from_parts, load_state, migrate
from acidburn_assets.core.errors import (
    AcidburnError,
    ConfigError,
    DatabaseError,
    DatabaseUnavailable,
)
from acidburn_assets_tests.postgres_server import database, dsn, postgres_server, server_folder

__all__ = ["database", "dsn", "postgres_server"]

SUPABASE = "db.abcdefghijklmnop.supabase.co"


def from_parts(password: str = "", **changes: object) -> SecretStr:
    parts: dict[str, object] = {
        "host": "127.0.0.1",
        "port": 1,
        "dbname": "postgres",
        "user": "postgres",
        "sslmode": "require",
        "sslrootcert": "",
    }
    return conninfo_from_parts(password=SecretStr(password), **(parts | changes))  # type: ignore[arg-type]  # a test's shorthand


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
def test_password_may_hold_any_character(password: str) -> None:
    conninfo = from_parts(password)
    assert conninfo_to_dict(conninfo.get_secret_value())["password"] == password
    assert Postgres(conninfo).where == "127.0.0.1:1/postgres as postgres"


@pytest.mark.parametrize("password", ["p@ss", "p/ss@1", "p#s/s", "100%", "a@b/c?d#e", "p ss"])
def test_url_with_a_raw_password_is_refused_without_showing_it(password: str) -> None:
    url = f"postgresql://postgres.ref:{password}@aws-0-eu.pooler.supabase.com:5432/postgres"
    with pytest.raises(ConfigError, match=r"percent-encode .*SUPABASE_PASSWORD") as caught:
        Postgres(SecretStr(url))
    assert password not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("password", ["p#ss", "p:ss", "p$s&s", "p%40ss"])
def test_url_with_a_harmless_or_encoded_password_is_taken(password: str) -> None:
    postgres = Postgres(SecretStr(f"postgresql://someone:{password}@localhost:5432/corpus"))
    assert repr(postgres) == "Postgres(localhost:5432/corpus as someone)"


def test_neither_repr_nor_error_shows_the_password() -> None:
    postgres = Postgres(from_parts("s3cret-pa55"))
    with pytest.raises(DatabaseUnavailable, match=r"127\.0\.0\.1:1") as caught:
        postgres.open()
    assert "s3cret-pa55" not in f"{postgres!r} {vars(postgres)} {caught.value}"


def test_host_with_ipv6_only_names_the_session_pooler() -> None:
    conninfo = from_parts(host="localhost", port=1)
    postgres = Postgres(conninfo, lookup=lambda _: {socket.AF_INET6})
    with pytest.raises(ConfigError, match=r"pooler\.supabase\.com.*SUPABASE_USER=postgres\.<proj"):
        postgres.open()


def test_supabase_host_names_the_user_of_its_pooler() -> None:
    postgres = Postgres(from_parts(host=SUPABASE), lookup=lambda _: {socket.AF_INET6})
    error = postgres._explain(psycopg.OperationalError("Network is unreachable"))
    assert isinstance(error, ConfigError)
    assert "SUPABASE_USER=postgres.abcdefghijklmnop" in str(error)


PASSWORD = "p@/#?:w %'é\\"


@pytest.fixture
def guarded(postgres_server: EmbeddedPostgres) -> Iterator[dict[str, object]]:
    """Parts of a conninfo for a user that the server asks for a password."""
    rules = server_folder() / "cluster" / "pg_hba.conf"
    before = rules.read_text()
    rules.write_text(f"local all guarded scram-sha-256\n{before}")
    with psycopg.connect(postgres_server.dsn, autocommit=True) as connection:
        connection.execute(
            sql.SQL("create role guarded login password {}").format(sql.Literal(PASSWORD))
        )
        connection.execute("select pg_reload_conf()")
    yield {
        "host": str(server_folder() / "cluster"),
        "port": 5432,
        "user": "guarded",
        "sslmode": "prefer",
    }
    rules.write_text(before)
    with psycopg.connect(postgres_server.dsn, autocommit=True) as connection:
        connection.execute("drop role guarded")
        connection.execute("select pg_reload_conf()")


def test_password_of_special_characters_opens_the_door(guarded: dict[str, object]) -> None:
    """Such passwords broke connection strings that were formatted."""
    with Postgres(from_parts(PASSWORD, **guarded)).connect(purpose="asking") as connection:
        assert connection.execute("select current_user").fetchone() == ("guarded",)


def test_wrong_password_names_user_and_host_only(guarded: dict[str, object]) -> None:
    with pytest.raises(DatabaseError, match=r"does not accept the password of 'guarded'") as caught:
        Postgres(from_parts("wrong-pa55", **guarded)).open()
    assert "wrong-pa55" not in str(caught.value)


def test_wrong_password_at_the_pooler_names_its_form_of_user() -> None:
    postgres = Postgres(from_parts(host="aws-0-eu.pooler.supabase.com", port=5432))
    error = postgres._explain(
        psycopg.OperationalError('FATAL:  password authentication failed for user "postgres"')
    )
    assert isinstance(error, DatabaseError)
    assert "the user is postgres.<project ref>" in str(error)


def test_missing_database_is_permanent(dsn: str) -> None:
    with pytest.raises(DatabaseError, match="no database 'nowhere'"):
        Postgres(SecretStr(make_conninfo(dsn, dbname="nowhere"))).open()


def test_verified_tls_needs_its_certificate(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="SUPABASE_SSLROOTCERT: download"):
        from_parts(sslmode="verify-full")
    with pytest.raises(ConfigError, match=r"there is no file '.*ca\.crt'"):
        from_parts(sslmode="verify-full", sslrootcert=str(tmp_path / "ca.crt"))
    (tmp_path / "ca.crt").write_text("a certificate")
    given_certificate = from_parts(sslmode="verify-full", sslrootcert=str(tmp_path / "ca.crt"))
    assert "ca.crt" in given_certificate.get_secret_value()


def test_block_commits_at_its_end_and_not_before_an_error(dsn: str) -> None:
    postgres = Postgres(SecretStr(dsn))

    def lose_a_row() -> None:
        with postgres.connect(purpose="losing a row") as connection:
            connection.execute("insert into kept values (1)")
            raise KeyError

    with postgres.connect(purpose="making a table") as connection:
        connection.execute("create table kept (a int)")
    with pytest.raises(KeyError):
        lose_a_row()
    with postgres.connect(purpose="reading") as connection:
        assert connection.execute("select count(*) from kept").fetchone() == (0,)


def terminate(dsn: str, pid: int) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("select pg_terminate_backend(%s, 5000)", [pid])


def test_connection_broken_in_flight_is_transient(dsn: str) -> None:
    def work() -> None:
        with Postgres(SecretStr(dsn)).connect(purpose="loading x") as connection:
            terminate(dsn, connection.info.backend_pid)
            connection.execute("select 1")

    with pytest.raises(DatabaseUnavailable, match=r"loading x: .*nothing was changed"):
        work()


def test_connection_broken_at_commit_says_that_nobody_knows(dsn: str) -> None:
    def work() -> None:
        with Postgres(SecretStr(dsn)).connect(purpose="loading x") as connection:
            connection.execute("create table t (a int)")
            terminate(dsn, connection.info.backend_pid)

    with pytest.raises(DatabaseUnavailable, match="do it again, what is there already is skipped"):
        work()


@pytest.mark.parametrize(
    ("statement", "kind", "message"),
    [
        ("select from acidburn.nothing", DatabaseError, "makes its tables itself"),
        ("select '[1]'::halfvec_of_old", DatabaseError, "pgvector 0.7 or newer"),
        ("set transaction read only; create table t (a int)", DatabaseError, "disk is nearly"),
        ("set local statement_timeout = 1; select pg_sleep(9)", DatabaseUnavailable, "stopped"),
        ("select 1 / 0", DatabaseError, "division by zero"),
    ],
)
def test_refusals_say_how_to_mend_them(
    dsn: str, statement: str, kind: type[AcidburnError], message: str
) -> None:
    postgres = Postgres(SecretStr(dsn))
    with (
        pytest.raises(kind, match=message),
        postgres.connect(purpose="trying") as connection,
    ):
        connection.execute(statement.encode())


def test_database_without_tables_says_who_makes_them(dsn: str) -> None:
    postgres = Postgres(SecretStr(dsn))
    with pytest.raises(DatabaseError, match="when a Postgres asset is materialized"):
        load_state(postgres, "chunk_embeddings", "books", "000000")
    migrate(postgres)
    assert load_state(postgres, "chunk_embeddings", "books", "000000") is None
