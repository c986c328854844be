"""`acidburn audit history` and `audit stale`: what changed with each event, and what is stale."""

import pytest

from acidburn_assets.core.audit import History, Staleness
from acidburn_assets_tests import samples
from acidburn_assets_tests.commands.conftest import Remade
from acidburn_assets_tests.worlds import World, acidburn


def history(*arguments: str) -> History:
    finished = acidburn("audit", "history", *arguments, "--json")
    assert finished.code == 0, finished.err
    return History.model_validate_json(finished.out)


def stale(*arguments: str) -> Staleness:
    finished = acidburn("audit", "stale", *arguments, "--json")
    assert finished.code == 0, finished.err
    return Staleness.model_validate_json(finished.out)


# ---- history --------------------------------------------------------------------------------


def test_history_of_a_pool_is_that_of_its_assets_newest_first(remade: Remade) -> None:
    events = history("library").events
    assert [one.event_id for one in events] == sorted(
        (one.event_id for one in events), reverse=True
    )
    by_asset: dict[str, list[tuple[str, ...] | None]] = {}
    for one in events:
        by_asset.setdefault(one.asset, []).append(one.changed)
    assert set(by_asset) >= {"library/lineage", "library/cluster_map", "library/lineage_table"}
    for asset, changes in by_asset.items():
        assert len(changes) == 2, asset
        assert changes[1] is None, "the first has none before it"
    newest = by_asset["library/lineage"][0]
    assert newest is not None
    assert set(newest) >= {"content", "articles/assignments"}
    assert "code" not in newest


def test_history_of_a_shard_is_its_own(remade: Remade) -> None:
    newest, first = history("articles/embeddings/000000").events
    assert newest.shard == first.shard == "000000"
    assert newest.data_version != first.data_version
    assert newest.changed == ("content", "articles/chunks")
    assert first.changed is None


def test_history_that_is_longer_says_so(remade: Remade) -> None:
    told = history("library/lineage", "--limit", "1")
    assert told.has_more
    (newest,) = told.events
    assert newest.changed is not None, "what was before it is known though it is not listed"
    assert not history("library/lineage", "--limit", "2").has_more
    finished = acidburn("audit", "history", "library/lineage", "--limit", "1")
    assert "--limit shows more" in finished.out


def test_a_partition_that_was_found_as_it_was_is_told_as_reused(copied_world: World) -> None:
    finished = acidburn("materialize", "library/lineage", "--force")
    assert finished.code == 0, finished.err
    newest = history("library/lineage").events[0]
    assert (newest.changed, newest.is_reused) == ((), False)
    finished = acidburn("audit", "history", "library/lineage")
    assert "nothing" in finished.out
    assert str(newest.event_id) in finished.out


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("libary", "'libary' is neither a pool nor an asset"),
        ("notes/lineage", "'notes/lineage' is neither a pool nor an asset"),
        ("notes", "'notes' is neither a pool nor an asset"),
    ],
)
def test_history_of_what_is_not_there_is_refused(world: World, target: str, expected: str) -> None:
    finished = acidburn("audit", "history", target)
    assert (finished.code, finished.out) == (1, "")
    (line,) = finished.err.splitlines()
    assert line.startswith(f"acidburn: {expected}")


def test_history_of_a_shard_that_never_was_is_empty(world: World) -> None:
    assert history("notes/chunks/000009").events == ()


# ---- stale ----------------------------------------------------------------------------------


def test_nothing_is_stale_after_all_was_made(remade: Remade) -> None:
    found = stale()
    assert found.stale == ()
    assert found.n_partitions > 40
    assert "0 of" in acidburn("audit", "stale", "library").out


def test_a_changed_setting_is_told_with_both_versions(copied_world: World) -> None:
    registry = copied_world.folder / "datasets.yaml"
    registry.write_text(registry.read_text().replace("chunks_per_shard: 10", "chunks_per_shard: 9"))
    (found,) = stale("notes").stale
    assert (found.asset, found.shard, found.reason) == ("notes/plan", None, "changed")
    (change,) = found.changes
    assert change.what == "code"
    assert change.recorded is not None
    assert change.current is not None
    assert change.recorded != change.current
    finished = acidburn("audit", "stale", "notes")
    assert change.recorded in finished.out
    assert change.current in finished.out


def test_a_changed_input_is_told_for_every_shard(copied_world: World) -> None:
    samples.write_parquet(
        copied_world.folder / "data/articles.parquet", samples.documents(samples.TOPICS, [1, 3])
    )
    assert acidburn("plan", "articles").code == 0
    found = stale("articles").stale
    chunks = [one for one in found if one.asset == "articles/chunks"]
    assert [(one.shard, [change.what for change in one.changes]) for one in chunks] == [
        (shard, ["articles/plan"])
        for shard in samples.SHARDS["articles"]
        if shard in {one.shard for one in chunks}
    ]
    assert chunks
    (plan,) = {change.current for one in chunks for change in one.changes}
    (event, *_) = history("articles/plan").events
    assert plan == event.data_version
    # what is missing upstream is told of what is downstream only when it is made
    assert all(one.asset.split("/")[0] == "articles" for one in found)


def test_what_was_never_made_is_told(blank_world: World) -> None:
    found = stale("notes")
    assert ("notes/plan", None, "missing") in {
        (one.asset, one.shard, one.reason) for one in found.stale
    }
    assert "never made" in acidburn("audit", "stale", "notes").out


def test_an_unknown_target_is_refused(world: World) -> None:
    for kind in ("stale", "bucket"):
        finished = acidburn("audit", kind, "nots")
        assert (finished.code, finished.out) == (1, "")
        assert finished.err.startswith("acidburn: no dataset or pool 'nots'; datasets are")
