"""What a new clustering changes of a shard that is loaded: where its chunks belong, and no more.

The new places go into a temporary table and are compared there. Where few rows differ, these are
updated; where many do, all rows are written again by Postgres from what it holds, in the new order.
Vectors and texts do not travel again, and texts are not touched.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
from psycopg import sql

from acidburn_assets.adapters.postgres import rows, stream
from acidburn_assets.adapters.postgres.connection import Connection
from acidburn_assets.adapters.postgres.rows import Members, Target
from acidburn_assets.core.errors import DatabaseError

MOST_STRAYS = 0.1
"""Share of a shard's rows that may lie apart from the other rows of their cell; with more of them
all are written again in order. Source: measured, 8,000 rows of 1,024 dimensions in 500 cells, pages
read for a row of a searched cell, as a multiple of those in order: 1.02 with .01 of the rows
updated, 1.04 with .05, 1.14 with .1, 1.26 with .2, 1.40 with .5. Time would not decide it: to
update every row takes half as long as to write all of them again."""

_TABLE = "acidburn_places"


class _Differences(NamedTuple):
    """New places beside those that are loaded."""

    n_rows: int  # loaded chunks that have a new place
    n_changed: int  # whose place is another
    n_strays: int  # that lie apart from their cell already, or will once they are updated


def follow_embeddings(connection: Connection, members: Members, target: Target) -> int | None:
    """Brings clusters and cells of a shard in `chunk_embeddings` up to date.

    Args:
        connection: with an open transaction, in which the shard is locked.
        members: where its chunks belong now.
        target: the shard.

    Returns:
        Rows whose cluster or cell changed; None, with nothing changed, where the rows are not
        those of these chunks.
    """
    _make_table(connection, rows.PLACE_COLUMNS, "uuid, int, int, int")
    blocks = iter([rows.place_block(members)])
    stream.copy(connection, _TABLE, rows.PLACE_COLUMNS, blocks, schema="pg_temp")
    found = _compare(connection, target)
    if found.n_rows != len(members.chunk_ids):
        return None
    if found.n_strays > MOST_STRAYS * found.n_rows:
        _check(_rewrite(connection, target), found.n_rows, "chunk_embeddings", target)
    elif found.n_changed:
        n_updated = _update(connection, "chunk_embeddings", ("cluster_id", "cell_id"), target)
        _check(n_updated, found.n_changed, "chunk_embeddings", target)
    return found.n_changed


def follow_clusters(
    connection: Connection, assignments: Iterable[pa.RecordBatch], target: Target
) -> int:
    """Brings a shard in `chunk_clusters` up to date. Its rows are found by their ids and need no
    order, so one that does not differ is never written.

    Args:
        connection: with an open transaction, in which the shard is locked.
        assignments: batches of `schemas.ASSIGNMENTS`.
        target: the shard.

    Returns:
        Rows that changed; all, where the rows were not those of these chunks.

    Raises:
        SchemaError: it is not an assignments table.
    """
    _make_table(connection, rows.CLUSTER_COLUMNS, "int, uuid, smallint, int, real, real, boolean")
    with stream.ahead(rows.cluster_blocks(assignments, target)) as blocks:
        n_fresh = stream.copy(connection, _TABLE, rows.CLUSTER_COLUMNS, blocks, schema="pg_temp")
    table = sql.Identifier("pg_temp", _TABLE)
    (n_rows,) = _one(
        connection,
        sql.SQL(
            "select count(*) from acidburn.chunk_clusters held join {} fresh using (chunk_id)"
            " where held.shard_id = {}"
        ).format(table, target.shard_id),
    )
    if n_rows == n_fresh:
        columns = ("cluster_id", "strength", "distance", "is_noise")
        return _update(connection, "chunk_clusters", columns, target)
    connection.execute("delete from acidburn.chunk_clusters where shard_id = %s", [target.shard_id])
    names = sql.SQL(", ").join(map(sql.Identifier, rows.CLUSTER_COLUMNS))
    n_written = connection.execute(
        sql.SQL("insert into acidburn.chunk_clusters ({0}) select {0} from {1}").format(
            names, table
        )
    ).rowcount
    _check(n_written, n_fresh, "chunk_clusters", target)
    return n_written


def _make_table(connection: Connection, columns: Sequence[str], types: str) -> None:
    """A temporary table until the transaction ends."""
    definitions = ", ".join(
        f"{name} {kind} not null" for name, kind in zip(columns, types.split(", "), strict=True)
    )
    connection.execute(f"create temporary table {_TABLE} ({definitions}) on commit drop".encode())


def _compare(connection: Connection, target: Target) -> _Differences:
    """How many rows would move, and how many would then lie apart from their cell.

    A row that is updated goes where there is room, mostly to the end of the table. Rows that
    strayed before are counted by the pieces that a cell lies in, beyond one.
    """
    return _Differences(
        *_one(
            connection,
            sql.SQL(
                "with compared as (select held.ctid as at, held.cell_id,"
                " (held.cluster_id, held.cell_id)"
                " is distinct from (fresh.cluster_id, fresh.cell_id) as is_changed"
                " from acidburn.chunk_embeddings held"
                " join pg_temp.{} fresh using (chunk_id) where held.shard_id = {}),"
                " staying as (select cell_id, lag(cell_id) over (order by at) as before"
                " from compared where not is_changed)"
                " select (select count(*) from compared),"
                " (select count(*) from compared where is_changed),"
                " (select count(*) from compared where is_changed)"
                " + (select count(*) filter (where cell_id is distinct from before)"
                " - count(distinct cell_id) from staying)"
            ).format(sql.Identifier(_TABLE), target.shard_id),
        )
    )


def _update(connection: Connection, table: str, columns: Sequence[str], target: Target) -> int:
    """Rows that were updated, because one of these columns differed."""
    held = sql.SQL(", ").join(sql.Identifier("held", name) for name in columns)
    fresh = sql.SQL(", ").join(sql.Identifier("fresh", name) for name in columns)
    return connection.execute(
        sql.SQL(
            "update acidburn.{table} held set ({columns}) = row({fresh})"
            " from pg_temp.{places} fresh where held.shard_id = {shard}"
            " and held.chunk_id = fresh.chunk_id and ({held}) is distinct from ({fresh})"
        ).format(
            table=sql.Identifier(table),
            columns=sql.SQL(", ").join(map(sql.Identifier, columns)),
            places=sql.Identifier(_TABLE),
            shard=target.shard_id,
            held=held,
            fresh=fresh,
        )
    ).rowcount


def _rewrite(connection: Connection, target: Target) -> int:
    """Rows that were written again, as a load would have written them: in the order of their cells
    and, inside one, of the shard."""
    moved = {"cluster_id", "cell_id"}
    kept = [name for name in rows.EMBEDDING_COLUMNS if name not in moved]
    return connection.execute(
        sql.SQL(
            "with held as (delete from acidburn.chunk_embeddings where shard_id = {shard}"
            " returning {kept}) insert into acidburn.chunk_embeddings ({kept}, cluster_id, cell_id)"
            " select {held}, fresh.cluster_id, fresh.cell_id from held"
            " join pg_temp.{places} fresh using (chunk_id) order by fresh.cell_id, fresh.place"
        ).format(
            shard=target.shard_id,
            kept=sql.SQL(", ").join(map(sql.Identifier, kept)),
            held=sql.SQL(", ").join(sql.Identifier("held", name) for name in kept),
            places=sql.Identifier(_TABLE),
        )
    ).rowcount


def _check(n_written: int, n_wanted: int, table: str, target: Target) -> None:
    if n_written != n_wanted:
        raise DatabaseError(
            f"{table}: Postgres changed {n_written} of {n_wanted} rows of {target.name!r}; is "
            "there a trigger, rule or policy of yours on the table?"
        )


def _one(connection: Connection, query: sql.Composed) -> tuple[Any, ...]:
    """The row of an aggregate, which always has one."""
    row = connection.execute(query).fetchone()
    assert row is not None  # noqa: S101
    return row
