"""`P/cluster_headers`: centroids and labels in Postgres, where questions are routed."""

import dagster as dg

from acidburn_assets.adapters import postgres as database
from acidburn_assets.assets import specs
from acidburn_assets.core import embeddings as embedding
from acidburn_assets.core.cluster_map import ClusterMap
from acidburn_assets.core.datasets import Pool
from acidburn_assets.io_managers import versions
from acidburn_assets.io_managers.base import Made, Work, work
from acidburn_assets.io_managers.objects import Tables
from acidburn_assets.resources import EncoderResource


def build(pool: Pool) -> dg.AssetsDefinition:
    """The node of one pool."""
    map_key = specs.key(pool.name, "cluster_map")
    model_key = specs.key(pool.name, "cluster_model")

    @dg.asset(
        key=specs.key(pool.name, "cluster_headers"),
        ins={
            "cluster_map": dg.AssetIn(map_key),
            "centroids": dg.AssetIn(specs.key(pool.name, "centroids")),
        },
        deps=[model_key],
        io_manager_key="slices",
        code_version=specs.version("cluster_headers-1", pool.tier),
        group_name=pool.name,
        kinds={"postgres"},
        pool="supabase",
        description="Centroid, title, keywords and sizes of every cluster, in Postgres.",
    )
    def cluster_headers(
        context: dg.AssetExecutionContext,
        cluster_map: ClusterMap,
        centroids: Tables,
        encoder: EncoderResource,
    ) -> dg.Output[Work]:
        facts = specs.pool_facts(pool, encoder.card())

        def make(_: str | None) -> Made:
            exact = {row["cluster_id"]: row for row in centroids.read(None).to_pylist()}
            vectors = embedding.matrix(centroids.read(None)["centroid"])  # (k, dim) float32
            cards = sorted(cluster_map.cards, key=lambda card: card.cluster_id)
            headers = [
                database.ClusterHeader(
                    cluster_id=card.cluster_id,
                    parent=card.parent,
                    title=card.title,
                    summary=card.summary,
                    keywords=card.keywords,
                    n_chunks=card.size,
                    n_noise=card.n_noise,
                    radius=exact[card.cluster_id]["radius"],
                    medoid_ids=exact[card.cluster_id]["medoid_ids"],
                    label_source=card.label_source,
                )
                for card in cards
            ]
            model = versions.require_materialization(context.instance, model_key, None)
            clustering = versions.data_version(versions.tags_of(model))

            def load(target: database.Postgres, made_from: str, run_id: str) -> database.LoadResult:
                return database.replace_cluster_headers(
                    target,
                    facts,
                    headers=headers,
                    centroids=vectors[[card.cluster_id for card in cards]],
                    source_sha256=cluster_map.content_version(),
                    clustering=clustering,
                    run_id=run_id,
                    made_from=made_from,
                )

            return Made(load, {"clusters": len(headers), **specs.COST_FREE})

        return work(make)

    return cluster_headers
