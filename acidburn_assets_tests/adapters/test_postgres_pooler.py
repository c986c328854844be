"""Through Supabase's kinds of pooler, with a password and verified TLS; PgBouncer stands in."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import numpy as np
import psycopg
import pyarrow as pa
import pytest
from pydantic import SecretStr

from acidburn_assets import settings
from acidburn_assets.adapters.embedded_postgres import EmbeddedPostgres
from acidburn_assets.adapters.postgres import (
    PassageSearch,
    Postgres,
    examine,
    migrate,
    replace_chunk_embeddings,
    unload,
)
from acidburn_assets.core.errors import ConfigError, DatabaseError, DatabaseUnavailable
from acidburn_assets.core.ranking import Query
from acidburn_assets.runtime import backends
from acidburn_assets_tests import postgres_samples
from acidburn_assets_tests.adapters.supabase import Mode, Pooler, open_pooler
from acidburn_assets_tests.postgres_samples import Sample
from acidburn_assets_tests.postgres_server import new_database, postgres_server

__all__ = ["postgres_server"]

USERS = {
    "postgres": "plain-enough",
    "nasty_0": "p@ss/w#rd?1:2&3=4%40",
    "nasty_1": " leading and trailing ",
    "nasty_2": "'single' \"double\" \\back\\slash`$HOME${HOME}",
    "nasty_3": "åé漢字🔑",
    "nasty_4": "host=elsewhere password=other",
    "nasty_5": "[::1],a;b|c<d>e^f~g!h*i(j)",
    "nasty_6": "%",
}
MODES: tuple[Mode, ...] = ("transaction", "session")


@pytest.fixture(scope="module", params=MODES)
def through(request: pytest.FixtureRequest, postgres_server: EmbeddedPostgres) -> Iterator[Pooler]:
    """A migrated database behind a pooler, one in each mode."""
    with new_database(postgres_server) as dsn:
        with psycopg.connect(dsn, autocommit=True) as connection:
            for user in USERS:
                if user != "postgres":
                    connection.execute(f"create role {user} login".encode())
        with open_pooler(dsn, request.param, USERS) as pooler:
            postgres = Postgres(pooler.conninfo("postgres", USERS["postgres"]))
            assert migrate(postgres)  # that works through it, too
            yield pooler
        with psycopg.connect(dsn, autocommit=True) as connection:
            for user in USERS:
                if user != "postgres":
                    connection.execute(f"drop role {user}".encode())


@pytest.fixture
def postgres(through: Pooler) -> Postgres:
    """The same, with nothing loaded."""
    postgres = Postgres(through.conninfo("postgres", USERS["postgres"]))
    unload(postgres, "library")
    return postgres


def vectors_in(postgres: Postgres) -> dict[bytes, int]:
    with postgres.connect(purpose="looking") as connection:
        rows = connection.execute(
            "select uuid_send(chunk_id), cell_id from acidburn.chunk_embeddings"
        ).fetchall()
    return dict(rows)


def vectors_of(*samples: Sample) -> dict[bytes, int]:
    return {
        chunk_id: cell
        for sample in samples
        for chunk_id, cell in zip(sample.chunk_ids, sample.cells.tolist(), strict=True)
    }


def test_a_shard_is_loaded_moved_skipped_and_searched(postgres: Postgres) -> None:
    sample = postgres_samples.make(200)
    assert postgres_samples.load(postgres, sample).n_rows == 200
    assert postgres_samples.load(postgres, sample).is_skipped
    table = sample.assignments
    field = table.schema.field("cell_id")
    cells = pa.array(np.where(sample.cells == 0, 7, sample.cells), field.type)
    moved = replace(
        sample.with_load(assignments_sha256="moved"),
        assignments=table.set_column(table.schema.get_field_index("cell_id"), field, cells),
    )
    n_moved = int((sample.cells == 0).sum())
    assert postgres_samples.load(postgres, moved).n_changed == n_moved
    assert vectors_in(postgres) == vectors_of(moved)
    assert postgres_samples.load_clusters(postgres, moved).n_rows == 200
    search = PassageSearch(postgres, "library")
    query = Query(moved.halves[3], {}, lexical_share=0)
    # PgBouncer of old refuses what was prepared, and psycopg prepares what it has sent five times
    for _ in range(8):
        found = search.inside(query, [int(moved.cells[3])], limit=1)
        assert found.hits[0].chunk_id == moved.chunk_ids[3]
    search.close()


def test_loaders_at_once_leave_whole_shards(postgres: Postgres) -> None:
    """Six loads, three of them of one shard, over three server connections."""
    others = [postgres_samples.make(300, shard=f"00000{number}") for number in (1, 2, 3)]
    rivals = [postgres_samples.make(300, seed=seed) for seed in (1, 2, 3)]
    failed: list[BaseException] = []

    def load(sample: Sample) -> None:
        try:
            postgres_samples.load(postgres, sample)
        except BaseException as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=load, args=(one,)) for one in (*others, *rivals)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    found = vectors_in(postgres)
    assert found in [vectors_of(*others, rival) for rival in rivals]


KILLED = """
import os, signal, sys
from pydantic import SecretStr
from acidburn_assets.adapters.postgres import Postgres, replace_chunk_embeddings
from acidburn_assets_tests import postgres_samples

new = postgres_samples.make(40_000, seed=1)

def deadly():
    batches = new.chunks.to_batches(max_chunksize=1000)
    yield from batches[:20]
    os.kill(os.getpid(), signal.SIGKILL)

tables = new.batches() | {"chunks": deadly()}
replace_chunk_embeddings(
    Postgres(SecretStr(sys.stdin.read())), new.facts, new.load, **tables, store_text="postgres"
)
"""


def test_a_loader_killed_in_the_middle_leaves_the_old_shard(
    postgres: Postgres, through: Pooler
) -> None:
    old = postgres_samples.make(40)
    postgres_samples.load(postgres, old)
    conninfo = through.conninfo("postgres", USERS["postgres"]).get_secret_value()
    done = subprocess.run(
        [sys.executable, "-c", KILLED],
        input=conninfo,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert postgres_samples.load(postgres, old).is_skipped
    assert vectors_in(postgres) == vectors_of(old)


def test_a_source_that_fails_leaves_a_pooler_that_works(postgres: Postgres) -> None:
    sample = postgres_samples.make(4000)

    def failing() -> Iterator[pa.RecordBatch]:
        yield from sample.chunks.to_batches(max_chunksize=1000)[:2]
        raise ArithmeticError("of the source")

    tables = sample.batches() | {"chunks": failing()}
    for _ in range(4):  # more often than there are server connections
        with pytest.raises(ArithmeticError, match="of the source"):
            replace_chunk_embeddings(
                postgres, sample.facts, sample.load, **tables, store_text="postgres"
            )
        tables = sample.batches() | {"chunks": failing()}
    assert vectors_in(postgres) == {}
    assert postgres_samples.load(postgres, sample).n_rows == 4000


def test_nothing_set_for_a_load_is_left_to_another_client(postgres: Postgres) -> None:
    postgres_samples.load(postgres, postgres_samples.make())
    for _ in range(4):
        with postgres.connect(purpose="looking") as connection:
            found = connection.execute(
                "select current_setting('statement_timeout'), current_setting('lock_timeout'),"
                " to_regclass('pg_temp.acidburn_places')::text,"
                " (select count(*) from pg_locks where locktype = 'advisory')"
            ).fetchone()
        assert found == ("0", "0", None, 0)


@pytest.mark.parametrize("user", USERS)
def test_any_password_opens_by_parts_and_by_url(
    through: Pooler, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    password = USERS[user]
    monkeypatch.setenv("SUPABASE_HOST", "localhost")
    monkeypatch.setenv("SUPABASE_PORT", str(through.port))
    monkeypatch.setenv("SUPABASE_DB", through.dbname)
    monkeypatch.setenv("SUPABASE_USER", user)
    monkeypatch.setenv("SUPABASE_PASSWORD", password)
    monkeypatch.setenv("SUPABASE_SSLMODE", "verify-full")
    monkeypatch.setenv("SUPABASE_SSLROOTCERT", str(through.certificate))
    by_parts = backends.connect_postgres(settings.load())
    monkeypatch.setenv(
        "ACIDBURN_POSTGRES",
        f"postgresql://{user}:{quote(password, safe='')}@localhost:{through.port}/"
        f"{through.dbname}?sslmode=verify-full&sslrootcert={quote(str(through.certificate))}",
    )
    by_url = backends.connect_postgres(settings.load())
    for postgres in (by_parts, by_url):
        assert password not in repr(postgres) or password == "%"
        with postgres.connect(purpose="asking") as connection:
            assert connection.execute("select current_user").fetchone() == (user,)
            assert connection.pgconn.ssl_in_use


@pytest.mark.parametrize("password", [word + "x" for word in USERS.values()])
def test_a_wrong_password_is_refused_and_not_shown(through: Pooler, password: str) -> None:
    with pytest.raises(DatabaseError, match="does not accept the password of 'nasty_0'") as caught:
        Postgres(through.conninfo("nasty_0", password)).open()
    assert password not in str(caught.value)


def test_an_authority_that_did_not_sign_is_refused(through: Pooler) -> None:
    given = through.conninfo(
        "postgres", USERS["postgres"], sslrootcert=str(through.wrong_certificate)
    )
    with pytest.raises(ConfigError, match=r"SSL error: .*mend .*SUPABASE_SSLROOTCERT"):
        Postgres(given).open()


def test_a_certificate_of_another_host_is_refused(through: Pooler) -> None:
    given = through.conninfo("postgres", USERS["postgres"], host="127.0.0.1")
    with pytest.raises(ConfigError, match=r"certificate for .localhost. .*SUPABASE_SSLROOTCERT"):
        Postgres(given).open()


def test_a_pooler_that_wants_tls_refuses_a_client_without(through: Pooler) -> None:
    given = through.conninfo("postgres", USERS["postgres"], sslmode="disable")
    with pytest.raises(ConfigError, match=r"SSL required.*mend SUPABASE_SSLMODE"):
        Postgres(given).open()


def test_the_way_and_its_encryption_are_told(
    through: Pooler, request: pytest.FixtureRequest
) -> None:
    mode = request.node.callspec.params["through"]
    found = {
        finding.name: finding
        for finding in examine(Postgres(through.conninfo("postgres", USERS["postgres"])))
    }
    assert f"pooler in {mode} mode" in found["way"].what
    assert (found["TLS"].level, "is checked (verify-full)" in found["TLS"].what) == ("ok", True)
    trusting = through.conninfo("postgres", USERS["postgres"], sslmode="require", sslrootcert="")
    (tls,) = [one for one in examine(Postgres(trusting)) if one.name == "TLS"]
    assert tls.level == "warning"
    assert "SUPABASE_SSLMODE=verify-full" in tls.mend


def test_a_pooler_that_went_away_is_told_and_nothing_was_changed(
    postgres_server: EmbeddedPostgres,
) -> None:
    with new_database(postgres_server) as dsn:
        with open_pooler(dsn, "transaction", {"postgres": "word"}) as pooler:
            conninfo = pooler.conninfo("postgres", "word")
            postgres = Postgres(conninfo)
            migrate(postgres)
        certificate = pooler.certificate
        assert not certificate.exists()  # with its folder
        gone = Postgres(SecretStr(f"host=localhost port={pooler.port} user=postgres"))
        with pytest.raises(DatabaseUnavailable, match=f"no connection to localhost:{pooler.port}"):
            postgres_samples.load(gone, postgres_samples.make())
        assert postgres_samples.load(Postgres(SecretStr(dsn)), postgres_samples.make()).n_rows == 20
