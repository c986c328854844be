"""The scrub finds what a listing cannot show; the release lets a shard be tried again."""

import os
import time

import dagster as dg
import pytest

from acidburn_assets import settings
from acidburn_assets.adapters.postgres import Postgres
from acidburn_assets.core.failures import Failures
from acidburn_assets.definitions import build_defs
from acidburn_assets.io_managers.failures import FailureLog
from acidburn_assets.io_managers.scrub import Place, choose
from acidburn_assets.runtime import backends
from acidburn_assets_tests.worlds import World, acidburn


def run(world: World, name: str, **config: object) -> dg.ExecuteInProcessResult:
    """Executes a job of the repository with the configuration of its only op."""
    job = build_defs().get_repository_def().get_job(name)
    (op,) = [node.name for node in job.graph.nodes]
    with world.instance() as instance:
        return job.execute_in_process(
            instance=instance,
            run_config={"ops": {op: {"config": config}}},
            raise_on_error=False,
        )


def read(result: dg.ExecuteInProcessResult) -> dict[str, object]:
    """What the scrub says it did."""
    (event,) = result.filter_events(lambda one: one.event_type is dg.DagsterEventType.STEP_OUTPUT)
    return {name: value.value for name, value in event.step_output_data.metadata.items()}


def rot(world: World, key: str) -> None:
    """Flips bits where they lie; size, time and record stay: no listing shows it."""
    path = world.object_path(key)
    status = path.stat()
    content = bytearray(path.read_bytes())
    for place in range(100, len(content) // 2, 97):  # somewhere in every column that is read
        content[place] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_scrub_of_a_sound_world_reads_everything_and_changes_nothing(
    copied_world: World,
) -> None:
    before = copied_world.snapshot().objects
    result = run(copied_world, "scrub")
    assert result.success
    found = read(result)
    assert found["damaged"] == []
    assert found["read"] == found["of"]
    assert found["read"] > 40  # type: ignore[operator]  # a count
    assert found["bytes"] > 100_000  # type: ignore[operator]  # a count
    assert copied_world.snapshot().objects == before


def test_what_has_rotted_is_discarded_and_made_again(copied_world: World) -> None:
    before = copied_world.snapshot()
    rot(copied_world, "notes/embeddings/000001.parquet")
    rot(copied_world, "library/centroids.parquet")
    with Postgres.connect(backends.open_postgres(settings.load()), purpose="a test") as connection:
        connection.execute(
            "delete from acidburn.chunk_texts where shard_id ="
            " (select shard_id from acidburn.shards where dataset = 'manual' and shard = '000002')"
        )
    # a listing cannot see it
    assert "everything was up to date" in acidburn("materialize", "manual").out
    found = read(run(copied_world, "scrub"))
    assert found["damaged"] == [
        "library/centroids",
        "manual/chunk_embeddings/000002",
        "notes/embeddings/000001",
    ]
    finished = acidburn("materialize", "all")
    assert finished.code == 0, finished.err
    assert "made 3 asset partitions" in finished.out
    assert copied_world.snapshot().changed_since(before) == set()
    assert read(run(copied_world, "scrub"))["damaged"] == []


def test_a_run_that_reads_something_rotten_discards_it(copied_world: World) -> None:
    """It then counts as missing, and is made again by itself."""
    rot(copied_world, "manual/chunks/000001.parquet")
    finished = acidburn("materialize", "manual/embeddings", "--force")
    assert finished.code == 1
    assert "manual/chunks/000001.parquet" in finished.err
    assert not copied_world.object_path("manual/chunks/000001.parquet").exists()
    log = FailureLog(copied_world.store)
    (failures,) = log.all_of(dg.AssetKey(["manual", "embeddings"])).values()
    assert [attempt.kind for attempt in failures.attempts] == ["blocked"]
    before = copied_world.snapshot().objects["manual/embeddings/000001.parquet"]
    assert acidburn("materialize", "all").code == 0
    assert copied_world.object_path("manual/chunks/000001.parquet").exists()
    # the same chunks again: the embeddings stay as they are
    assert copied_world.snapshot().objects["manual/embeddings/000001.parquet"] == before


def test_parts_that_nobody_went_on_with_are_removed(copied_world: World) -> None:
    store = copied_world.store
    for name in ("old", "new"):
        store.put_bytes(f"_parts/manual/embeddings/000009/x/{name}.parquet", b"part")
    week_ago = time.time() - 8 * 86_400
    path = copied_world.object_path("_parts/manual/embeddings/000009/x/old.parquet")
    os.utime(path, (week_ago, week_ago))
    assert read(run(copied_world, "scrub", limit_gb=1e-9))["abandoned_parts"] == 1
    left = [listed.key for listed in store.list("_parts/")]
    assert left == ["_parts/manual/embeddings/000009/x/new.parquet"]


def test_a_limit_reads_a_random_share() -> None:
    every = [Place(dg.AssetKey(["d", "chunks"]), f"{number:06d}", 100) for number in range(50)]
    some = choose(every, limit_bytes=1_050, seed="a")
    assert len(some) == 10
    assert some == sorted(some)
    assert some == choose(every, limit_bytes=1_050, seed="a")
    assert some != choose(every, limit_bytes=1_050, seed="b")
    assert choose(every, limit_bytes=10**9, seed="a") == every


@pytest.mark.parametrize(
    ("asset", "shard", "expected"),
    [
        ("manual/nothing", "", "there is no asset 'manual/nothing'"),
        ("manual/chunks", "000001", "nothing of 'manual/chunks'"),
    ],
)
def test_a_release_of_nothing_says_so(world: World, asset: str, shard: str, expected: str) -> None:
    result = run(world, "release", asset=asset, shard=shard)
    assert not result.success
    (event,) = [one for one in result.all_events if one.is_step_failure]
    error = event.step_failure_data.error
    assert expected in (error.cause or error).message


def test_a_release_forgives(copied_world: World) -> None:
    key = dg.AssetKey(["manual", "chunks"])
    log = FailureLog(copied_world.store)
    for number in range(3):
        log.add(key, "000001", run_id=str(number), made_from="a", kind="refused", reason="bad")
    assert log.of(key, "000001").is_quarantined()
    result = run(copied_world, "release", asset="manual/chunks", shard="000001")
    assert result.success
    released: Failures = FailureLog(copied_world.store).of(key, "000001")
    assert not released.is_quarantined()
