"""Shards hold every unit once, in order, and come as near to their target as units allow."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidburn_assets.core.shards import Unit, cut_shards


def make_units(n_units: int, *, n_rows: int = 10) -> list[Unit]:
    return [
        Unit(path="a.parquet", index=index, first_row=index * n_rows, n_rows=n_rows, n_bytes=1)
        for index in range(n_units)
    ]


def cut(estimates: list[float], target: int) -> list[list[int]]:
    shards = cut_shards(make_units(len(estimates)), estimates, chunks_per_shard=target)
    return [[unit.index for unit in shard.units] for shard in shards]


@pytest.mark.parametrize(
    ("estimates", "groups"),
    [
        ([], []),
        ([1], [[0]]),
        ([50, 50, 50, 50], [[0, 1], [2, 3]]),
        ([300, 20, 20], [[0], [1, 2]]),
        ([90, 15, 90], [[0, 1], [2]]),  # 105 is nearer to 100 than 90
        ([90, 25, 90], [[0], [1, 2]]),  # 115 is not
        ([20, 300, 20], [[0], [1], [2]]),
        ([0, 0, 0], [[0, 1, 2]]),
    ],
)
def test_a_shard_closes_nearest_to_its_target(
    estimates: list[float], groups: list[list[int]]
) -> None:
    assert cut(estimates, 100) == groups


@given(
    st.lists(st.floats(0, 10**6), max_size=60),
    st.integers(1, 10**6),
)
def test_every_unit_is_in_one_shard_in_order(estimates: list[float], target: int) -> None:
    units = make_units(len(estimates))
    shards = cut_shards(units, estimates, chunks_per_shard=target)
    assert [unit for shard in shards for unit in shard.units] == units
    assert [shard.key for shard in shards] == [f"{number:06d}" for number in range(len(shards))]
    next_row = 0
    for shard in shards:
        assert shard.first_row == next_row
        assert shard.n_rows == 10 * len(shard.units) > 0
        next_row += shard.n_rows
    # only a single unit can make a shard larger than half as much again
    for shard in shards:
        assert (
            shard.estimated_chunks <= 1.5 * target + 1
            or len(shard.units) == 1
            or max(estimates[unit.index] for unit in shard.units) > target / 2
        )


def test_an_estimate_too_few_is_refused() -> None:
    """Units without an estimate were left out of every shard."""
    with pytest.raises(ValueError, match="shorter"):
        cut_shards(make_units(3), [1.0, 1.0], chunks_per_shard=10)
