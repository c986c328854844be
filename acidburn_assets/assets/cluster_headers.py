"""`P/cluster_headers`: centroids and labels in Postgres, for whoever reads the corpus by SQL."""

import dagster as dg

from acidburn_assets.adapters import postgres as database
from acidburn_assets.assets import specs
from acidburn_assets.core import embeddings as embedding
from acidburn_assets.core.cluster_map import ClusterMap
from acidburn_assets.core.datasets import Pool
from acidburn_assets.io_managers.base import Made, Work, work
from acidburn_assets.io_managers.objects import Tables
from acidburn_assets.resources import EncoderResource


def build(pool: Pool) -> dg.AssetsDefinition:
    """The node of one pool."""
    map_key = specs.key(pool.name, "cluster_map")

    @dg.asset(
        key=specs.key(pool.name, "cluster_headers"),
        ins={
            "cluster_map": dg.AssetIn(map_key),
            "centroids": dg.AssetIn(specs.key(pool.name, "centroids")),
        },
        io_manager_key="slices",
        code_version=specs.version("cluster_headers-1", pool.tier, pool.datasets),
        group_name=pool.name,
        kinds={"postgres"},
        pool="supabase",
        description="Centroid, title, keywords and sizes of every cluster, in Postgres.",
    )
    def cluster_headers(
        cluster_map: ClusterMap,
        centroids: Tables,
        encoder: EncoderResource,
    ) -> dg.Output[Work]:
        facts = specs.pool_facts(pool, encoder.card())

        def make(_: str | None) -> Made:
            table = centroids.read(None)
            exact = {
                row["cluster_id"]: row
                for row in table.select(["cluster_id", "radius", "medoid_ids"]).to_pylist()
            }
            rows = {cluster: row for row, cluster in enumerate(exact)}
            vectors = embedding.matrix(table["centroid"])  # (k, dim) float32
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

            def load(
                target: database.Postgres, made_from: str, run_id: str, is_forced: bool
            ) -> database.LoadResult:
                # a dataset that left the pool must not be found any more
                database.keep_datasets(target, pool.name, pool.datasets)
                return database.replace_cluster_headers(
                    target,
                    facts,
                    headers=headers,
                    centroids=vectors[[rows[card.cluster_id] for card in cards]],
                    source_sha256=cluster_map.content_version(),
                    clustering=cluster_map.cluster_model_sha256,
                    run_id=run_id,
                    made_from=made_from,
                    is_forced=is_forced,
                )

            return Made(load, {"clusters": len(headers), **specs.COST_FREE})

        return work(make, read={map_key: cluster_map})

    return cluster_headers
