"""`P/lexicon`: how many chunks of the pool have each term, exact over all of them."""

import dagster as dg

from acidburn_assets.assets import specs
from acidburn_assets.core import schemas
from acidburn_assets.core.datasets import Pool
from acidburn_assets.core.lexicon import LexiconAccumulator
from acidburn_assets.io_managers.base import Made, Work, work
from acidburn_assets.io_managers.objects import Batches
from acidburn_assets.io_managers.pools import PoolTables
from acidburn_assets.resources import StoreResource


def build(pool: Pool) -> dg.AssetsDefinition:
    """The node of one pool."""

    @dg.asset(
        key=specs.key(pool.name, "lexicon"),
        deps=[specs.key(dataset, "term_weights") for dataset in pool.datasets]
        + [specs.key(dataset, "manifest") for dataset in pool.datasets],
        io_manager_key="tables",
        code_version=specs.version("lexicon-1", pool.datasets),
        group_name=pool.name,
        kinds={"parquet"},
        pool="cpu",
        description="Chunks of the pool that have each term: how rare it is.",
    )
    def lexicon(store: StoreResource) -> dg.Output[Work]:
        tables = PoolTables(store.create(), pool)

        def make(_: str | None) -> Made:
            counted = LexiconAccumulator()
            for dataset, entry in tables.entries(tables.manifests()):
                weights = tables.table(dataset, "term_weights").read(entry.shard, ["terms"])
                counted.add(weights["terms"].combine_chunks().flatten().to_numpy(), len(weights))
            table = counted.finish()
            return Made(
                Batches(schemas.LEXICON, table.to_batches()),
                {
                    "terms": len(table) - 1,
                    "chunks": table["n_chunks"][0].as_py(),
                    **specs.COST_FREE,
                },
            )

        return work(make)

    return lexicon
