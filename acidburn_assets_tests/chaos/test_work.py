"""Work done twice is counted against the work that was needed, and never too low."""

import pytest

from acidburn_assets_tests.chaos.records import Place
from acidburn_assets_tests.chaos.work import Loss, Making, Prices, account, price

FIRST, SECOND = (Place("notes", "embeddings", shard) for shard in ("000000", "000001"))
MODEL = Place("library", "cluster_model", None)
PRICES = Prices({"embeddings": 0.01}, {"cluster_model": 3.0})


def made(
    place: Place, event: int, *, rows: int = 100, resumed: int = 0, is_reused: bool = False
) -> Making:
    return Making(place, event, rows, resumed, 1.0, is_reused)


ONCE = [made(FIRST, 1), made(SECOND, 2), made(MODEL, 3)]


def test_everything_once_is_no_work_twice() -> None:
    work = account(ONCE, [], {}, PRICES)
    assert (work.needed, work.redone, work.share) == (5.0, 0.0, 0.0)


def test_what_a_fault_destroyed_had_to_be_made_again() -> None:
    work = account([*ONCE, made(FIRST, 4)], [], {FIRST: 1}, PRICES)
    assert (work.needed, work.redone) == (6.0, 0.0)


def test_what_was_made_again_for_nothing_counts_without_the_rows_of_its_parts() -> None:
    work = account([*ONCE, made(SECOND, 4, resumed=60), made(MODEL, 5)], [], {}, PRICES)
    assert work.needed == 5.0
    assert work.redone_by_asset == pytest.approx({"embeddings": 0.4, "cluster_model": 3.0})


def test_a_partition_that_was_adopted_was_not_made_again() -> None:
    assert account([*ONCE, made(FIRST, 4, is_reused=True)], [], {}, PRICES).redone == 0


def test_a_killed_run_lost_the_seconds_since_something_was_safe() -> None:
    work = account(ONCE, [Loss(FIRST, 0.25), Loss(SECOND, -0.1)], {}, PRICES)
    assert work.redone == 0.25
    assert work.share == pytest.approx(0.05)


def test_a_killed_run_cannot_lose_more_than_the_shard_it_had_in_its_hands() -> None:
    work = account(ONCE, [Loss(FIRST, 60), Loss(MODEL, 60)], {}, PRICES)
    assert work.redone_by_asset == pytest.approx({"embeddings": 1.0, "cluster_model": 3.0})


def test_a_row_is_priced_at_its_median_and_an_asset_without_shards_as_a_whole() -> None:
    slow = Making(SECOND, 4, 100, 0, 50.0, is_reused=False)  # it loaded the model
    kept = Making(FIRST, 5, 100, 0, 0.0, is_reused=True)
    prices = price([*ONCE, made(FIRST, 6), slow, kept])
    assert prices.per_row == {"embeddings": 0.01}
    assert prices.per_making == {"cluster_model": 1.0}
    assert prices.of(FIRST, 200) == 2.0
    assert prices.of(MODEL, 200) == 1.0
