"""`D/chunk_embeddings[shard]`: vectors and texts in Postgres, each shard replaced as a whole."""

from functools import cache

import dagster as dg

from acidburn_assets.adapters import postgres as database
from acidburn_assets.assets import specs
from acidburn_assets.core.datasets import Dataset, Pool
from acidburn_assets.core.plan import Plan
from acidburn_assets.io_managers.base import Made, Work, work
from acidburn_assets.io_managers.objects import Tables, load_record
from acidburn_assets.partitions import shard_partitions
from acidburn_assets.resources import EncoderResource, StoreResource

SHARDS_PER_RUN = 48
"""See `chunks.SHARDS_PER_RUN`."""


def build(dataset: Dataset, pool: Pool) -> dg.AssetsDefinition:
    """The node of one dataset."""

    @dg.asset(
        key=specs.key(dataset.name, "chunk_embeddings"),
        ins={
            name: dg.AssetIn(specs.key(dataset.name, name))
            for name in ("chunks", "embeddings", "assignments", "term_weights")
        },
        partitions_def=shard_partitions(dataset.name),
        backfill_policy=dg.BackfillPolicy.multi_run(SHARDS_PER_RUN),
        io_manager_key="slices",
        code_version=specs.version(
            "chunk_embeddings-1", dataset.store_text, specs.terms(dataset), pool.tier
        ),
        group_name=dataset.name,
        kinds={"postgres"},
        pool="supabase",
        description="Vectors and texts of a shard in Postgres, in the order of their clusters.",
    )
    def chunk_embeddings(
        context: dg.AssetExecutionContext,
        chunks: Tables,
        embeddings: Tables,
        assignments: Tables,
        term_weights: Tables,
        store: StoreResource,
        encoder: EncoderResource,
    ) -> dg.Output[Work]:
        plan: Plan = load_record(store.create(), specs.key(dataset.name, "plan"))
        facts = specs.pool_facts(pool, encoder.card())

        @cache
        def remove_unplanned(target: database.Postgres) -> None:
            """An earlier plan may have cut more shards; theirs must not be found any more."""
            planned = {shard.key for shard in plan.shards}
            loaded = database.load_ledger(target, "chunk_embeddings", dataset.name)
            database.remove_shards(target, dataset.name, sorted(set(loaded) - planned))

        def make(partition: str | None) -> Made:
            shard = plan.shard(specs.require(partition))
            sources = specs.slice_sources(context.instance, dataset.name, pool.name, shard.key)
            terms = specs.recorded_version(
                context.instance, dataset.name, "term_weights", shard.key
            )

            def load(
                target: database.Postgres, made_from: str, run_id: str, is_forced: bool
            ) -> database.LoadResult:
                remove_unplanned(target)
                return database.replace_chunk_embeddings(
                    target,
                    specs.shard_facts(dataset, facts, plan, shard),
                    database.Load(
                        run_id=run_id,
                        made_from=made_from,
                        term_weights_sha256=terms,
                        **sources,
                    ),
                    chunks=chunks.batches(shard.key),
                    embeddings=embeddings.batches(shard.key),
                    assignments=assignments.batches(shard.key),
                    term_weights=term_weights.batches(shard.key),
                    store_text=dataset.store_text,
                    is_forced=is_forced,
                )

            return Made(load, {"clustering": sources["clustering"], **specs.COST_FREE})

        return work(make)

    return chunk_embeddings
