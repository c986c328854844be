"""`P/cluster_model`: the clusters of a bounded sample, fitted on the sealed manifests."""

import dagster as dg

from acidburn_assets.adapters import clusterer
from acidburn_assets.assets import specs
from acidburn_assets.core import cluster_model as clustering
from acidburn_assets.core import embeddings as embedding
from acidburn_assets.core.datasets import Pool
from acidburn_assets.io_managers.base import Made, Work, work
from acidburn_assets.io_managers.pools import PoolTables
from acidburn_assets.resources import StoreResource


def build(pool: Pool) -> dg.AssetsDefinition:
    """The node of one pool."""

    @dg.asset(
        key=specs.key(pool.name, "cluster_model"),
        deps=[specs.key(dataset, "manifest") for dataset in pool.datasets],
        io_manager_key="records",
        code_version=specs.version(
            "cluster_model-2", clusterer.ENGINE_VERSION, pool.settings.model_dump(), pool.datasets
        ),
        group_name=pool.name,
        kinds={"numpy"},
        pool="cpu",
        description="Density clusters of a seeded, shard-stratified sample of the pool.",
    )
    def cluster_model(context: dg.AssetExecutionContext, store: StoreResource) -> dg.Output[Work]:
        tables = PoolTables(store.create(), pool)

        def make(_: str | None) -> Made:
            manifests = tables.manifests()
            sizes = tables.chunks_by_shard(manifests)
            chosen = clustering.sample_rows(
                sizes,
                limit=pool.settings.sample_rows,
                seed=pool.settings.seed,
            )
            sample = tables.take_embeddings(chosen, manifests)
            vectors = embedding.matrix(sample["embedding"])  # (n, dim) float32
            context.log.info(f"fitting {pool.settings.engine} on {len(vectors)} vectors")
            fit = clusterer.fit(vectors, pool.settings, n_chunks=sum(sizes.values()))
            model = clustering.summarize(
                fit,
                vectors,
                embedding.id_matrix(sample["chunk_id"]),
                pool=pool.name,
                settings=pool.settings,
                manifests={
                    name: manifest.content_version() for name, manifest in manifests.items()
                },
                model=next(iter(manifests.values())).model,
            )
            if model.meta.is_fallback:
                context.log.warning(f"one cluster holds everything: {model.meta.fallback_reason}")
            return Made(model, _figures(model, fit))

        return work(make)

    return cluster_model


def _figures(model: clustering.ClusterModel, fit: clustering.Fit) -> dict[str, object]:
    meta = model.meta
    return {
        "sampled": meta.n_sample,
        "clusters": meta.n_clusters,
        "cells": meta.n_cells,
        "groups": meta.n_groups,
        "noise_share": round(meta.noise_share, 4),
        "separation": meta.separation,
        "persistence": meta.persistence,
        "engine": meta.engine,
        "fallback": meta.fallback_reason or "no",
        "manifests": meta.manifests,
        "stage_seconds": {stage: round(seconds, 2) for stage, seconds in fit.seconds.items()},
        "sizes_in_sample": dg.MetadataValue.json(model.sizes.tolist()[:200]),
        **specs.COST_FREE,
    }
