"""A dataset entry with what every entry needs."""

from pathlib import Path
from typing import Any

from acidburn_assets.core.datasets import Dataset


def declare(source: Any, path: str | Path = "", **fields: Any) -> Dataset:
    """A dataset named `sample`; `fields` are those of datasets.yaml."""
    return Dataset(
        name="sample",
        source=source,
        path=str(path),
        licence="CC0-1.0",
        may_redistribute_text=True,
        tier="none",
        **fields,
    )
