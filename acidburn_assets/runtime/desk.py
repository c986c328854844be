"""Questions that wait and questions that are worked on, so many and no more.

A question is worked on in a thread, since search waits for Postgres and computes. A thread cannot
be stopped: a question that took too long keeps its place until it is done, whatever its caller was
told, so what is worked on at once is bounded always. A question that only waits is given up with
its caller.
"""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from acidburn_assets.core.errors import TransientError

_Made = TypeVar("_Made")


class DeskFull(TransientError):
    """As many questions wait as may."""


class DeskClosed(TransientError):
    """The service is about to stop."""


class TookTooLong(TransientError):
    """A question was not answered in its time."""


class CallerLeft(Exception):
    """Whoever asked does not wait any more."""


class Desk:
    """Works on `n_at_once` questions while at most `n_waiting` wait. For one event loop."""

    def __init__(self, *, n_at_once: int, n_waiting: int, timeout_seconds: float) -> None:
        """Starts no thread yet.

        Args:
            n_at_once: questions that are worked on at once.
            n_waiting: questions that wait, at most.
            timeout_seconds: from the moment a question comes.
        """
        self._threads = ThreadPoolExecutor(n_at_once, thread_name_prefix="question")
        self._turns = asyncio.Semaphore(n_at_once)
        self._n_places = n_at_once + n_waiting
        self._timeout_seconds = timeout_seconds
        self._n_inside = 0
        self._is_closed = False

    @property
    def n_inside(self) -> int:
        """Questions that wait or are worked on, those included whose caller was told otherwise."""
        return self._n_inside

    async def answer(
        self, work: Callable[[], _Made], has_left: Callable[[], Awaitable[None]]
    ) -> _Made:
        """What the work gives, when its turn has come.

        Args:
            work: is called in a thread.
            has_left: ends when the caller is gone.

        Raises:
            DeskFull: too many wait.
            TookTooLong: it was not done in time.
            CallerLeft: nobody waits for it.
            DeskClosed: the service stops.
        """
        if self._is_closed:
            raise DeskClosed("the service is stopping")
        if self._n_inside >= self._n_places:
            raise DeskFull("too many questions wait already")
        self._n_inside += 1
        answered = asyncio.ensure_future(self._take_turn(work))
        left = asyncio.ensure_future(has_left())
        try:
            await asyncio.wait(
                {answered, left},
                timeout=self._timeout_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if answered.done():
                return answered.result()
            if left.done():
                raise CallerLeft
            raise TookTooLong(f"no answer in {self._timeout_seconds:g} s")
        finally:
            await _stop(answered)
            await _stop(left)

    async def _take_turn(self, work: Callable[[], _Made]) -> _Made:
        is_begun = False
        try:
            await self._turns.acquire()
            if self._is_closed:
                self._turns.release()
                raise DeskClosed("the service is stopping")
            begun = self._threads.submit(work)
            is_begun = True
        finally:
            if not is_begun:
                self._n_inside -= 1
        loop = asyncio.get_running_loop()
        begun.add_done_callback(lambda done: self._tell_end(loop, done))
        return await asyncio.wrap_future(begun)

    def _tell_end(self, loop: asyncio.AbstractEventLoop, _: Future[_Made]) -> None:
        with suppress(RuntimeError):  # the loop ended before the thread did
            loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        self._n_inside -= 1
        self._turns.release()

    def close(self) -> None:
        """Gives up what waits, and lets what is worked on end by itself."""
        self._is_closed = True
        self._threads.shutdown(wait=False)


async def _stop(task: asyncio.Future[_Made]) -> None:
    """Cancels what is not done; what it had to say is of no interest any more."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # was raised already, or came too late
