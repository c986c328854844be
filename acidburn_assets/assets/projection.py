"""`P/projection`: the pool as a 2-d map: its table, a picture, and a page to move about in."""

from collections.abc import Sequence

import dagster as dg

from acidburn_assets.adapters import map_page, pictures, projector
from acidburn_assets.assets import specs
from acidburn_assets.core import embeddings as embedding
from acidburn_assets.core import keys, schemas
from acidburn_assets.core import map_page as page
from acidburn_assets.core import projection as mapping
from acidburn_assets.core.cluster_map import ClusterMap
from acidburn_assets.core.datasets import Dataset, Pool
from acidburn_assets.io_managers.base import Made, Work, work
from acidburn_assets.io_managers.objects import Batches
from acidburn_assets.io_managers.pools import PoolTables
from acidburn_assets.resources import StoreResource


def build(pool: Pool, datasets: Sequence[Dataset]) -> dg.AssetsDefinition:
    """The node of one pool."""
    map_key = specs.key(pool.name, "cluster_map")

    @dg.asset(
        key=specs.key(pool.name, "projection"),
        ins={"cluster_map": dg.AssetIn(map_key)},
        deps=[specs.key(dataset, "assignments") for dataset in pool.datasets],
        io_manager_key="tables",
        code_version=specs.version(
            "projection-2", pool.settings.seed, [[one.name, *specs.terms(one)] for one in datasets]
        ),
        group_name=pool.name,
        kinds={"parquet"},
        pool="cpu",
        description="A bounded sample of the pool in two dimensions, with picture and page.",
    )
    def projection(cluster_map: ClusterMap, store: StoreResource) -> dg.Output[Work]:
        objects = store.create()
        tables = PoolTables(objects, pool)

        def make(_: str | None) -> Made:
            manifests = tables.manifests()
            n_chunks_by_shard = tables.chunks_by_shard(manifests)
            chosen = mapping.choose_points(n_chunks_by_shard, seed=pool.settings.seed)
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
            html = map_page.render(
                page.describe(
                    table,
                    tables.take("chunks", chosen, page.COLUMNS),
                    cluster_map,
                    [specs.dataset_terms(one) for one in datasets],
                    n_chunks=sum(n_chunks_by_shard.values()),
                    n_laid_out=projector.n_laid_out(len(points)),
                ),
                title=f"{pool.name}: map",
            )
            # beside the table and before it: whoever sees the table finds picture and page
            picture = objects.put_bytes(
                keys.object_key(pool.name, "projection", suffix=".png"), png
            )
            shown = objects.put_bytes(keys.object_key(pool.name, "map", suffix=".html"), html)
            return Made(
                Batches(schemas.PROJECTION, table.to_batches()),
                {
                    "map": specs.picture(png, f"map of {pool.name}"),
                    "page": dg.MetadataValue.url(objects.uri(shown.key)),
                    "page_bytes": len(html),
                    "laid_out": projector.n_laid_out(len(points)),
                    "picture": dg.MetadataValue.url(objects.uri(picture.key)),
                    **specs.COST_FREE,
                },
            )

        return work(make, read={map_key: cluster_map})

    return projection
