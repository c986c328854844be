"""Fixtures that every ring of tests uses: a clean environment first of all."""

import os
from pathlib import Path

import pytest

from acidburn_assets import settings


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sees the settings, credentials or `.env` of whoever runs it."""
    known = {name.upper() for name in settings.Settings.model_fields}
    for name in os.environ:
        if name.upper() in known or name.startswith(("AWS_", "DAGSTER_", "HF_", "XAI_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    work = tmp_path / "cwd"
    work.mkdir()
    monkeypatch.chdir(work)
