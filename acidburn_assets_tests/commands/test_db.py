"""`acidburn db`: tables brought up to date, and the database examined."""

import json

import psycopg
import pytest

from acidburn_assets.adapters.postgres import migrations
from acidburn_assets_tests.worlds import World, acidburn


@pytest.fixture
def empty(world: World, dsn: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database without tables that the settings name."""
    monkeypatch.setenv("ACIDBURN_POSTGRES", dsn)
    return dsn


FILES = [migration.file for migration in migrations.shipped()]


def test_a_dry_run_names_the_files_and_applies_none(empty: str) -> None:
    for _ in range(2):
        finished = acidburn("db", "migrate", "--dry-run")
        assert finished.code == 0
        assert finished.out.splitlines() == [f"would apply {file}" for file in FILES]


def test_tables_are_made_once(empty: str) -> None:
    finished = acidburn("db", "migrate")
    assert (finished.code, finished.err) == (0, "")
    assert finished.out.splitlines() == [f"applied {file}" for file in FILES]
    again = acidburn("db", "migrate")
    assert again.code == 0
    assert again.out.endswith("is up to date\n")
    with psycopg.connect(empty) as connection:
        found = connection.execute("select count(*) from acidburn.migrations").fetchone()
    assert found == (len(FILES),)


def examine(*options: str) -> tuple[int, list[dict[str, str]]]:
    finished = acidburn("db", "doctor", "--json", *options)
    return finished.code, [json.loads(line) for line in finished.out.splitlines()]


def test_a_database_without_tables_is_usable_and_says_what_comes(empty: str) -> None:
    code, findings = examine()
    assert code == 0
    (tables,) = [one for one in findings if one["name"] == "tables"]
    assert tables["level"] == "warning"
    assert FILES[-1] in tables["what"]
    assert tables["mend"].startswith("acidburn db migrate")


def test_a_database_with_tables_is_looked_at_from_all_sides(empty: str) -> None:
    acidburn("db", "migrate")
    code, findings = examine("--plan", "medium")
    assert code == 0
    names = {one["name"] for one in findings}
    assert {"roles", "rights", "row level security", "exposure", "layout", "disk"} <= names
    (disk,) = [one for one in findings if one["name"] == "disk"]
    assert "Medium (100 GB" in disk["what"]


def test_what_is_open_to_everybody_ends_with_exit_code_1(empty: str) -> None:
    acidburn("db", "migrate")
    with psycopg.connect(empty) as connection:
        connection.execute("alter table acidburn.chunk_texts disable row level security")
    finished = acidburn("db", "doctor")
    assert finished.code == 1
    assert finished.err == "Error: unusable: row level security\n"
    assert "→ alter table" in finished.out
    assert examine()[0] == 1


def test_a_database_that_is_away_ends_with_exit_code_1_and_no_password(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACIDBURN_POSTGRES", "host=127.0.0.1 port=1 dbname=nowhere password=hush")
    for arguments in (("db", "doctor"), ("db", "migrate"), ("db", "migrate", "--dry-run")):
        finished = acidburn(*arguments)
        assert finished.code == 1, arguments
        assert "127.0.0.1:1" in finished.out.replace("\n", "") + finished.err
        assert "hush" not in finished.out + finished.err


def test_an_unknown_plan_names_those_that_are(world: World) -> None:
    finished = acidburn("db", "doctor", "--plan", "huge")
    assert finished.code == 2
    assert "'16xl'" in finished.err.lower()
