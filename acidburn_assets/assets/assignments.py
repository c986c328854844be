"""`D/assignments[shard]`: the nearest cluster of every chunk; noise is marked, never lost."""

from collections.abc import Iterator

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from acidburn_assets.assets import specs
from acidburn_assets.core import assignments as assigning
from acidburn_assets.core import embeddings as embedding
from acidburn_assets.core import schemas
from acidburn_assets.core.cluster_model import ClusterModel
from acidburn_assets.core.datasets import Dataset, Pool
from acidburn_assets.io_managers.base import Made, Work, work
from acidburn_assets.io_managers.objects import Batches, Tables
from acidburn_assets.partitions import shard_partitions

SHARDS_PER_RUN = 128
"""See `chunks.SHARDS_PER_RUN`."""


def build(dataset: Dataset, pool: Pool) -> dg.AssetsDefinition:
    """The node of one dataset."""
    model_key = specs.key(pool.name, "cluster_model")

    @dg.asset(
        key=specs.key(dataset.name, "assignments"),
        ins={
            "embeddings": dg.AssetIn(specs.key(dataset.name, "embeddings")),
            "cluster_model": dg.AssetIn(model_key),
        },
        partitions_def=shard_partitions(dataset.name),
        backfill_policy=dg.BackfillPolicy.multi_run(SHARDS_PER_RUN),
        io_manager_key="tables",
        code_version=specs.version("assignments-2"),
        group_name=dataset.name,
        kinds={"parquet"},
        pool="cpu",
        description="Cell, cluster, strength, distance and noise of every chunk.",
    )
    def assignments(embeddings: Tables, cluster_model: ClusterModel) -> dg.Output[Work]:
        def make(partition: str | None) -> Made:
            shard = specs.require(partition)
            counts = {"noise": 0, "rows": 0}

            def batches() -> Iterator[pa.RecordBatch]:
                for batch in embeddings.batches(shard, ["chunk_id", "embedding"]):
                    vectors = embedding.matrix(batch.column("embedding"))  # (n, dim) float32
                    made = assigning.assign(vectors, cluster_model, batch.column("chunk_id"))
                    counts["noise"] += pc.sum(made.column("is_noise")).as_py() or 0
                    counts["rows"] += made.num_rows
                    yield made

            return Made(
                Batches(schemas.ASSIGNMENTS, batches()),
                lambda: {
                    "noise_share": round(counts["noise"] / max(counts["rows"], 1), 4),
                    **specs.COST_FREE,
                },
            )

        return work(make, read={model_key: cluster_model})

    return assignments
