"""Where a Postgres is, how to connect to it, and what its errors mean to whoever reads them.

Connection strings are composed by libpq's own rules, never by formatting, so that a password may
hold any character; no message, repr or log line holds one.
"""

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pydantic import SecretStr

from acidburn_assets.core.errors import (
    AcidburnError,
    ConfigError,
    DatabaseError,
    DatabaseUnavailable,
)

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]
Lookup: TypeAlias = Callable[[str], set[socket.AddressFamily]]

_HOST = re.compile(r"[A-Za-z0-9._:-]+|[/@].*")
"""A name, an address, or a socket's folder. What a password left behind fits neither."""

_REFUSALS = (
    "password authentication failed",
    "no password supplied",
    "SASL authentication failed",  # PgBouncer
    "Tenant or user not found",  # Supavisor, of a user without the project's ref too
)
"""What a server says that does not know the user or its password."""

_DEFAULTS: dict[str, Any] = {
    "application_name": "acidburn",
    "connect_timeout": 10,
    # a load may wait long for its next rows; a dead peer is noticed within a minute
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}


class _Parts(NamedTuple):
    """What may be shown of a conninfo."""

    host: str
    port: str
    dbname: str
    user: str


def conninfo_from_parts(
    *,
    host: str,
    port: int,
    dbname: str,
    user: str,
    password: SecretStr,
    sslmode: str,
    sslrootcert: str,
) -> SecretStr:
    """Composes a conninfo; every part may hold any character.

    Args:
        host: name or address.
        port: 5432, or 6543 for Supabase's transaction pooler.
        dbname: database.
        user: role; `postgres.<project ref>` through Supabase's pooler.
        password: as it is, not percent-encoded.
        sslmode: as libpq's.
        sslrootcert: file with the authority's certificate; "" where sslmode needs none.

    Raises:
        ConfigError: the certificate is needed and not given, or there is no such file.
    """
    if sslmode in ("verify-ca", "verify-full") and not sslrootcert:
        raise ConfigError(
            f"sslmode {sslmode!r} needs SUPABASE_SSLROOTCERT: download the certificate "
            "(prod-ca-2021.crt) from the project's database settings and give its path"
        )
    if sslrootcert and sslrootcert != "system" and not Path(sslrootcert).is_file():
        raise ConfigError(f"SUPABASE_SSLROOTCERT: there is no file {sslrootcert!r}")
    return SecretStr(
        make_conninfo(
            host=host,
            port=port,
            dbname=dbname,
            user=user,
            password=password.get_secret_value(),
            sslmode=sslmode,
            **({"sslrootcert": sslrootcert} if sslrootcert else {}),
        )
    )


def address_families(host: str) -> set[socket.AddressFamily]:
    """Kinds of address that a name has, whether or not this machine can reach them; empty where
    it has none."""
    try:
        return {found[0] for found in socket.getaddrinfo(host, None)}
    except OSError:
        return set()


class Postgres:
    """A database that holds, or will hold, the corpus. Opening it is `connect`."""

    def __init__(self, conninfo: SecretStr, *, lookup: Lookup = address_families) -> None:
        """Takes the conninfo apart; connects to nothing.

        Args:
            conninfo: `postgresql://…` or `host=… dbname=…`.
            lookup: kinds of address of a host, asked only after a connection failed.

        Raises:
            ConfigError: it is not a conninfo; the text itself is not shown.
        """
        self._conninfo = conninfo
        self._lookup = lookup
        self._parts = _parse(conninfo)

    @property
    def where(self) -> str:
        """`host:port/dbname as user`, for messages."""
        parts = self._parts
        return f"{parts.host}:{parts.port}/{parts.dbname} as {parts.user}"

    def __repr__(self) -> str:
        return f"Postgres({self.where})"

    @contextmanager
    def connect(self, *, purpose: str, autocommit: bool = False) -> Iterator[Connection]:
        """One connection and one transaction, committed at the end of the block.

        Args:
            purpose: what is being done, for messages: `loading the shard x/000001`.
            autocommit: each statement by itself instead.

        Raises:
            DatabaseUnavailable: no connection, or it broke.
            DatabaseError: Postgres refuses.
            ConfigError: the host cannot be reached from here as it is given.
        """
        connection = self.open()
        try:
            with connection:
                connection.autocommit = autocommit
                with translated(purpose):
                    yield connection
                with _commit_translated(purpose):
                    connection.commit()
        finally:
            connection.close()

    def open(self) -> Connection:
        """A connection for whoever closes it.

        Raises:
            DatabaseUnavailable: no connection.
            DatabaseError: Postgres lets this user or database not in.
            ConfigError: the host cannot be reached from here as it is given.
        """
        given: dict[str, Any] = conninfo_to_dict(self._conninfo.get_secret_value())
        try:
            return psycopg.connect(
                make_conninfo(**(_DEFAULTS | given)),
                # a transaction pooler hands the next transaction to another backend
                prepare_threshold=None,
            )
        except psycopg.OperationalError as error:
            raise self._explain(error) from error

    def _explain(self, error: psycopg.OperationalError) -> AcidburnError:
        host, port, dbname, user = self._parts
        said = str(error)
        if any(phrase in said for phrase in _REFUSALS):
            hint = (
                "; through Supabase's pooler the user is postgres.<project ref>"
                if "pooler.supabase.com" in host and "." not in user
                else ""
            )
            return DatabaseError(
                f"{host}:{port} does not accept the password of {user!r}; mend SUPABASE_PASSWORD "
                f"(or ACIDBURN_POSTGRES){hint}"
            )
        if re.search(r'(database|role) ".*" does not exist', said):
            return DatabaseError(
                f"{host}:{port} has no database {dbname!r} or no user {user!r}; mend SUPABASE_DB "
                "or SUPABASE_USER (or ACIDBURN_POSTGRES)"
            )
        if self._lookup(host) == {socket.AF_INET6}:
            project = re.fullmatch(r"db\.([a-z0-9]+)\.supabase\.co", host)
            ref = project[1] if project else "<project ref>"
            return ConfigError(
                f"{host!r} has an IPv6 address only and did not answer; this machine has probably "
                "no IPv6 route. Supabase's session pooler has IPv4: set "
                "SUPABASE_HOST=aws-<n>-<region>.pooler.supabase.com (as the project's Connect page "
                f"shows), SUPABASE_PORT=5432 and SUPABASE_USER={user.partition('.')[0]}.{ref}"
            )
        if "certificate" in said or "SSL" in said:
            return ConfigError(
                f"no TLS connection to {host}:{port}: {_first_line(said)}; mend "
                "SUPABASE_SSLMODE or SUPABASE_SSLROOTCERT"
            )
        return DatabaseUnavailable(
            f"no connection to {host}:{port} (database {dbname!r}, user {user!r}): "
            f"{_first_line(said)}"
        )


@contextmanager
def translated(purpose: str) -> Iterator[None]:
    """Turns psycopg's errors into ours; the transaction they happen in is rolled back."""
    try:
        yield
    except psycopg.Error as error:
        raise _translate(error, purpose) from error


@contextmanager
def _commit_translated(purpose: str) -> Iterator[None]:
    try:
        yield
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable(
            f"{purpose}: the connection broke while Postgres was committing, so it may have been "
            "done or not; do it again, what is there already is skipped"
        ) from error
    except psycopg.Error as error:
        raise _translate(error, purpose) from error


def _translate(error: psycopg.Error, purpose: str) -> AcidburnError:
    said = error.diag.message_primary or _first_line(str(error))
    unchanged = "nothing was changed: the transaction was rolled back"
    match error:
        case errors.UndefinedTable() | errors.InvalidSchemaName() if "vector" not in said:
            return DatabaseError(
                f"{purpose}: {said}. Acidburn makes its tables itself when a Postgres asset is "
                "materialized; materialize one or run `acidburn db migrate`, or point at the "
                "database that has them"
            )
        case errors.UndefinedColumn():
            return DatabaseError(
                f"{purpose}: {said}; {unchanged}. The tables are older than this version of "
                "Acidburn: run `acidburn db migrate`"
            )
        case errors.UndefinedObject() | errors.UndefinedFunction() | errors.UndefinedFile() if (
            "vec" in said or "<=>" in said
        ):
            return _lacks_vector(purpose, said)
        case errors.FeatureNotSupported() | errors.InsufficientPrivilege() if (
            "row-level security" in said
        ):
            return DatabaseError(
                f"{purpose}: {said}; {unchanged}. A login that loads and does not own the tables "
                "needs BYPASSRLS itself, it is not inherited from acidburn_loader: alter role … "
                "bypassrls"
            )
        case errors.FeatureNotSupported() | errors.InsufficientPrivilege() if "extension" in said:
            return _lacks_vector(purpose, said)
        case errors.InsufficientPrivilege():
            return DatabaseError(
                f"{purpose}: {said}; connect as the owner of Acidburn's tables (on Supabase: "
                "postgres), or grant the user acidburn_loader or acidburn_reader"
            )
        case errors.ReadOnlySqlTransaction():
            return DatabaseError(
                f"{purpose}: {said}. Supabase makes a project read-only when its disk is nearly "
                "full: enlarge the disk, or unload a pool"
            )
        case errors.DiskFull():
            return DatabaseError(
                f"{purpose}: {said}; {unchanged}. Enlarge the database's disk, or unload a pool"
            )
        case errors.UniqueViolation():
            return DatabaseError(
                f"{purpose}: {said} ({error.diag.message_detail}); {unchanged}. Two rows have one "
                "key: does the dataset's id column name two documents alike?"
            )
        case errors.LockNotAvailable():
            return DatabaseUnavailable(
                f"{purpose}: another transaction holds what it needs ({said}); {unchanged}"
            )
        case errors.QueryCanceled():
            return DatabaseUnavailable(f"{purpose}: stopped before it ended ({said}); {unchanged}")
        case psycopg.OperationalError():
            return DatabaseUnavailable(f"{purpose}: {said}; {unchanged}")
        case _:
            return DatabaseError(f"{purpose}: Postgres refuses: {said}; {unchanged}")


def _lacks_vector(purpose: str, said: str) -> DatabaseError:
    return DatabaseError(
        f"{purpose}: {said}. Acidburn needs pgvector 0.7 or newer in the schema extensions: switch "
        "on `vector` under Database, Extensions on Supabase, or, as a superuser: create schema "
        "extensions; create extension vector with schema extensions"
    )


def _parse(conninfo: SecretStr) -> _Parts:
    how = (
        "percent-encode special characters of the password in a URL (@ is %40, / is %2F, # is "
        "%23), or leave ACIDBURN_POSTGRES out and set SUPABASE_HOST, SUPABASE_USER and "
        "SUPABASE_PASSWORD, which take any character as it is"
    )
    try:
        given = conninfo_to_dict(conninfo.get_secret_value())
    except psycopg.ProgrammingError:
        # `from None`: libpq's message quotes pieces of the text, and with them of the password
        raise ConfigError(f"the Postgres conninfo cannot be read; {how}") from None
    host = str(given.get("host") or given.get("hostaddr") or "localhost")
    port = str(given.get("port") or 5432)
    dbname = str(given.get("dbname") or given.get("user") or "postgres")
    has_leftovers = (
        any(not _HOST.fullmatch(one) for one in host.split(","))
        or any(not one.isdigit() for one in port.split(","))
        or "@" in dbname
    )
    if has_leftovers:
        raise ConfigError(f"the Postgres conninfo has no clear host, port and database; {how}")
    return _Parts(host, port, dbname, str(given.get("user") or "postgres"))


def _first_line(said: str) -> str:
    return said.strip().splitlines()[0].strip() if said.strip() else "no reason given"
