"""The graph as a whole, over three small corpora: made once, it is made for good."""

from acidburn_assets_tests.worlds import World, acidburn


def test_a_second_time_makes_nothing(world: World) -> None:
    before = world.snapshot()
    finished = acidburn("materialize", "all")
    assert finished.code == 0, finished.err
    assert "everything was up to date" in finished.out
    assert world.snapshot() == before
