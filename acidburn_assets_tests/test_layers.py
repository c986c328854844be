"""The floors of the package: who may import whom, and what loading the definitions may cost."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

MAX_CPU_SECONDS = 3.0
"""Of one import of the definitions: each run, each step process and each code server pays for it.

Chosen; Dagster alone takes 0.6 (measured with 1.13.27).
"""

HEAVY = [
    "datasets",
    "evoc",
    "hdbscan",
    "matplotlib",
    "numba",
    "openai",
    "pandas",
    "sentence_transformers",
    "sklearn",
    "torch",
    "transformers",
]

IMPORT_DEFINITIONS = f"""
import json, sys, time
from acidburn_assets.definitions import build_defs
graph = build_defs().resolve_asset_graph()
cpu_seconds = time.process_time()
loaded = [name for name in {HEAVY} if name in sys.modules]
n_assets = len(graph.get_all_asset_keys())
print(json.dumps({{"cpu_seconds": cpu_seconds, "loaded": loaded, "n_assets": n_assets}}))
"""


def test_contracts_of_the_layers_are_kept() -> None:
    # a process of its own: it configures logging, and other tests read what is logged
    script = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"
    finished = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "0 broken" in finished.stdout


def test_definitions_load_lightly_in_a_fresh_interpreter_without_any_setting(
    tmp_path: Path,
) -> None:
    def load() -> dict:
        finished = subprocess.run(
            [sys.executable, "-c", IMPORT_DEFINITIONS],
            env={},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert finished.returncode == 0, finished.stderr
        return json.loads(finished.stdout.splitlines()[-1])

    tries = [load(), load()]  # the first may also compile byte code
    assert tries[0]["loaded"] == []
    assert tries[0]["n_assets"] > 0
    assert min(each["cpu_seconds"] for each in tries) < MAX_CPU_SECONDS
    assert list(tmp_path.iterdir()) == [tmp_path / "cwd"], "loading leaves no file behind"
