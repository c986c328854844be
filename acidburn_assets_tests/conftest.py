"""Fixtures that every ring of tests uses: a clean environment first of all."""

from pathlib import Path

import pytest
from hypothesis import settings

from acidburn_assets_tests.browser import chromium, chromium_program, window
from acidburn_assets_tests.postgres_server import database, dsn, postgres_server
from acidburn_assets_tests.s3_server import limited_key, moto_endpoint
from acidburn_assets_tests.worlds import (
    blank_world,
    clear_environment,
    copied_world,
    embedded_world,
    made_world,
    quick_records,
    world,
)

__all__ = [
    "blank_world",
    "chromium",
    "chromium_program",
    "copied_world",
    "database",
    "dsn",
    "embedded_world",
    "limited_key",
    "made_world",
    "moto_endpoint",
    "postgres_server",
    "quick_records",
    "window",
    "world",
]


# a machine that is busy is no defect
settings.register_profile("acidburn", deadline=None)
settings.load_profile("acidburn")


FOLDERS = ("", "commands", "assets", "io_managers", "runtime", "adapters", "chaos", "core")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What builds whole graphs goes first, so that something short is left for who ends early."""
    folder = Path(__file__).parent

    def place(item: pytest.Item) -> int:
        *inside, _ = item.path.relative_to(folder).parts
        return FOLDERS.index(inside[0] if inside else "")

    items.sort(key=place)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sees the settings, credentials or `.env` of whoever runs it."""
    clear_environment(monkeypatch)
    work = tmp_path / "cwd"
    work.mkdir()
    monkeypatch.chdir(work)
