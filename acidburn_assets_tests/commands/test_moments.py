"""`acidburn audit cluster --at`: what an answer said is said again, whatever was made since."""

import pytest

from acidburn_assets.core.audit import ClusterTrail, History
from acidburn_assets_tests.commands.conftest import Remade
from acidburn_assets_tests.worlds import World, acidburn


def cluster(number: int, *arguments: str) -> ClusterTrail:
    """What the command answers."""
    finished = acidburn("audit", "cluster", str(number), *arguments, "--json")
    assert finished.code == 0, finished.err
    return ClusterTrail.model_validate_json(finished.out)


def made_before(remade: Remade, asset: str) -> tuple[int, str]:
    """Event and run of an asset of the pool, as they were told before."""
    (made,) = [one for one in remade.before[0].made if one.asset == f"library/{asset}"]
    return made.event_id, made.run_id


def assert_as_before(remade: Remade, at: str) -> None:
    for number, before in remade.before.items():
        then = cluster(number, "--at", at)
        facts = ("title", "keywords", "n_chunks", "n_noise", "fitted_on", "shards")
        for name in facts:
            assert getattr(then, name) == getattr(before, name), (number, name)
        assert then.moment == before.moment.model_copy(update={"asked_for": at})
        told = {one.asset: one.event_id for one in before.made}
        assert {one.asset: one.event_id for one in then.made} == {
            name: told[name]
            for name in ("library/cluster_model", "library/cluster_map", "library/lineage")
        }


def test_the_world_is_another_now(remade: Remade) -> None:
    now = cluster(0)
    before = remade.before[0]
    assert now.moment.lineage_sha256 != before.moment.lineage_sha256
    assert now.fitted_on == before.fitted_on  # the clusters stayed
    shards = {one.source.shard for one in before.shards if one.source.dataset == "articles"}
    assert shards
    articles = {
        (one.source.shard, one.source.embeddings_sha256)
        for trail in (now, before)
        for one in trail.shards
        if one.source.dataset == "articles"
    }
    assert len(articles) > len(shards)


@pytest.mark.parametrize("asset", ["lineage", "cluster_map", "cluster_model"])
def test_an_event_brings_back_the_answer_of_its_time(remade: Remade, asset: str) -> None:
    event, _ = made_before(remade, asset)
    assert_as_before(remade, str(event))


@pytest.mark.parametrize("asset", ["lineage", "cluster_map"])
def test_a_run_brings_back_the_answer_of_its_time(remade: Remade, asset: str) -> None:
    _, run = made_before(remade, asset)
    assert_as_before(remade, run)


def test_the_first_digits_of_a_run_will_do(remade: Remade) -> None:
    _, run = made_before(remade, "lineage")
    # the shortest that is no number, which would be that of an event
    digits = next(n for n in range(8, len(run)) if not run[:n].isdecimal())
    assert cluster(0, "--at", run[:digits]).shards == remade.before[0].shards


def test_a_time_brings_back_the_answer_of_then(remade: Remade) -> None:
    assert_as_before(remade, remade.between.isoformat())
    # without a zone it is UTC, as all times that are told
    assert_as_before(remade, remade.between.replace(tzinfo=None).isoformat())


def test_what_stands_now_can_be_asked_for_by_its_event(remade: Remade) -> None:
    now = cluster(0)
    again = cluster(0, "--at", str(now.moment.lineage_event_id))
    assert (again.title, again.shards, again.fitted_on) == (now.title, now.shards, now.fitted_on)


def test_every_event_that_history_lists_answers(remade: Remade) -> None:
    told = History.model_validate_json(acidburn("audit", "history", "library", "--json").out)
    events = [
        one.event_id
        for one in told.events
        if one.asset.split("/")[1] in ("lineage", "cluster_map", "cluster_model")
    ]
    assert len(events) == 6
    assert {cluster(0, "--at", str(event)).moment.lineage_sha256 for event in events} == {
        remade.before[0].moment.lineage_sha256,
        cluster(0).moment.lineage_sha256,
    }


def test_titles_of_another_cluster_model_are_never_told(copied_world: World) -> None:
    """The map of the clusters that are counted is told until the new ones are counted."""
    before = cluster(0)
    registry = copied_world.folder / "datasets.yaml"
    registry.write_text(registry.read_text().replace("min_samples: 2", "min_samples: 1"))
    finished = acidburn("materialize", "library", "--only", "cluster_model")
    assert finished.code == 0, finished.err
    now = cluster(0)
    assert (now.title, now.shards, now.fitted_on) == (
        *(before.title, before.shards),
        before.fitted_on,
    )
    stale = {one.asset: one.stale_because for one in now.made if one.stale_because}
    assert set(stale["library/cluster_map"]) == {"library/cluster_model"}


def test_what_was_kept_and_is_gone_is_named(copied_world: World) -> None:
    trail = cluster(0)
    sha256 = trail.moment.lineage_sha256
    copied_world.store.delete(f"library/history/lineage/{sha256}.parquet")
    assert cluster(0).shards == trail.shards, "what is stored now is the same content"
    copied_world.store.delete("library/lineage.parquet")
    finished = acidburn("audit", "cluster", "0")
    assert finished.code == 1
    (line,) = finished.err.splitlines()
    assert f"{sha256}.parquet is not there" in line


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("999999", "event 999999 is none of the pool's lineage, cluster_map, cluster_model"),
        ("1", "event 1 is none of the pool's"),
        ("ffffffff-ffff", "no run that begins with 'ffffffff-ffff' made the pool's lineage"),
        ("2001-01-01", "the pool 'library' had no lineage at '2001-01-01', its first is of 20"),
        ("yesterday", "'yesterday' is neither the number of an event"),
    ],
)
def test_a_moment_that_never_was_is_named(world: World, at: str, expected: str) -> None:
    finished = acidburn("audit", "cluster", "0", "--at", at)
    assert finished.code == 1
    assert finished.out == ""
    (line,) = finished.err.splitlines()
    assert line.startswith(f"acidburn: {expected}")


def test_a_cluster_that_was_not_there_then_is_named(remade: Remade) -> None:
    event, _ = made_before(remade, "lineage")
    finished = acidburn("audit", "cluster", "99", "--at", str(event))
    assert finished.code == 1
    assert finished.err == (
        f"acidburn: pool 'library' has no cluster 99; at {event} it had 0 to "
        f"{len(remade.before) - 1}\n"
    )
