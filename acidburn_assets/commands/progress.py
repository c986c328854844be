"""Progress of a run as a person sees it: bars on a terminal, plain lines elsewhere.

Fed by Dagster's own events through a logger that a run's config names, so that a run tells the
same story here and in the UI.
"""

import logging
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Self

import dagster as dg
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from acidburn_assets.core import errors

LOGGER = "progress"
"""Name of the logger in a run's config."""

_OWN_ERROR = re.compile(rf"^{re.escape(errors.__name__)}\.\w+: ")

_INTERRUPTS = ("DagsterExecutionInterruptedError", "KeyboardInterrupt")
"""Dagster takes Ctrl-C for itself while a step is at work, and fails the run with the first."""


class Display(AbstractContextManager["Display"]):
    """Shows one asset after the other, one step per partition."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<36}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._task: Any = None
        self._asset = ""
        self.failures: list[str] = []
        self.is_interrupted = False
        self.n_made = 0  # partitions of this asset, those that were there not counted

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def start(self, asset: str, n_partitions: int) -> None:
        """An asset begins."""
        self._asset = asset
        self.failures = []
        self.n_made = 0
        self._task = self._bars.add_task(asset, total=n_partitions, note="")

    def skip(self, asset: str, why: str) -> None:
        """An asset is left out."""
        self._line(f"{asset}: {why}")

    def made(self, partition: str | None, figures: Mapping[str, Any]) -> None:
        """One partition was reported."""
        self.n_made += not figures.get("reused", False)
        note = _note(figures)
        self._bars.update(self._task, advance=1, note=note)
        if not self.console.is_terminal:
            name = self._asset + (f" {partition}" if partition else "")
            self._line(f"{name}: {note}")

    def failed(self, reason: str) -> None:
        """The run of the asset failed."""
        self.failures.append(reason)
        # unwrapped: one error is one line, however narrow the terminal or the log
        self.console.print(f"{self._asset}: {reason}", style="red", markup=False, soft_wrap=True)

    def _line(self, text: str) -> None:
        self.console.print(text, markup=False, soft_wrap=True)


def progress_logger(display: Display) -> dg.LoggerDefinition:
    """A Dagster logger that feeds the display, and nothing else.

    Args:
        display: where it shows.
    """

    def feed(_: dg.InitLoggerContext) -> logging.Logger:
        logger = logging.Logger("acidburn.progress", level=logging.DEBUG)
        logger.addHandler(_Feeder(display))
        return logger

    return dg.LoggerDefinition(feed, description="Feeds the command line's progress.")


class _Feeder(logging.Handler):
    def __init__(self, display: Display) -> None:
        super().__init__()
        self._display = display

    def emit(self, record: logging.LogRecord) -> None:
        event = getattr(record, "dagster_meta", {}).get("dagster_event")
        if event is None:
            return
        if event.event_type is dg.DagsterEventType.ASSET_MATERIALIZATION:
            materialization = event.step_materialization_data.materialization
            figures = {name: value.value for name, value in materialization.metadata.items()}
            self._display.made(event.partition, figures)
        elif event.event_type in (
            dg.DagsterEventType.STEP_FAILURE,
            dg.DagsterEventType.RUN_FAILURE,
        ):
            self._fail(event)

    def _fail(self, event: Any) -> None:
        error = _first_error(event.event_specific_data.error)
        if error is not None and error.cls_name in _INTERRUPTS:
            self._display.is_interrupted = True
        elif event.event_type is dg.DagsterEventType.STEP_FAILURE:
            described = event.event_specific_data.user_failure_data
            is_described = described is not None and described.description
            self._display.failed(described.description if is_described else _reason(error, event))
        elif not self._display.failures:
            # no step began: something that the asset needs could not be opened
            self._display.failed(_reason(error, event))


def _first_error(error: Any) -> Any:
    """What went wrong first, or None."""
    while error is not None and error.cause is not None:
        error = error.cause
    return error


def _reason(error: Any, event: Any) -> str:
    # an error of ours is for people: it needs no class before it
    return _OWN_ERROR.sub("", error.message.strip()) if error else str(event.message)


def _note(figures: Mapping[str, Any]) -> str:
    parts = []
    if "rows" in figures:
        parts.append(f"{figures['rows']:,} rows")
    if "clusters" in figures:
        parts.append(f"{figures['clusters']:,} clusters")
    if "seconds" in figures and not figures.get("reused"):
        parts.append(f"{figures['seconds']:.1f} s")
    if "chunks_per_second" in figures:
        parts.append(f"{figures['chunks_per_second']:,.0f} chunks/s")
    if figures.get("documents_skipped"):
        skipped = figures["documents_skipped"]
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(skipped.items()))
        parts.append(f"{sum(skipped.values()):,} documents skipped ({reasons})")
    if figures.get("reused"):
        parts.append("was there")
    return ", ".join(parts) or "made"
