"""A database as Supabase hands it over, with logins of every kind; and poolers in front of it."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, NamedTuple

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pydantic import SecretStr

from acidburn_assets.adapters import embedded_postgres
from acidburn_assets.adapters.embedded_postgres import EmbeddedPostgres
from acidburn_assets.adapters.postgres import Postgres, migrate
from acidburn_assets_tests.postgres_server import new_database

__all__ = ["Cloud", "Pooler", "cloud", "open_pooler", "server_of_roles", "supabase"]

ROLES = (
    *("a_reader", "a_loader", "a_subject", "a_stranger", "acidburn_loader", "acidburn_reader"),
    *("authenticator", "anon", "authenticated", "owner"),
)

Mode = Literal["transaction", "session"]


class Cloud(NamedTuple):
    """A migrated database of its own, and how to be someone there."""

    dsn: str  # as a superuser

    def as_role(self, name: str) -> Postgres:
        return Postgres(SecretStr(make_conninfo(self.dsn, user=name)))

    def run(self, name: str, statement: str) -> int:
        """One statement as a role; rows."""
        with psycopg.connect(make_conninfo(self.dsn, user=name), autocommit=True) as connection:
            return connection.execute(statement.encode()).rowcount


@pytest.fixture(scope="module")
def server_of_roles() -> Iterator[EmbeddedPostgres]:
    """Roles are a server's, and none with rights in any of its databases can be dropped: this one
    has no database of other tests."""
    folder = Path(tempfile.mkdtemp(prefix="acidburn-tests-roles-"))
    try:
        with embedded_postgres.start(folder) as server:
            yield server
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def supabase(server_of_roles: EmbeddedPostgres) -> Iterator[str]:
    """The DSN, as a superuser, of an empty database: its owner is no superuser, and there are the
    roles of the web."""
    with new_database(server_of_roles) as dsn:
        yield from _as_supabase(dsn)


@pytest.fixture
def cloud(supabase: str) -> Cloud:
    """The same, migrated by its owner, with a login of each kind.

    `a_reader` and `a_loader` are as the README says; `a_subject` is a loader that was not given
    BYPASSRLS, `a_stranger` anybody's login.
    """
    cloud = Cloud(supabase)
    migrate(cloud.as_role("owner"))
    for statement in (
        "create role a_reader login in role acidburn_reader",
        "create role a_loader login bypassrls in role acidburn_loader",
        "create role a_subject login in role acidburn_loader",
        "create role a_stranger login",
    ):
        cloud.run("owner", statement)
    return cloud


def _as_supabase(dsn: str) -> Iterator[str]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for role in ROLES:
            connection.execute(sql.SQL("drop role if exists {}").format(sql.Identifier(role)))
        connection.execute("create role owner login createrole createdb bypassrls")
        connection.execute("create role anon login")
        connection.execute("create role authenticated login")
        connection.execute("create role authenticator login")
        connection.execute("grant all on schema extensions to owner with grant option")
        # what made tables world readable in Supabase's own default, and more
        for kind in ("tables", "sequences", "functions"):
            connection.execute(
                f"alter default privileges grant all on {kind} to anon, authenticated".encode()
            )
        connection.execute(
            sql.SQL("grant create on database {} to owner").format(
                sql.Identifier(connection.info.dbname)
            )
        )
    yield dsn
    with psycopg.connect(dsn, autocommit=True) as connection:
        for role in ROLES:
            name = sql.Identifier(role)
            found = connection.execute("select from pg_roles where rolname = %s", [role])
            if found.fetchone() is not None:
                connection.execute(sql.SQL("drop owned by {} cascade").format(name))
        for role in ROLES:
            connection.execute(sql.SQL("drop role if exists {}").format(sql.Identifier(role)))


class Pooler(NamedTuple):
    """A PgBouncer that asks for TLS and a password."""

    port: int
    dbname: str
    certificate: Path  # of the authority that signed its own
    wrong_certificate: Path  # of an authority of the same name that did not

    def conninfo(self, user: str, password: str, **changes: object) -> SecretStr:
        given = {
            "host": "localhost",
            "port": self.port,
            "dbname": self.dbname,
            "user": user,
            "password": password,
            "sslmode": "verify-full",
            "sslrootcert": str(self.certificate),
        }
        return SecretStr(make_conninfo(**(given | changes)))  # type: ignore[arg-type]  # a test's shorthand


@contextmanager
def open_pooler(
    dsn: str, mode: Mode, passwords: Mapping[str, str], *, pool_size: int = 3
) -> Iterator[Pooler]:
    """A pooler in front of a database, as long as the block.

    It is Debian's PgBouncer: it knows no prepared statements in transaction mode, so nothing that
    works through it can need them.

    Args:
        dsn: of the database.
        mode: when a server connection is given back.
        passwords: of the logins that it lets in.
        pool_size: server connections of each login.
    """
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("pgbouncer is not installed (on Debian: apt-get install pgbouncer)")
    server = conninfo_to_dict(dsn)
    folder = Path(tempfile.mkdtemp(prefix="acidburn-tests-pooler-"))
    try:
        certificate = _make_certificates(folder, "server")
        wrong = _make_certificates(folder, "wrong")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        (folder / "users.txt").write_text(
            "".join(f"{_quoted(name)} {_quoted(word)}\n" for name, word in passwords.items()),
            encoding="utf-8",
        )
        (folder / "pgbouncer.ini").write_text(
            "[databases]\n"
            f"{server['dbname']} = host={server['host']} port={server['port']}\n"
            "[pgbouncer]\n"
            "listen_addr = localhost\n"
            f"listen_port = {port}\n"
            "unix_socket_dir =\n"
            "auth_type = scram-sha-256\n"
            f"auth_file = {folder}/users.txt\n"
            f"pool_mode = {mode}\n"
            f"default_pool_size = {pool_size}\n"
            "client_tls_sslmode = require\n"
            f"client_tls_cert_file = {folder}/server.crt\n"
            f"client_tls_key_file = {folder}/server.key\n",
            encoding="utf-8",
        )
        identity = {}
        if os.geteuid() == 0:  # neither Postgres nor PgBouncer runs as root
            account = pwd.getpwnam("pgserver")
            for path in (folder, *folder.iterdir()):
                os.chown(path, account.pw_uid, account.pw_gid)
            identity = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                [program, str(folder / "pgbouncer.ini")],
                stdout=log,
                stderr=log,
                **identity,  # type: ignore[arg-type]  # keywords of different types
            )
        try:
            _await_port(port, process, folder / "log")
            yield Pooler(port, str(server["dbname"]), certificate, wrong)
        finally:
            process.terminate()
            process.wait(timeout=10)
    finally:
        shutil.rmtree(folder)


def _quoted(word: str) -> str:
    return '"' + word.replace('"', '""') + '"'


def _await_port(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("localhost", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"PgBouncer does not listen: {log.read_text()}")


def _make_certificates(folder: Path, name: str) -> Path:
    """A key and a certificate for `localhost`, and the authority's that signed it."""
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Authority of tests")])
    key = ec.generate_private_key(ec.SECP256R1())
    own_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])

    def sign(
        subject: x509.Name, public_key: ec.EllipticCurvePublicKey, *, is_authority: bool
    ) -> bytes:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(authority_name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )
        if not is_authority:
            names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
            builder = builder.add_extension(names, critical=False)
        signed = builder.sign(authority_key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM)

    authority = folder / f"{name}.ca.crt"
    authority.write_bytes(sign(authority_name, authority_key.public_key(), is_authority=True))
    (folder / f"{name}.crt").write_bytes(sign(own_name, key.public_key(), is_authority=False))
    (folder / f"{name}.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return authority
