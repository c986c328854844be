"""What a benchmark says: a table for people, one JSON object for programs."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

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
    )
    if is_json:
        print(
            json.dumps({"benchmark": title, **facts, **machine, "rows": [_plain(r) for r in rows]})
        )


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Spread):
        return str(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value._asdict() if isinstance(value, Spread) else value for name, value in row.items()
    }
