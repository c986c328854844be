"""The project's own Dagster instance: its home, and what a dead process left in it."""

import fcntl
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import psutil

from acidburn_assets.core.errors import ConfigError
from acidburn_assets.settings import PROJECT_ROOT, Settings

PROCESS_TAG = "acidburn/process"
"""`host:pid:start time` of the process that executes a run by itself."""

_UNFINISHED = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def prepare_home(settings: Settings) -> Path:
    """Makes DAGSTER_HOME with the project's dagster.yaml in it, and points Dagster there.

    Args:
        settings: name the state folder.

    Raises:
        ConfigError: the project's dagster.yaml is not beside the package (it was not installed
            from a checkout).
    """
    project = PROJECT_ROOT / "dagster.yaml"
    if not project.is_file():
        raise ConfigError(f"no {str(project)!r}: install Acidburn from a checkout (make setup)")
    home = settings.dagster_home
    make_folder(home)
    shutil.copyfile(project, home / "dagster.yaml")
    os.environ["DAGSTER_HOME"] = str(home)
    return home


def make_folder(folder: Path) -> None:
    """Makes a folder of the state folder.

    Raises:
        ConfigError: it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"the state folder cannot be made: {error}; set ACIDBURN_HOME to a folder you can write"
        ) from error
    if not os.access(folder, os.W_OK):
        raise ConfigError(
            f"the state folder {str(folder)!r} cannot be written to; set ACIDBURN_HOME to another"
        )


def open_instance(settings: Settings) -> dg.DagsterInstance:
    """The instance, its orphaned runs marked as failed; use it as a context manager.

    Args:
        settings: name the state folder.
    """
    prepare_home(settings)
    instance = dg.DagsterInstance.get()
    fail_orphans(instance)
    return instance


@contextmanager
def only_one(settings: Settings) -> Iterator[None]:
    """Holds the state folder for one materialization: two would pay for the same shards.

    The lock is the kernel's and ends with the process, however that ends.

    Raises:
        ConfigError: another process holds it.
    """
    make_folder(settings.home)
    with (settings.home / "materialize.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"another acidburn materialize is at work in {str(settings.home)!r}: wait for it, "
                "or name another ACIDBURN_HOME"
            ) from error
        yield


def process_tag() -> str:
    """Names this process so that it can be told from a later one of the same pid."""
    process = psutil.Process()
    return f"{socket.gethostname()}:{process.pid}:{process.create_time():.0f}"


def fail_orphans(instance: dg.DagsterInstance) -> list[str]:
    """Marks runs as failed whose process on this host is gone; without it they seem to run for
    ever.

    Returns:
        Ids of the runs.
    """
    orphans = []
    for run in instance.get_runs(dg.RunsFilter(statuses=_UNFINISHED)):
        tag = run.tags.get(PROCESS_TAG)
        # re-executed from the UI, a run has its parent's tags and a process of its own
        if tag is None or run.parent_run_id is not None:
            continue
        host, pid, started = tag.rsplit(":", 2)
        if host == socket.gethostname() and not _is_alive(int(pid), float(started)):
            instance.report_run_failed(run, f"its process {pid} is gone")
            orphans.append(run.run_id)
    return orphans


def _is_alive(pid: int, started: float) -> bool:
    try:
        process = psutil.Process(pid)
        # 2 s: the tag holds whole seconds
        return abs(process.create_time() - started) < 2 and process.status() != "zombie"
    except psutil.NoSuchProcess:
        return False
