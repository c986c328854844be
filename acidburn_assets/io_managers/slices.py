"""Assets that are slices of Postgres tables: deleted and written again in one transaction.

The loader's ledger in the database holds the fingerprint of code and inputs beside the rows, in
the same transaction; so what is loaded is known without asking Dagster.
"""

from collections.abc import Callable, Mapping
from typing import Literal

import dagster as dg

from acidburn_assets.adapters.postgres import LoadResult, Postgres, load_state, pool_load_state
from acidburn_assets.io_managers.base import AssetIOManager, Made, Stored
from acidburn_assets.resources import PostgresResource

SHARD_TABLES: Mapping[str, Literal["chunk_embeddings", "chunk_clusters"]] = {
    "chunk_embeddings": "chunk_embeddings",
    "chunk_clusters": "chunk_clusters",
}
"""Table of each partitioned asset; the one without partitions is `cluster_headers`."""

Load = Callable[[Postgres, str, str, bool], LoadResult]
"""Loads one slice: (database, fingerprint for the ledger, run id, forced) -> what was done."""


class SliceIOManager(AssetIOManager):
    """`D/chunk_embeddings[shard]`, `D/chunk_clusters[shard]`, `P/cluster_headers`."""

    def __init__(self, postgres: Postgres) -> None:
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
            state = pool_load_state(self.postgres, owner)
        else:
            state = load_state(self.postgres, SHARD_TABLES[asset], owner, partition)
        # rows that somebody deleted by hand are as good as never loaded
        if state is None or (state.n_counted is not None and state.n_counted != state.n_rows):
            return None
        figures = {"rows": state.n_rows, "table": f"acidburn.{asset}", "load_run": state.run_id}
        return Stored(state.source_sha256, state.made_from, figures)

    def load_input(self, context: dg.InputContext) -> None:
        raise NotImplementedError(
            f"{context.asset_key.to_user_string()} is read by SQL, not as an input: use deps"
        )


class SliceIOManagerFactory(dg.ConfigurableIOManagerFactory[SliceIOManager]):
    """Makes the manager from the configured database."""

    postgres: PostgresResource

    def create_io_manager(self, context: dg.InitResourceContext) -> SliceIOManager:  # noqa: ARG002
        return SliceIOManager(self.postgres.create())
