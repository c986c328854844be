"""`P/projection`: the pool as a 2-d map, with its labels."""

import dagster as dg

from acidburn_assets.adapters import pictures, projector
from acidburn_assets.assets import specs
from acidburn_assets.core import embeddings as embedding
from acidburn_assets.core import projection as mapping
from acidburn_assets.core import schemas
from acidburn_assets.core.cluster_map import ClusterMap
from acidburn_assets.core.datasets import Pool
from acidburn_assets.io_managers.base import Made, Work, work
from acidburn_assets.io_managers.objects import Batches
from acidburn_assets.io_managers.pools import PoolTables
from acidburn_assets.resources import StoreResource


def build(pool: Pool) -> dg.AssetsDefinition:
    """The node of one pool."""
    map_key = specs.key(pool.name, "cluster_map")

    @dg.asset(
        key=specs.key(pool.name, "projection"),
        ins={"cluster_map": dg.AssetIn(map_key)},
        deps=[specs.key(dataset, "assignments") for dataset in pool.datasets],
        io_manager_key="tables",
        code_version=specs.version("projection-1", pool.datasets, pool.settings.seed),
        group_name=pool.name,
        kinds={"parquet"},
        pool="cpu",
        description="A bounded sample of the pool laid out in two dimensions.",
    )
    def projection(cluster_map: ClusterMap, store: StoreResource) -> dg.Output[Work]:
        objects = store.create()
        tables = PoolTables(objects, pool)

        def make(_: str | None) -> Made:
            manifests = tables.manifests()
            chosen = mapping.choose_points(
                tables.chunks_by_shard(manifests), seed=pool.settings.seed
            )
            vectors = tables.take_embeddings(chosen, manifests)
            placed = tables.take("assignments", chosen, schemas.ASSIGNMENTS.names)
            points = projector.project(
                embedding.matrix(vectors["embedding"]), seed=pool.settings.seed
            )  # (n, 2) float32
            table = mapping.make_table(points, placed, chosen)
            png = pictures.pool_map(
                table,
                titles={card.cluster_id: card.title for card in cluster_map.cards},
                title=f"{pool.name}: {', '.join(pool.datasets)}",
            )
            # beside the table and before it: whoever sees the table finds the picture
            info = objects.put_bytes(f"{pool.name}/projection.png", png)
            return Made(
                Batches(schemas.PROJECTION, table.to_batches()),
                {
                    "map": specs.picture(png, f"map of {pool.name}"),
                    "picture": dg.MetadataValue.url(objects.uri(info.key)),
                    **specs.COST_FREE,
                },
            )

        return work(make, read={map_key: cluster_map})

    return projection
