"""`P/lineage_table`: the lineage in Postgres, for whoever asks it by SQL."""

import dagster as dg

from acidburn_assets.adapters import postgres as database
from acidburn_assets.assets import specs
from acidburn_assets.core.datasets import Pool
from acidburn_assets.core.lineage import sources_of
from acidburn_assets.io_managers.base import Made, Work, work
from acidburn_assets.io_managers.objects import Tables
from acidburn_assets.resources import EncoderResource


def build(pool: Pool) -> dg.AssetsDefinition:
    """The node of one pool."""

    @dg.asset(
        key=specs.key(pool.name, "lineage_table"),
        ins={"lineage": dg.AssetIn(specs.key(pool.name, "lineage"))},
        io_manager_key="slices",
        code_version=specs.version("lineage_table-1", pool.tier),
        group_name=pool.name,
        kinds={"postgres"},
        pool="supabase",
        description="Shard × cluster counts and what each shard was made from, in Postgres.",
    )
    def lineage_table(lineage: Tables, encoder: EncoderResource) -> dg.Output[Work]:
        facts = specs.pool_facts(pool, encoder.card())

        def make(_: str | None) -> Made:
            table = lineage.read(None)
            sources = sources_of(table.schema, key=lineage.object_key(None))
            sha256 = lineage.info(None).sha256

            def load(
                target: database.Postgres, made_from: str, run_id: str, is_forced: bool
            ) -> database.LoadResult:
                return database.replace_lineage(
                    target,
                    facts,
                    lineage=table.to_batches(),
                    sources=sources,
                    source_sha256=sha256,
                    run_id=run_id,
                    made_from=made_from,
                    is_forced=is_forced,
                )

            return Made(load, {"shards": len(sources.shards), **specs.COST_FREE})

        return work(make)

    return lineage_table
