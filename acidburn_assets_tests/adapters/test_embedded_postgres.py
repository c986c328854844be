import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from acidburn_assets.adapters import embedded_postgres
from acidburn_assets.core.errors import ConfigError, DatabaseError

USE = """
import sys
from pathlib import Path
from acidburn_assets.adapters import embedded_postgres
server = embedded_postgres.start(Path(sys.argv[1]))
print("in", flush=True)
sys.stdin.readline()
"""


class User:
    """Another process that uses the folder until it is told to leave."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", USE, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "in\n"

    def leave(self) -> None:
        self.process.communicate("\n")

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def is_running(folder: Path) -> bool:
    return any(
        process.info["name"] == "postgres"
        and process.status() != psutil.STATUS_ZOMBIE
        and process.cwd() == str(folder / "cluster")
        for process in psutil.process_iter(["name"])
    )


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder whose name no shell and no libpq likes; made once, initdb takes seconds.

    Not pytest's own: see `postgres_server.server_folder`.
    """
    with tempfile.TemporaryDirectory(prefix="acidburn-tests-") as root:
        folder = Path(root) / 'a "b", $(touch injected) it\'s' / "postgres"
        embedded_postgres.start(folder).stop()
        yield folder


def test_server_has_pgvector_and_says_its_versions(folder: Path) -> None:
    with embedded_postgres.start(folder) as server:
        with psycopg.connect(server.dsn) as connection:
            distance = connection.execute(
                "select '[1,0]'::extensions.halfvec operator(extensions.<=>) '[0,1]'"
            ).fetchone()
        assert distance == (1.0,)
        assert int(server.version.partition(".")[0]) >= 16
        assert server.pgvector_version >= "0.7"
    assert not is_running(folder)


def test_content_survives_a_stop(folder: Path) -> None:
    with embedded_postgres.start(folder) as server, psycopg.connect(server.dsn) as connection:
        connection.execute("create table kept as select 42 as answer")
    with embedded_postgres.start(folder) as server, psycopg.connect(server.dsn) as connection:
        assert connection.execute("select answer from kept").fetchone() == (42,)


def test_last_of_several_users_stops_the_server(folder: Path) -> None:
    first, second = User(folder), User(folder)
    first.leave()
    assert is_running(folder)
    second.leave()
    assert not is_running(folder)


def test_killed_user_does_not_keep_the_server_up(folder: Path) -> None:
    """A list of pids in a file kept a killed process's claim for ever."""
    killed, other = User(folder), User(folder)
    killed.kill()
    assert is_running(folder)
    other.leave()
    assert not is_running(folder)


def test_server_left_behind_by_a_killed_user_is_joined_and_then_stopped(folder: Path) -> None:
    User(folder).kill()
    assert is_running(folder)
    with embedded_postgres.start(folder) as server:
        psycopg.connect(server.dsn).close()
    assert not is_running(folder)


def test_killed_server_recovers(folder: Path) -> None:
    with embedded_postgres.start(folder) as server:
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute("create table committed as select 1 as one")
        pid = int((folder / "cluster" / "postmaster.pid").read_text().splitlines()[0])
        process = psutil.Process(pid)
        process.kill()
        psutil.wait_procs([process], timeout=10)
    if psutil.pid_exists(pid):
        pytest.skip("nobody reaps orphans here, so the killed server's pid stays taken")
    with embedded_postgres.start(folder) as server, psycopg.connect(server.dsn) as connection:
        assert connection.execute("select one from committed").fetchone() == (1,)


def test_pid_file_from_before_the_last_boot_is_no_server(folder: Path) -> None:
    """After a reboot the recorded pid may belong to anybody, this test for one."""
    pid_file = folder / "cluster" / "postmaster.pid"
    pid_file.write_text(f"{psutil.Process().pid}\n{folder}/cluster\n1000000000\n5432\n\n\n\n\n")
    with embedded_postgres.start(folder) as server:
        psycopg.connect(server.dsn).close()


def test_folder_too_deep_for_a_socket_works(folder: Path) -> None:
    deep = folder.with_name("deep" * 30)
    deep.mkdir()
    (folder / "cluster").rename(deep / "cluster")
    try:
        with embedded_postgres.start(deep) as server:
            psycopg.connect(server.dsn).close()
            sockets = Path(conninfo_to_dict(server.dsn)["host"])
            assert sockets.stat().st_mode & 0o077 == 0
        assert not is_running(deep)
        assert not sockets.exists()
    finally:
        (deep / "cluster").rename(folder / "cluster")


def test_cluster_of_another_version_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster" / "PG_VERSION").write_text("9\n")
    with pytest.raises(ConfigError, match=r"made by Postgres 9; .*remove the folder"):
        embedded_postgres.start(tmp_path)


def test_server_that_does_not_start_shows_its_log(folder: Path) -> None:
    conf = folder / "cluster" / "postgresql.conf"
    whole = conf.read_text()
    conf.write_text(whole + "no_such_setting = 1\n")
    try:
        with pytest.raises(DatabaseError, match="no_such_setting"):
            embedded_postgres.start(folder)
    finally:
        conf.write_text(whole)
    with embedded_postgres.start(folder):
        assert is_running(folder)
