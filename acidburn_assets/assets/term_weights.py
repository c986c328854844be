"""`D/term_weights[shard]`: the words of every chunk and how much they say of it."""

from collections.abc import Iterator

import dagster as dg
import pyarrow as pa

from acidburn_assets.adapters import stemmer
from acidburn_assets.assets import specs
from acidburn_assets.core import schemas
from acidburn_assets.core import term_weights as weighing
from acidburn_assets.core.datasets import Dataset
from acidburn_assets.io_managers.base import Made, Work, work
from acidburn_assets.io_managers.objects import Batches, Tables
from acidburn_assets.partitions import shard_partitions

SHARDS_PER_RUN = 80
"""See `chunks.SHARDS_PER_RUN`."""


def build(dataset: Dataset) -> dg.AssetsDefinition:
    """The node of one dataset."""

    @dg.asset(
        key=specs.key(dataset.name, "term_weights"),
        ins={"chunks": dg.AssetIn(specs.key(dataset.name, "chunks"))},
        partitions_def=shard_partitions(dataset.name),
        backfill_policy=dg.BackfillPolicy.multi_run(SHARDS_PER_RUN),
        io_manager_key="tables",
        code_version=specs.version("term_weights-1", stemmer.version()),
        group_name=dataset.name,
        kinds={"parquet"},
        pool="cpu",
        description="Terms of every chunk with their BM25 weights, for lexical search.",
    )
    def term_weights(chunks: Tables) -> dg.Output[Work]:
        def make(partition: str | None) -> Made:
            shard = specs.require(partition)
            totals = {"terms": 0, "searched": 0, "words": 0}

            def batches() -> Iterator[pa.RecordBatch]:
                ids: list[pa.Array] = []
                counted: list[weighing.Counts] = []
                for batch in chunks.batches(shard, ["chunk_id", "text"]):
                    ids.append(batch["chunk_id"])
                    counted.append(weighing.count_terms(batch["text"], stemmer.stem))
                for made in weighing.weigh_terms(counted, ids):
                    weights = made["weights"].flatten().to_numpy()
                    totals["terms"] += len(weights)
                    totals["searched"] += int((weights > 0).sum())
                    yield made
                totals["words"] = sum(int(batch.n_words.sum()) for batch in counted)

            return Made(
                Batches(schemas.TERM_WEIGHTS, batches()), lambda: {**totals, **specs.COST_FREE}
            )

        return work(make)

    return term_weights
