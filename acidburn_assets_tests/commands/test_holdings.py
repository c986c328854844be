"""`acidburn audit bucket`: what was recorded is there hash by hash, or it is told what is not."""

import os
from collections.abc import Callable

import psycopg
import pytest

from acidburn_assets.core.audit import Holdings
from acidburn_assets_tests.commands.conftest import Remade
from acidburn_assets_tests.worlds import World, acidburn

SHARD = "notes/embeddings/000001.parquet"


def bucket(*arguments: str, code: int = 0) -> Holdings:
    finished = acidburn("audit", "bucket", *arguments, "--json")
    assert finished.code == code, finished.err
    return Holdings.model_validate_json(finished.out)


@pytest.mark.parametrize("arguments", [[], ["--deep"]])
def test_a_whole_world_is_as_recorded(world: World, arguments: list[str]) -> None:
    found = bucket(*arguments)
    assert (found.wrong, found.left_over) == ((), ())
    sizes = {listed.key: listed.n_bytes for listed in world.store.list("")}
    assert found.n_objects + found.n_own_objects == len(sizes)
    assert found.n_bytes + found.n_own_bytes == sum(sizes.values())
    assert found.n_slices > 0


def test_of_a_dataset_only_its_own_is_looked_at(world: World) -> None:
    found = bucket("notes")
    listed = list(world.store.list("notes/"))
    assert (found.n_objects, found.n_own_objects) == (len(listed), 0)
    # two tables for each of two shards
    assert found.n_slices == 4


def _delete(world: World) -> None:
    world.store.delete(SHARD)


def _replace(world: World) -> None:
    world.store.put_bytes(SHARD, b"another")


def _damage(world: World) -> None:
    path = world.object_path(SHARD)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    status = path.stat()
    path.write_bytes(content)
    # as a failing disk does: neither size nor time tell
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize(
    ("spoil", "arguments", "problem"),
    [
        (_delete, [], "missing"),
        (_delete, ["--deep"], "missing"),
        (_replace, [], "differs"),
        (_replace, ["--deep"], "differs"),
        (_damage, ["--deep"], "corrupt"),
    ],
)
def test_an_object_that_is_not_as_recorded_is_named(
    copied_world: World, spoil: Callable[[World], None], arguments: list[str], problem: str
) -> None:
    spoil(copied_world)
    (wrong,) = bucket(*arguments, code=1).wrong
    assert (wrong.where, wrong.asset, wrong.shard, wrong.problem) == (
        *(SHARD, "notes/embeddings"),
        *("000001", problem),
    )
    finished = acidburn("audit", "bucket", *arguments)
    assert finished.code == 1
    assert SHARD in finished.out
    assert finished.err == ""


def test_what_was_kept_of_an_earlier_lineage_is_looked_at(copied_world: World) -> None:
    (kept,) = copied_world.store.list("library/history/lineage/")
    copied_world.store.delete(kept.key)
    (wrong,) = bucket("library", code=1).wrong
    assert (wrong.where, wrong.problem) == (kept.key, "missing")


def test_left_overs_of_an_older_plan_are_listed_with_their_bytes(remade: Remade) -> None:
    found = bucket("articles")
    assert found.wrong == ()
    objects = {one.where: one.n_bytes for one in found.left_over if one.n_bytes is not None}
    sizes = {listed.key: listed.n_bytes for listed in remade.world.store.list("articles/")}
    assert "articles/embeddings/000002.parquet" in objects
    assert objects == {key: sizes[key] for key in objects}
    assert found.n_objects + len(objects) == len(sizes)


def test_history_of_an_older_pool_is_no_left_over(remade: Remade) -> None:
    found = bucket("library")
    assert len(list(remade.world.store.list("library/history/lineage/"))) == 2
    assert [one.where for one in found.left_over if "/history/" in one.where] == []


def test_an_object_that_nothing_recorded_is_listed(copied_world: World) -> None:
    copied_world.store.put_bytes("gone_dataset/chunks/000000.parquet", b"12345")
    copied_world.store.put_bytes("_parts/notes/1", b"123")
    found = bucket("all")
    assert [(one.where, one.n_bytes) for one in found.left_over] == [
        ("gone_dataset/chunks/000000.parquet", 5)
    ]
    finished = acidburn("audit", "bucket")
    assert finished.code == 0
    assert "gone_dataset/chunks/000000.parquet" in finished.out


@pytest.mark.parametrize(
    ("statement", "arguments", "where", "problem"),
    [
        (
            "delete from acidburn.loads where table_name = 'chunk_clusters' and shard_id ="
            " (select shard_id from acidburn.shards where dataset = 'notes' and shard = '000000')",
            [],
            "acidburn.chunk_clusters notes/000000",
            "missing",
        ),
        (
            "update acidburn.pool_loads set source_sha256 = 'another' where table_name = 'lineage'"
            " and pool_id = (select pool_id from acidburn.pools where name = 'library')",
            [],
            "acidburn.lineage library",
            "differs",
        ),
        (
            "delete from acidburn.chunk_texts where shard_id ="
            " (select shard_id from acidburn.shards where dataset = 'notes' and shard = '000000')",
            ["--deep"],
            "acidburn.chunk_embeddings notes/000000",
            "rows",
        ),
    ],
)
def test_a_slice_that_is_not_as_recorded_is_named(
    copied_world: World, statement: str, arguments: list[str], where: str, problem: str
) -> None:
    with psycopg.connect(copied_world.variables["ACIDBURN_POSTGRES"]) as connection:
        connection.execute(statement.encode())
    (wrong,) = bucket("library", *arguments, code=1).wrong
    assert (wrong.where, wrong.problem) == (where, problem)


def test_a_loaded_shard_that_nothing_recorded_is_listed(copied_world: World) -> None:
    with psycopg.connect(copied_world.variables["ACIDBURN_POSTGRES"]) as connection:
        connection.execute(
            "update acidburn.shards set shard = '000007' where dataset = 'manual'"
            " and shard = '000003'"
        )
    found = bucket("manual", code=1)
    assert {one.where for one in found.wrong} == {
        f"acidburn.{table} manual/000003" for table in ("chunk_embeddings", "chunk_clusters")
    }
    assert {one.where for one in found.left_over} == {
        f"acidburn.{table} manual/000007" for table in ("chunk_embeddings", "chunk_clusters")
    }
