"""The limit of a day: over threads, processes, kills and midnight."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from acidburn_assets.adapters.spending import Spending
from acidburn_assets.core.errors import BudgetError, SchemaError, WorkFolderUnavailable

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)


def make_spending(folder: Path, usd_per_day: float = 1.0, at: datetime = NOON) -> Spending:
    return Spending(
        folder, usd_per_day=usd_per_day, setting="ACIDBURN_ASK_BUDGET_USD", now=lambda: at
    )


def spend(spending: Spending, worst_usd: float, usd: float) -> None:
    reservation = spending.reserve(worst_usd, purpose="pick", model="grok-4.3")
    spending.settle(reservation, usd, outcome="answered", is_billed=True)


def path_of(folder: Path) -> Path:
    return folder / "2026-11-28.jsonl"


def test_what_was_spent_is_found_by_who_is_started_again(tmp_path: Path) -> None:
    spend(make_spending(tmp_path), 0.5, 0.2)
    again = make_spending(tmp_path)
    assert again.spent_usd() == pytest.approx(0.2)
    with pytest.raises(BudgetError, match=r"0\.2000 of 1\.0000 USD .*ACIDBURN_ASK_BUDGET_USD"):
        again.reserve(0.9, purpose="pick", model="grok-4.3")


def test_the_limit_may_be_reached_exactly_and_not_passed(tmp_path: Path) -> None:
    spending = make_spending(tmp_path, usd_per_day=0.3)
    for _ in range(3):  # which is more than 0.3 in floating point
        spend(spending, 0.1, 0.1)
    assert spending.spent_usd() == 0.3
    with pytest.raises(BudgetError):
        spending.reserve(1e-10, purpose="pick", model="grok-4.3")
    spend(spending, 0.0, 0.0)


def test_what_is_set_aside_counts_until_it_is_settled(tmp_path: Path) -> None:
    spending = make_spending(tmp_path)
    held = spending.reserve(0.7, purpose="review", model="grok-4.3")
    assert spending.spent_usd() == pytest.approx(0.7)
    with pytest.raises(BudgetError):
        spending.reserve(0.4, purpose="pick", model="grok-4.3")
    spending.settle(held, 0.1, outcome="answered", is_billed=True)
    spend(spending, 0.9, 0.9)


def test_a_killed_process_counts_at_its_worst(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys\n"
        "from acidburn_assets_tests.adapters.test_spending import make_spending\n"
        "from pathlib import Path\n"
        "spending = make_spending(Path(sys.argv[1]))\n"
        "spending.reserve(0.6, purpose='review', model='grok-4.3')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        check=False,
        timeout=60,
    )
    assert killed.returncode == -signal.SIGKILL
    assert make_spending(tmp_path).spent_usd() == pytest.approx(0.6)


def test_a_new_day_begins_at_nothing_and_a_late_bill_counts_for_its_own(tmp_path: Path) -> None:
    clock = [NOON.replace(hour=23, minute=59)]
    spending = Spending(tmp_path, usd_per_day=1.0, setting="X", now=lambda: clock[0])
    late = spending.reserve(0.9, purpose="review", model="grok-4.3")
    clock[0] += timedelta(minutes=2)
    assert spending.spent_usd() == 0.0
    spend(spending, 0.8, 0.5)
    spending.settle(late, 0.3, outcome="answered", is_billed=True)
    assert spending.spent_usd() == pytest.approx(0.5)
    assert make_spending(tmp_path).spent_usd() == pytest.approx(0.3)


def test_a_bill_above_its_worst_makes_later_calls_count_for_more(tmp_path: Path) -> None:
    spend(make_spending(tmp_path), 0.01, 0.1)
    again = make_spending(tmp_path)
    assert again.overrun() == pytest.approx(10.0)
    assert again.reserve(0.05, purpose="pick", model="grok-4.3").usd == pytest.approx(0.5)
    with pytest.raises(BudgetError):
        again.reserve(0.05, purpose="pick", model="grok-4.3")


_SPENDS_ALL = """
import sys, time
from pathlib import Path
from acidburn_assets_tests.adapters.test_spending import make_spending, spend_all

folder = Path(sys.argv[1])
print("ready", flush=True)
while not (folder / "go").exists():
    time.sleep(0.001)
print(spend_all(make_spending(folder)))
"""


def spend_all(spending: Spending) -> int:
    """How many calls a day's limit allows."""
    n_calls = 0
    try:
        while True:
            spend(spending, 0.001, 0.0005)
            n_calls += 1
    except BudgetError:
        return n_calls


def test_threads_and_processes_never_pass_the_limit_together(tmp_path: Path) -> None:
    others = [
        subprocess.Popen(
            [sys.executable, "-c", _SPENDS_ALL, str(tmp_path)],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for other in others:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
    spending = make_spending(tmp_path)
    with ThreadPoolExecutor(2) as threads:
        (tmp_path / "go").touch()
        counts = list(threads.map(spend_all, [spending, spending]))
    counts += [int(other.communicate(timeout=60)[0]) for other in others]
    assert min(counts) > 0  # all of them at once
    spent = make_spending(tmp_path).spent_usd()
    assert spent == pytest.approx(0.0005 * sum(counts))
    assert 0.996 < spent <= 1.0


def test_lines_tell_when_what_and_how_much_and_nothing_else(tmp_path: Path) -> None:
    spend(make_spending(tmp_path), 0.5, 0.2)
    begun, ended = map(json.loads, path_of(tmp_path).read_text().splitlines())
    call = begun.pop("call")
    assert begun == {
        "kind": "begun", "at": "2026-11-28T12:00:00Z", "purpose": "pick", "model": "grok-4.3",
        "ticks": 5_000_000_000,
    }  # fmt: skip
    assert ended == {
        "kind": "ended", "at": "2026-11-28T12:00:00Z", "call": call, "outcome": "answered",
        "ticks": 2_000_000_000, "is_billed": True,
    }  # fmt: skip
    assert path_of(tmp_path).stat().st_mode & 0o077 == 0


def test_half_a_line_of_a_writer_that_died_is_taken_away(tmp_path: Path) -> None:
    spend(make_spending(tmp_path), 0.5, 0.2)
    whole = path_of(tmp_path).read_bytes()
    path_of(tmp_path).write_bytes(whole + b'{"kind":"be')
    spending = make_spending(tmp_path)
    assert spending.spent_usd() == pytest.approx(0.2)
    spend(spending, 0.1, 0.1)
    assert path_of(tmp_path).read_bytes().startswith(whole)
    assert make_spending(tmp_path).spent_usd() == pytest.approx(0.3)


@pytest.mark.parametrize("line", ["what?", '{"kind":"ended","call":"x"}', "\0" * 20])
def test_a_file_that_holds_something_else_stops_the_spending(tmp_path: Path, line: str) -> None:
    spend(make_spending(tmp_path), 0.5, 0.2)
    with path_of(tmp_path).open("a") as file:
        file.write(f"{line}\n")
    spending = make_spending(tmp_path)
    for _ in range(2):
        with pytest.raises(SchemaError, match=r"2026-11-28\.jsonl.*mend the line, or delete"):
            spending.reserve(0.1, purpose="pick", model="grok-4.3")


def test_a_negative_bill_is_no_line(tmp_path: Path) -> None:
    spending = make_spending(tmp_path)
    reservation = spending.reserve(0.5, purpose="pick", model="grok-4.3")
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        spending.settle(reservation, -0.5, outcome="answered", is_billed=True)
    assert spending.spent_usd() == pytest.approx(0.5)


def test_a_file_that_was_deleted_begins_anew(tmp_path: Path) -> None:
    spending = make_spending(tmp_path)
    spend(spending, 0.9, 0.9)
    path_of(tmp_path).unlink()
    spend(spending, 0.9, 0.1)
    assert spending.spent_usd() == pytest.approx(0.1)


def test_a_place_that_cannot_be_written_stops_the_spending(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    spending = make_spending(tmp_path / "file")
    with pytest.raises(WorkFolderUnavailable, match="nothing is spent"):
        spending.reserve(0.1, purpose="pick", model="grok-4.3")


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spending = make_spending(tmp_path)
    spend(spending, 0.5, 0.2)
    whole = path_of(tmp_path).read_bytes()
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, content, at: write(file, content[:9], at))
    with pytest.raises(WorkFolderUnavailable, match="9 of"):
        spending.reserve(0.1, purpose="pick", model="grok-4.3")
    assert path_of(tmp_path).read_bytes() == whole
    monkeypatch.undo()
    assert spending.spent_usd() == pytest.approx(0.2)


def test_looking_makes_no_file(tmp_path: Path) -> None:
    spending = make_spending(tmp_path / "spending")
    assert (spending.spent_usd(), spending.overrun()) == (0.0, 1.0)
    assert list(tmp_path.iterdir()) == [tmp_path / "cwd"]
