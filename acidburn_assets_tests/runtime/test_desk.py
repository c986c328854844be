"""Questions that wait and are worked on: bounded, in turn, given up with their callers."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from acidburn_assets.runtime.desk import CallerLeft, Desk, DeskClosed, DeskFull, TookTooLong


async def stays() -> None:
    await asyncio.Event().wait()


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 20))


class Work:
    """Something to do that waits until it may end."""

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self.n_begun = 0
        self.n_now = 0
        self.most_at_once = 0
        self._lock = threading.Lock()

    def __call__(self) -> str:
        with self._lock:
            self.n_begun += 1
            self.n_now += 1
            self.most_at_once = max(self.most_at_once, self.n_now)
        self.may_end.wait(10)
        with self._lock:
            self.n_now -= 1
        return "done"


async def until(holds: Callable[[], bool]) -> None:
    while not holds():
        await asyncio.sleep(0.002)


def test_so_many_are_worked_on_so_many_wait_and_the_next_is_refused() -> None:
    async def test() -> None:
        desk, work = Desk(n_at_once=2, n_waiting=3, timeout_seconds=10), Work()
        asked = [asyncio.ensure_future(desk.answer(work, stays)) for _ in range(5)]
        await until(lambda: work.n_begun == 2)
        for _ in range(50):
            with pytest.raises(DeskFull):
                await desk.answer(work, stays)
        assert (work.n_begun, desk.n_inside) == (2, 5)
        work.may_end.set()
        assert await asyncio.gather(*asked) == ["done"] * 5
        await until(lambda: desk.n_inside == 0)
        assert (work.n_begun, work.most_at_once) == (5, 2)
        assert await desk.answer(work, stays) == "done"
        desk.close()

    run(test)


def test_what_takes_too_long_keeps_its_place_until_it_is_done() -> None:
    async def test() -> None:
        desk, slow = Desk(n_at_once=1, n_waiting=1, timeout_seconds=0.05), Work()
        with pytest.raises(TookTooLong, match=r"no answer in 0\.05 s"):
            await desk.answer(slow, stays)
        assert desk.n_inside == 1
        waiting = Work()
        with pytest.raises(TookTooLong):
            await desk.answer(waiting, stays)
        assert waiting.n_begun == 0
        assert desk.n_inside == 1  # who only waited left no trace
        slow.may_end.set()
        await until(lambda: desk.n_inside == 0)
        waiting.may_end.set()
        assert await desk.answer(waiting, stays) == "done"
        desk.close()

    run(test)


def test_a_question_that_waits_is_given_up_with_its_caller() -> None:
    async def test() -> None:
        desk, work, given_up = Desk(n_at_once=1, n_waiting=5, timeout_seconds=10), Work(), Work()
        first = asyncio.ensure_future(desk.answer(work, stays))
        await until(lambda: work.n_begun == 1)
        left = asyncio.Event()

        async def leaves() -> None:
            await left.wait()

        second = asyncio.ensure_future(desk.answer(given_up, leaves))
        await until(lambda: desk.n_inside == 2)
        left.set()
        with pytest.raises(CallerLeft):
            await second
        assert desk.n_inside == 1
        work.may_end.set()
        assert await first == "done"
        assert given_up.n_begun == 0
        desk.close()

    run(test)


def test_what_fails_fails_for_its_caller_alone() -> None:
    async def test() -> None:
        desk = Desk(n_at_once=1, n_waiting=5, timeout_seconds=10)

        def fail() -> str:
            raise ValueError("mine")

        results = await asyncio.gather(
            desk.answer(fail, stays), desk.answer(lambda: "yours", stays), return_exceptions=True
        )
        assert isinstance(results[0], ValueError)
        assert results[1] == "yours"
        await until(lambda: desk.n_inside == 0)
        desk.close()

    run(test)


def test_a_closed_desk_takes_nothing_and_gives_up_what_waits() -> None:
    async def test() -> None:
        desk, work = Desk(n_at_once=1, n_waiting=5, timeout_seconds=10), Work()
        asked = [asyncio.ensure_future(desk.answer(work, stays)) for _ in range(2)]
        await until(lambda: work.n_begun == 1)
        desk.close()
        with pytest.raises(DeskClosed):
            await desk.answer(work, stays)
        work.may_end.set()
        first, second = await asyncio.gather(*asked, return_exceptions=True)
        assert first == "done"
        assert isinstance(second, DeskClosed)

    run(test)


def test_a_cancelled_caller_gives_its_place_back() -> None:
    async def test() -> None:
        desk, work = Desk(n_at_once=1, n_waiting=1, timeout_seconds=10), Work()
        first = asyncio.ensure_future(desk.answer(work, stays))
        await until(lambda: work.n_begun == 1)
        second = asyncio.ensure_future(desk.answer(work, stays))
        await until(lambda: desk.n_inside == 2)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        assert desk.n_inside == 1
        work.may_end.set()
        assert await first == "done"
        desk.close()

    run(test)


def test_many_in_a_row_leave_nothing_behind() -> None:
    async def test() -> None:
        desk = Desk(n_at_once=3, n_waiting=500, timeout_seconds=10)

        def ask(number: int) -> Awaitable[int]:
            return desk.answer(lambda: number, stays)

        assert await asyncio.gather(*map(ask, range(500))) == list(range(500))
        await until(lambda: desk.n_inside == 0)
        assert len(asyncio.all_tasks()) == 2  # this test and what waits for it
        desk.close()

    run(test)
