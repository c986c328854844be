"""`P/centroids`: exact centroids, sizes, radii and medoids over all chunks of the pool."""

import dagster as dg
import numpy as np
import pyarrow as pa

from acidburn_assets.adapters import pictures
from acidburn_assets.assets import specs
from acidburn_assets.core import embeddings as embedding
from acidburn_assets.core import schemas
from acidburn_assets.core.centroids import CentroidAccumulator, MedoidAccumulator
from acidburn_assets.core.cluster_model import ClusterModel
from acidburn_assets.core.datasets import Pool
from acidburn_assets.io_managers.base import Made, Work, work
from acidburn_assets.io_managers.objects import Batches
from acidburn_assets.io_managers.pools import PoolTables
from acidburn_assets.resources import StoreResource


def build(pool: Pool) -> dg.AssetsDefinition:
    """The node of one pool."""
    model_key = specs.key(pool.name, "cluster_model")

    @dg.asset(
        key=specs.key(pool.name, "centroids"),
        ins={"cluster_model": dg.AssetIn(model_key)},
        deps=[specs.key(dataset, "assignments") for dataset in pool.datasets],
        io_manager_key="tables",
        code_version=specs.version("centroids-2", pool.datasets),
        group_name=pool.name,
        kinds={"parquet"},
        pool="cpu",
        description="Exact centroids, sizes, radii and medoids: two passes over every shard.",
    )
    def centroids(cluster_model: ClusterModel, store: StoreResource) -> dg.Output[Work]:
        tables = PoolTables(store.create(), pool)

        def make(_: str | None) -> Made:
            manifests = tables.manifests()
            sums = CentroidAccumulator(cluster_model)
            for _dataset, _shard, vectors, placed in tables.placed(manifests):
                sums.add(
                    embedding.matrix(vectors["embedding"]),
                    placed["cell_id"].to_numpy(),
                    placed["is_noise"].to_numpy(),
                )
            nearest = MedoidAccumulator(sums)
            for _dataset, _shard, vectors, placed in tables.placed(manifests):
                nearest.add(
                    embedding.matrix(vectors["embedding"]),
                    embedding.id_matrix(vectors["chunk_id"]),
                    placed["cell_id"].to_numpy(),
                    placed["is_noise"].to_numpy(),
                )
            table = nearest.finish()
            return Made(
                Batches(schemas.centroids(cluster_model.meta.dim), table.to_batches()),
                _figures(table),
            )

        return work(make, read={model_key: cluster_model})

    return centroids


def _figures(table: pa.Table) -> dict[str, object]:
    members = table["n_chunks"].to_numpy()
    noise = int(table["n_noise"].to_numpy().sum())
    total = int(members.sum()) + noise
    in_cells = table["cell_n_chunks"].combine_chunks().flatten().to_numpy()
    return {
        "clusters": len(table),
        "chunks": total,
        "noise_share": round(noise / max(total, 1), 4),
        "largest": int(members.max(initial=0)),
        "median_size": float(np.median(members)) if len(members) else 0.0,
        "cells": len(in_cells),
        "median_cell": float(np.median(in_cells)),
        "largest_cell": int(in_cells.max()),
        "sizes": specs.picture(
            pictures.cluster_sizes(members, list(map(str, table["cluster_id"].to_pylist()))),
            "chunks per cluster",
        ),
        **specs.COST_FREE,
    }
