"""`P/cluster_map`: what every cluster is called, keyless first, upgraded by an LLM where there is a
key, and how well each name fits."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import dagster as dg
import numpy as np
import pyarrow as pa

from acidburn_assets.assets import specs
from acidburn_assets.core import cluster_map as mapping
from acidburn_assets.core import embeddings as embedding
from acidburn_assets.core.cluster_map import ClusterMap
from acidburn_assets.core.cluster_model import ClusterModel
from acidburn_assets.core.datasets import Dataset, Pool
from acidburn_assets.core.labels import ClusterSample, Passage, describe, members_wanted
from acidburn_assets.core.samples import MemberSample, Place, rows_by_shard
from acidburn_assets.io_managers.base import Made, Work, work
from acidburn_assets.io_managers.objects import Tables
from acidburn_assets.io_managers.pools import PoolTables
from acidburn_assets.resources import EncoderResource, LabelerResource, StoreResource
from acidburn_assets.settings import Settings

N_HELD_OUT = 10
"""Members of each cluster that no label is made from; titles are scored on them. Chosen."""


def build(pool: Pool, datasets: Sequence[Dataset], settings: Settings) -> dg.AssetsDefinition:
    """The node of one pool."""

    @dg.asset(
        key=specs.key(pool.name, "cluster_map"),
        ins={
            "cluster_model": dg.AssetIn(specs.key(pool.name, "cluster_model")),
            "centroids": dg.AssetIn(specs.key(pool.name, "centroids")),
        },
        io_manager_key="records",
        code_version=specs.version(
            "cluster_map-1",
            # keyless labels do not change with the model that would have been asked
            settings.acidburn_label_model if settings.xai_api_key.get_secret_value() else "keyless",
        ),
        group_name=pool.name,
        kinds={"json"},
        pool="labels",
        description="Title, keywords and summary of every cluster, and how well each fits.",
    )
    def cluster_map(
        context: dg.AssetExecutionContext,
        cluster_model: ClusterModel,
        centroids: Tables,
        store: StoreResource,
        encoder: EncoderResource,
        labeler: LabelerResource,
    ) -> dg.Output[Work]:
        objects = store.create()
        tables = PoolTables(objects, pool)

        def make(_: str | None) -> Made:
            table = centroids.read(None)
            vectors = embedding.matrix(table["centroid"])  # (k, dim) float32
            members = _sample_members(tables, table)
            heuristics = describe(members.samples(), mapping.nearest_clusters(vectors))
            made = mapping.build_cluster_map(
                pool=pool.name,
                datasets=[
                    mapping.DatasetTerms(
                        dataset=dataset.name,
                        licence=dataset.licence,
                        may_redistribute_text=dataset.may_redistribute_text,
                    )
                    for dataset in datasets
                ],
                model=cluster_model.meta.model,
                cluster_model_sha256=cluster_model.content_version(),
                centroids_sha256=centroids.info(None).sha256,
                facts=_facts(cluster_model, table, members),
                heuristics=heuristics,
                groups=_groups(cluster_model, vectors, members),
            )
            titles = encoder.create().encode([card.title for card in made.cards], "query").vectors
            made = made.with_faithfulness(
                mapping.score_titles(titles, vectors, members.held_out_vectors(tables))
            )
            return Made(made, _figures(made))

        return work(make)

    return cluster_map
