"""What one day's calls to a paid model cost, under a limit that outlives the process.

One file of lines a day in a folder of this machine; every process that asks reads and writes it
under a lock, so that servers and commands beside each other share the limit, and one that is
started again finds what was spent. The worst a call can cost is written before the call is sent.
A call whose process was killed counts at that, for the rest of the day.

    <folder>/2026-11-28.jsonl   one line when a call is begun, one when it has ended

A day is one of UTC. Nothing of a question is written: when, for what, which model, how it ended,
and dollars. Files of past days are a record; nothing reads them, they may be deleted.
"""

import fcntl
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, TypeAdapter, ValidationError

from acidburn_assets.adapters.language_model import TICKS_PER_USD
from acidburn_assets.core.errors import BudgetError, SchemaError, WorkFolderUnavailable
from acidburn_assets.core.records import Record


class _Begun(Record):
    """A call that may be sent from now on."""

    kind: Literal["begun"] = "begun"
    call: str
    at: datetime
    purpose: str
    model: str
    ticks: int = Field(ge=0)  # at worst


class _Ended(Record):
    """A call that is over."""

    kind: Literal["ended"] = "ended"
    call: str
    at: datetime
    outcome: str
    ticks: int = Field(ge=0)  # that count
    is_billed: bool


_LINE: TypeAdapter[_Begun | _Ended] = TypeAdapter(
    Annotated[_Begun | _Ended, Field(discriminator="kind")]
)


class Reservation(NamedTuple):
    """What was set aside for a call."""

    call: str
    day: str  # whose limit it counts against
    usd: float


class _Day:
    """The lines of one file, as far as they were read."""

    def __init__(self) -> None:
        self.inode = 0
        self.n_bytes = 0
        self.spent = 0  # ticks, of calls that have ended
        self.open: dict[str, int] = {}  # ticks that calls may cost
        self.overrun = 1.0

    def take(self, line: _Begun | _Ended) -> None:
        if isinstance(line, _Begun):
            self.open[line.call] = line.ticks
            return
        reserved = self.open.pop(line.call, 0)
        self.spent += line.ticks
        if line.ticks > reserved > 0:
            # a service that does not keep to the output limit: later calls may be as dear
            self.overrun *= line.ticks / reserved


class Spending:
    """A limit on the dollars of a day. May be used by several threads and processes."""

    def __init__(
        self,
        folder: Path,
        *,
        usd_per_day: float,
        setting: str,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Nothing is read or written yet.

        Args:
            folder: on a disk of this machine; made when it is first written to.
            usd_per_day: no call is begun that could pass this.
            setting: name of the setting that holds the limit, for errors.
            now: the clock.
        """
        self.usd_per_day = usd_per_day
        self._folder = folder
        self._setting = setting
        self._now = now
        self._lock = threading.Lock()
        self._name = ""  # of the day that `_read` is of
        self._read = _Day()

    def reserve(self, usd: float, *, purpose: str, model: str) -> Reservation:
        """Sets dollars aside for a call, before it is sent.

        Args:
            usd: the most that it can cost.
            purpose: of the call.
            model: that will be asked.

        Raises:
            BudgetError: that could pass the day's limit; nothing is set aside.
            WorkFolderUnavailable: it cannot be written down.
            SchemaError: the day's file holds something else.
        """
        now = self._now()
        with self._day(f"{now:%Y-%m-%d}") as (day, write):
            wanted = _ticks(usd * day.overrun)
            used = day.spent + sum(day.open.values())
            if used + wanted > _ticks(self.usd_per_day):
                raise BudgetError(
                    f"{_usd(used):.4f} of {self.usd_per_day:.4f} USD are spent or set aside today "
                    f"and one more call could cost {_usd(wanted):.4f}; raise {self._setting}, or "
                    "wait for the next day (UTC)"
                )
            call = uuid.uuid4().hex
            write(_Begun(call=call, at=now, purpose=purpose, model=model, ticks=wanted))
            return Reservation(call, f"{now:%Y-%m-%d}", _usd(wanted))

    def settle(
        self, reservation: Reservation, usd: float, *, outcome: str, is_billed: bool
    ) -> None:
        """Books what a call cost, and gives the rest back.

        Args:
            reservation: from `reserve`.
            usd: that count: the bill, or the worst where none came.
            outcome: how it ended.
            is_billed: whether `usd` is a bill.

        Raises:
            WorkFolderUnavailable: it cannot be written down; the call counts at its worst.
            SchemaError: the day's file holds something else.
        """
        with self._day(reservation.day) as (_, write):
            write(
                _Ended(
                    call=reservation.call,
                    at=self._now(),
                    outcome=outcome,
                    ticks=_ticks(usd),
                    is_billed=is_billed,
                )
            )

    def spent_usd(self) -> float:
        """What calls of today cost, those that are open at their worst.

        Raises:
            WorkFolderUnavailable: the file cannot be read.
            SchemaError: it holds something else.
        """
        name = f"{self._now():%Y-%m-%d}"
        if not self._path(name).exists():
            return 0.0
        with self._day(name) as (day, _):
            return _usd(day.spent + sum(day.open.values()))

    def overrun(self) -> float:
        """How much dearer than their worst calls of today were: 1.0 where none was.

        Raises:
            WorkFolderUnavailable: the file cannot be read.
            SchemaError: it holds something else.
        """
        name = f"{self._now():%Y-%m-%d}"
        if not self._path(name).exists():
            return 1.0
        with self._day(name) as (day, _):
            return day.overrun

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.jsonl"

    @contextmanager
    def _day(self, name: str) -> Iterator[tuple[_Day, Callable[[_Begun | _Ended], None]]]:
        """A day's lines as they are now, and how to add one; nobody else adds any meanwhile."""
        path = self._path(name)
        with self._lock:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
                try:
                    fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed
                    day = self._catch_up(file, name, path)
                    yield day, lambda line: _append(file, day, line)
                finally:
                    os.close(file)
            except OSError as error:
                raise WorkFolderUnavailable(
                    f"what answers cost cannot be written to {str(path)!r}, so nothing is spent: "
                    f"{error}; free space there, or mend its permissions"
                ) from error

    def _catch_up(self, file: int, name: str, path: Path) -> _Day:
        """Reads what was added since the last look."""
        status = os.fstat(file)
        n_bytes, day = status.st_size, self._read
        if name != self._name or status.st_ino != day.inode or n_bytes < day.n_bytes:
            day = _Day()  # another day, or the file was deleted
            day.inode = status.st_ino
        added = _read_range(file, day.n_bytes, n_bytes)
        whole, _, torn = added.rpartition(b"\n")
        lines = whole.split(b"\n") if whole else []
        # all or nothing: what is half read must not be kept
        parsed = [self._parse(line, path) for line in lines]
        for line in parsed:
            day.take(line)
        day.n_bytes = n_bytes - len(torn)
        if torn:
            # its writer died: a call that was not sent, or an end whose call counts at its worst
            os.ftruncate(file, day.n_bytes)
        self._name, self._read = name, day
        return day

    def _parse(self, line: bytes, path: Path) -> _Begun | _Ended:
        try:
            return _LINE.validate_json(line)
        except ValidationError as error:
            raise SchemaError(
                f"{str(path)!r} holds a line that is no record of a call, so it is not known what "
                "was spent today and nothing more is; mend the line, or delete the file to begin "
                "the day anew"
            ) from error


def _append(file: int, day: _Day, line: _Begun | _Ended) -> None:
    content = line.to_bytes()
    try:
        n_written = os.pwrite(file, content, day.n_bytes)
        if n_written < len(content):
            raise OSError(f"{n_written} of {len(content)} bytes could be written")
    except OSError:
        os.ftruncate(file, day.n_bytes)
        raise
    day.n_bytes += len(content)
    day.take(line)


def _read_range(file: int, start: int, end: int) -> bytes:
    parts = []
    while start < end and (part := os.pread(file, end - start, start)):
        parts.append(part)
        start += len(part)
    return b"".join(parts)


def _ticks(usd: float) -> int:
    """Rounded to a billionth of a cent: sums and products of dollars are not exact."""
    return round(usd * TICKS_PER_USD)


def _usd(ticks: int) -> float:
    return ticks / TICKS_PER_USD
