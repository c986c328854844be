"""`P/lineage`: how many chunks each shard gave to each cluster, with the hashes of both."""

import dagster as dg
import pyarrow.compute as pc

from acidburn_assets.assets import specs
from acidburn_assets.core import lineage as tracing
from acidburn_assets.core import schemas
from acidburn_assets.core.datasets import Pool
from acidburn_assets.io_managers.base import Made, Work, work
from acidburn_assets.io_managers.objects import Batches
from acidburn_assets.io_managers.pools import PoolTables
from acidburn_assets.resources import StoreResource


def build(pool: Pool) -> dg.AssetsDefinition:
    """The node of one pool."""

    @dg.asset(
        key=specs.key(pool.name, "lineage"),
        deps=[specs.key(dataset, "assignments") for dataset in pool.datasets],
        io_manager_key="tables",
        code_version=specs.version("lineage-1", pool.datasets),
        group_name=pool.name,
        kinds={"parquet"},
        description="Shard × cluster counts: which shards fed which clusters.",
    )
    def lineage(store: StoreResource) -> dg.Output[Work]:
        tables = PoolTables(store.create(), pool)

        def make(_: str | None) -> Made:
            counted = [
                tracing.count_shard(
                    table.read(entry.shard, ["cluster_id", "is_noise"]),
                    dataset=dataset,
                    shard=entry.shard,
                    assignments_sha256=table.info(entry.shard).sha256,
                    embeddings_sha256=entry.sha256,
                )
                for dataset, manifest in tables.manifests().items()
                for table in [tables.table(dataset, "assignments")]
                for entry in manifest.entries
            ]
            table = tracing.merge(counted)
            return Made(
                Batches(schemas.LINEAGE, table.to_batches()),
                {
                    "shards": len(counted),
                    "chunks": pc.sum(table["n_chunks"]).as_py() or 0,
                    "noise": pc.sum(table["n_noise"]).as_py() or 0,
                    **specs.COST_FREE,
                },
            )

        return work(make)

    return lineage
