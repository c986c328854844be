"""The project's own Dagster instance: its home, and what a dead process left in it."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from acidburn_assets.core.errors import ConfigError
from acidburn_assets.launcher import process_of
from acidburn_assets.settings import PROJECT_ROOT, Settings

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
    limit_pools(instance, settings)
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


def fail_orphans(instance: dg.DagsterInstance) -> list[str]:
    """Marks runs as failed whose process on this host is gone; without it they seem to run for
    ever where no daemon watches them.

    Returns:
        Ids of the runs.
    """
    orphans = []
    for run in instance.get_runs(dg.RunsFilter(statuses=_UNFINISHED)):
        worker = process_of(instance, run)
        if worker is not None and worker.is_alive() is False:
            instance.report_run_failed(run, f"its process {worker.pid} is gone")
            orphans.append(run.run_id)
    return orphans


def limit_pools(instance: dg.DagsterInstance, settings: Settings) -> None:
    """Sets how many runs of each pool may be at work at once.

    Dagster's default limit does not hold in the first look at the queue of a fresh instance.
    Source: measured, Dagster 1.13.27: three at once with a default limit of one.

    Args:
        instance: where the limits are.
        settings: name them; what was set in the UI is replaced.
    """
    storage = instance.event_log_storage
    known = {pool.name: pool.limit for pool in storage.get_pool_limits()}
    for name, limit in settings.pool_limits.items():
        if known.get(name) != limit:
            storage.set_concurrency_slots(name, limit)
