"""Applies the SQL files of ../sql that a database lacks, and refuses what does not fit them.

The files are in the form that `supabase db push` takes (`<version>_<name>.sql`), and one that it
has applied is left alone.
"""

import hashlib
from importlib import resources
from typing import NamedTuple

from psycopg import errors

from acidburn_assets.adapters.postgres.connection import Connection, Postgres, translated
from acidburn_assets.core.errors import DatabaseError

_LOCK_SECONDS = 60


class Migration(NamedTuple):
    """One file."""

    version: str  # 14 digits, the order
    name: str
    sql: str
    sha256: str

    @property
    def file(self) -> str:
        """Its name in the folder."""
        return f"{self.version}_{self.name}.sql"


def shipped() -> list[Migration]:
    """The files that come with the package, in order."""
    folder = resources.files("acidburn_assets.adapters") / "sql"
    found = []
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        if path.name.endswith(".sql"):
            version, _, name = path.name.removesuffix(".sql").partition("_")
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            found.append(Migration(version, name, content.decode(), digest))
    return found


def migrate(postgres: Postgres, *, dry_run: bool = False) -> list[str]:
    """Brings the database's tables up to what this version of Acidburn needs.

    All pending files are applied in one transaction, one process at a time.

    Args:
        postgres: where.
        dry_run: only say which files would be applied.

    Returns:
        Names of the files applied, or that would be; empty where the database is up to date.

    Raises:
        DatabaseError: a file was changed after it was applied, the database is newer than this
            version of Acidburn, or Postgres refuses.
        DatabaseUnavailable: no connection, or it broke; nothing was applied.
    """
    with postgres.connect(purpose="reading the ledger of migrations") as connection:
        waiting = _pending(connection)
    if not waiting or dry_run:
        return [migration.file for migration in waiting]
    with postgres.connect(purpose="applying migrations") as connection:
        connection.execute(f"set local lock_timeout = '{_LOCK_SECONDS}s'")
        connection.execute("select pg_advisory_xact_lock(hashtextextended('acidburn migrate', 0))")
        waiting = _pending(connection)  # another process may have been first
        for migration in waiting:
            with translated(f"applying {migration.file}"):
                try:
                    connection.execute(migration.sql.encode())
                    _note(connection, migration)
                except errors.InsufficientPrivilege as error:
                    if "extension" in str(error):
                        raise
                    raise DatabaseError(
                        f"the tables in {postgres.where} lack {migration.file}, which this version "
                        f"of Acidburn needs, and this role may not change them "
                        f"({error.diag.message_primary}); run `acidburn db migrate` as their "
                        "owner (on Supabase: postgres)"
                    ) from error
    return [migration.file for migration in waiting]


def _pending(connection: Connection) -> list[Migration]:
    files = {migration.version: migration for migration in shipped()}
    if not _has_table(connection, "acidburn.migrations"):
        return list(files.values())
    ledger = connection.execute("select version, sha256 from acidburn.migrations").fetchall()
    for version, sha256 in ledger:
        if version not in files:
            raise DatabaseError(
                f"the database has the migration {version!r}, which this version of Acidburn does "
                "not know; upgrade Acidburn, or use another database"
            )
        if sha256 != files[version].sha256:
            raise DatabaseError(
                f"{files[version].file!r} is not the file that was applied to the database; an "
                "applied migration never changes: put the old file back and add a new one"
            )
    applied = {version for version, _ in ledger}
    if applied != set(files) and _has_table(connection, "supabase_migrations.schema_migrations"):
        applied |= _pushed(connection)
    return [migration for version, migration in files.items() if version not in applied]


def _pushed(connection: Connection) -> set[str]:
    """Versions that Supabase's CLI applied; it keeps no checksum."""
    rows = connection.execute(
        "select version from supabase_migrations.schema_migrations"
        " where version || '_' || name || '.sql' = any(%s)",
        [[migration.file for migration in shipped()]],
    ).fetchall()
    return {version for (version,) in rows}


def _has_table(connection: Connection, name: str) -> bool:
    found = connection.execute("select to_regclass(%s)", [name]).fetchone()
    return found is not None and found[0] is not None


def _note(connection: Connection, migration: Migration) -> None:
    connection.execute(
        "insert into acidburn.migrations (version, name, sha256) values (%s, %s, %s)",
        [migration.version, migration.name, migration.sha256],
    )
