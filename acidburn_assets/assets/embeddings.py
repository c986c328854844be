"""`D/embeddings[shard]`: one unit vector per chunk, in the chunks' order."""

import time
from collections.abc import Iterator
from functools import cache, partial

import dagster as dg
import pyarrow as pa

from acidburn_assets.assets import encoder as encoders
from acidburn_assets.assets import specs
from acidburn_assets.core import embeddings as embedding
from acidburn_assets.core import schemas
from acidburn_assets.core.datasets import Dataset
from acidburn_assets.core.embeddings import Encoder
from acidburn_assets.core.errors import ConfigError, ModelError
from acidburn_assets.core.plan import check_budget
from acidburn_assets.io_managers.base import Made, Work, work
from acidburn_assets.io_managers.objects import Batches, Tables, load_record
from acidburn_assets.io_managers.parts import Parts, Windows, made_by
from acidburn_assets.partitions import shard_partitions
from acidburn_assets.resources import EncoderResource, StoreResource
from acidburn_assets.settings import Settings

PROGRESS_SECONDS = 30
"""Between two lines of the run's log that say how far a shard has come. Chosen, not measured."""

SHARDS_PER_RUN = 32
"""One model load serves so many shards; see `chunks.SHARDS_PER_RUN` for why it is its own."""


def build(dataset: Dataset, settings: Settings) -> dg.AssetsDefinition:
    """The node of one dataset."""
    key = specs.key(dataset.name, "embeddings")
    code_version = specs.version(
        "embeddings-1", settings.acidburn_model, settings.acidburn_model_revision
    )

    @dg.asset(
        key=key,
        ins={"chunks": dg.AssetIn(specs.key(dataset.name, "chunks"))},
        deps=[encoders.KEY],
        partitions_def=shard_partitions(dataset.name),
        backfill_policy=dg.BackfillPolicy.multi_run(SHARDS_PER_RUN),
        io_manager_key="tables",
        code_version=code_version,
        group_name=dataset.name,
        kinds={"parquet", "pytorch"},
        pool="gpu",
        description="Unit vectors of the chunks, by the encoder that the settings name.",
    )
    def embeddings(
        context: dg.AssetExecutionContext,
        chunks: Tables,
        store: StoreResource,
        encoder: EncoderResource,
    ) -> dg.Output[Work]:
        # no input: a new plan that leaves a shard's chunks as they are must not embed them again
        objects = store.create()
        plan = load_record(objects, specs.key(dataset.name, "plan"))
        check_budget(plan, dataset.budget_usd)
        encoders.observe_in_run(context.instance, encoder)
        load = cache(partial(_load, encoder))
        usd_per_hour = settings.acidburn_usd_per_hour

        def make(partition: str | None) -> Made:
            shard = specs.require(partition)
            model = load()
            tally = embedding.Tally()
            author = made_by(code_version, chunks.info(shard).sha256, model)
            parts = Parts(
                objects,
                key,
                shard,
                model,
                made_by=author,
                part_seconds=settings.acidburn_part_seconds,
            )

            def batches() -> Iterator[pa.RecordBatch]:
                told = time.monotonic()
                with objects.open_parquet(chunks.object_key(shard)) as file:
                    windows = Windows(file, batch_tokens=model.batch_tokens)
                    for batch in parts.embed(windows, tally):
                        if time.monotonic() - told >= PROGRESS_SECONDS:
                            told = time.monotonic()
                            progress = tally.progress(len(windows.ids), usd_per_hour=usd_per_hour)
                            context.log.info(f"shard {shard}: {progress}")
                        yield batch

            return Made(
                Batches(
                    schemas.embeddings(model.card.dim),
                    batches(),
                    embedding.COLUMN_ENCODING,
                    after_store=parts.delete,
                ),
                lambda: {
                    "model": model.card.fingerprint,
                    "model_name": model.card.name,
                    "dim": model.card.dim,
                    "device": model.device,
                    "dtype": model.dtype,
                    "tokens": tally.n_tokens,
                    "truncated": tally.n_truncated,
                    "resumed_rows": tally.n_resumed_rows,
                    "parts": parts.n_written,
                    "chunks_per_second": round(tally.rows_per_second, 1),
                    "tokens_per_second": round(tally.tokens_per_second),
                    "cost_usd": round(tally.cost_usd(usd_per_hour), 4),
                },
            )

        return work(make)

    return embeddings


def _load(encoder: EncoderResource) -> Encoder:
    """A model that cannot be had is no shard's fault: all wait, none is quarantined."""
    try:
        return encoder.create()
    except ModelError as error:
        raise ConfigError(str(error)) from error
