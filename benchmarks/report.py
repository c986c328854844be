"""What a benchmark says: a table for people, one JSON object for programs."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from acidburn_assets.core.quality import Interval
from benchmarks.timing import Spread


def show(
    title: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    facts: Mapping[str, Any],
    is_json: bool,
) -> None:
    """Prints a run.

    Args:
        title: of the table.
        rows: the table's, all with the same names.
        facts: what the rows hold for: amounts, sizes, versions.
        is_json: whether the last line is the whole run as one JSON object.
    """
    machine = {"python": platform.python_version(), "n_cores": os.cpu_count()}
    console = Console(highlight=False, width=None if Console().is_terminal else 160)
    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left")
    for index, name in enumerate(rows[0] if rows else ()):
        table.add_column(name, justify="left" if index == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    console.print(table)
    console.print(
        ", ".join(f"{name} {_cell(value)}" for name, value in {**facts, **machine}.items()),
        markup=False,
        soft_wrap=True,
    )
    if is_json:
        plain = [{name: _plain(value) for name, value in row.items()} for row in rows]
        print(json.dumps({"benchmark": title, **facts, **machine, "rows": plain}))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Spread):
        return str(value)
    if isinstance(value, Interval):
        return f"{value.mean:.3f} ({value.low:.3f}\N{EN DASH}{value.high:.3f})"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Spread):
        return value._asdict()
    return value.model_dump() if isinstance(value, Interval) else value
