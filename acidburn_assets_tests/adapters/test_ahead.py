from collections.abc import Iterator

import pytest

from acidburn_assets.adapters.ahead import look_ahead


@pytest.mark.parametrize("n_ahead", [0, 1, 3, 100])
def test_work_is_begun_ahead_and_finished_in_order(n_ahead: int) -> None:
    begun: list[int] = []
    cancelled: list[int] = []

    def begin(item: int) -> int:
        begun.append(item)
        return item

    results = look_ahead(range(10), begin, lambda item: item * 2, cancelled.append, n_ahead=n_ahead)
    for index, result in enumerate(results):
        assert result == index * 2
        assert len(begun) == min(10, index + 1 + n_ahead)
    assert begun == list(range(10))
    assert cancelled == []


@pytest.mark.parametrize("n_ahead", [0, 1, 3])
def test_what_was_begun_before_an_error_comes_before_it(n_ahead: int) -> None:
    """It was lost with the error: a window that a GPU had finished was computed again."""

    def items() -> Iterator[int]:
        yield from (1, 2)
        raise ValueError("no more")

    results = look_ahead(items(), int, int, int, n_ahead=n_ahead)
    assert [next(results), next(results)] == [1, 2]
    with pytest.raises(ValueError, match="no more"):
        next(results)


def test_what_is_not_wanted_any_more_is_cancelled() -> None:
    cancelled: list[int] = []
    results = look_ahead(range(10), int, int, cancelled.append, n_ahead=2)
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]  # a generator
    assert cancelled == [1, 2]


def test_an_error_of_the_work_cancels_what_is_behind_it() -> None:
    cancelled: list[int] = []

    def finish(item: int) -> int:
        if item == 1:
            raise ValueError("failed")
        return item

    results = look_ahead(range(10), int, finish, cancelled.append, n_ahead=2)
    assert next(results) == 0
    with pytest.raises(ValueError, match="failed"):
        next(results)
    assert cancelled == [2, 3]
