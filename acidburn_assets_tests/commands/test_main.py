"""The console script itself: help, errors, tracebacks, and what its own settings must be."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from acidburn_assets import __version__
from acidburn_assets.commands import SUBCOMMANDS
from acidburn_assets_tests.worlds import Finished, World, acidburn


def run(folder: Path, *arguments: str, **variables: str) -> Finished:
    """`python -m acidburn_assets …` as a process of its own."""
    finished = subprocess.run(
        [sys.executable, "-m", "acidburn_assets", *arguments],
        cwd=folder,
        env={"PATH": os.defpath, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    return Finished(finished.returncode, finished.stdout, finished.stderr)


def test_help_names_every_subcommand_in_a_bare_environment(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    finished = run(tmp_path / "empty", "--help")
    assert (finished.code, finished.err) == (0, "")
    listed = [line.split()[0] for line in finished.out.split("Commands:")[1].splitlines() if line]
    assert sorted(listed) == sorted(SUBCOMMANDS)
    assert list((tmp_path / "empty").iterdir()) == []


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_every_subcommand_explains_itself(name: str) -> None:
    finished = acidburn(name, "--help")
    assert (finished.code, finished.err) == (0, "")
    assert finished.out.startswith(f"Usage: acidburn {name} ")


def test_a_traceback_is_shown_only_to_who_asks_for_it(blank_world: World) -> None:
    message = "no dataset 'nowhere'; datasets.yaml has ['articles', 'manual', 'notes']"
    plain = run(blank_world.folder, "plan", "nowhere", **blank_world.environment)
    assert plain == (1, "", f"acidburn: {message}\n")
    debug = run(blank_world.folder, "plan", "nowhere", "--debug", **blank_world.environment)
    assert debug.code == 1
    assert "Traceback (most recent call last):" in debug.err
    assert debug.err.endswith(f"ConfigError: {message}\n")


def test_the_version_is_the_packages() -> None:
    assert acidburn("--version").out == f"acidburn, version {__version__}\n"


def test_an_unknown_subcommand_is_wrong_usage() -> None:
    finished = acidburn("materialise", "all")
    assert finished.code == 2
    assert "No such command 'materialise'" in finished.err


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("ACIDBURN_DEVICE", "tpu", "acidburn: ACIDBURN_DEVICE: "),
        ("ACIDBURN_BATCH_TOKENS", "many", "acidburn: ACIDBURN_BATCH_TOKENS: "),
        ("ACIDBURN_DATASETS", "nowhere.yaml", "acidburn: no registry at 'nowhere.yaml'"),
        ("ACIDBURN_STORE", "ftp://example.org/x", "acidburn: "),
    ],
)
def test_a_setting_that_cannot_be_used_is_named_in_one_line(
    blank_world: World, monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: str
) -> None:
    monkeypatch.setenv(name, value)
    finished = acidburn("ask", "why?")
    assert finished.code == 1
    (line,) = finished.err.splitlines()
    assert line.startswith(expected)


def test_a_dsn_that_cannot_be_read_is_not_shown(
    blank_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACIDBURN_POSTGRES", "postgresql://me:pa/ss@word@host/corpus")
    finished = acidburn("unload", "library", "--yes")
    assert finished.code == 1
    (line,) = finished.err.splitlines()
    assert "percent-encode" in line
    assert "ss@word" not in line
