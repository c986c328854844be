"""The files around the package agree on what is declared, pinned, set, built and documented."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import boto3
import dagster as dg
import pytest
import yaml
from dagster._core.storage.compute_log_manager import ComputeIOType
from hypothesis import given
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic import SecretStr

import acidburn_assets
from acidburn_assets.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
ENV_EXAMPLE = (ROOT / "deploy" / "env.example").read_text(encoding="utf-8")

PINS = {
    canonicalize_name(name): version
    for name, version in (
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if not line.startswith("#")
    )
}

EXEMPT = re.compile(r"pip$|nvidia-|cuda-|triton$")
"""Not pinned: the venv brings pip; torch's CUDA build, and only that, brings the others."""


def declared(extra: str = "") -> list[Requirement]:
    """What pyproject.toml asks for."""
    project = PYPROJECT["project"]
    lines = project["optional-dependencies"][extra] if extra else project["dependencies"]
    return [Requirement(line) for line in lines]


# ---- dependencies ----------------------------------------------------------------------------


def test_every_pin_is_one_exact_public_version() -> None:
    assert [pin for pin in PINS.items() if not re.fullmatch(r"\d[\w.]*", pin[1])] == []


def test_every_declared_dependency_is_pinned() -> None:
    assert [
        need.name
        for need in declared() + declared("dev")
        if canonicalize_name(need.name) not in PINS
    ] == []


def test_everything_the_dependencies_need_is_pinned() -> None:
    unpinned = {name for name in closure() if not EXEMPT.match(name)} - set(PINS)
    assert unpinned == set()


def test_what_is_installed_is_what_is_pinned() -> None:
    installed = {canonicalize_name(each.name): each.version for each in metadata.distributions()}
    strays = {
        name: (version, installed[name])
        for name, version in PINS.items()
        if name in installed and installed[name].partition("+")[0] != version
    }
    assert strays == {}, "make setup"


def closure() -> set[str]:
    """Names of all distributions that ours needs with its dev extra, in this environment."""
    seen: set[tuple[str, tuple[str, ...]]] = set()
    todo = [(need.name, tuple(need.extras)) for need in declared() + declared("dev")]
    while todo:
        name, extras = todo.pop()
        if (canonicalize_name(name), extras) in seen:
            continue
        seen.add((canonicalize_name(name), extras))
        todo += [
            (need.name, tuple(need.extras))
            for need in map(Requirement, metadata.requires(name) or [])
            if need.marker is None
            or any(need.marker.evaluate({"extra": extra}) for extra in ("", *extras))
        ]
    return {name for name, _ in seen}


def imported(folder: str) -> Iterator[tuple[str, str]]:
    """(top-level module, file) of every import of something that is not Python's and not ours."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), path)):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules = [node.module or ""]
            else:
                continue
            for module in {module.partition(".")[0] for module in modules}:
                if module not in sys.stdlib_module_names and not module.startswith("acidburn_"):
                    yield module, str(path.relative_to(ROOT))


@pytest.mark.parametrize(
    ("folder", "extras"), [("acidburn_assets", [""]), ("acidburn_assets_tests", ["", "dev"])]
)
def test_what_is_imported_is_declared(folder: str, extras: list[str]) -> None:
    names = {canonicalize_name(need.name) for extra in extras for need in declared(extra)}
    names.add("botocore")  # is boto3's other half: its errors and configuration live there
    owners = metadata.packages_distributions()
    undeclared = {
        (module, path)
        for module, path in imported(folder)
        if names.isdisjoint(map(canonicalize_name, owners.get(module, [])))
    }
    assert undeclared == set()


# ---- settings --------------------------------------------------------------------------------


def uncommented() -> str:
    """env.example with every setting switched on."""
    return re.sub(r"^#(?=[A-Z0-9_]+=)", "", ENV_EXAMPLE, flags=re.MULTILINE)


def test_env_example_names_every_setting_once_in_order() -> None:
    names = re.findall(r"^([A-Z0-9_]+)=", uncommented(), flags=re.MULTILINE)
    assert names == [name.upper() for name in Settings.model_fields]


def test_env_example_shows_the_defaults(tmp_path: Path) -> None:
    """All its lines switched on give the same settings as no file at all."""
    path = tmp_path / "all.env"
    path.write_text(uncommented(), encoding="utf-8")
    assert Settings(_env_file=path) == Settings(_env_file=None)


def test_env_example_shows_the_value_of_every_default() -> None:
    shown = dict(re.findall(r"^([A-Z0-9_]+)=(.*)$", uncommented(), flags=re.MULTILINE))
    for name, field in Settings.model_fields.items():
        if name == "acidburn_datasets":  # an absolute path of whoever reads it
            continue
        default = "" if isinstance(field.default, SecretStr) else str(field.default)
        assert shown[name.upper()] == default


def test_env_example_as_it_is_sets_nothing() -> None:
    assert [line for line in ENV_EXAMPLE.splitlines() if line and not line.startswith("#")] == []


@given(st.text(st.characters(exclude_categories=["C", "Z"], include_characters=" "), min_size=1))
def test_any_password_can_be_written_in_env_file_as_explained(password: str) -> None:
    """A database password with special characters once broke the connection string."""
    escaped = password.replace("\\", "\\\\").replace("'", "\\'")
    path = Path("passwords.env")
    path.write_text(f"SUPABASE_PASSWORD='{escaped}'\n", encoding="utf-8")
    read = Settings(_env_file=path).supabase_password.get_secret_value()
    assert read == password or "${" in password


# ---- Dagster's instance ----------------------------------------------------------------------


@pytest.fixture
def dagster_home(tmp_path: Path) -> Path:
    home = tmp_path / "dagster"
    home.mkdir()
    shutil.copy(ROOT / "dagster.yaml", home)
    return home


def test_dagster_yaml_gives_the_instance_that_it_describes(dagster_home: Path) -> None:
    with dg.DagsterInstance.from_config(str(dagster_home)) as instance:
        assert not instance.telemetry_enabled
        assert not instance.nux_enabled
        concurrency = instance.get_concurrency_config()
        assert concurrency.run_queue_config is not None
        assert concurrency.run_queue_config.max_concurrent_runs == 4
        assert concurrency.pool_config.default_pool_limit == 1
        assert concurrency.pool_config.pool_granularity is not None
        assert concurrency.pool_config.pool_granularity.value == "run"
        assert type(instance.run_coordinator).__name__ == "QueuedRunCoordinator"
        assert instance.run_monitoring_enabled
        assert instance.run_monitoring_max_resume_run_attempts == 0
        assert instance.run_retries_enabled
        assert not instance.run_retries_retry_on_asset_or_op_failure
        for daemon in (
            instance.get_sensor_settings(),
            instance.get_scheduler_settings(),
            instance.get_backfill_settings(),
        ):
            assert daemon["use_threads"]


def test_step_logs_go_to_the_bucket_where_that_file_is_appended(
    dagster_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    optional = (ROOT / "deploy" / "dagster.bucket-logs.yaml").read_text(encoding="utf-8")
    with (dagster_home / "dagster.yaml").open("a", encoding="utf-8") as file:
        file.write(optional)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("B2_BUCKET", "corpus")
        monkeypatch.setenv("B2_ENDPOINT", f"http://{host}:{port}")
        for name in re.findall(r"AWS_[A-Z_]+", optional):
            monkeypatch.setenv(name, "when_required" if "CHECKSUM" in name else "us-east-1")
        bucket = boto3.client("s3", endpoint_url=f"http://{host}:{port}")
        bucket.create_bucket(Bucket="corpus")
        with dg.DagsterInstance.from_config(str(dagster_home)) as instance:
            logs = instance.compute_log_manager
            with logs.open_log_stream(["run", "compute_logs", "step"], ComputeIOType.STDERR) as out:
                assert out is not None
                out.write("one line of a step")
        (found,) = bucket.list_objects_v2(Bucket="corpus")["Contents"]
        stored = bucket.get_object(Bucket="corpus", Key=found["Key"])["Body"].read()
        bucket.close()
    finally:
        server.stop()
    assert found["Key"].startswith("logs/")
    assert stored == b"one line of a step"


def test_workspace_and_pyproject_name_the_same_definitions() -> None:
    workspace = yaml.safe_load((ROOT / "workspace.yaml").read_text(encoding="utf-8"))
    (location,) = workspace["load_from"]
    assert location["python_module"]["module_name"] == PYPROJECT["tool"]["dagster"]["module_name"]


# ---- make ------------------------------------------------------------------------------------

FAKE_PYTHON = """#!/bin/sh
case "$*" in
  *version_info*) exit {too_old} ;;
  *ensurepip*) exit {no_ensurepip} ;;
  "-m venv"*)
    case "$*" in *--clear*) rm -rf .venv ;; esac
    mkdir -p .venv/bin
    echo 'echo "$*" >> pip.log; touch .venv/unpacked; test -e network' > .venv/bin/pip
    echo 'exit 0' > .venv/bin/python
    chmod +x .venv/bin/pip .venv/bin/python ;;
esac
"""


class Checkout:
    """A folder with the Makefile and a Python that only pretends; pip works while `network` is."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("Makefile", "pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, root)
        self.root.joinpath("network").touch()
        self.set_python()

    def set_python(self, *, too_old: int = 0, no_ensurepip: int = 0) -> None:
        python = self.root / "python"
        python.write_text(FAKE_PYTHON.format(too_old=too_old, no_ensurepip=no_ensurepip))
        python.chmod(0o755)

    def make(self, *targets: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["make", "PYTHON=./python", *targets],
            cwd=self.root,
            env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")},
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def n_installations(self) -> int:
        log = self.root / "pip.log"
        return len(log.read_text().splitlines()) if log.exists() else 0


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    root = tmp_path / "checkout"
    root.mkdir()
    return Checkout(root)


def test_make_alone_lists_every_target(checkout: Checkout) -> None:
    (phony,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, flags=re.MULTILINE)
    listed = re.findall(r"^  make (\S+) +\S", checkout.make().stdout, flags=re.MULTILINE)
    assert sorted(listed) == sorted(phony.split())


def test_targets_that_ci_and_documents_name_exist() -> None:
    (phony,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, flags=re.MULTILINE)
    documents = [
        ROOT / ".ci" / "run",
        ROOT / "constraints.txt",
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
    ]
    for path in documents:
        text = path.read_text(encoding="utf-8")
        named = set(re.findall(r"[`\"] ?make ([a-z-]+)", text))
        named |= set(re.findall(r"^make ([a-z-]+) *(?:#.*)?$", text, flags=re.MULTILINE))
        assert named <= set(phony.split()), path


def test_setup_installs_once(checkout: Checkout) -> None:
    assert checkout.make("setup").returncode == 0
    assert checkout.make("setup").returncode == 0
    assert checkout.n_installations == 1


def test_setup_installs_with_the_pins_and_the_dev_extra(checkout: Checkout) -> None:
    checkout.make("setup")
    assert (checkout.root / "pip.log").read_text() == (
        "install --constraint constraints.txt --editable .[dev]\n"
    )


@pytest.mark.parametrize("changed", ["pyproject.toml", "constraints.txt"])
def test_setup_installs_again_when_a_dependency_file_is_newer(
    checkout: Checkout, changed: str
) -> None:
    checkout.make("setup")
    newer = (checkout.root / ".venv" / ".installed").stat().st_mtime + 2
    os.utime(checkout.root / changed, (newer, newer))
    checkout.make("setup")
    assert checkout.n_installations == 2


def test_interrupted_setup_starts_from_a_clean_venv_and_completes(checkout: Checkout) -> None:
    """A pip that was killed leaves half-written packages which it later takes for whole ones."""
    network = checkout.root / "network"
    network.unlink()
    assert checkout.make("setup").returncode != 0
    assert not (checkout.root / ".venv" / ".installed").exists()
    (checkout.root / ".venv" / "half-written").touch()
    network.touch()
    again = checkout.make("setup")
    assert again.returncode == 0
    assert "interrupted" in again.stdout
    assert not (checkout.root / ".venv" / "half-written").exists()
    assert not (checkout.root / ".venv" / ".installing").exists()


def test_too_old_python_is_told_and_leaves_nothing(checkout: Checkout) -> None:
    checkout.set_python(too_old=1)
    finished = checkout.make("setup")
    assert finished.returncode != 0
    assert "needs Python 3.11 or newer" in finished.stderr
    assert not (checkout.root / ".venv").exists()


def test_python_without_ensurepip_is_told_how_to_mend_it(checkout: Checkout) -> None:
    checkout.set_python(no_ensurepip=1)
    finished = checkout.make("setup")
    assert finished.returncode != 0
    assert "apt-get install python3-venv" in finished.stderr
    assert not (checkout.root / ".venv").exists()


def test_makefile_and_pyproject_agree_on_the_oldest_python() -> None:
    (oldest,) = re.findall(r"version_info < \((\d+), (\d+)\)", MAKEFILE)
    assert PYPROJECT["project"]["requires-python"] == ">=" + ".".join(oldest)


def test_clean_keeps_the_state_folder_and_env(checkout: Checkout) -> None:
    for name in (".acidburn/objects/a.parquet", ".env", "acidburn_assets/core/keys.py"):
        (checkout.root / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout.root / name).touch()
    for name in (".venv/bin", "acidburn_assets/core/__pycache__", "acidburn_assets_tests", "build"):
        (checkout.root / name).mkdir(parents=True, exist_ok=True)
    before = {path.name for path in checkout.root.iterdir()}
    assert checkout.make("clean").returncode == 0
    assert {path.name for path in checkout.root.iterdir()} == before - {".venv", "build"}
    assert (checkout.root / ".acidburn/objects/a.parquet").exists()
    assert list(checkout.root.rglob("__pycache__")) == []


# ---- the package -----------------------------------------------------------------------------


def test_every_file_that_is_no_module_is_shipped() -> None:
    shipped = {
        path
        for package, patterns in PYPROJECT["tool"]["setuptools"]["package-data"].items()
        for pattern in patterns
        for path in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    files = (ROOT / "acidburn_assets").rglob("*")
    there = {path for path in files if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert there == shipped


# ---- release ---------------------------------------------------------------------------------


def test_changelog_begins_with_the_version_of_the_package() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert (
        re.findall(r"^## \[(.*?)\]", changelog, flags=re.MULTILINE)[0]
        == acidburn_assets.__version__
    )
