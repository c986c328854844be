"""What `examine` finds in a database: nothing where nothing is wrong, and each defect with a mend
that mends it."""

import re

import psycopg
import pytest
from pydantic import SecretStr

from acidburn_assets.adapters.postgres import Finding, Postgres, examination, examine
from acidburn_assets.core.cost import POSTGRES_PLANS, PostgresPlan
from acidburn_assets_tests import postgres_samples
from acidburn_assets_tests.adapters.supabase import Cloud, cloud, server_of_roles, supabase
from acidburn_assets_tests.postgres_server import database, dsn, postgres_server

__all__ = ["cloud", "database", "dsn", "postgres_server", "server_of_roles", "supabase"]


def faults(findings: list[Finding]) -> list[Finding]:
    return [one for one in findings if one.level in ("unusable", "warning")]


def remarks(cloud: Cloud) -> list[Finding]:
    """What its owner is told beyond that all is well."""
    return [one for one in examine(cloud.as_role("owner")) if one.level != "ok"]


@pytest.fixture
def healthy(cloud: Cloud) -> Cloud:
    """Nothing is wrong: loaded, and every login as it should be."""
    postgres_samples.load(cloud.as_role("owner"), postgres_samples.make())
    cloud.run("owner", "drop role a_subject")
    cloud.run("owner", "alter role a_reader set statement_timeout = '60s'")
    return cloud


def test_a_database_that_is_as_it_should_be_has_no_fault(healthy: Cloud) -> None:
    for role in ("owner", "a_loader", "a_reader"):
        findings = examine(healthy.as_role(role))
        assert faults(findings) == [], role
        names = [one.name for one in findings]
        assert names == sorted(names, key=names.index)
        assert {"database", "tables", "way", "TLS", "pgvector", "disk", "rights"} <= set(names)
    assert "a_reader may ask, and load nothing" in str(findings)


def test_an_examination_changes_nothing(dsn: str) -> None:
    postgres = Postgres(SecretStr(dsn))
    findings = examine(postgres)
    assert [one.name for one in faults(findings)] == ["tables"]
    assert "acidburn db migrate" in faults(findings)[0].mend
    with psycopg.connect(dsn) as connection:
        assert connection.execute("select to_regnamespace('acidburn')").fetchone() == (None,)


DEFECTS = {
    "alter table acidburn.chunk_texts disable row level security": (
        *("unusable", "row level security"),
        "off on acidburn.chunk_texts",
    ),
    "grant usage on schema acidburn to anon": ("unusable", "exposure", "anon has usage"),
    "grant select, delete on acidburn.chunk_texts to authenticated": (
        *("unusable", "exposure"),
        "authenticated has delete, select on the table acidburn.chunk_texts",
    ),
    "grant select (body) on acidburn.chunk_texts to anon": (
        *("unusable", "exposure"),
        "anon has select on the table acidburn.chunk_texts",
    ),
    "grant usage on sequence acidburn.pools_pool_id_seq to public": (
        *("unusable", "exposure"),
        "public has usage on the sequence acidburn.pools_pool_id_seq",
    ),
    # everybody may execute a new function
    "create function acidburn.mine() returns int language sql as 'select 1'": (
        *("unusable", "exposure"),
        "public has execute on the routine acidburn.mine()",
    ),
    "create policy everyone on acidburn.pools for select using (true)": (
        *("unusable", "exposure"),
        "the policy 'everyone' on acidburn.pools is for public",
    ),
    "alter role a_loader nobypassrls": (
        *("warning", "roles"),
        "a_loader is a member of acidburn_loader, and row level security",
    ),
    "alter role a_reader reset statement_timeout": (
        *("note", "roles"),
        "a_reader reads without a limit",
    ),
    "create index my_hnsw on acidburn.chunk_embeddings using hnsw"
    " ((embedding::extensions.halfvec(8)) extensions.halfvec_cosine_ops)": (
        *("warning", "layout"),
        "acidburn.my_hnsw is an index of kind hnsw",
    ),
    "alter table acidburn.chunk_embeddings alter column embedding set storage external": (
        *("warning", "layout"),
        "vectors do not lie in their rows",
    ),
    "alter extension vector set schema public": ("unusable", "pgvector", "in the schema 'public'"),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_found_and_its_mend_mends_it(healthy: Cloud, defect: str) -> None:
    before = remarks(healthy)
    healthy.run("postgres", defect)
    level, name, what = DEFECTS[defect]
    found = [one for one in remarks(healthy) if one not in before]
    assert [(one.level, one.name) for one in found] == [(level, name)] * len(found)
    (finding,) = [one for one in found if what in one.what]
    statement = re.split(r"[;,] ", finding.mend)[0]
    healthy.run("postgres", statement)
    if "create function" in defect:  # the web's own grants, by default privileges
        for one in found:
            healthy.run("postgres", one.mend)
    assert remarks(healthy) == before


def test_a_schema_that_the_data_api_serves_is_found(healthy: Cloud) -> None:
    healthy.run("postgres", "alter role authenticator set pgrst.db_schemas = 'public, acidburn'")
    (finding,) = faults(examine(healthy.as_role("owner")))
    assert (finding.level, finding.name) == ("unusable", "exposure")
    assert "Exposed schemas" in finding.mend
    healthy.run("postgres", "alter role authenticator set pgrst.db_schemas = 'public, graphql'")
    (finding,) = [one for one in examine(healthy.as_role("owner")) if one.name == "exposure"]
    assert (finding.level, "serves graphql, public" in finding.what) == ("ok", True)


def test_what_cannot_be_seen_of_the_data_api_is_said(healthy: Cloud) -> None:
    (finding,) = [one for one in examine(healthy.as_role("owner")) if one.name == "exposure"]
    assert finding.level == "note"
    assert "Exposed schemas" in finding.mend


@pytest.mark.parametrize(
    ("role", "what", "mend"),
    [
        ("a_subject", "row level security keeps it from COPY", 'alter role "a_subject" bypassrls'),
        ("a_stranger", "permission denied for schema acidburn", ""),
        ("anon", "permission denied for schema acidburn", ""),
    ],
)
def test_a_role_that_cannot_work_is_told_why(cloud: Cloud, role: str, what: str, mend: str) -> None:
    unusable = [one for one in examine(cloud.as_role(role)) if one.level == "unusable"]
    assert len(unusable) == 1
    assert what in unusable[0].what
    assert unusable[0].mend == mend


def test_a_database_that_is_read_only_is_found(healthy: Cloud) -> None:
    healthy.run("postgres", "alter role owner set default_transaction_read_only = on")
    (finding,) = faults(examine(healthy.as_role("owner")))
    assert (finding.level, finding.name, finding.what) == ("unusable", "writing", "read-only")
    assert "enlarge the disk" in finding.mend


def test_a_role_without_temporary_tables_is_found(healthy: Cloud) -> None:
    with psycopg.connect(healthy.dsn, autocommit=True) as connection:
        connection.execute(f"revoke temp on database {connection.info.dbname} from public".encode())
    (finding,) = faults(examine(healthy.as_role("a_loader")))
    assert (finding.level, finding.name) == ("warning", "writing")
    healthy.run("postgres", finding.mend)
    assert faults(examine(healthy.as_role("a_loader"))) == []


def test_the_size_is_held_against_the_plan(database: Postgres) -> None:
    def disk(plan: PostgresPlan | None) -> Finding:
        (found,) = [one for one in examine(database, plan=plan) if one.name == "disk"]
        return found

    assert (disk(None).level, "Free" in disk(None).what) == ("ok", True)
    assert disk(POSTGRES_PLANS[3]).level == "ok"
    assert "Medium (100 GB, $60 a month" in disk(POSTGRES_PLANS[3]).what
    full = disk(PostgresPlan("Tiny", 10**6, 1))
    assert full.level == "warning"
    assert "it needs Free; enlarge the disk" in full.mend


def test_a_database_beyond_every_plan_is_no_crash() -> None:
    assert examination._enough(10**15) == POSTGRES_PLANS[-1]


def test_an_old_pgvector_is_worth_a_warning(
    database: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examination, "SAFE_PGVECTOR", (99, 0, 0))
    (finding,) = [one for one in examine(database) if one.name == "pgvector"]
    assert finding.level == "warning"
    assert "before 99.0.0" in finding.what
    assert "max_parallel_maintenance_workers = 0" in finding.mend


def test_a_server_that_is_away_is_the_only_finding() -> None:
    findings = examine(Postgres(SecretStr("host=127.0.0.1 port=1 password=hush")))
    assert [(one.level, one.name) for one in findings] == [("unusable", "database")]
    assert "127.0.0.1:1" in findings[0].what
    assert "hush" not in findings[0].what


def test_tables_newer_than_the_package_are_unusable(database: Postgres, dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("insert into acidburn.migrations values ('29990101000000', 'n', 's')")
    (finding,) = examine(database)
    assert finding.level == "unusable"
    assert "upgrade Acidburn" in finding.what


def test_plain_connections_over_a_network_are_refused(
    database: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is not this machine's, as far as we can tell."""
    monkeypatch.setattr(examination, "_LOCAL", ())
    monkeypatch.setattr(examination, "_is_socket", lambda _: False)
    (finding,) = [one for one in examine(database) if one.name == "TLS"]
    assert finding.level == "unusable"
    assert "SUPABASE_SSLMODE=verify-full" in finding.mend
