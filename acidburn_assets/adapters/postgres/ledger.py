"""What is loaded: pools, shards and the ledger; and removing what no longer belongs.

The ledger's rows are written by `load`, each in the transaction of the slice it speaks of.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

from psycopg import sql

from acidburn_assets.adapters.postgres.connection import Connection, Postgres
from acidburn_assets.core.errors import DatabaseError, ModelError

ShardTable = Literal["chunk_embeddings", "chunk_clusters"]
PoolTable = Literal["cluster_headers", "lineage"]


class PoolFacts(NamedTuple):
    """A pool and the one model that makes its vectors."""

    name: str
    tier: Literal["knowledge", "verification"]
    model: str  # fingerprint of the encoder
    model_name: str
    dim: int


class ShardFacts(NamedTuple):
    """A shard as the plan knows it."""

    pool: PoolFacts
    dataset: str
    shard: str
    first_row: int  # of the dataset
    n_rows: int  # of the dataset
    revision: str
    licence: str
    may_redistribute_text: bool


class LoadState(NamedTuple):
    """A row of the ledger."""

    source_sha256: str
    made_from: str
    clustering: str
    n_rows: int
    run_id: str
    loaded_at: datetime
    chunks_sha256: str = ""  # of a shard; "" of a pool
    assignments_sha256: str = ""  # of a shard; "" of a pool
    n_counted: int | None = None  # rows in the table now; None where they were not counted

    def holds(self, source_sha256: str) -> bool:
        """Whether the ledger and a count agree that this very content is there."""
        return self.source_sha256 == source_sha256 and self.n_counted == self.n_rows


class PoolState(NamedTuple):
    """What of a pool is loaded."""

    pool_id: int
    facts: PoolFacts
    n_shards: int
    n_chunks: int
    clusterings: dict[str, int]  # content version of a cluster model -> shards that follow it


def load_state(postgres: Postgres, table: ShardTable, dataset: str, shard: str) -> LoadState | None:
    """What the ledger says of a shard, and how many rows are there; None where it is not loaded.

    Raises:
        DatabaseUnavailable, DatabaseError: the database cannot say.
    """
    with postgres.connect(purpose=f"reading the ledger of {dataset}/{shard}") as connection:
        return shard_state(connection, table, dataset, shard)


def load_ledger(postgres: Postgres, table: ShardTable, dataset: str) -> dict[str, LoadState]:
    """The ledger of a whole dataset by shard, in one query; rows are not counted.

    Raises:
        DatabaseUnavailable, DatabaseError: the database cannot say.
    """
    with postgres.connect(purpose=f"reading the ledger of {dataset}") as connection:
        rows = connection.execute(
            "select shard, source_sha256, made_from, clustering, loads.n_rows, run_id, loaded_at,"
            " chunks_sha256, assignments_sha256"
            " from acidburn.loads join acidburn.shards using (shard_id)"
            " where table_name = %s and dataset = %s order by shard",
            [table, dataset],
        ).fetchall()
    return {shard: LoadState(*state) for shard, *state in rows}


def forget_load(postgres: Postgres, table: str, owner: str, shard: str | None) -> None:
    """Removes a row of the ledger, so that the slice it speaks of is loaded again; the rows stay
    until then.

    Args:
        postgres: where.
        table: `chunk_embeddings`, `cluster_headers` or another that is loaded.
        owner: the dataset, or the pool of a table without shards.
        shard: None where the table has none.

    Raises:
        DatabaseUnavailable, DatabaseError: nothing was removed.
    """
    with postgres.connect(purpose=f"forgetting a load of {owner!r}") as connection:
        if shard is None:
            connection.execute(
                "delete from acidburn.pool_loads where table_name = %s and pool_id ="
                " (select pool_id from acidburn.pools where name = %s)",
                [table, owner],
            )
        else:
            connection.execute(
                "delete from acidburn.loads where table_name = %s and shard_id ="
                " (select shard_id from acidburn.shards where dataset = %s and shard = %s)",
                [table, owner, shard],
            )


def pool_load_state(postgres: Postgres, table: PoolTable, pool: str) -> LoadState | None:
    """What the ledger says of a pool's rows in a table, and how many are there; None where they
    are not loaded.

    Raises:
        DatabaseUnavailable, DatabaseError: the database cannot say.
    """
    with postgres.connect(purpose=f"reading the ledger of the pool {pool!r}") as connection:
        return pool_slice_state(connection, table, pool)


def pool_ledger(postgres: Postgres, pool: str) -> dict[str, str]:
    """The ledger of a pool's own tables: table to the hash of its content; rows are not counted.

    Raises:
        DatabaseUnavailable, DatabaseError: the database cannot say.
    """
    with postgres.connect(purpose=f"reading the ledger of the pool {pool!r}") as connection:
        rows = connection.execute(
            "select table_name, source_sha256 from acidburn.pool_loads"
            " join acidburn.pools using (pool_id) where name = %s",
            [pool],
        ).fetchall()
    return dict(rows)


def pool_state(postgres: Postgres, pool: str) -> PoolState | None:
    """What of a pool is loaded; None where nothing is.

    Raises:
        DatabaseUnavailable, DatabaseError: the database cannot say.
    """
    with postgres.connect(purpose=f"reading the ledger of the pool {pool!r}") as connection:
        row = connection.execute(
            "select pool_id, name, tier, model, model_name, dim from acidburn.pools"
            " where name = %s",
            [pool],
        ).fetchone()
        if row is None:
            return None
        pool_id, *facts = row
        loads = connection.execute(
            "select clustering, count(*), sum(loads.n_rows)::bigint from acidburn.loads"
            " join acidburn.shards using (shard_id)"
            " where pool_id = %s and table_name = 'chunk_embeddings'"
            " group by clustering order by clustering",
            [pool_id],
        ).fetchall()
    return PoolState(
        pool_id,
        PoolFacts(*facts),
        n_shards=sum(n_shards for _, n_shards, _ in loads),
        n_chunks=sum(n_rows for _, _, n_rows in loads),
        clusterings={clustering: n_shards for clustering, n_shards, _ in loads},
    )


def count_vectors(postgres: Postgres, pool: str) -> int:
    """Vectors of a pool that are there, counted one by one; the ledger is not asked.

    Raises:
        DatabaseUnavailable, DatabaseError: the database cannot say.
    """
    with postgres.connect(purpose=f"counting the vectors of the pool {pool!r}") as connection:
        (n_vectors,) = _one(
            connection,
            "select count(*) from acidburn.chunk_embeddings where pool_id ="
            " (select pool_id from acidburn.pools where name = %s)",
            [pool],
        )
    return int(n_vectors)


def unload(postgres: Postgres, pool: str) -> dict[str, int]:
    """Removes everything of a pool, so that it may be loaded with another model.

    Args:
        postgres: where.
        pool: its name; a pool that is not there removes nothing.

    Returns:
        Rows removed by table.

    Raises:
        DatabaseUnavailable, DatabaseError: nothing was removed.
    """
    with postgres.connect(purpose=f"unloading the pool {pool!r}") as connection:
        connection.execute("set local statement_timeout = 0")
        lock(connection, f"pool {pool}")
        found = connection.execute(
            "select pool_id from acidburn.pools where name = %s", [pool]
        ).fetchone()
        pool_id = found[0] if found else None
        shard_ids = connection.execute(
            "select shard_id from acidburn.shards where pool_id = %s", [pool_id]
        ).fetchall()
        removed = _remove(connection, [shard_id for (shard_id,) in shard_ids])
        for table in ("cluster_headers", "lineage", "lineage_shards", "pool_loads", "pools"):
            removed[table] = connection.execute(
                sql.SQL("delete from acidburn.{} where pool_id = %s").format(sql.Identifier(table)),
                [pool_id],
            ).rowcount
    return removed


def keep_datasets(postgres: Postgres, pool: str, datasets: Sequence[str]) -> dict[str, int]:
    """Removes the shards of datasets that no longer belong to a pool.

    Args:
        postgres: where.
        pool: its name.
        datasets: that belong to it.

    Returns:
        Rows removed by table.

    Raises:
        DatabaseUnavailable, DatabaseError: nothing was removed.
    """
    with postgres.connect(purpose=f"looking for shards that left {pool!r}") as connection:
        left = connection.execute(
            "select dataset, array_agg(shard) from acidburn.shards"
            " join acidburn.pools using (pool_id)"
            " where name = %s and dataset <> all(%s) group by dataset",
            [pool, list(datasets)],
        ).fetchall()
    removed: Counter[str] = Counter()
    for dataset, shards in left:
        removed.update(remove_shards(postgres, dataset, shards))
    return dict(removed)


def remove_shards(postgres: Postgres, dataset: str, shards: Sequence[str]) -> dict[str, int]:
    """Removes shards that a dataset no longer has: a new plan may cut fewer.

    Returns:
        Rows removed by table.

    Raises:
        DatabaseUnavailable, DatabaseError: nothing was removed.
    """
    with postgres.connect(purpose=f"removing shards of {dataset!r}") as connection:
        connection.execute("set local statement_timeout = 0")
        for shard in sorted(shards):  # sorted: two removals cannot wait for each other
            lock(connection, f"shard {dataset}/{shard}")
        shard_ids = connection.execute(
            "select shard_id from acidburn.shards where dataset = %s and shard = any(%s)",
            [dataset, list(shards)],
        ).fetchall()
        return _remove(connection, [shard_id for (shard_id,) in shard_ids])


def lock(connection: Connection, name: str, *, is_shared: bool = False) -> None:
    """An advisory lock until the transaction ends, the only kind that a transaction pooler keeps.

    Args:
        connection: with an open transaction.
        name: of the lock.
        is_shared: several may hold it at once, but nobody holds it alone meanwhile.
    """
    function = "pg_advisory_xact_lock_shared" if is_shared else "pg_advisory_xact_lock"
    connection.execute(
        sql.SQL("select {}(hashtextextended(%s, 0))").format(sql.Identifier(function)),
        [f"acidburn {name}"],
    )


def admit(connection: Connection, pool: PoolFacts) -> int:
    """The pool's id, made now or proved to be of the same model; it stays until the transaction
    ends.

    Raises:
        ModelError: the pool holds another model's vectors.
    """
    lock(connection, f"pool {pool.name}", is_shared=True)
    connection.execute(
        "insert into acidburn.pools (name, tier, model, model_name, dim)"
        " values (%s, %s, %s, %s, %s) on conflict (name) do nothing",
        pool,
    )
    pool_id, tier, model, model_name, dim = _one(
        connection,
        "select pool_id, tier, model, model_name, dim from acidburn.pools where name = %s",
        [pool.name],
    )
    if (model, dim) != (pool.model, pool.dim):
        raise ModelError(
            f"the pool {pool.name!r} in this database holds vectors of {model_name!r} "
            f"({dim} dimensions, fingerprint {model}): {_tables_of(connection, pool_id)}. These "
            f"are of {pool.model_name!r} ({pool.dim} dimensions, fingerprint {pool.model}). Point "
            f"at another database, or unload the pool {pool.name!r} first"
        )
    if tier != pool.tier:
        connection.execute(
            "update acidburn.pools set tier = %s where pool_id = %s", [pool.tier, pool_id]
        )
    return int(pool_id)


def register(connection: Connection, shard: ShardFacts, pool_id: int) -> int:
    """The shard's id; its facts are written only where they differ."""
    facts = [pool_id, shard.first_row, shard.n_rows, shard.licence, shard.may_redistribute_text]
    row = connection.execute(
        "select shard_id, pool_id, first_row, n_rows, licence, may_redistribute_text"
        " from acidburn.shards where dataset = %s and shard = %s",
        [shard.dataset, shard.shard],
    ).fetchone()
    if row is None or list(row[1:]) != facts:
        row = _one(
            connection,
            "insert into acidburn.shards"
            " (dataset, shard, pool_id, first_row, n_rows, licence, may_redistribute_text)"
            " values (%s, %s, %s, %s, %s, %s, %s) on conflict (dataset, shard) do update set"
            " pool_id = excluded.pool_id, first_row = excluded.first_row,"
            " n_rows = excluded.n_rows, licence = excluded.licence,"
            " may_redistribute_text = excluded.may_redistribute_text returning shard_id",
            [shard.dataset, shard.shard, *facts],
        )
    return int(row[0])


def shard_state(
    connection: Connection, table: ShardTable, dataset: str, shard: str
) -> LoadState | None:
    """`load_state` on an open connection."""
    tables = {
        "chunk_embeddings": ("chunk_embeddings", "chunk_texts"),
        "chunk_clusters": ("chunk_clusters",),
    }[table]
    row = connection.execute(
        "select source_sha256, made_from, clustering, loads.n_rows, run_id, loaded_at,"
        " chunks_sha256, assignments_sha256, shard_id"
        " from acidburn.loads join acidburn.shards using (shard_id)"
        " where table_name = %s and dataset = %s and shard = %s",
        [table, dataset, shard],
    ).fetchone()
    if row is None:
        return None
    *state, shard_id = row
    counts = [
        _one(
            connection,
            sql.SQL("select count(*) from acidburn.{} where shard_id = %s").format(
                sql.Identifier(name)
            ),
            [shard_id],
        )[0]
        for name in tables
    ]
    return LoadState(*state)._replace(n_counted=min(counts))


def pool_slice_state(connection: Connection, table: PoolTable, pool: str) -> LoadState | None:
    """`pool_load_state` on an open connection."""
    count = {
        "cluster_headers": "select count(*) from acidburn.cluster_headers where pool_id = %s",
        # a row whose shard is not there says nothing
        "lineage": "select count(*) from acidburn.lineage"
        " join acidburn.lineage_shards using (pool_id, shard_no) where pool_id = %s",
    }[table]
    row = connection.execute(
        "select source_sha256, made_from, clustering, n_rows, run_id, loaded_at, pool_id"
        " from acidburn.pool_loads join acidburn.pools using (pool_id)"
        " where table_name = %s and name = %s",
        [table, pool],
    ).fetchone()
    if row is None:
        return None
    *state, pool_id = row
    (n_counted,) = _one(connection, count, [pool_id])
    return LoadState(*state)._replace(n_counted=n_counted)


def _remove(connection: Connection, shard_ids: Sequence[int]) -> dict[str, int]:
    tables = ("chunk_embeddings", "chunk_texts", "chunk_clusters", "loads", "shards")
    return {
        table: connection.execute(
            sql.SQL("delete from acidburn.{} where shard_id = any(%s)").format(
                sql.Identifier(table)
            ),
            [list(shard_ids)],
        ).rowcount
        for table in tables
    }


def _tables_of(connection: Connection, pool_id: int) -> str:
    rows = connection.execute(
        "select table_name, sum(loads.n_rows)::bigint from acidburn.loads"
        " join acidburn.shards using (shard_id) where pool_id = %(pool)s group by table_name"
        " union all select table_name, n_rows from acidburn.pool_loads where pool_id = %(pool)s"
        " order by table_name",
        {"pool": pool_id},
    ).fetchall()
    return ", ".join(f"{n_rows:,} rows of {table}" for table, n_rows in rows)


def _one(
    connection: Connection, query: str | sql.Composed, arguments: Sequence[Any]
) -> tuple[Any, ...]:
    """The row of a query that always has one."""
    statement = query.encode() if isinstance(query, str) else query
    row = connection.execute(statement, arguments).fetchone()
    if row is None:
        raise DatabaseError(
            "a row that was just written cannot be read: row level security hides it; connect as "
            "the owner of Acidburn's tables, or as a role with BYPASSRLS"
        )
    return row
