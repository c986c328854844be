from collections.abc import Iterator

import pytest

from acidburn_assets.adapters.ahead import look_ahead


@pytest.mark.parametrize("n_ahead", [0, 1, 3, 100])
def test_work_is_begun_ahead_and_finished_in_order(n_ahead: int) -> None:
    begun: list[int] = []

    def begin(item: int) -> int:
        begun.append(item)
        return item

    results = look_ahead(range(10), begin, lambda item: item * 2, n_ahead=n_ahead)
    for index, result in enumerate(results):
        assert result == index * 2
        assert len(begun) == min(10, index + 1 + n_ahead)
    assert begun == list(range(10))


def test_an_error_while_drawing_ends_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        list(look_ahead(items(), int, int, n_ahead=3))
