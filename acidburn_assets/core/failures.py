"""Failures of an asset partition since it was last made: when to try again, and when to stop.

What a partition cannot help (the store, the database or the network is away) is tried again for as
long as it takes. What is refused for its own sake is tried a few times, further and further apart,
then it is quarantined: left alone until a person releases it, while the rest of the graph goes on.
"""

from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from acidburn_assets.core.errors import (
    BudgetError,
    ConfigError,
    NotMaterialized,
    ObjectCorrupt,
    ObjectMissing,
    ProcessLost,
    TransientError,
)
from acidburn_assets.core.records import Record

Kind = Literal["refused", "blocked", "held", "unavailable", "crashed", "stopped"]
"""refused: the work itself failed. blocked: what it is made from is lost or damaged, which is
mended where that was made. held: a setting or a budget forbids it. unavailable: a store, database
or service was away. crashed: the process, or a device, died with the partition in its hands.
stopped: a person ended the run."""

_BLOCKED = (NotMaterialized, ObjectMissing, ObjectCorrupt)
_HELD = (BudgetError, ConfigError)

KEPT_ATTEMPTS = 20
"""Of a record; those before are of no use to whoever reads it. Chosen, not measured."""


class Budget(NamedTuple):
    """How often, and how far apart. Chosen, not measured."""

    n_refused: int = 3
    n_crashed: int = 5  # a machine that sleeps or is switched off is no shard's fault
    n_blocked: int = 10  # it is tried only when everything upstream looks sound
    wait_seconds: float = 60
    """After the first refusal; four times as long after each further one."""
    longest_wait_seconds: float = 900
    longest_pause_seconds: float = 120
    """After a failure that was not its fault: a quarter of the wait, then twice as long each time,
    but never so long that whoever comes back to a network waits for us."""


BUDGET = Budget()


class Attempt(Record):
    """One failure."""

    run_id: str
    at: datetime
    kind: Kind
    reason: str
    made_from: str  # fingerprint of the code and inputs that failed
    is_forgiven: bool = False  # a person released the partition since


class Failures(Record):
    """`_failures/D/embeddings/000012.json`."""

    schema_version: int = 1
    asset: str  # owner/asset
    shard: str | None
    attempts: tuple[Attempt, ...] = ()  # oldest first; what no longer counts is kept as history

    def add(self, attempt: Attempt) -> "Failures":
        """The record with one more; a run counts once."""
        if self.has_run(attempt.run_id):
            return self
        return self.model_copy(update={"attempts": (*self.attempts, attempt)[-KEPT_ATTEMPTS:]})

    def forgiven(self) -> "Failures":
        """The record of a partition that a person released."""
        attempts = (one.model_copy(update={"is_forgiven": True}) for one in self.attempts)
        return self.model_copy(update={"attempts": tuple(attempts)})

    def has_run(self, run_id: str) -> bool:
        """Whether the failure of that run is known."""
        return any(attempt.run_id == run_id for attempt in self.attempts)

    def counted(self, made_from: str | None = None) -> tuple[Attempt, ...]:
        """Attempts that count: of these code and inputs, and not forgiven.

        Args:
            made_from: fingerprint of what it would be made from now: what was mended there begins
                anew. None: of what failed last.
        """
        if made_from is None:
            made_from = self.attempts[-1].made_from if self.attempts else ""
        return tuple(
            one for one in self.attempts if one.made_from == made_from and not one.is_forgiven
        )

    def is_quarantined(self, budget: Budget = BUDGET, made_from: str | None = None) -> bool:
        """True when only a person may have it tried again; `made_from` as in `counted`."""
        return self.is_stopped() or self.is_spent(budget, made_from)

    def is_stopped(self) -> bool:
        """True when a person ended its run; other code or inputs do not change that."""
        return any(one.kind == "stopped" and not one.is_forgiven for one in self.attempts)

    def is_spent(self, budget: Budget = BUDGET, made_from: str | None = None) -> bool:
        """True when it failed so often that the rest goes on without it; `made_from` as in
        `counted`."""
        kinds = [attempt.kind for attempt in self.counted(made_from)]
        return (
            kinds.count("refused") >= budget.n_refused
            or kinds.count("crashed") >= budget.n_crashed
            or kinds.count("blocked") >= budget.n_blocked
        )

    def next_attempt_at(
        self, budget: Budget = BUDGET, made_from: str | None = None
    ) -> datetime | None:
        """Not before then; None when at once. `made_from` as in `counted`."""
        counted = self.counted(made_from)
        if not counted:
            return None
        n_before = len(counted) - 1
        if counted[-1].kind == "held":
            wait = budget.longest_wait_seconds
        elif counted[-1].kind == "refused":
            wait = min(budget.wait_seconds * 4**n_before, budget.longest_wait_seconds)
        else:
            wait = min(budget.wait_seconds / 4 * 2**n_before, budget.longest_pause_seconds)
        return counted[-1].at + timedelta(seconds=wait)

    def last_reason(self) -> str:
        """Why it failed last; "" without a failure."""
        return self.attempts[-1].reason if self.attempts else ""


def kind_of(error: BaseException) -> Kind:
    """Whose fault an error is."""
    if isinstance(error, ProcessLost):
        return "crashed"
    if isinstance(error, TransientError):
        return "unavailable"
    if isinstance(error, _BLOCKED):
        return "blocked"
    return "held" if isinstance(error, _HELD) else "refused"
