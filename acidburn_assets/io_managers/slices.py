"""Assets that are slices of Postgres tables: deleted and written again in one transaction.

The loader's ledger in the database holds the fingerprint of code and inputs beside the rows, in
the same transaction; so what is loaded is known without asking Dagster.
"""

from collections.abc import Callable, Mapping

import dagster as dg

from acidburn_assets.adapters.object_store import ObjectStore
from acidburn_assets.adapters.postgres import (
    LoadResult,
    PoolTable,
    Postgres,
    ShardTable,
    forget_load,
    load_ledger,
    load_state,
    pool_ledger,
    pool_load_state,
)
from acidburn_assets.io_managers.base import AssetIOManager, Made, Stored
from acidburn_assets.resources import PostgresResource, StoreResource

SHARD_TABLES: Mapping[str, ShardTable] = {
    "chunk_embeddings": "chunk_embeddings",
    "chunk_clusters": "chunk_clusters",
}
"""Table of each partitioned asset."""

POOL_TABLES: Mapping[str, PoolTable] = {
    "cluster_headers": "cluster_headers",
    "lineage_table": "lineage",
}
"""Table of each asset without partitions."""

Load = Callable[[Postgres, str, str, bool], LoadResult]
"""Loads one slice: (database, fingerprint for the ledger, run id, forced) -> what was done."""


class SliceIOManager(AssetIOManager):
    """`D/chunk_embeddings[shard]`, `D/chunk_clusters[shard]`, `P/cluster_headers`,
    `P/lineage_table`."""

    def __init__(self, postgres: Postgres, objects: ObjectStore) -> None:
        super().__init__(objects)
        self.postgres = postgres

    def store(
        self,
        key: dg.AssetKey,
        partition: str | None,
        made: Made,
        *,
        made_from: str,
        run_id: str,
        is_forced: bool,
    ) -> Stored:
        load: Load = made.value
        load(self.postgres, made_from, run_id, is_forced)
        stored = self.stored(key, partition)
        if stored is None:
            raise RuntimeError(f"the ledger has no row for {key.to_user_string()} {partition!r}")
        return stored

    def stored(self, key: dg.AssetKey, partition: str | None) -> Stored | None:
        owner, asset = key.path
        if partition is None:
            state = pool_load_state(self.postgres, POOL_TABLES[asset], owner)
        else:
            state = load_state(self.postgres, SHARD_TABLES[asset], owner, partition)
        # rows that somebody deleted by hand are as good as never loaded
        if state is None or (state.n_counted is not None and state.n_counted != state.n_rows):
            return None
        figures = {
            "rows": state.n_rows,
            "table": f"acidburn.{_table(asset)}",
            "load_run": state.run_id,
        }
        return Stored(state.source_sha256, state.made_from, state.source_sha256, figures)

    def listed(self, key: dg.AssetKey) -> Mapping[str | None, str]:
        # by the ledger alone: counting every row of every shard is a scrub's work
        owner, asset = key.path
        if asset in SHARD_TABLES:
            ledger = load_ledger(self.postgres, SHARD_TABLES[asset], owner)
            return {shard: state.source_sha256 for shard, state in ledger.items()}
        content = pool_ledger(self.postgres, owner).get(POOL_TABLES[asset])
        return {} if content is None else {None: content}

    def sizes(self, key: dg.AssetKey) -> Mapping[str | None, int]:
        return dict.fromkeys(self.listed(key), 0)

    def discard_if_damaged(self, key: dg.AssetKey, partition: str | None) -> bool:
        if self.is_intact(key, partition):
            return False
        owner, asset = key.path
        forget_load(self.postgres, _table(asset), owner, partition)
        return True

    def is_intact(self, key: dg.AssetKey, partition: str | None) -> bool:
        return self.stored(key, partition) is not None  # which counts the rows

    def load_input(self, context: dg.InputContext) -> None:
        raise NotImplementedError(
            f"{context.asset_key.to_user_string()} is read by SQL, not as an input: use deps"
        )


def _table(asset: str) -> ShardTable | PoolTable:
    return SHARD_TABLES[asset] if asset in SHARD_TABLES else POOL_TABLES[asset]


class SliceIOManagerFactory(dg.ConfigurableIOManagerFactory[SliceIOManager]):
    """Makes the manager from the configured database."""

    postgres: PostgresResource
    objects: StoreResource

    def create_io_manager(self, context: dg.InitResourceContext) -> SliceIOManager:  # noqa: ARG002
        return SliceIOManager(self.postgres.create(), self.objects.create())
