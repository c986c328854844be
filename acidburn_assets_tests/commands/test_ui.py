"""`acidburn ui`: what the UI's processes are started with."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from acidburn_assets.settings import PROJECT_ROOT
from acidburn_assets_tests.worlds import World, acidburn


class Replaced(Exception):
    """The process would be another now."""


@pytest.fixture
def kept_signals() -> Iterator[None]:
    """The command resets them for the process that it becomes."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def test_the_ui_starts_over_this_home_and_registry(
    blank_world: World, kept_signals: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: dict[str, object] = {}

    def replace(program: str, arguments: list[str]) -> None:
        home = os.environ["ACIDBURN_HOME"]
        started.update(
            command=[program, *arguments],
            home=home,
            registry=os.environ["ACIDBURN_DATASETS"],
            has_records=Path(os.environ["DAGSTER_HOME"], "dagster.yaml").is_file(),
        )
        raise Replaced

    # so that what the command sets is undone
    for name in ("ACIDBURN_HOME", "ACIDBURN_DATASETS"):
        monkeypatch.setenv(name, blank_world.environment[name])
    monkeypatch.setattr(os, "execv", replace)
    finished = acidburn("ui", "--port", "3456")
    assert finished.err.splitlines()[0] == "http://127.0.0.1:3456"
    assert started == {
        "command": [
            *(sys.executable, sys.executable, "-m", "dagster", "dev"),
            *("--workspace", str(PROJECT_ROOT / "workspace.yaml")),
            *("--host", "127.0.0.1", "--port", "3456"),
        ],
        "home": str(blank_world.home),
        "registry": str(blank_world.folder / "datasets.yaml"),
        "has_records": True,
    }


@pytest.mark.parametrize("port", ["0", "70000", "web"])
def test_a_port_that_is_none_is_wrong_usage(port: str) -> None:
    finished = acidburn("ui", "--port", port)
    assert finished.code == 2
    assert "--port" in finished.err
