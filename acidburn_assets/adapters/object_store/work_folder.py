"""Folders for unfinished local files, removed even where the process that made them was killed.

A folder's name tells its process: `acidburn-<pid>-<start time>-<host>-…` in the system's temp
folder (TMPDIR). The first folder that a process makes sweeps away those whose process is gone.
"""

import logging
import os
import re
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from acidburn_assets.core.errors import WorkFolderUnavailable

LOGGER = logging.getLogger(__name__)

NAME = re.compile(r"acidburn-(?P<pid>\d+)-(?P<started>\d+)-(?P<host>[A-Za-z0-9.]+)-\w+")

START_TOLERANCE_SECONDS = 2
"""A process started this close to the time in the name is the one that made the folder: the name
holds whole seconds, and the kernel's boot time moves with the clock. Chosen, not measured."""

_swept: set[str] = set()
_sweeping = threading.Lock()


@contextmanager
def work_folder() -> Iterator[Path]:
    """A new folder of this process, removed at the end.

    Raises:
        WorkFolderUnavailable: it cannot be made.
    """
    parent = tempfile.gettempdir()
    with disk_errors(Path(parent)):
        _sweep_once(Path(parent))
        process = psutil.Process()
        started = f"{process.create_time():.0f}"
        prefix = f"acidburn-{process.pid}-{started}-{_host()}-"
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        yield folder
    finally:
        _remove(folder)


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Says of an error of the disk which folder is meant and how to mend it.

    Only our own writing belongs inside: an error of whoever delivers the content is not the
    folder's.

    Raises:
        WorkFolderUnavailable: instead of an OSError that has an errno. Arrow raises OSError without
            one for tables that it cannot encode.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise WorkFolderUnavailable(
            f"the work folder {str(folder)!r} cannot be written to: {error}; {_free(folder)}. Free "
            "space there, or set TMPDIR to a folder on a larger disk"
        ) from error


def _free(folder: Path) -> str:
    try:
        return f"{shutil.disk_usage(folder).free:,} bytes are free"
    except OSError as error:
        return f"how much is free cannot be told ({error.strerror})"


def _sweep_once(parent: Path) -> None:
    """Removes what killed processes left, once per process and temp folder."""
    with _sweeping:
        if str(parent) in _swept:
            return
        _swept.add(str(parent))
        with os.scandir(parent) as entries:
            # no links: in a shared temp folder anybody may have made one of this name
            found = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
        for entry in found:
            named = NAME.fullmatch(entry.name)
            # another host, or a container with its own process table, may share the temp folder
            if named is None or named["host"] != _host():
                continue
            if not _is_alive(int(named["pid"]), int(named["started"])):
                _remove(Path(entry.path))


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        LOGGER.debug("%r is gone already, or another process is removing it", str(folder))
    except OSError as error:
        # another user's, or the disk fails: no reason to lose what was done, and nothing is lost
        # but space until a later process removes it
        LOGGER.warning("cannot remove the work folder %r: %s", str(folder), error)


def _is_alive(pid: int, started: int) -> bool:
    try:
        process = psutil.Process(pid)
        is_same = abs(process.create_time() - started) < START_TOLERANCE_SECONDS
        return is_same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9.]", "", socket.gethostname()) or "localhost"
