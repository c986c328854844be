"""`acidburn materialize`: what it makes, what a person sees when something is wrong, and what is
left when it is interrupted."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg
import pytest

from acidburn_assets import settings
from acidburn_assets.adapters.embedded_postgres import EmbeddedPostgres
from acidburn_assets.io_managers import versions
from acidburn_assets.io_managers.objects import Tables
from acidburn_assets.runtime import backends
from acidburn_assets.settings import PROJECT_ROOT
from acidburn_assets_tests import samples
from acidburn_assets_tests.fakes import FakeEncoder, FakeTokenizer
from acidburn_assets_tests.worlds import SECRETS, World, acidburn

LOOSE = """
  - name: {name}
    source: {source}
    path: data/{path}
    licence: MIT
    may_redistribute_text: true
    tier: none
"""
"""A dataset without a pool: plan, chunks, embeddings, manifest."""


def declare(world: World, *entries: str) -> None:
    """Replaces the registry of a world."""
    (world.folder / "datasets.yaml").write_text("datasets:" + "".join(entries))


def figures(world: World, owner: str, asset: str, shard: str | None = None) -> dict[str, Any]:
    """What the UI shows of a materialization."""
    with world.instance() as instance:
        key = dg.AssetKey([owner, asset])
        return versions.figures_of(versions.require_materialization(instance, key, shard))


# ---- what it makes --------------------------------------------------------------------------


def test_a_dataset_is_its_own_assets_and_no_more(blank_world: World) -> None:
    finished = acidburn("materialize", "manual")
    assert finished.code == 0, finished.err
    assert "made 10 asset partitions" in finished.out
    hint = "for clusters and questions: acidburn materialize reference"
    assert finished.err.splitlines()[-1] == hint
    shards = samples.SHARDS["manual"]
    assert set(blank_world.snapshot().objects) == {
        "manual/plan.json",
        *(f"manual/chunks/{shard}.parquet" for shard in shards),
        *(f"manual/embeddings/{shard}.parquet" for shard in shards),
        "manual/manifest.json",
    }


def test_force_makes_the_same_again_and_leaves_nothing_stale(copied_world: World) -> None:
    before = copied_world.snapshot()
    finished = acidburn("materialize", "manual", "--force")
    assert finished.code == 0, finished.err
    assert "made 10 asset partitions" in finished.out
    after = copied_world.snapshot()
    assert len(after.rewritten_since(before)) == 10
    # a manifest names the runs that it seals
    assert after.changed_since(before) == {"manual/manifest.json"}
    assert "everything was up to date" in acidburn("materialize", "all").out


def test_one_asset_is_made_by_its_own_name(copied_world: World) -> None:
    before = copied_world.snapshot()
    finished = acidburn("materialize", "library/lineage", "--force")
    assert finished.code == 0, finished.err
    assert "made 1 asset partitions" in finished.out
    assert copied_world.snapshot().rewritten_since(before) == {"library/lineage.parquet"}


def test_an_unknown_target_names_those_that_are_known(blank_world: World) -> None:
    finished = acidburn("materialize", "nots")
    assert finished.code == 1
    assert finished.out == ""
    assert finished.err == (
        "acidburn: no dataset or pool 'nots'; datasets are ['articles', 'manual', 'notes'], "
        "pools are ['library', 'reference'], or say all\n"
    )


# ---- what is wrong with the input -----------------------------------------------------------


def test_a_broken_dataset_is_named_and_the_others_are_made(blank_world: World) -> None:
    samples.write_jsonl(blank_world.folder / "data/posts.jsonl", [{"body": "a", "title": "b"}])
    declare(
        blank_world,
        LOOSE.format(name="posts", source="jsonl", path="posts.jsonl"),
        LOOSE.format(name="manual", source="text", path="manual"),
    )
    finished = acidburn("materialize", "all")
    assert finished.code == 1
    (line,) = [line for line in finished.err.splitlines() if "posts.jsonl" in line]
    assert "'text'" in line
    assert "['body', 'title']" in line
    assert "text_column" in line
    last = finished.err.splitlines()[-1]
    assert (
        last == "Error: 1 assets failed; not tried: posts/chunks, posts/embeddings, posts/manifest"
    )
    assert "Traceback" not in finished.err
    assert figures(blank_world, "manual", "manifest")["rows"] == 12


def test_documents_that_cannot_be_chunked_are_counted_by_reason(blank_world: World) -> None:
    kept = {"id": "kept", "text": "The one document that is fine."}
    lines: list[dict[str, Any] | bytes] = [
        kept,
        {"id": "null", "text": None},
        {"id": "empty", "text": " \n"},
        {"id": "binary", "text": "\x01\x02\x03\x04" * 50},
        b'{"id": "latin", "text": "caf\xe9"}',
        b"{not json",
        {"id": "", "text": "Nobody can name this one."},
        {"id": "huge", "text": "word " * 10_000_000},
    ]
    samples.write_jsonl(blank_world.folder / "data/junk.jsonl.gz", lines)
    entry = LOOSE.format(name="junk", source="jsonl", path="junk.jsonl.gz")
    declare(blank_world, entry + "    id_column: id\n")
    finished = acidburn("materialize", "junk")
    assert finished.code == 0, finished.err
    seen = figures(blank_world, "junk", "chunks", "000000")
    assert seen["documents"] == len(lines)
    assert seen["documents_kept"] == 1
    assert seen["documents_skipped"] == {
        "null": 1,
        "empty": 1,
        "binary": 1,
        "not_utf8": 1,
        "not_text": 1,
        "bad_id": 1,
        "too_large": 1,
    }
    told = "7 documents skipped (bad_id 1, binary 1, empty 1, not_text 1, not_utf8 1, null 1,"
    assert told in finished.err
    chunks = Tables(blank_world.store, dg.AssetKey(["junk", "chunks"])).read("000000")
    assert chunks["text"].to_pylist() == [kept["text"]]


def test_a_budget_of_nothing_stops_before_the_first_embedding(blank_world: World) -> None:
    entry = LOOSE.format(name="manual", source="text", path="manual")
    declare(blank_world, entry + "    budget_usd: 0\n")
    finished = acidburn("materialize", "manual")
    assert finished.code == 1
    (line,) = [line for line in finished.err.splitlines() if "budget_usd" in line]
    assert line.startswith("manual/embeddings: ")
    assert "Error" not in line
    assert finished.err.splitlines()[-1] == "Error: 1 assets failed; not tried: manual/manifest"
    objects = blank_world.snapshot().objects
    assert "manual/chunks/000000.parquet" in objects
    assert not [key for key in objects if "embeddings" in key]


# ---- another model --------------------------------------------------------------------------


def use_fake_model(monkeypatch: pytest.MonkeyPatch, *, dim: int) -> None:
    """Another model than the one that made the world, under another name."""
    fake = FakeEncoder(dim)
    monkeypatch.setenv("ACIDBURN_MODEL", "fake")
    monkeypatch.setattr(backends, "describe_model", lambda _: fake.card)
    monkeypatch.setattr(backends, "load_tokenizer", lambda _: FakeTokenizer())
    monkeypatch.setattr(backends, "load_encoder", lambda _: fake)


def test_a_model_of_another_dimension_is_refused_by_a_loaded_pool(
    copied_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slices() -> list[tuple[Any, ...]]:
        with backends.connect_postgres(settings.load()).connect(purpose="looking") as connection:
            return connection.execute(
                "select dataset, shard, count(*), max(run_id) from acidburn.chunk_embeddings"
                " join acidburn.shards using (shard_id) join acidburn.loads using (shard_id)"
                " group by dataset, shard order by dataset, shard"
            ).fetchall()

    before = slices()
    use_fake_model(monkeypatch, dim=16)
    finished = acidburn("materialize", "reference")
    assert finished.code == 1
    (line,) = [
        line for line in finished.err.splitlines() if line.startswith("manual/chunk_embeddings: ")
    ]
    assert "(384 dimensions" in line
    assert "'fake' (16 dimensions" in line
    assert "unload the pool 'reference' first" in line
    assert slices() == before


# ---- interruptions --------------------------------------------------------------------------

_HANGS = """
import sys, time
from pathlib import Path
from acidburn_assets import commands
from acidburn_assets.runtime import backends

class Hanging:
    def __init__(self, encoder):
        self._encoder = encoder
        self._n_calls = 0

    def __getattr__(self, name):
        return getattr(self._encoder, name)

    def encode(self, texts, input_type):
        self._n_calls += 1
        if self._n_calls == 3:
            Path("hangs").touch()
            time.sleep(300)
        return self._encoder.encode(texts, input_type)

    def embed_iter(self, windows, input_type):
        for texts in windows:
            yield self.encode(texts, input_type)

load = backends.load_encoder
made = []

def load_hanging(settings):
    if not made:
        made.append(Hanging(load(settings)))
    return made[0]

backends.load_encoder = load_hanging
sys.argv = ["acidburn", "materialize", "all"]
commands.main()
"""
"""`acidburn materialize all`, which hangs in the middle of the third shard's embeddings."""


_FAKE_MODEL = """
from acidburn_assets.runtime import backends
from acidburn_assets_tests.fakes import FakeEncoder, FakeTokenizer

fake = FakeEncoder()
backends.describe_model = lambda _: fake.card
backends.load_tokenizer = lambda _: FakeTokenizer()
backends.load_encoder = lambda _: fake
"""
"""Before the other: a process without a model's framework is there at once."""


@contextmanager
def hanging_in_the_third_shard(
    world: World, before: str = "", **variables: str
) -> Iterator["subprocess.Popen[str]"]:
    """A process that has made two shards of embeddings and is at work on the third."""
    process = subprocess.Popen(
        [sys.executable, "-c", before + _HANGS],
        cwd=world.folder,
        env={
            "PATH": os.defpath,
            "PYTHONPATH": str(PROJECT_ROOT),
            "TMPDIR": str(world.folder),  # a killed process leaves its unfinished table there
            **world.environment,
            **variables,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 120
        while not (world.folder / "hangs").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_killed_run_loses_only_the_shard_in_its_hands(
    embedded_world: World, made_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hanging_in_the_third_shard(embedded_world) as process:
        process.send_signal(signal.SIGKILL)
        assert process.wait(10) == -signal.SIGKILL
    left = embedded_world.snapshot()  # verifies every object that can be seen
    done = [key for key in left.objects if key.startswith("manual/embeddings/")]
    assert sorted(done) == [f"manual/embeddings/{shard}.parquet" for shard in ("000000", "000001")]

    finished = acidburn("materialize", "all")
    assert finished.code == 0, finished.err
    after = embedded_world.snapshot()
    assert {key: after.objects[key] for key in left.objects} == left.objects
    with embedded_world.instance() as instance:
        statuses = [run.status for run in instance.get_runs()]
        n_events = {
            shard: len(
                instance.fetch_materializations(
                    dg.AssetRecordsFilter(
                        asset_key=dg.AssetKey(["manual", "embeddings"]), asset_partitions=[shard]
                    ),
                    limit=10,
                ).records
            )
            for shard in samples.SHARDS["manual"]
        }
    assert statuses.count(dg.DagsterRunStatus.FAILURE) == 1
    assert set(statuses) == {dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS}
    assert set(n_events.values()) == {1}

    uninterrupted = made_world.enter(monkeypatch).snapshot()
    # a manifest and a lineage name runs, a report holds seconds
    timed = {"manual/manifest.json", "reference/lineage.parquet", "reference/retrieval_report.json"}
    timed |= {key for key in after.objects if key.startswith("reference/history/lineage/")}
    for key in set(after.objects) - timed:
        assert after.objects[key][0] == uninterrupted.objects[key][0], key


def test_ctrl_c_ends_with_a_word_and_keeps_what_was_finished(blank_world: World) -> None:
    (blank_world.folder / "datasets.yaml").write_text(samples.registry(["manual"]))
    with hanging_in_the_third_shard(blank_world, _FAKE_MODEL, **SECRETS) as process:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert err.splitlines()[-1] == (
        "interrupted: what was finished is kept, run the same command again"
    )
    assert "Traceback" not in err
    with blank_world.instance() as instance:
        shards = versions.latest_shards(instance, dg.AssetKey(["manual", "embeddings"]))
        unfinished = [run for run in instance.get_runs() if not run.is_finished]
    assert sorted(shards) == ["000000", "000001"]
    assert unfinished == []
    # the step's captured output is there too
    written = [path for path in blank_world.home.rglob("*") if path.is_file()]
    assert any(path.suffix == ".err" for path in written)
    everything = b"\n".join(path.read_bytes() for path in written) + f"{out}\n{err}".encode()
    assert [name for name, secret in SECRETS.items() if secret.encode() in everything] == []


class Cut:
    """Ends every connection to a database the first time that a shard's chunks are read."""

    def __init__(self, world: World, server: EmbeddedPostgres) -> None:
        self.n_left = 1
        self._world = world
        self._server = server
        self._read = Tables.batches

    def batches(self, tables: Tables, partition: str | None, columns: Any = None) -> Iterator[Any]:
        key = tables.object_key(partition)
        for batch in self._read(tables, partition, columns):
            if key == "notes/chunks/000001.parquet" and self.n_left:
                self.n_left -= 1
                self._end_connections()
            yield batch

    def _end_connections(self) -> None:
        import psycopg
        from psycopg.conninfo import conninfo_to_dict

        name = conninfo_to_dict(self._world.variables["ACIDBURN_POSTGRES"])["dbname"]
        with psycopg.connect(self._server.dsn, autocommit=True) as connection:
            connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", [name]
            )


def test_a_postgres_that_goes_away_in_a_load_leaves_the_old_slice(
    copied_world: World, postgres_server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rows() -> list[tuple[Any, ...]]:
        with backends.connect_postgres(settings.load()).connect(purpose="looking") as connection:
            return connection.execute(
                "select dataset, shard, chunk_id, embedding::text, body, run_id"
                " from acidburn.chunk_embeddings join acidburn.shards using (shard_id)"
                " join acidburn.chunk_texts using (shard_id, chunk_id)"
                " join acidburn.loads using (shard_id)"
                " where table_name = 'chunk_embeddings' and dataset = 'notes' and shard = '000001'"
                " order by chunk_id"
            ).fetchall()

    before = rows()
    cut = Cut(copied_world, postgres_server)
    monkeypatch.setattr(
        Tables, "batches", lambda tables, *arguments: cut.batches(tables, *arguments)
    )
    arguments = ("materialize", "notes", "--only", "chunk_embeddings", "--force")
    finished = acidburn(*arguments)
    assert finished.code == 1
    assert cut.n_left == 0
    (line,) = [line for line in finished.err.splitlines() if "1 of 2 shards failed" in line]
    assert "(000001)" in line
    assert "nothing was changed" in line
    assert len(before) == 15
    assert rows() == before
    finished = acidburn(*arguments)
    assert finished.code == 0, finished.err
    after = rows()
    assert [row[:-1] for row in after] == [row[:-1] for row in before]
    assert after[0][-1] != before[0][-1]  # by another run
