import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidburn_assets.core import cells


@pytest.mark.parametrize(
    ("n_chunks", "n_sample", "each", "expected"),
    [
        (5_000, 5_000, None, 312),
        (65_536, 65_536, None, 4_096),  # from here on they grow with the root
        (1_000_000, 200_000, None, 16_000),
        (48_000_000, 200_000, None, 25_000),  # the sample is not large enough for more
        (48_000_000, 1_000_000, None, 32_768),
        (15, 15, None, 1),
        (5, 5, None, 1),
        (10_000, 10_000, 400, 25),
    ],
)
def test_cells_wanted(n_chunks: int, n_sample: int, each: int | None, expected: int) -> None:
    assert cells.cells_wanted(n_chunks, n_sample, chunks_each=each) == expected


def test_cells_are_shared_out_by_weight_and_each_cluster_has_one() -> None:
    weights, sizes = np.array([70, 25, 5, 0]), np.array([60, 2, 5, 1])
    assert cells.share_out(10, weights, at_most=sizes).tolist() == [7, 2, 1, 1]


def test_equal_remainders_go_to_the_first() -> None:
    assert cells.share_out(4, np.array([1, 1, 1]), at_most=np.full(3, 9)).tolist() == [2, 1, 1]


@given(st.integers(1, 300), st.lists(st.integers(0, 10**9), min_size=1, max_size=40))
def test_no_cell_is_lost_or_made_up(n_cells: int, weights: list[int]) -> None:
    shared = cells.share_out(n_cells, np.array(weights), at_most=np.full(len(weights), 10**6))
    assert shared.min() >= 1
    least = max(n_cells, len(weights)) if sum(weights) else len(weights)
    assert shared.sum() <= n_cells + len(weights)
    assert shared.sum() >= min(least, n_cells)
