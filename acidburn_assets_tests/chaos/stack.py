"""Everything that runs: a bucket, a Postgres, and `acidburn ui` under a service manager's care.

All of it is on 127.0.0.1 and below one temporary folder; nothing of the settings of whoever runs
this reaches it.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import boto3
import psutil
import psycopg
from botocore.config import Config

from acidburn_assets.adapters import embedded_postgres
from acidburn_assets_tests.adapters.faulty_s3 import FaultyS3

BUCKET = "acidburn-chaos"
_KEY_ID = "chaos"
_APP_KEY = "not a secret"

_RESTART_SECONDS = 1.0
"""After which a service manager starts again what has ended. systemd's default is a tenth."""


class WatchedS3(FaultyS3):
    """The strict proxy, which tells of every request before it is passed on, and can delay some."""

    def __init__(self, upstream: str, *, seed: int) -> None:
        super().__init__(upstream, seed=seed)
        self.watchers: list[Any] = []
        """Called with operation and path, in the thread that answers the request."""

    def next_fault(self, operation: str, path: str, query: str) -> Any:
        for watch in tuple(self.watchers):
            watch(operation, path)
        return super().next_fault(operation, path, query)


@contextmanager
def bucket_server(log: Path) -> Iterator[str]:
    """An S3 server in a process of its own; gives its address."""
    with log.open("w") as output:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
        server = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield _wait_for_address(log, server)
    finally:
        server.terminate()
        server.wait(20)


def _wait_for_address(log: Path, server: "subprocess.Popen[bytes]") -> str:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and server.poll() is None:
        found = re.search(r"Running on (http://127\.0\.0\.1:\d+)", log.read_text())
        if found:
            return found[1]
        time.sleep(0.1)
    raise RuntimeError(f"the S3 server did not start: {log.read_text()}")


@contextmanager
def proxy(upstream: str, *, seed: int) -> Iterator[WatchedS3]:
    """The strict stand-in for B2 before that server."""
    with WatchedS3(upstream, seed=seed) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class Bucket:
    """The objects as they lie in the server, past the proxy: for faults and for the verdict."""

    def __init__(self, endpoint: str, name: str) -> None:
        self.name = name
        self._client: Any = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id="any",
            aws_secret_access_key="any",
            config=Config(
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                s3={"addressing_style": "path"},
            ),
        )
        self._client.create_bucket(Bucket=name)

    def etags(self, prefix: str = "") -> dict[str, str]:
        """Key to ETag of everything under a prefix."""
        found: dict[str, str] = {}
        pages = self._client.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self.name, Prefix=prefix):
            for entry in page.get("Contents", ()):
                found[entry["Key"]] = entry["ETag"].strip('"')
        return found

    def read(self, key: str) -> tuple[bytes, Mapping[str, str]]:
        """Content and metadata."""
        answer = self._client.get_object(Bucket=self.name, Key=key)
        return answer["Body"].read(), answer["Metadata"]

    def delete(self, key: str) -> None:
        """Removes an object."""
        self._client.delete_object(Bucket=self.name, Key=key)

    def replace(self, key: str, content: bytes, metadata: Mapping[str, str]) -> None:
        """Puts something else under a key, with the metadata of what was there."""
        self._client.put_object(Bucket=self.name, Key=key, Body=content, Metadata=dict(metadata))


class Database:
    """A Postgres that can be restarted, and one database in it for each world."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server = embedded_postgres.start(folder)

    def create(self, name: str) -> str:
        """An empty database with pgvector; gives its DSN."""
        with psycopg.connect(self._server.dsn, autocommit=True) as connection:
            connection.execute(f"create database {name}")
        dsn = self._server.dsn.replace("dbname=postgres", f"dbname={name}")
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("create schema extensions")
            connection.execute("create extension vector with schema extensions")
        return dsn

    def restart(self) -> None:
        """Stops it, whoever is connected, and starts it again."""
        self._server.stop()
        self._server = embedded_postgres.start(self._folder)

    def stop(self) -> None:
        """For good."""
        self._server.stop()


class WorkFolder:
    """The stack's TMPDIR: a disk of its own where that can be had, so that it can be full."""

    SIZE_MIB = 96

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.why_not = self._mount()
        """Why it cannot be filled; "" where it can."""

    def _mount(self) -> str:
        if not sys.platform.startswith("linux") or shutil.which("mount") is None:
            return "no mount here"
        options = f"size={self.SIZE_MIB}m,mode=1777"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "acidburn-chaos", str(self.folder)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            return ""
        return done.stderr.strip() or f"mount ended with {done.returncode}"

    def fill(self) -> Path:
        """Leaves no byte; gives the file that takes them."""
        path = self.folder / "ballast"
        with suppress(OSError), path.open("wb", buffering=0) as file:
            while True:
                file.write(b"\0" * (1 << 16))
        return path

    def close(self) -> None:
        """Unmounts it."""
        if not self.why_not:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=False)


def environment(
    folder: Path, *, endpoint: str, bucket: str, dsn: str, work_folder: Path
) -> dict[str, str]:
    """Everything that the stack knows of the world.

    Args:
        folder: with `datasets.yaml`.
        endpoint: of the bucket.
        bucket: its name.
        dsn: of the database.
        work_folder: for unfinished files.
    """
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "TMPDIR": str(work_folder),
        "HF_HUB_OFFLINE": "1",
        "ACIDBURN_HOME": str(folder / "home"),
        "ACIDBURN_DATASETS": str(folder / "datasets.yaml"),
        "ACIDBURN_POSTGRES": dsn,
        "B2_KEY_ID": _KEY_ID,
        "B2_APP_KEY": _APP_KEY,
        "B2_ENDPOINT": endpoint,
        "B2_BUCKET": bucket,
        "ACIDBURN_DEVICE": "cpu",
        # small batches, so that a window is a fraction of a second of work, and a part too
        "ACIDBURN_BATCH_TOKENS": "64",
        "ACIDBURN_PART_SECONDS": "0.2",
        "ACIDBURN_HEALING_SECONDS": "5",
        "ACIDBURN_LISTING_SECONDS": "5",
        "ACIDBURN_RETRY_SECONDS": "2",
    }


class Service:
    """`acidburn ui`, started again whenever it has ended, as systemd's `Restart=always` does."""

    def __init__(self, folder: Path, variables: Mapping[str, str]) -> None:
        self.folder = folder
        self.port = _free_port()
        self.n_restarts = -1
        self._variables = dict(variables)
        self._mark = variables["ACIDBURN_HOME"]
        self._is_wanted = True
        self._main: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def start(self) -> None:
        """Starts it for the first time."""
        self._thread.start()

    def _serve(self) -> None:
        with (self.folder / "ui.log").open("ab") as log:
            while self._is_wanted:
                self.n_restarts += 1
                log.write(f"==== start {self.n_restarts} at {time.time():.1f}\n".encode())
                log.flush()
                command = [sys.executable, "-m", "acidburn_assets", "ui", "--port", str(self.port)]
                self._main = subprocess.Popen(
                    command,
                    cwd=self.folder,
                    env=self._variables,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    process_group=0,  # Ctrl-C at a terminal reaches all of a group
                )
                self._main.wait()
                time.sleep(_RESTART_SECONDS)

    def processes(self) -> list[psutil.Process]:
        """Every process of the stack, orphans too: each inherited our state folder's name."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if process.status() == psutil.STATUS_ZOMBIE:
                    continue
                if process.environ().get("ACIDBURN_HOME") == self._mark:
                    found.append(process)
        return found

    def named(self, part: str) -> list[psutil.Process]:
        """Those whose command line has this in it."""
        found = []
        for process in self.processes():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if part in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def is_up(self) -> bool:
        """Whether the web server answers."""
        try:
            url = f"http://127.0.0.1:{self.port}/server_info"
            with urllib.request.urlopen(url, timeout=5) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    def kill_all(self) -> list[int]:
        """Kills every process of the stack at once, as a power failure would."""
        found = self.processes()
        for process in found:
            kill(process.pid)
        return [process.pid for process in found]

    def stop(self, *, patience_seconds: float = 60) -> list[int]:
        """Ends it as Ctrl-C does; gives the pids of what was left after that, now killed."""
        self._is_wanted = False
        if self._main is not None and self._main.poll() is None:
            os.killpg(self._main.pid, signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                self._main.wait(patience_seconds)
        self._thread.join(patience_seconds)
        deadline = time.monotonic() + 10
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.2)
        return self.kill_all()


def kill(pid: int) -> None:
    """kill -9 of one of our own."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
