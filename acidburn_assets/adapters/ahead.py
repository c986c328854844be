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
    *,
    n_ahead: int,
) -> Iterator[Result]:
    """Results in the items' order, of which so many more are begun than were asked for.

    Args:
        items: drawn one by one, each when it is begun.
        begin: does not wait for the result.
        finish: waits for it.
        n_ahead: 0 or more.
    """
    begun: deque[Pending] = deque()
    for item in items:
        begun.append(begin(item))
        if len(begun) > n_ahead:
            yield finish(begun.popleft())
    while begun:
        yield finish(begun.popleft())
