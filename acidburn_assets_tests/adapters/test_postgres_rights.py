"""What each role may do, tried by connecting as it; and what it must not, in every way there is."""

from collections.abc import Iterator

import pytest
from psycopg import errors

from acidburn_assets.adapters.postgres import PassageSearch, pool_state, replace_lineage, unload
from acidburn_assets.core.errors import DatabaseError
from acidburn_assets.core.lineage import sources_of
from acidburn_assets.core.ranking import Query
from acidburn_assets_tests import lineage_samples, postgres_samples
from acidburn_assets_tests.adapters.supabase import Cloud, cloud, server_of_roles, supabase

__all__ = ["cloud", "server_of_roles", "supabase"]

TABLES = (
    *("pools", "shards", "loads", "pool_loads", "cluster_headers", "migrations"),
    *("chunk_embeddings", "chunk_texts", "chunk_clusters", "lineage", "lineage_shards"),
)
WEB = ("anon", "authenticated", "authenticator", "a_stranger")
SAMPLE = postgres_samples.make()


@pytest.fixture
def loaded(cloud: Cloud) -> Cloud:
    """With a shard, loaded by its owner."""
    owner = cloud.as_role("owner")
    postgres_samples.load(owner, SAMPLE)
    postgres_samples.load_clusters(owner, SAMPLE)
    return cloud


def column(cloud: Cloud, query: str) -> list[str]:
    with cloud.as_role("owner").connect(purpose="looking") as connection:
        return [value for (value,) in connection.execute(query.encode()).fetchall()]


def changes_of(table: str) -> Iterator[str]:
    """Every way to change a table's rows."""
    name = f"acidburn.{table}"
    yield f"delete from {name}"
    yield f"truncate {name}"
    yield f"insert into {name} default values"
    yield f"copy {name} from stdin"


def reads_of(table: str) -> Iterator[str]:
    """Every way to read a table's rows."""
    name = f"acidburn.{table}"
    yield f"select from {name}"
    yield f"select count(*) from {name}"
    yield f"copy {name} to stdout"


def upheavals(table: str) -> Iterator[str]:
    """Every way to change what a table is, or whose."""
    name = f"acidburn.{table}"
    yield f"drop table {name}"
    yield f"alter table {name} disable row level security"
    yield f"alter table {name} add column mine int"
    yield f"create index on {name} ((1))"
    yield f"create policy mine on {name} using (true)"
    yield f"drop policy reads on {name}"
    yield (
        f"create trigger mine before update on {name} for each row"
        " execute function suppress_redundant_updates_trigger()"
    )
    yield f"comment on table {name} is 'mine'"
    yield f"create view public.mine as table {name}"


OF_THE_SCHEMA = (
    "create table acidburn.mine (a int)",
    "create function acidburn.mine() returns int language sql as 'select 1'",
    "drop schema acidburn cascade",
    "alter schema acidburn rename to mine",
    "set role owner",
    "alter role current_user bypassrls",
    "alter role current_user superuser",
    "create role mine login",
)


def refuses(cloud: Cloud, role: str, statement: str) -> None:
    try:
        cloud.run(role, statement)
    except errors.InsufficientPrivilege:
        return
    pytest.fail(f"{role} could {statement!r}")


def test_the_list_of_tables_is_whole(loaded: Cloud) -> None:
    found = column(loaded, "select tablename from pg_tables where schemaname = 'acidburn'")
    assert sorted(found) == sorted(TABLES)


@pytest.mark.parametrize("role", WEB)
def test_the_web_and_strangers_can_do_nothing(loaded: Cloud, role: str) -> None:
    for table in TABLES:
        for statements in (reads_of(table), changes_of(table), upheavals(table)):
            for statement in statements:
                refuses(loaded, role, statement)
    for statement in OF_THE_SCHEMA:
        refuses(loaded, role, statement)


@pytest.mark.parametrize("role", [*WEB, "a_reader", "a_loader"])
def test_sequences_and_functions_are_nobodys(loaded: Cloud, role: str) -> None:
    sequences = column(
        loaded, "select sequencename from pg_sequences where schemaname = 'acidburn'"
    )
    assert sequences
    for name in sequences:
        refuses(loaded, role, f"select nextval('acidburn.{name}')")
        refuses(loaded, role, f"select setval('acidburn.{name}', 1)")
        refuses(loaded, role, f"select from acidburn.{name}")
    functions = "select oid from pg_proc where pronamespace = 'acidburn'::regnamespace"
    assert column(loaded, functions) == []


def test_a_reader_reads_and_changes_nothing(loaded: Cloud) -> None:
    for table in TABLES:
        assert loaded.run("a_reader", f"select from acidburn.{table}") >= 0
        for statements in (changes_of(table), upheavals(table)):
            for statement in statements:
                refuses(loaded, "a_reader", statement)
    assert loaded.run("a_reader", "select from acidburn.chunk_texts") == len(SAMPLE.chunk_ids)
    refuses(loaded, "a_reader", "set role acidburn_loader")
    for statement in OF_THE_SCHEMA:
        refuses(loaded, "a_reader", statement)


@pytest.mark.parametrize("role", ["a_reader", "a_loader"])
def test_rights_cannot_be_handed_on(loaded: Cloud, role: str) -> None:
    """Postgres answers such a grant with a warning only."""
    loaded.run(role, "grant usage on schema acidburn to a_stranger")
    loaded.run(role, "grant select on acidburn.chunk_texts to a_stranger")
    refuses(loaded, role, "grant acidburn_reader to a_stranger")
    refuses(loaded, "a_stranger", "select from acidburn.chunk_texts")
    assert loaded.run("owner", "grant usage on schema acidburn to a_stranger") == -1
    refuses(loaded, "a_stranger", "select from acidburn.chunk_texts")


def test_a_reader_can_ask(loaded: Cloud) -> None:
    reader = loaded.as_role("a_reader")
    state = pool_state(reader, "library")
    assert state is not None
    assert state.n_chunks == len(SAMPLE.chunk_ids)
    search = PassageSearch(reader, "library")
    query = Query(SAMPLE.halves[0], {}, lexical_share=0)
    assert search.everywhere(query, limit=3).hits[0].chunk_id == SAMPLE.chunk_ids[0]
    assert search.inside(query, [int(SAMPLE.cells[0])], limit=1).hits
    search.close()


def test_a_reader_that_loads_is_told_whom_to_ask(loaded: Cloud) -> None:
    with pytest.raises(DatabaseError, match=r"permission denied .*grant the user acidburn_loader"):
        postgres_samples.load(loaded.as_role("a_reader"), postgres_samples.make(shard="000001"))


def test_a_loader_loads_and_unloads_and_no_more(loaded: Cloud) -> None:
    loader = loaded.as_role("a_loader")
    second = postgres_samples.make(shard="000001")
    assert postgres_samples.load(loader, second).n_rows == 20
    assert postgres_samples.load_clusters(loader, second).n_rows == 20
    lineage = lineage_samples.lineage()
    sources = sources_of(lineage.schema, key="lineage")
    assert (
        replace_lineage(
            loader,
            postgres_samples.POOL,
            lineage=lineage.to_batches(),
            sources=sources,
            source_sha256="lineage 1",
            run_id="run-1",
        ).n_rows
        == 4
    )
    assert postgres_samples.load(loader, second).is_skipped
    moved = second.with_load(assignments_sha256="second clustering")
    assert postgres_samples.load(loader, moved).n_changed == 0  # compared in a temporary table
    for table in TABLES:
        for statement in (*upheavals(table), f"truncate acidburn.{table}"):
            refuses(loaded, "a_loader", statement)
    for statement in changes_of("migrations"):
        refuses(loaded, "a_loader", statement)
    for statement in OF_THE_SCHEMA:
        refuses(loaded, "a_loader", statement)
    assert unload(loader, "library")["chunk_texts"] == 40


def test_a_loader_without_bypassrls_is_told_what_it_lacks(loaded: Cloud) -> None:
    with pytest.raises(DatabaseError, match=r"row-level security.*alter role … bypassrls"):
        postgres_samples.load(loaded.as_role("a_subject"), postgres_samples.make(shard="000001"))


def test_grants_to_the_web_are_refused_by_row_level_security(loaded: Cloud) -> None:
    """Should somebody grant the schema to anon after all, its rows stay hidden."""
    loaded.run("owner", "grant usage on schema acidburn to anon")
    loaded.run("owner", "grant all on all tables in schema acidburn to anon")
    for table in TABLES:
        assert loaded.run("anon", f"select from acidburn.{table}") == 0
        assert loaded.run("anon", f"delete from acidburn.{table}") == 0
    with pytest.raises(errors.InsufficientPrivilege, match="row-level security"):
        loaded.run("anon", "insert into acidburn.lineage values (1, 1, 1, 1, 1)")


def test_roles_that_are_given_a_login_have_limits(cloud: Cloud) -> None:
    cloud.run("owner", "alter role acidburn_reader login")
    cloud.run("owner", "alter role acidburn_loader login")
    limits = {}
    for role in ("acidburn_reader", "acidburn_loader"):
        with cloud.as_role(role).connect(purpose="looking") as connection:
            limits[role] = connection.execute(
                "select current_setting('statement_timeout'), current_setting('lock_timeout'),"
                " current_setting('idle_in_transaction_session_timeout')"
            ).fetchone()
    assert limits == {
        "acidburn_reader": ("1min", "0", "1min"),
        "acidburn_loader": ("1h", "10min", "1h"),
    }
