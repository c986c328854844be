"""`D/chunk_clusters[shard]`: which cluster each chunk belongs to, in Postgres."""

import dagster as dg

from acidburn_assets.adapters import postgres as database
from acidburn_assets.assets import specs
from acidburn_assets.core.datasets import Dataset, Pool
from acidburn_assets.core.plan import Plan
from acidburn_assets.io_managers.base import Made, Work, work
from acidburn_assets.io_managers.objects import Tables, load_record
from acidburn_assets.partitions import shard_partitions
from acidburn_assets.resources import EncoderResource, StoreResource

SHARDS_PER_RUN = 96
"""See `chunks.SHARDS_PER_RUN`."""


def build(dataset: Dataset, pool: Pool) -> dg.AssetsDefinition:
    """The node of one dataset."""

    @dg.asset(
        key=specs.key(dataset.name, "chunk_clusters"),
        ins={name: dg.AssetIn(specs.key(dataset.name, name)) for name in ("assignments",)},
        partitions_def=shard_partitions(dataset.name),
        backfill_policy=dg.BackfillPolicy.multi_run(SHARDS_PER_RUN),
        io_manager_key="slices",
        code_version=specs.version("chunk_clusters-1", specs.terms(dataset), pool.tier),
        group_name=dataset.name,
        kinds={"postgres"},
        pool="supabase",
        description="Cluster, strength, distance and noise of every chunk of a shard, in Postgres.",
    )
    def chunk_clusters(
        context: dg.AssetExecutionContext,
        assignments: Tables,
        store: StoreResource,
        encoder: EncoderResource,
    ) -> dg.Output[Work]:
        plan: Plan = load_record(store.create(), specs.key(dataset.name, "plan"))
        facts = specs.pool_facts(pool, encoder.card())

        def make(partition: str | None) -> Made:
            shard = plan.shard(specs.require(partition))
            sources = specs.slice_sources(context.instance, dataset.name, pool.name, shard.key)

            def load(
                target: database.Postgres, made_from: str, run_id: str, is_forced: bool
            ) -> database.LoadResult:
                return database.replace_chunk_clusters(
                    target,
                    specs.shard_facts(dataset, facts, plan, shard),
                    database.Load(run_id=run_id, made_from=made_from, **sources),
                    assignments=assignments.batches(shard.key),
                    is_forced=is_forced,
                )

            return Made(load, {"clustering": sources["clustering"], **specs.COST_FREE})

        return work(make)

    return chunk_clusters
