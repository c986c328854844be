"""The nodes of the graph, one module each, its stem the asset's name.

Bodies are short: they take inputs and resources, call `core` and `adapters`, and say what a
person wants to see. No arithmetic lives here. `specs` holds what all nodes share; the graph of a
dataset or a pool is made by `dataset_assets` and `pool_assets`.
"""

import dagster as dg

from acidburn_assets.assets import (
    assignments,
    cell_terms,
    centroids,
    chunk_clusters,
    chunk_embeddings,
    chunks,
    cluster_headers,
    cluster_map,
    cluster_model,
    embeddings,
    encoder,
    lexicon,
    lineage,
    lineage_table,
    manifest,
    plan,
    projection,
    retrieval_report,
    term_weights,
)
from acidburn_assets.core.datasets import Dataset, Pool, Registry
from acidburn_assets.settings import Settings

Definition = dg.AssetsDefinition | dg.SourceAsset


def dataset_assets(dataset: Dataset, registry: Registry, settings: Settings) -> list[Definition]:
    """Every node of one dataset; those that need a pool only where it has one.

    Args:
        dataset: entry of the registry.
        registry: for the dataset's pool.
        settings: for the code versions that name the model.
    """
    made: list[Definition] = [
        plan.source(dataset),
        plan.build(dataset, settings),
        chunks.build(dataset, settings),
        embeddings.build(dataset, settings),
        manifest.build(dataset),
    ]
    if dataset.pool is not None:
        pool = registry.pool(dataset.pool)
        made += [
            term_weights.build(dataset),
            assignments.build(dataset, pool),
            chunk_embeddings.build(dataset, pool),
            chunk_clusters.build(dataset, pool),
        ]
    return made


def shared_assets() -> list[Definition]:
    """Nodes that belong to no dataset and no pool."""
    return [encoder.source()]


def pool_assets(pool: Pool, registry: Registry, settings: Settings) -> list[Definition]:
    """Every node of one pool.

    Args:
        pool: entry of the registry.
        registry: for the pool's datasets.
        settings: for the code versions that name the labelling model.
    """
    datasets = [registry.dataset(name) for name in pool.datasets]
    return [
        cluster_model.build(pool),
        centroids.build(pool),
        cluster_map.build(pool, datasets, settings),
        cluster_headers.build(pool),
        lexicon.build(pool),
        cell_terms.build(pool),
        projection.build(pool, datasets),
        lineage.build(pool),
        lineage_table.build(pool),
        retrieval_report.build(pool),
    ]
