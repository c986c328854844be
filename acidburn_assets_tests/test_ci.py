"""The programs of .ci: what they find, what they let pass, and what they refuse to claim."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CI = Path(__file__).resolve().parents[1] / ".ci"


def run_in(folder: Path, program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(CI / program)],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


# ---- secret_scan -----------------------------------------------------------------------------


class Repository:
    """A git repository of the test's own, deaf to the configuration of whoever runs it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.git("init", "--quiet")

    def git(self, *arguments: str) -> None:
        who = ["-c", "user.name=someone", "-c", "user.email=someone@example.org"]
        alone = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
        subprocess.run(["git", *who, *arguments], cwd=self.root, env=os.environ | alone, check=True)

    def write(self, name: str, text: str) -> None:
        (self.root / name).write_text(text, encoding="utf-8")

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "a change")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    root = tmp_path / "repository"
    root.mkdir()
    return Repository(root)


# In two halves each, so that this file holds none.
CREDENTIALS = {
    "B2 application key": "K005" + "dI8X2Y4rUmer/BH3M1XS0DRdJuP",
    "xAI key": "xai-" + "rsheE2OEfwZeA5jbsBXA3hcMNWcyTLvJ47rGpctaegMIc8mAsNqjSc3v",
    "Hugging Face token": "hf_" + "OUTptBqHtJvaYALubyNLOidOOvDwRwMTrV",
    "OpenAI-style key": "sk-" + "proj-4ZaQx8LmN0pRsTuVwXyZ12345678901",
    "Vast.ai key": "VAST_API_KEY="
    + "5b5ab89c3049787a5d33aa7e52a6e87316a58a2b4d98ebd9dd1d460fd71e9a72",
    "Supabase token": "sbp_" + "0123456789abcdef0123456789abcdef01234567",
    "JSON web token": "eyJ" + "hbGciOiJIUzI1NiJ9.eyJpc3MiOiJzdXBhYmFzZSJ9.c2lnbmF0dXJlLW9mLWl0",
    "AWS key id": "AKIA" + "SHPCCM3DA6HKTPB2",
    "GitHub token": "ghp_" + "0123456789abcdefghijABCDEFGHIJ012345",
    "private key": "-----BEGIN OPENSSH PRIVATE KEY-----" + "\n" + "b3BlbnNzaC1rZXktdjEA" * 3,
    "password in a DSN": "postgresql://postgres.ref:"
    + "FbLd9Rb9xqODtLMu@host.example.org/postgres",
}


@pytest.mark.parametrize("kind", CREDENTIALS)
def test_credential_in_a_file_that_is_not_added_yet_is_found(
    repository: Repository, kind: str
) -> None:
    repository.write("notes.txt", f"\nkey: {CREDENTIALS[kind]}\n")
    scan = run_in(repository.root, "secret_scan.py")
    assert scan.returncode == 1
    assert f"notes.txt: line 2: {kind} [" in scan.stdout
    assert CREDENTIALS[kind].splitlines()[0][12:] not in scan.stdout, "the report repeats it"


def test_credential_that_a_later_commit_removed_is_found(repository: Repository) -> None:
    repository.write("run.py", CREDENTIALS["xAI key"])
    repository.commit()
    repository.write("run.py", "clean again")
    repository.commit()
    scan = run_in(repository.root, "secret_scan.py")
    assert scan.returncode == 1
    assert "run.py at " in scan.stdout


def test_credential_that_is_only_staged_is_found(repository: Repository) -> None:
    repository.write("run.py", CREDENTIALS["xAI key"])
    repository.git("add", "run.py")
    (repository.root / "run.py").unlink()
    assert run_in(repository.root, "secret_scan.py").returncode == 1


def test_own_password_is_found_although_it_has_no_format(repository: Repository) -> None:
    repository.write("notes.txt", "log in with correct horse battery")
    scan = run_in(repository.root, "secret_scan.py", SUPABASE_PASSWORD="correct horse battery")
    assert scan.returncode == 1
    assert "value of SUPABASE_PASSWORD" in scan.stdout
    assert "correct horse" not in scan.stdout


def test_ignored_env_file_is_not_a_finding(repository: Repository) -> None:
    repository.write(".gitignore", ".env\n")
    repository.write(".env", f"XAI_API_KEY={CREDENTIALS['xAI key']}\n")
    assert run_in(repository.root, "secret_scan.py").returncode == 0


def test_hashes_and_made_up_passwords_are_no_findings(repository: Repository) -> None:
    repository.write(
        "test_store.py",
        "sha256 = '5b5ab89c3049787a5d33aa7e52a6e87316a58a2b4d98ebd9dd1d460fd71e9a72'\n"
        "dsn = 'postgresql://postgres:secret@localhost/postgres'\n"
        "key_id = 'AKIAIOSFODNN7EXAMPLE'\n"
        "SUPABASE_PASSWORD=\n",
    )
    repository.commit()
    scan = run_in(repository.root, "secret_scan.py")
    assert scan.returncode == 0, scan.stdout


# ---- audit_deps ------------------------------------------------------------------------------

FINE = {"name": "fine", "version": "1.0", "vulns": []}
BROKEN = {
    "name": "broken",
    "version": "1.0",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"], "aliases": []}],
}
UNKNOWN = {"name": "unknown", "version": "1.0", "skip_reason": "Dependency not found on PyPI"}


def audit(folder: Path, answer: str, complaint: str = "") -> subprocess.CompletedProcess[str]:
    """audit_deps.py over a pip-audit that gives this answer."""
    (folder / "pip_audit.py").write_text(
        f"import sys\nsys.stdout.write({answer!r})\nsys.stderr.write({complaint!r})\n"
    )
    return run_in(folder, "audit_deps.py", PYTHONPATH=str(folder))


@pytest.mark.parametrize(
    ("pins", "status", "told"),
    [
        ([FINE], 0, "1 of 1 pins audited, 0 vulnerable"),
        ([FINE, BROKEN], 1, "broken 1.0: PYSEC-1, fixed in 1.1"),
        ([FINE, UNKNOWN], 0, "not audited: unknown"),
        ([UNKNOWN], 3, "NOT AUDITED"),
    ],
)
def test_audit_says_what_the_service_answered(
    tmp_path: Path, pins: list[dict[str, object]], status: int, told: str
) -> None:
    audited = audit(tmp_path, json.dumps({"dependencies": pins, "fixes": []}))
    assert (audited.returncode, told in audited.stdout) == (status, True), audited.stdout


def test_unreachable_service_is_not_an_audit(tmp_path: Path) -> None:
    audited = audit(tmp_path, "", "requests.exceptions.ConnectionError: no route\n")
    assert audited.returncode == 3
    assert "NOT AUDITED" in audited.stdout


def test_failure_of_pip_audit_itself_is_not_taken_for_an_unreachable_service(
    tmp_path: Path,
) -> None:
    audited = audit(tmp_path, "", "ERROR: invalid requirements input: constraints.txt\n")
    assert audited.returncode == 2
    assert "invalid requirements input" in audited.stdout


# ---- run -------------------------------------------------------------------------------------

MADE = {
    "documents": 3,
    "chunks": 9,
    "clusters": 2,
    "passages": [{"document": "copy.__doc__"}],
    "seconds": 1.0,
}


class Checkout:
    """A checkout in which every section of .ci/run is a stub that passes, until told otherwise."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in (".ci", "deploy", ".venv/bin", "bin"):
            (root / folder).mkdir(parents=True)
        shutil.copy(CI / "run", root / ".ci")
        for name in ("dagster.yaml", "workspace.yaml", "deploy/env.example"):
            (root / name).touch()
        (root / ".venv/bin/python").symlink_to(sys.executable)
        for name in ("python3", "chromium"):
            self.write(f"bin/{name}", "#!/bin/sh\n")
        self.write("bin/apt-get", f'#!/bin/sh\necho "$*" >> {root}/apt-get.log\n')
        self.answer(make={}, advisories=0, made=(12, 0))

    def answer(self, *, make: dict[str, int], advisories: int, made: tuple[int, int]) -> None:
        """Exit statuses of make's targets and of the audit; `materialized` of both demos."""
        targets = ("setup", "secrets", "lint", "test", "chaos")
        self.write(
            "Makefile", "".join(f"{name}:\n\t@exit {make.get(name, 0)}\n" for name in targets)
        )
        self.write(".ci/audit_deps.py", f"raise SystemExit({advisories})\n")
        self.write(".venv/bin/dagster", "#!/bin/sh\n")
        first, second = (json.dumps(MADE | {"materialized": n}) for n in made)
        self.write(
            ".venv/bin/acidburn",
            "#!/bin/sh\necho a table\n"
            f"if mkdir \"$ACIDBURN_HOME\" 2> /dev/null; then echo '{first}'; "
            f"else echo '{second}'; fi\n",
        )

    def write(self, name: str, text: str) -> None:
        (self.root / name).write_text(text, encoding="utf-8")
        (self.root / name).chmod(0o755)

    def run(self) -> tuple[int, list[str]]:
        """Exit status and lines of .ci/run."""
        finished = subprocess.run(
            ["bash", ".ci/run"],
            cwd=self.root,
            env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
            | {"PATH": f"{self.root}/bin:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
        )
        return finished.returncode, finished.stdout.splitlines()


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path / "checkout")


def test_ci_ends_with_its_counts(checkout: Checkout) -> None:
    status, lines = checkout.run()
    assert (status, lines[-1]) == (0, "ci: 9 passed, 0 failed")
    assert not (checkout.root / "apt-get.log").exists(), "nothing is missing, nothing is installed"


def test_ci_installs_what_the_machine_lacks(checkout: Checkout) -> None:
    checkout.write("bin/python3", '#!/bin/sh\ncase "$*" in *ensurepip*) exit 1 ;; esac\n')
    assert checkout.run()[0] == 0
    log = (checkout.root / "apt-get.log").read_text()
    assert log.splitlines()[-1].split()[-1] == "python3-venv"


def test_ci_goes_on_after_a_failed_section(checkout: Checkout) -> None:
    checkout.answer(make={"lint": 1}, advisories=0, made=(12, 0))
    status, lines = checkout.run()
    assert (status, lines[-1]) == (1, "ci: 8 passed, 1 failed")
    assert any(line.startswith("---- lint: FAILED") for line in lines)


def test_ci_stops_where_nothing_could_be_installed(checkout: Checkout) -> None:
    checkout.answer(make={"setup": 1}, advisories=0, made=(12, 0))
    status, lines = checkout.run()
    assert (status, lines[-1]) == (1, "ci: 1 passed, 1 failed")


@pytest.mark.parametrize("made", [(12, 1), (0, 0)])
def test_ci_fails_where_the_second_demo_makes_something_or_the_first_makes_nothing(
    checkout: Checkout, made: tuple[int, int]
) -> None:
    checkout.answer(make={}, advisories=0, made=made)
    status, lines = checkout.run()
    assert status == 1
    assert any(line.startswith("---- demo: FAILED") for line in lines)


@pytest.mark.parametrize(("advisories", "status"), [(1, 1), (2, 1), (3, 0)])
def test_ci_forgives_only_an_advisory_service_that_cannot_be_reached(
    checkout: Checkout, advisories: int, status: int
) -> None:
    checkout.answer(make={}, advisories=advisories, made=(12, 0))
    assert checkout.run()[0] == status
