"""`D/chunks`: the same bytes however many processes cut, and none is left when the run is over."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import psutil
import pytest

from acidburn_assets.adapters import chunker
from acidburn_assets.commands.materialize import materialize
from acidburn_assets.core.chunks import Sizes
from acidburn_assets.resources import ChunkerResource
from acidburn_assets_tests import samples
from acidburn_assets_tests.worlds import World


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Processes of each pool that was opened, at once and not after some seconds."""
    opened: list[int] = []
    open_processes = chunker.open_processes

    def note(work: Any, places: Any, **options: Any) -> Any:
        opened.append(len(places))
        return open_processes(work, places, **options)

    monkeypatch.setattr(chunker, "ALONE_SECONDS", 0.0)
    monkeypatch.setattr(chunker, "open_processes", note)
    before = set(psutil.Process().children())
    yield opened
    assert [
        child
        for child in set(psutil.Process().children()) - before
        if "spawn_main" in " ".join(child.cmdline())
    ] == []


def test_processes_of_a_run_cut_all_of_its_shards_as_one_does(
    world: World, copied_world: World, pools: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACIDBURN_CHUNK_PROCESSES", "2")
    assert not materialize("notes", only={"chunks"}, is_forced=True).failures
    assert pools == [2]
    for shard in samples.SHARDS["notes"]:
        key = f"notes/chunks/{shard}.parquet"
        assert copied_world.object_path(key).read_bytes() == world.object_path(key).read_bytes()


def test_processes_end_with_a_run_that_fails(pools: list[int]) -> None:
    resource = ChunkerResource(model="minilm", revision="", processes=2)

    @dg.asset
    def broken(cutter: ChunkerResource) -> None:
        assert len(list(cutter.create().cut_all(["some words"] * 3, Sizes(32, 0)))) == 3
        raise ValueError("in the middle")

    result = dg.materialize([broken], resources={"cutter": resource}, raise_on_error=False)
    assert not result.success
    assert pools == [2]
