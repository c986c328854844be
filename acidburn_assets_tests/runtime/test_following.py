"""Pools that are kept open: followed when they are made anew, kept when they cannot be opened."""

import threading
from itertools import pairwise

import pyarrow as pa
import pytest

from acidburn_assets.core.errors import DatabaseUnavailable, NotMaterialized, SchemaError
from acidburn_assets.runtime.following import MOST_PATIENCE_SECONDS, ROWS_SECONDS, Pools
from acidburn_assets_tests import map_samples
from acidburn_assets_tests.answer_samples import FakeAnswerer, FakeHome


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_pool_that_is_made_anew_is_opened_anew_and_the_old_one_closed() -> None:
    made = [FakeAnswerer(), FakeAnswerer()]
    home = FakeHome()
    home.opens = lambda: made[home.n_opened - 1]
    pools = Pools([home], look_seconds=15)
    pools.follow()
    pools.follow()
    with pools.lease("science") as opened:
        assert opened.answerer is made[0]
    assert home.n_opened == 1
    home.made_of = "second"
    pools.follow()
    with pools.lease("science") as opened:
        assert opened.answerer is made[1]
    assert (made[0].is_closed, made[1].is_closed) == (True, False)


def test_a_pool_that_is_being_loaded_is_opened_anew_now_and_then_only() -> None:
    """Each shard that is loaded changes what the database holds, and opening reads a bucket."""
    clock = Clock()
    home = FakeHome()
    pools = Pools([home], look_seconds=15, clock=clock)
    for shard in range(100):
        home.rows = f"{shard} shards"
        pools.follow()
        clock.now += 15
    assert home.n_opened == 1 + 99 * 15 // ROWS_SECONDS
    home.made_of = "second"
    pools.follow()
    assert home.n_opened == 2 + 99 * 15 // ROWS_SECONDS


def test_a_question_under_way_keeps_the_old_one_open_until_it_is_answered() -> None:
    made = [FakeAnswerer(), FakeAnswerer()]
    home = FakeHome()
    home.opens = lambda: made[home.n_opened - 1]
    pools = Pools([home], look_seconds=15)
    pools.follow()
    with pools.lease("science") as first, pools.lease("science") as again:
        assert first is again
        home.made_of = "second"
        pools.follow()
        with pools.lease("science") as new:
            assert new.answerer is made[1]
        assert not made[0].is_closed
    assert made[0].is_closed


def test_a_pool_that_cannot_be_opened_keeps_answering_and_says_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    answerer = FakeAnswerer()
    home = FakeHome(answerer)
    pools = Pools([home], look_seconds=10, clock=clock)
    pools.follow()
    home.made_of = "half made"
    home.opens = SchemaError("made from other centroids")
    pools.follow()
    (state,) = pools.states()
    assert isinstance(state.trouble, SchemaError)
    with pools.lease("science") as opened:
        assert opened.answerer is answerer
    pools.follow()
    assert caplog.text.count("made from other centroids") == 1
    home.opens = lambda: answerer
    home.made_of = "whole"
    pools.follow()
    assert pools.states()[0].trouble is None


def test_what_cannot_be_opened_is_tried_ever_more_seldom() -> None:
    clock = Clock()
    home = FakeHome()
    home.opens = NotMaterialized("no cluster_map yet")
    pools = Pools([home], look_seconds=10, clock=clock)
    tried = []
    for _ in range(200):
        before = home.n_opened
        pools.follow()
        if home.n_opened > before:
            tried.append(clock.now)
        clock.now += 10
    pauses = [late - early for early, late in pairwise(tried)]
    assert pauses[:5] == [10, 20, 40, 80, 150]
    assert max(pauses) <= MOST_PATIENCE_SECONDS
    home.made_of = "another"  # something happened: at once
    before = home.n_opened
    pools.follow()
    assert home.n_opened == before + 1


def test_a_pool_that_was_not_made_is_opened_when_it_is() -> None:
    home = FakeHome()
    home.opens = NotMaterialized("no cluster_map yet")
    pools = Pools([home], look_seconds=10)
    pools.follow()
    with pytest.raises(NotMaterialized, match="no cluster_map yet"), pools.lease("science"):
        pass
    home.opens = FakeAnswerer
    home.made_of = "made"
    pools.follow()
    with pools.lease("science"):
        pass


def test_one_pool_in_trouble_does_not_touch_another() -> None:
    away, well = FakeHome(name="away"), FakeHome(name="well")
    away.made_of = DatabaseUnavailable("Postgres is away")
    pools = Pools([away, well], look_seconds=10)
    pools.follow()
    assert [type(state.trouble) for state in pools.states()] == [DatabaseUnavailable, type(None)]
    with pools.lease("well"):
        pass
    away.made_of = "back"
    pools.follow()
    assert [state.trouble for state in pools.states()] == [None, None]


def test_a_map_that_does_not_fit_closes_what_was_opened() -> None:
    answerer = FakeAnswerer()
    points = map_samples.table(20, n_clusters=4)
    nowhere = pa.array([float("inf")] * 20, pa.float32())
    home = FakeHome(answerer, points=points.set_column(5, points.schema.field("x"), nowhere))
    pools = Pools([home], look_seconds=10)
    pools.follow()
    assert answerer.is_closed
    assert isinstance(pools.states()[0].trouble, SchemaError)


def test_many_leases_and_many_swaps_close_each_generation_once() -> None:
    made: list[FakeAnswerer] = []

    class Counted(FakeAnswerer):
        n_closed = 0

        def close(self) -> None:
            assert self._n_now == 0
            self.n_closed += 1

    def open_next() -> FakeAnswerer:
        made.append(Counted())
        return made[-1]

    home = FakeHome()
    home.opens = open_next
    pools = Pools([home], look_seconds=10)
    pools.follow()
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            with pools.lease("science") as opened:
                assert not opened.answerer.n_closed  # type: ignore[attr-defined]

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(50):
        home.made_of = str(number)
        pools.follow()
    stop.set()
    for thread in threads:
        thread.join()
    pools.close()
    assert len(made) == 51
    assert [one.n_closed for one in made] == [1] * 51  # type: ignore[attr-defined]
