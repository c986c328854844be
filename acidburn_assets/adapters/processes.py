"""Processes of our own that do the same work on one item after another.

They are spawned, not forked: a child has no threads, locks or GPU of its parent's. They live as
long as the pool, so that what is dear to make is made once in each, and they end with their parent
even where it is killed. What they do is the business of who opens the pool.
"""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.queues import SimpleQueue
from typing import Any, Generic, TypeVar

from acidburn_assets.adapters.ahead import look_ahead
from acidburn_assets.core.errors import ProcessLost

Item = TypeVar("Item")
Result = TypeVar("Result")

_LOOK_AHEAD = 2
"""Items that wait beside those at work, for each process: enough that none waits for the parent.
Chosen, not measured."""


class Processes(Generic[Item, Result]):
    """A pool that `open_processes` opened."""

    def __init__(
        self, executor: ProcessPoolExecutor, work: Callable[[Item], Result], n_processes: int
    ) -> None:
        """Use `open_processes`."""
        self._executor = executor
        self._work = work
        self.n_processes = n_processes

    def map(self, items: Iterable[Item]) -> Iterator[Result]:
        """Results in the items' order; few items are drawn ahead.

        Raises:
            ProcessLost: a process ended before its time: killed, or out of memory.
        """
        try:
            yield from look_ahead(
                items,
                lambda item: self._executor.submit(self._work, item),
                lambda future: future.result(),
                lambda future: future.cancel(),
                n_ahead=self.n_processes * (1 + _LOOK_AHEAD) - 1,
            )
        except BrokenProcessPool as error:
            raise ProcessLost(
                f"one of {self.n_processes} worker processes ended before its time: it was killed, "
                "or the machine has too little memory; run this again"
            ) from error


@contextmanager
def open_processes(
    work: Callable[[Item], Result],
    places: Sequence[Any],
    *,
    begin: Callable[[Any], None] | None = None,
) -> Iterator[Processes[Item, Result]]:
    """Opens a pool; the processes start when the first items come.

    Args:
        work: done on each item; a function of a module.
        places: one for each process, such as its device.
        begin: called once in each process with its place, before any work.
    """
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    for place in places:
        queue.put(place)
    executor = ProcessPoolExecutor(
        len(places), mp_context=context, initializer=_begin, initargs=(queue, begin)
    )
    try:
        yield Processes(executor, work, len(places))
    finally:
        executor.shutdown(cancel_futures=True)
        queue.close()


def _begin(queue: "SimpleQueue[Any]", begin: Callable[[Any], None] | None) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    place = queue.get()
    if begin is not None:
        begin(place)


def _end_with_parent() -> None:
    """An orphan would wait for work for ever, and keep its memory and its GPU."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
