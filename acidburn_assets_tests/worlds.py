"""Worlds: a folder with corpora, a registry, a state folder and a database, to run `acidburn` in.

One world is materialized once for all tests that only read; a test that changes something works
on a copy of it, or on a world of its own where nothing was made yet.
"""

import io
import os
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from dagster._core.storage import local_compute_log_manager
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from dagster._core.storage.runs.sqlite import sqlite_run_storage
from dagster._core.storage.schedules.sqlite import sqlite_schedule_storage
from sqlalchemy import create_engine, event
from sqlalchemy.engine import Engine

from acidburn_assets import commands, settings
from acidburn_assets.adapters.embedded_postgres import EmbeddedPostgres
from acidburn_assets.adapters.object_store import ObjectStore
from acidburn_assets.commands.instance import open_instance
from acidburn_assets.runtime import backends
from acidburn_assets_tests import samples
from acidburn_assets_tests.postgres_server import new_database

__all__ = [
    "blank_world",
    "copied_world",
    "embedded_world",
    "made_world",
    "quick_records",
    "world",
]

SECRETS = {
    "B2_APP_KEY": "s3cretB2app+key/0",
    "SUPABASE_PASSWORD": "s3cretSupabase&word",
    "XAI_API_KEY": "xai-s3cretLabelKey",
    "HF_TOKEN": "hf_s3cretHubToken",
    "ACIDBURN_EMBEDDINGS_KEY": "emb-s3cretServerKey",
    "ACIDBURN_SERVE_TOKEN": "serve-s3cretCallersToken",
}
"""Values that nothing may write or show."""


def clear_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Removes the settings and credentials of whoever runs the tests."""
    known = {name.upper() for name in settings.Settings.model_fields}
    for name in os.environ:
        if name.upper() in known or name.startswith(("AWS_", "DAGSTER_", "HF_", "XAI_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


class Finished(NamedTuple):
    """What a person sees of a command that ended."""

    code: int
    out: str
    err: str


def acidburn(*arguments: str) -> Finished:
    """Runs a command in this process, as a new one would run it.

    Args:
        arguments: of the command line.
    """
    backends._source.cache_clear()  # a new process looks at its sources anew
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with (
        pytest.MonkeyPatch.context() as patch,
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        patch.setattr(sys, "argv", ["acidburn", *arguments])
        try:
            commands.main()
        except SystemExit as ended:
            code = int(ended.code or 0)
    return Finished(code, out.getvalue(), err.getvalue())


class Snapshot(NamedTuple):
    """What a world holds, to be compared with what it holds later."""

    objects: Mapping[str, tuple[str, str]]  # key -> sha256, version
    n_runs: int
    last_event: int

    def rewritten_since(self, before: "Snapshot") -> set[str]:
        """Keys of objects that are not the ones that were there before."""
        return {key for key, found in self.objects.items() if before.objects.get(key) != found}

    def changed_since(self, before: "Snapshot") -> set[str]:
        """Keys of objects whose content is another than before."""
        return {
            key
            for key, (sha256, _) in self.objects.items()
            if before.objects.get(key, ("", ""))[0] != sha256
        }


@dataclass(frozen=True)
class World:
    """Where commands run. Once entered, settings and the current folder are its own."""

    folder: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    def enter(self, monkeypatch: pytest.MonkeyPatch) -> "World":
        """Makes the environment and the current folder those of this world."""
        clear_environment(monkeypatch)
        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(self.folder)
        return self

    @property
    def environment(self) -> dict[str, str]:
        """The variables that a command needs."""
        return {"ACIDBURN_DATASETS": "datasets.yaml", "ACIDBURN_HOME": "home", **self.variables}

    @property
    def home(self) -> Path:
        """Its state folder."""
        return self.folder / self.environment["ACIDBURN_HOME"]

    @property
    def store(self) -> ObjectStore:
        """Its object store."""
        return backends.open_store(settings.load(), patience_seconds=5)

    def object_path(self, key: str) -> Path:
        """The file behind an object, where the store is a folder."""
        return self.home / "objects" / key

    @contextmanager
    def instance(self) -> Iterator[dg.DagsterInstance]:
        """Its Dagster instance."""
        with open_instance(settings.load()) as instance:
            yield instance

    def snapshot(self) -> Snapshot:
        """Everything in its store, verified, and how far its event log goes."""
        store = self.store
        objects = {}
        for listed in store.list(""):
            if listed.key.startswith("_"):
                continue  # the store's own: its name, and what could not be made
            store.get_bytes(listed.key)
            found = store.head(listed.key)
            assert found is not None
            objects[listed.key] = (found.sha256, f"{found.modified.isoformat()} {found.etag}")
        with self.instance() as instance:
            return Snapshot(
                objects,
                n_runs=instance.get_runs_count(),
                last_event=instance.event_log_storage.get_maximum_record_id() or 0,
            )


@pytest.fixture(scope="session")
def quick_records() -> Iterator[None]:
    """Dagster's records at a third of their price: most of what a run that makes little takes.

    For each statement it opens a SQLite file anew and compiles the statement anew, for each run it
    parses all of its migrations, and two processes mirror what a step prints. Here engines and
    migrations are kept, nothing waits for the disk, and nothing is mirrored. Commands that run in
    a process of their own have Dagster as it is.
    """

    scripts: dict[str | None, ScriptDirectory] = {}
    engines: dict[str, Engine] = {}
    read = ScriptDirectory.from_config

    def read_once(config: Config) -> ScriptDirectory:
        place = config.get_main_option("script_location")
        if place not in scripts:
            scripts[place] = read(config)
        return scripts[place]

    def create_once(url: str, **options: Any) -> Engine:
        if url not in engines:
            engines[url] = create_engine(url, **options)
        return engines[url]

    def hurry(connection: Any, _: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("pragma synchronous = off")

    event.listen(Engine, "connect", hurry)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScriptDirectory, "from_config", read_once)
        for storage in (sqlite_event_log, sqlite_run_storage, sqlite_schedule_storage):
            patch.setattr(storage, "create_engine", create_once)
        patch.setattr(local_compute_log_manager, "mirror_stream_to_file", lambda *_: nullcontext())
        yield
    event.remove(Engine, "connect", hurry)


@pytest.fixture(scope="session")
def made_world(
    quick_records: None,
    postgres_server: EmbeddedPostgres,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[World]:
    """The whole graph, made once. Not to be changed: see `copied_world`."""
    folder = tmp_path_factory.mktemp("world")
    samples.write_world(folder)
    with new_database(postgres_server) as dsn:
        made = World(folder, {"ACIDBURN_POSTGRES": dsn})
        with pytest.MonkeyPatch.context() as patch:
            made.enter(patch)
            finished = acidburn("materialize", "all")
            assert finished.code == 0, finished.err
        yield made


@pytest.fixture
def world(made_world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The made world, entered, to be read."""
    return made_world.enter(monkeypatch)


@pytest.fixture
def copied_world(
    made_world: World,
    postgres_server: EmbeddedPostgres,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[World]:
    """A copy of the made world, entered, to be changed."""
    with copy_world(made_world, postgres_server, tmp_path / "copy") as copied:
        yield copied.enter(monkeypatch)


@contextmanager
def copy_world(source: World, server: EmbeddedPostgres, folder: Path) -> Iterator[World]:
    """Another world that holds the same.

    Args:
        source: with a database of the server.
        server: where its database is copied.
        folder: is made.
    """
    shutil.copytree(source.folder, folder)
    with new_database(server, copy_of=source.variables["ACIDBURN_POSTGRES"]) as dsn:
        yield World(folder, {**source.variables, "ACIDBURN_POSTGRES": dsn})


@pytest.fixture
def blank_world(
    quick_records: None, tmp_path: Path, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> World:
    """Corpora and a registry, nothing made yet; entered."""
    folder = tmp_path / "blank"
    folder.mkdir()
    samples.write_world(folder)
    return World(folder, {"ACIDBURN_POSTGRES": dsn}).enter(monkeypatch)


@pytest.fixture
def embedded_world(quick_records: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """`manual` and its pool, nothing made yet, over the embedded Postgres; entered."""
    # not below pytest's folder, where a Postgres that root started cannot always reach its files
    folder = Path(tempfile.mkdtemp(prefix="acidburn-world-"))
    samples.write_world(folder, ["manual"])
    blank = World(folder).enter(monkeypatch)
    yield blank
    backends._embedded(blank.home / "postgres").stop()
    backends._embedded.cache_clear()
    shutil.rmtree(folder)
