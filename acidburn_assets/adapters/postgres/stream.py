"""Blocks of rows streamed into a table by COPY, and what they are made of fetched ahead of it.

What a block holds is `rows`; which transaction it goes into is `load`.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from psycopg import sql

from acidburn_assets.adapters.postgres import copy_binary
from acidburn_assets.adapters.postgres.connection import Connection
from acidburn_assets.adapters.postgres.rows import Block
from acidburn_assets.core.errors import DatabaseError

Item = TypeVar("Item")

_N_AHEAD = 4


def copy(
    connection: Connection,
    table: str,
    columns: Sequence[str],
    blocks: Iterator[Block],
    *,
    schema: str = "acidburn",
) -> int:
    """COPY of all blocks; the rows, as many as Postgres took.

    Raises:
        DatabaseError: Postgres took fewer.
    """
    statement = sql.SQL("copy {} ({}) from stdin (format binary)").format(
        sql.Identifier(schema, table), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    n_sent = 0
    with connection.cursor() as cursor:
        with cursor.copy(statement) as into:
            into.write(copy_binary.HEADER)
            for block in blocks:
                into.write(block.content)
                n_sent += block.n_rows
            into.write(copy_binary.TRAILER)
        if cursor.rowcount != n_sent:
            raise DatabaseError(
                f"{table}: Postgres took {cursor.rowcount} of {n_sent} rows; is there a trigger or "
                "rule of yours on the table?"
            )
    return n_sent


@contextmanager
def ahead(items: Iterable[Item]) -> Iterator[Iterator[Item]]:
    """The same items, made up to `_N_AHEAD` early in another thread.

    What goes wrong there is raised here, at its place in the order. On leaving, the item in the
    making is waited for and no other is begun.
    """
    made = iter(items)
    with ThreadPoolExecutor(1, thread_name_prefix="acidburn-load") as reader:
        waiting: deque[Future[Item | None]] = deque(
            reader.submit(next, made, None) for _ in range(_N_AHEAD)
        )

        def taken() -> Iterator[Item]:
            while (item := waiting.popleft().result()) is not None:
                waiting.append(reader.submit(next, made, None))
                yield item

        try:
            yield taken()
        finally:
            reader.shutdown(cancel_futures=True)
