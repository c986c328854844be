"""When a failed partition is tried again, and when it is left to a person."""

from datetime import UTC, datetime, timedelta

import pytest

from acidburn_assets.core import errors
from acidburn_assets.core.failures import (
    KEPT_ATTEMPTS,
    Attempt,
    Budget,
    Failures,
    Kind,
    kind_of,
)

BEGAN = datetime(2026, 11, 24, tzinfo=UTC)
BUDGET = Budget(
    n_refused=3,
    n_crashed=5,
    wait_seconds=60,
    longest_wait_seconds=900,
    longest_pause_seconds=120,
)


def failed(*kinds: Kind, made_from: str = "a") -> Failures:
    """One failure a minute, each in a run of its own."""
    failures = Failures(asset="d/chunks", shard="000001")
    for number, kind in enumerate(kinds):
        attempt = Attempt(
            run_id=f"run{number}",
            at=BEGAN + timedelta(minutes=number),
            kind=kind,
            reason=f"reason {number}",
            made_from=made_from,
        )
        failures = failures.add(attempt)
    return failures


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ([], False),
        (["refused", "refused"], False),
        (["refused", "refused", "refused"], True),
        (["refused", "unavailable", "refused", "unavailable", "refused"], True),
        (["unavailable"] * 15, False),
        (["crashed"] * 4, False),
        (["crashed"] * 5, True),
        (["stopped"], True),
        (["blocked"] * 9, False),
        (["blocked"] * 10, True),
        (["held"] * 15, False),
    ],
)
def test_only_what_was_refused_crashed_or_stopped_is_quarantined(
    kinds: list[Kind], expected: bool
) -> None:
    assert failed(*kinds).is_quarantined(BUDGET) is expected


@pytest.mark.parametrize(
    ("kinds", "wait_seconds"),
    [
        (["refused"], 60),
        (["refused", "refused"], 240),
        (["refused"] * 4, 900),
        (["unavailable"], 15),
        (["unavailable"] * 2, 30),
        (["unavailable"] * 15, 120),
        (["crashed"], 15),
        (["blocked"] * 2, 30),
        (["held"], 900),
    ],
)
def test_waits_grow_to_a_bound(kinds: list[Kind], wait_seconds: float) -> None:
    failures = failed(*kinds)
    following = failures.next_attempt_at(BUDGET)
    assert following == failures.attempts[-1].at + timedelta(seconds=wait_seconds)


def test_without_a_failure_nothing_waits() -> None:
    assert failed().next_attempt_at(BUDGET) is None
    assert failed().last_reason() == ""


def test_a_run_counts_once() -> None:
    once = failed("refused")
    assert once.add(once.attempts[0]) == once
    assert once.has_run("run0")
    assert not once.has_run("run1")


def test_other_inputs_begin_a_new_budget() -> None:
    spent = failed("refused", "refused", "refused")
    assert spent.is_quarantined(BUDGET)
    assert not spent.is_quarantined(BUDGET, "b")
    assert spent.next_attempt_at(BUDGET, "b") is None
    attempt = Attempt(run_id="new", at=BEGAN, kind="refused", reason="still", made_from="b")
    assert [one.run_id for one in spent.add(attempt).counted()] == ["new"]
    assert len(spent.add(attempt).counted("a")) == 3


def test_what_a_person_stopped_stays_so_whatever_changes() -> None:
    stopped = failed("stopped")
    assert stopped.is_quarantined(BUDGET, "b")
    assert not stopped.is_spent(BUDGET, "a")  # the rest does not go on without it
    assert not stopped.forgiven().is_quarantined(BUDGET, "b")


def test_what_a_person_released_counts_no_more_but_stays_known() -> None:
    released = failed("refused", "refused", "refused").forgiven()
    assert not released.is_quarantined(BUDGET)
    assert released.counted() == ()
    assert released.next_attempt_at(BUDGET) is None
    assert released.has_run("run2")


def test_a_record_does_not_grow_for_ever() -> None:
    many = failed(*["unavailable"] * (KEPT_ATTEMPTS + 5))
    assert len(many.attempts) == KEPT_ATTEMPTS
    assert many.last_reason() == f"reason {KEPT_ATTEMPTS + 4}"


def test_a_record_is_read_back() -> None:
    failures = failed("refused", "crashed")
    assert Failures.from_bytes(failures.to_bytes(), key="k") == failures


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.StoreUnavailable("away"), "unavailable"),
        (errors.DatabaseUnavailable("away"), "unavailable"),
        (errors.ProcessLost("a GPU failed"), "crashed"),
        (errors.ObjectMissing("upstream is gone"), "blocked"),
        (errors.ObjectCorrupt("upstream is damaged"), "blocked"),
        (errors.NotMaterialized("upstream is not made"), "blocked"),
        (errors.BudgetError("too dear"), "held"),
        (errors.ConfigError("no such device"), "held"),
        (errors.SourceChanged("the file is another"), "refused"),
        (errors.ModelError("a vector is not finite"), "refused"),
        (ZeroDivisionError("a defect"), "refused"),
    ],
)
def test_what_is_not_its_fault_is_told_apart(error: Exception, expected: Kind) -> None:
    assert kind_of(error) == expected
