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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What builds whole graphs goes first, so that something short is left for who ends early."""
    folder = Path(__file__).parent
    places = {folder: 0, folder / "commands": 1, folder / "core": 3}
    items.sort(key=lambda item: places.get(item.path.parent, 2))


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sees the settings, credentials or `.env` of whoever runs it."""
    clear_environment(monkeypatch)
    work = tmp_path / "cwd"
    work.mkdir()
    monkeypatch.chdir(work)
