"""`D/chunks[shard]`: documents cut into chunks, every span exact, nothing dropped silently."""

from functools import partial

import dagster as dg

from acidburn_assets.adapters import pictures
from acidburn_assets.assets import encoder as encoders
from acidburn_assets.assets import specs
from acidburn_assets.core import chunks as chunking
from acidburn_assets.core import schemas
from acidburn_assets.core.datasets import Dataset
from acidburn_assets.core.plan import Plan
from acidburn_assets.io_managers.base import Made, Work, work
from acidburn_assets.io_managers.objects import Batches
from acidburn_assets.partitions import shard_partitions
from acidburn_assets.resources import ChunkerResource, EncoderResource, SourcesResource
from acidburn_assets.settings import Settings

SHARDS_PER_RUN = 64
"""Differs from every other asset's: assets with the same partitions and the same size would share
a run, and with it a concurrency pool. Source: Dagster 1.13.27, `asset_backfill.py`."""


def build(dataset: Dataset, settings: Settings) -> dg.AssetsDefinition:
    """The node of one dataset."""
    plan_key = specs.key(dataset.name, "plan")

    @dg.asset(
        key=specs.key(dataset.name, "chunks"),
        ins={"plan": dg.AssetIn(plan_key)},
        deps=[encoders.KEY],
        partitions_def=shard_partitions(dataset.name),
        backfill_policy=dg.BackfillPolicy.multi_run(SHARDS_PER_RUN),
        io_manager_key="tables",
        code_version=specs.version(
            "chunks-1",
            specs.reading_facts(dataset),
            dataset.chunk.model_dump(),
            settings.acidburn_model,
            settings.acidburn_model_revision,
            chunking.CHUNKER_VERSION,
        ),
        group_name=dataset.name,
        kinds={"parquet"},
        pool="cpu",
        description="Chunks of about the target's tokens, with their exact span in the document.",
    )
    def chunks(
        context: dg.AssetExecutionContext,
        plan: Plan,
        sources: SourcesResource,
        encoder: EncoderResource,
        chunker: ChunkerResource,
    ) -> dg.Output[Work]:
        encoders.observe_in_run(context.instance, encoder)
        reader = sources.create(dataset, revision=plan.revision)

        def make(partition: str | None) -> Made:
            shard = plan.shard(specs.require(partition))
            tally = chunking.Tally()
            sizes = chunking.Sizes(plan.target_tokens, plan.overlap_tokens)
            cutter = chunker.create()
            batches = chunking.chunk_documents(
                reader.read(shard.units),
                dataset=dataset,
                revision=plan.revision,
                tokenizer=cutter.tokenizer,
                sizes=sizes,
                tally=tally,
                cut_all=partial(cutter.cut_all, sizes=sizes),
            )
            return Made(Batches(schemas.CHUNKS, batches), lambda: _figures(tally))

        return work(make, read={plan_key: plan})

    return chunks


def _figures(tally: chunking.Tally) -> dict[str, object]:
    return {
        "documents": tally.n_documents,
        "documents_kept": tally.n_kept,
        "documents_skipped": dict(tally.skipped),
        "characters": tally.n_chars,
        "tokens": tally.n_tokens,
        "over_limit": tally.n_over_limit,
        "chunk_lengths": specs.picture(
            pictures.chunk_lengths(tally.histogram, chunking.LENGTH_EDGES_TOKENS),
            "tokens per chunk",
        ),
        **specs.COST_FREE,
    }
