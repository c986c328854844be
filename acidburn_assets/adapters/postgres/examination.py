"""Everything about a database that a person should know before the corpus lies in it.

Whether it can be used at all is `inspection`; here each finding stands by itself, and says how to
mend what it found. Nothing is changed.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

from acidburn_assets.adapters.postgres.connection import Connection, Postgres
from acidburn_assets.adapters.postgres.inspection import inspect
from acidburn_assets.core import cost
from acidburn_assets.core.cost import PostgresPlan
from acidburn_assets.core.errors import AcidburnError, DatabaseError

Level = Literal["ok", "note", "warning", "unusable"]
"""unusable: it does not work, or is open to those whom it must be closed to."""

SAFE_PGVECTOR = (0, 8, 2)
"""Older ones can write beyond a buffer in a parallel build of HNSW. Source: pgvector, CHANGELOG."""

_FULL_SHARE = 0.9
"""Of a plan's size, from where on it is called nearly full. Source: Supabase enlarges a disk at
90 %."""

_WEB = ("anon", "authenticated")
"""Supabase's roles of whoever calls its Data API."""

_LOCAL = ("localhost", "127.0.0.1", "::1")


class Finding(NamedTuple):
    """What one look found."""

    level: Level
    name: str
    what: str
    mend: str = ""  # "" where there is nothing to do


def examine(postgres: Postgres, *, plan: PostgresPlan | None = None) -> list[Finding]:
    """Looks at a database from all sides.

    Args:
        postgres: where.
        plan: what is paid for, to hold the size against; None: the smallest that is enough.

    Returns:
        Findings in the order of the looks. Where it cannot be reached or used at all, that alone.
    """
    try:
        found = inspect(postgres)
    except AcidburnError as error:
        return [Finding("unusable", "database", str(error))]
    findings = [
        Finding(
            "ok", "database", f"{found.where}: Postgres {found.version}, {found.seconds:.2f} s away"
        )
    ]
    if found.pending:
        findings.append(
            Finding(
                "warning",
                "tables",
                f"they lack {', '.join(found.pending)}",
                "acidburn db migrate, as their owner",
            )
        )
    else:
        findings.append(Finding("ok", "tables", "as this version of Acidburn needs them"))
    looks: list[Callable[[Connection], Iterator[Finding]]] = [
        lambda connection: _way(postgres, connection),
        _tls,
        _pgvector,
        _writing,
        _timeouts,
        _disk(plan),
    ]
    with postgres.connect(purpose="examining the database", autocommit=True) as connection:
        if _value(connection, "select to_regclass('acidburn.chunk_embeddings') is not null"):
            looks += [_roles, _rights, _security, _exposure, _layout]
        for look in looks:
            findings += look(connection)
    return findings


def _way(postgres: Postgres, connection: Connection) -> Iterator[Finding]:
    """Directly, or through a pooler and of which kind.

    A pooler tells a client another process than the one it works with. In transaction mode an idle
    client has none, and another client is given it.
    """
    host, port = connection.info.host, connection.info.port
    own = _value(connection, "select pg_backend_pid()")
    if "pooler.supabase.com" not in host and own == connection.info.backend_pid:
        yield Finding("ok", "way", f"{host}:{port}, directly")
        return
    for _ in range(3):  # which server connection is given next is the pooler's own choice
        own = _value(connection, "select pg_backend_pid()")
        with postgres.connect(purpose="looking for a pooler") as other:
            if _value(other, "select pg_backend_pid()") == own:
                yield Finding(
                    "ok",
                    "way",
                    f"{host}:{port}, through a pooler in transaction mode: enough for everything "
                    "that Acidburn does",
                )
                return
    yield Finding("ok", "way", f"{host}:{port}, through a pooler in session mode")


def _tls(connection: Connection) -> Iterator[Finding]:
    host = connection.info.host
    mode = connection.info.get_parameters().get("sslmode", "prefer")
    certificate = (
        "set SUPABASE_SSLMODE=verify-full and SUPABASE_SSLROOTCERT to the certificate that "
        "Supabase shows under Database settings (or sslmode and sslrootcert in ACIDBURN_POSTGRES)"
    )
    is_encrypted = connection.pgconn.ssl_in_use
    if _is_socket(host) or (host in _LOCAL and not is_encrypted):
        yield Finding("ok", "TLS", "the connection does not leave this machine")
    elif not is_encrypted:
        yield Finding("unusable", "TLS", f"everything goes to {host} unencrypted", certificate)
    elif mode not in ("verify-ca", "verify-full"):
        yield Finding(
            "warning",
            "TLS",
            f"encrypted, but nobody checks that it is {host} that answers (sslmode {mode})",
            certificate,
        )
    else:
        yield Finding("ok", "TLS", f"encrypted, the server's certificate is checked ({mode})")


def _is_socket(host: str) -> bool:
    return host.startswith(("/", "@"))


def _pgvector(connection: Connection) -> Iterator[Finding]:
    row = connection.execute(
        "select extversion, nspname, default_version from pg_extension"
        " join pg_namespace on pg_namespace.oid = extnamespace"
        " join pg_available_extensions on name = extname where extname = 'vector'"
    ).fetchone()
    if row is None:
        yield Finding("note", "pgvector", "not created yet", "acidburn db migrate creates it")
        return
    version, schema, newest = row
    if schema != "extensions":
        yield Finding(
            "unusable",
            "pgvector",
            f"it is in the schema {schema!r}",
            "alter extension vector set schema extensions",
        )
    elif tuple(map(int, version.split("."))) < SAFE_PGVECTOR:
        safe = ".".join(map(str, SAFE_PGVECTOR))
        yield Finding(
            "warning",
            "pgvector",
            f"{version}; before {safe} a parallel build of an HNSW index can write beyond its "
            "buffer",
            f"alter extension vector update, where the server has {newest}"
            if newest != version
            else "update the database server; until then: set max_parallel_maintenance_workers = 0 "
            "before an index of yours is built",
        )
    else:
        yield Finding("ok", "pgvector", f"{version} in the schema {schema}")


def _writing(connection: Connection) -> Iterator[Finding]:
    is_replica = _value(connection, "select pg_is_in_recovery()")
    is_read_only = _value(connection, "select current_setting('default_transaction_read_only')")
    if is_replica:
        yield Finding(
            "unusable", "writing", "this is a read replica", "connect to the primary database"
        )
    elif is_read_only == "on":
        yield Finding(
            "unusable",
            "writing",
            "read-only",
            "Supabase does this when a disk is nearly full: enlarge the disk, or unload a pool. "
            "Elsewhere: reset default_transaction_read_only of the role or database",
        )
    elif not _value(connection, "select has_database_privilege(current_database(), 'TEMP')"):
        yield Finding(
            "warning",
            "writing",
            f"{connection.info.user} may not make temporary tables, in which a new clustering is "
            "compared with what is loaded",
            f"grant temporary on database {connection.info.dbname} to {connection.info.user}",
        )


def _timeouts(connection: Connection) -> Iterator[Finding]:
    rows = connection.execute(
        "select name, current_setting(name) from pg_settings where name in ('statement_timeout',"
        " 'lock_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout')"
    ).fetchall()
    shown = ", ".join(f"{name} {'none' if value == '0' else value}" for name, value in sorted(rows))
    yield Finding("ok", "timeouts", f"{shown}; loads and searches set their own")


def _disk(plan: PostgresPlan | None) -> Callable[[Connection], Iterator[Finding]]:
    def look(connection: Connection) -> Iterator[Finding]:
        total, corpus, dead = _row(
            connection,
            "select pg_database_size(current_database()),"
            " coalesce(sum(pg_total_relation_size(pg_class.oid)), 0)::bigint,"
            " coalesce(sum(n_dead_tup)::float8 / nullif(sum(n_live_tup + n_dead_tup), 0), 0)"
            " from pg_class join pg_namespace on pg_namespace.oid = relnamespace"
            " left join pg_stat_user_tables on relid = pg_class.oid"
            " where nspname = 'acidburn' and relkind = 'r'",
        )
        enough = plan or _enough(total)
        share = total / enough.max_bytes
        what = (
            f"{total / 1e9:.2f} GB, {corpus / 1e9:.2f} of them the corpus: {share:.0%} of what "
            f"Supabase recommends for {enough.name} ({enough.max_bytes / 1e9:g} GB, "
            f"${enough.usd_per_month:g} a month and the disk)"
        )
        if share > _FULL_SHARE:
            yield Finding(
                "warning",
                "disk",
                what,
                f"it needs {_enough(round(total / _FULL_SHARE)).name}; enlarge the disk before the "
                "next load, a project whose disk is full becomes read-only",
            )
        else:
            yield Finding("ok", "disk", what)
        if dead > 0.5:
            yield Finding(
                "note",
                "dead rows",
                f"{dead:.0%} of the rows are dead",
                "vacuum (analyze) acidburn.chunk_embeddings, acidburn.chunk_texts, "
                "acidburn.chunk_clusters; is autovacuum on?",
            )

    return look


def _enough(n_bytes: int) -> PostgresPlan:
    plans = [plan for plan in cost.POSTGRES_PLANS if n_bytes <= plan.max_bytes]
    return plans[0] if plans else cost.POSTGRES_PLANS[-1]


def _roles(connection: Connection) -> Iterator[Finding]:
    names = ["acidburn_reader", "acidburn_loader"]
    there = _column(connection, "select rolname from pg_roles where rolname = any(%s)", [names])
    missing = [name for name in names if name not in there]
    if missing:
        yield Finding(
            "warning",
            "roles",
            f"there is no {' and no '.join(missing)}: only the owner of the tables can use them",
            "as a role that may create roles: create role acidburn_reader nologin; create role "
            "acidburn_loader nologin bypassrls; then, as the owner of the tables, the last block "
            "of each file in acidburn_assets/adapters/sql",
        )
        return
    yield Finding("ok", "roles", "acidburn_reader and acidburn_loader")
    for login in _column(connection, _LOGINS_OF_LOADER):
        yield Finding(
            "warning",
            "roles",
            f"{login} is a member of acidburn_loader, and row level security lets it copy nothing: "
            "BYPASSRLS is not inherited",
            f'alter role "{login}" bypassrls',
        )
    for login in _column(connection, _READERS_WITHOUT_LIMIT):
        yield Finding(
            "note",
            "roles",
            f"{login} reads without a limit on the time of a statement",
            f"alter role \"{login}\" set statement_timeout = '60s'",
        )


_LOGINS_OF_LOADER = """
select rolname from pg_roles r where rolcanlogin and not rolbypassrls and not rolsuper
  and pg_has_role(r.oid, 'acidburn_loader', 'usage')
  and not exists (select from pg_class where oid = 'acidburn.chunk_embeddings'::regclass
    and pg_has_role(r.oid, relowner, 'usage'))
order by rolname
"""

_READERS_WITHOUT_LIMIT = """
select rolname from pg_roles r where rolcanlogin and not rolsuper
  and pg_has_role(r.oid, 'acidburn_reader', 'usage')
  and not pg_has_role(r.oid, 'acidburn_loader', 'usage')
  and not exists (select from pg_class where oid = 'acidburn.chunk_embeddings'::regclass
    and pg_has_role(r.oid, relowner, 'usage'))
  and not exists (select from pg_db_role_setting, unnest(setconfig) setting
    where setrole in (0, r.oid)
    and setdatabase in (0, (select oid from pg_database where datname = current_database()))
    and setting like 'statement_timeout=%' and setting <> 'statement_timeout=0')
order by rolname
"""


def _rights(connection: Connection) -> Iterator[Finding]:
    """What the role that is connected can do."""
    user = connection.info.user
    may_read, may_write, is_exempt = _row(
        connection,
        "select has_schema_privilege('acidburn', 'usage')"
        " and has_table_privilege(c.oid, 'select'),"
        " has_schema_privilege('acidburn', 'usage')"
        " and has_table_privilege(c.oid, 'insert') and has_table_privilege(c.oid, 'delete'),"
        " not row_security_active(c.oid)"
        " from pg_class c where c.oid = 'acidburn.chunk_embeddings'::regclass",
    )
    if not may_read:
        yield Finding(
            "unusable",
            "rights",
            f"{user} may not read the corpus",
            f'grant acidburn_reader to "{user}", or acidburn_loader for one that loads',
        )
    elif may_write and is_exempt:
        yield Finding("ok", "rights", f"{user} may load and ask")
    elif may_write:
        yield Finding(
            "unusable",
            "rights",
            f"{user} may write, but row level security keeps it from COPY",
            f'alter role "{user}" bypassrls',
        )
    else:
        yield Finding("ok", "rights", f"{user} may ask, and load nothing")


def _security(connection: Connection) -> Iterator[Finding]:
    open_tables = _column(
        connection,
        "select relname from pg_class where relnamespace = 'acidburn'::regnamespace"
        " and relkind in ('r', 'p') and not relrowsecurity order by relname",
    )
    for table in open_tables:
        yield Finding(
            "unusable",
            "row level security",
            f"off on acidburn.{table}",
            f'alter table acidburn."{table}" enable row level security',
        )
    if not open_tables:
        yield Finding("ok", "row level security", "on for every table")


_GRANTS = """
with targets (kind, name, owner, acl) as (
  select 'schema', quote_ident(nspname), nspowner, coalesce(nspacl, acldefault('n', nspowner))
    from pg_namespace where nspname = 'acidburn'
  union all
  select case relkind when 'S' then 'sequence' else 'table' end,
    'acidburn.' || quote_ident(relname), relowner,
    coalesce(relacl, acldefault(case relkind when 'S' then 's' else 'r' end::"char", relowner))
    from pg_class
    where relnamespace = 'acidburn'::regnamespace and relkind in ('r', 'p', 'v', 'm', 'S')
  union all
  select 'table', 'acidburn.' || quote_ident(relname), relowner, attacl
    from pg_attribute join pg_class on pg_class.oid = attrelid
    where relnamespace = 'acidburn'::regnamespace and attacl is not null
  union all
  select 'routine', oid::regprocedure::text, proowner, coalesce(proacl, acldefault('f', proowner))
    from pg_proc where pronamespace = 'acidburn'::regnamespace
)
select kind, name, coalesce(rolname, 'public') as grantee,
  string_agg(distinct lower(privilege_type), ', ' order by lower(privilege_type))
from targets, aclexplode(acl) left join pg_roles on pg_roles.oid = grantee
where grantee = 0 or rolname = any(%s)
group by kind, name, rolname order by kind, name, rolname
"""


def _exposure(connection: Connection) -> Iterator[Finding]:
    is_closed = True
    for kind, name, grantee, privileges in connection.execute(_GRANTS, [list(_WEB)]).fetchall():
        is_closed = False
        yield Finding(
            "unusable",
            "exposure",
            f"{grantee} has {privileges} on the {kind} {name}",
            f"revoke all on {kind} {name} from {grantee}",
        )
    policies = connection.execute(
        "select tablename, policyname, roles::text[] from pg_policies"
        " where schemaname = 'acidburn' and roles && %s::name[]",
        [["public", *_WEB]],
    ).fetchall()
    for table, policy, roles in policies:
        is_closed = False
        yield Finding(
            "unusable",
            "exposure",
            f"the policy {policy!r} on acidburn.{table} is for {', '.join(roles)}",
            f'drop policy "{policy}" on acidburn."{table}"',
        )
    exposed = _exposed_schemas(connection)
    if exposed is not None and "acidburn" in exposed:
        is_closed = False
        yield Finding(
            "unusable",
            "exposure",
            "the Data API serves the schema acidburn",
            "take acidburn out of Exposed schemas, under Project settings, Data API",
        )
    if not is_closed:
        return
    closed = "nothing is granted to public, anon or authenticated"
    if exposed is not None:
        yield Finding("ok", "exposure", f"{closed}; the Data API serves {', '.join(exposed)}")
    elif _column(connection, "select rolname from pg_roles where rolname = 'anon'"):
        yield Finding(
            "note",
            "exposure",
            f"{closed}; whether the Data API serves the schema is not to be read here",
            "see that acidburn is not among Exposed schemas (Project settings, Data API)",
        )
    else:
        yield Finding("ok", "exposure", f"{closed}; there is no Data API here")


def _exposed_schemas(connection: Connection) -> list[str] | None:
    """Schemas that PostgREST is set to serve; None where that is not said in the database."""
    found = _column(
        connection,
        "select split_part(setting, '=', 2) from pg_db_role_setting"
        " join pg_roles on pg_roles.oid = setrole, unnest(setconfig) setting"
        " where rolname = 'authenticator' and setting like 'pgrst.db_schemas=%'",
    )
    if not found:
        return None
    return sorted({name.strip(' "') for setting in found for name in setting.split(",")})


def _layout(connection: Connection) -> Iterator[Finding]:
    for name, method in connection.execute(
        "select indexrelid::regclass::text, amname from pg_index"
        " join pg_class on pg_class.oid = indexrelid join pg_am on pg_am.oid = relam"
        " where indrelid = 'acidburn.chunk_embeddings'::regclass and amname in ('hnsw', 'ivfflat')"
    ).fetchall():
        yield Finding(
            "warning",
            "layout",
            f"{name} is an index of kind {method} on the embeddings: a load takes up to 27 times "
            "as long, and a filtered query of yours may lose passages without a word",
            f"drop index {name}; searches of Acidburn do not use it",
        )
    storage = _value(
        connection,
        "select attstorage::text from pg_attribute"
        " where attrelid = 'acidburn.chunk_embeddings'::regclass and attname = 'embedding'",
    )
    if storage != "p":
        yield Finding(
            "warning",
            "layout",
            "vectors do not lie in their rows: a search reads twenty times as many pages",
            "alter table acidburn.chunk_embeddings alter column embedding set storage plain, then "
            "materialize chunk_embeddings with --force",
        )
    has_lz4 = _value(
        connection,
        "select exists (select from pg_settings where name = 'default_toast_compression'"
        " and 'lz4' = any(enumvals))",
    )
    compression = _value(
        connection,
        "select attcompression::text from pg_attribute"
        " where attrelid = 'acidburn.chunk_texts'::regclass and attname = 'body'",
    )
    if not has_lz4:
        yield Finding(
            "note",
            "layout",
            "this server was built without lz4: texts are compressed with pglz, a third as fast",
        )
    elif compression != "l":
        yield Finding(
            "warning",
            "layout",
            "texts are not compressed with lz4, which loads three times as fast",
            "alter table acidburn.chunk_texts alter column body set compression lz4",
        )
    else:
        yield Finding("ok", "layout", "vectors in their rows, texts compressed with lz4")


def _row(connection: Connection, query: str, arguments: Sequence[Any] = ()) -> tuple[Any, ...]:
    """The row of a query that always has one."""
    row = connection.execute(query.encode(), arguments or None).fetchone()
    if row is None:
        raise DatabaseError(f"the catalogue says nothing of {query.split(' from ')[-1]!r}")
    return row


def _value(connection: Connection, query: str) -> Any:
    return _row(connection, query)[0]


def _column(connection: Connection, query: str, arguments: Sequence[Any] = ()) -> list[Any]:
    rows = connection.execute(query.encode(), arguments or None).fetchall()
    return [value for (value,) in rows]
