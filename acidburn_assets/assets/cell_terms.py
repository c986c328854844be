"""`P/cell_terms`: which words lie in which cell of the pool."""

import dagster as dg

from acidburn_assets.assets import specs
from acidburn_assets.core import schemas
from acidburn_assets.core.cell_terms import CellTermsAccumulator, terms_of_a_cell
from acidburn_assets.core.cluster_model import ClusterModel
from acidburn_assets.core.datasets import Pool
from acidburn_assets.core.lexicon import Lexicon
from acidburn_assets.io_managers.base import Made, Work, work
from acidburn_assets.io_managers.objects import Batches, Tables
from acidburn_assets.io_managers.pools import PoolTables
from acidburn_assets.resources import StoreResource


def build(pool: Pool) -> dg.AssetsDefinition:
    """The node of one pool."""
    model_key = specs.key(pool.name, "cluster_model")

    @dg.asset(
        key=specs.key(pool.name, "cell_terms"),
        ins={
            "cluster_model": dg.AssetIn(model_key),
            "lexicon": dg.AssetIn(specs.key(pool.name, "lexicon")),
        },
        deps=[
            specs.key(dataset, asset)
            for dataset in pool.datasets
            for asset in ("assignments", "term_weights")
        ],
        io_manager_key="tables",
        code_version=specs.version("cell_terms-1", pool.datasets),
        group_name=pool.name,
        kinds={"parquet"},
        pool="cpu",
        description="Terms of each cell, with the most that one of its chunks has of each.",
    )
    def cell_terms(
        cluster_model: ClusterModel, lexicon: Tables, store: StoreResource
    ) -> dg.Output[Work]:
        tables = PoolTables(store.create(), pool)

        def make(_: str | None) -> Made:
            n_cells = len(cluster_model.cell_centroids)
            collected = CellTermsAccumulator(Lexicon(lexicon.read(None)), n_cells)
            for dataset, entry in tables.entries(tables.manifests()):
                placed = tables.table(dataset, "assignments").read(
                    entry.shard, ["chunk_id", "cell_id"]
                )
                weighed = tables.table(dataset, "term_weights").read(entry.shard)
                tables.check_same_chunks(placed, weighed, f"{dataset}/{entry.shard}")
                collected.add(placed["cell_id"].to_numpy(), weighed)
            table = collected.finish()
            return Made(
                Batches(schemas.CELL_TERMS, table.to_batches()),
                {
                    "entries": len(table),
                    "terms_per_cell": round(len(table) / max(1, n_cells), 1),
                    "most_per_cell": terms_of_a_cell(n_cells),
                    **specs.COST_FREE,
                },
            )

        return work(make, read={model_key: cluster_model})

    return cell_terms
