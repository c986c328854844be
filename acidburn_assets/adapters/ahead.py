"""Work that is begun before the results of earlier work are asked for.

Who begins it, and where it is done, is the business of processes, threads or servers.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
Pending = TypeVar("Pending")
Result = TypeVar("Result")


def look_ahead(
    items: Iterable[Item],
    begin: Callable[[Item], Pending],
    finish: Callable[[Pending], Result],
    cancel: Callable[[Pending], object],
    *,
    n_ahead: int,
) -> Iterator[Result]:
    """Results in the items' order, of which so many more are begun than were asked for.

    Where an item cannot be drawn or begun, the results of those before it come first, then the
    error. What is begun and not wanted any more is cancelled.

    Args:
        items: drawn one by one, each when it is begun.
        begin: does not wait for the result.
        finish: waits for it.
        cancel: does not.
        n_ahead: 0 or more.
    """
    begun: deque[Pending] = deque()
    failed: list[Exception] = []

    def all_begun() -> Iterator[bool]:
        """True whenever as many are under way as may be."""
        try:
            for item in items:
                begun.append(begin(item))
                yield len(begun) > n_ahead
        except Exception as error:  # noqa: BLE001 - raised below, when its turn has come
            failed.append(error)

    try:
        for is_full in all_begun():
            if is_full:
                yield finish(begun.popleft())
        while begun:
            yield finish(begun.popleft())
        if failed:
            raise failed[0]
    finally:
        for pending in begun:
            cancel(pending)
