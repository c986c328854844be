import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from acidburn_assets.adapters.processes import open_processes
from acidburn_assets.core.errors import ProcessLost
from acidburn_assets.settings import PROJECT_ROOT

_place: list[str] = []


def _begin(place: str) -> None:
    _place.append(place)


def _tell(item: int) -> tuple[int, str, int]:
    time.sleep(0.01 * (item % 3))
    return item, _place[0], os.getpid()


def _die(item: int) -> int:
    if item == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def _refuse(item: int) -> int:
    raise ValueError(f"not {item}")


def test_results_come_in_order_from_processes_that_each_have_a_place() -> None:
    with open_processes(_tell, ["left", "right"], begin=_begin) as pool:
        told = [*pool.map(range(40)), *pool.map(range(40, 50))]
    assert [item for item, _, _ in told] == list(range(50))
    assert {place for _, place, _ in told} == {"left", "right"}
    assert len({pid for _, _, pid in told}) == 2
    assert os.getpid() not in {pid for _, _, pid in told}


def test_items_are_drawn_as_they_are_needed() -> None:
    drawn: list[int] = []

    def items() -> Iterator[int]:
        for item in range(100):
            drawn.append(item)
            yield item

    with open_processes(_tell, ["only"], begin=_begin) as pool:
        results = pool.map(items())
        next(results)
        assert len(drawn) == 3
        results.close()  # type: ignore[attr-defined]  # a generator


def test_a_process_that_is_killed_is_told() -> None:
    with (
        open_processes(_die, ["only"]) as pool,
        pytest.raises(ProcessLost, match="ended before its time"),
    ):
        list(pool.map(range(10)))


def test_an_error_of_the_work_reaches_the_parent() -> None:
    with open_processes(_refuse, ["only"]) as pool, pytest.raises(ValueError, match="not 0"):
        list(pool.map(range(3)))


_PARENT = """
import time
from acidburn_assets.adapters.processes import open_processes
from acidburn_assets_tests.adapters.test_processes import _begin, _tell

if __name__ == "__main__":
    with open_processes(_tell, ["a", "b"], begin=_begin) as pool:
        print(*{pid for _, _, pid in pool.map(range(40))}, flush=True)
        time.sleep(120)
"""


def test_processes_end_with_a_parent_that_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT],
        env={"PATH": os.defpath, "PYTHONPATH": str(PROJECT_ROOT)},
        stdout=subprocess.PIPE,
    ) as parent:
        assert parent.stdout is not None
        children = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
        parent.kill()
    assert len(children) == 2
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive
