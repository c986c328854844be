"""`acidburn export POOL DIRECTORY`: a pool as files that other tools read.

`cluster_map.json`, `centroids.parquet` and `clustered.parquet` (chunk ids, embeddings, cluster ids
with -1 for noise). A dataset's licence is honoured: texts go out only where its entry in
datasets.yaml allows it; statistics, labels and vectors' ids always do.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import click
import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from acidburn_assets import settings
from acidburn_assets.core import schemas
from acidburn_assets.core.cluster_map import ClusterMap
from acidburn_assets.core.datasets import Pool, Registry
from acidburn_assets.core.errors import ConfigError, SchemaError
from acidburn_assets.io_managers.objects import Tables, load_record
from acidburn_assets.io_managers.pools import PoolTables
from acidburn_assets.runtime import backends


@click.command()
@click.argument("pool")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@click.option("--texts", is_flag=True, help="Put the chunks' texts beside their embeddings.")
def command(pool: str, directory: Path, texts: bool) -> None:
    """Write POOL's cluster map, centroids, and clustered embeddings into DIRECTORY."""
    configured = settings.load()
    chosen = configured.registry.pool(pool)
    locked = locked_datasets(chosen, configured.registry)
    if texts and locked:
        raise ConfigError(
            f"the texts of {locked} may not be redistributed (datasets.yaml); "
            "export without --texts"
        )
    store = backends.open_store(configured)
    cluster_map: ClusterMap = load_record(store, dg.AssetKey([pool, "cluster_map"]))
    directory.mkdir(parents=True, exist_ok=True)
    _replace(directory / "cluster_map.json", cluster_map.without_private_text(locked).to_bytes())
    centroids = Tables(store, dg.AssetKey([pool, "centroids"])).read(None)
    medoids = [
        _as_hex(pa.array(ids, schemas.CHUNK_ID)) for ids in centroids["medoid_ids"].to_pylist()
    ]
    position = centroids.schema.get_field_index("medoid_ids")
    shown = centroids.set_column(position, "medoid_ids", pa.array(medoids, pa.list_(pa.string())))
    _write_table(directory / "centroids.parquet", shown.schema, iter(shown.to_batches()))
    dim = centroids.schema.field("centroid").type.list_size
    schema = clustered_schema(dim, has_texts=texts)
    rows = _write_table(
        directory / "clustered.parquet",
        schema,
        _clustered(PoolTables(store, chosen), schema, has_texts=texts),
    )
    click.echo(f"{rows:,} chunks in {len(cluster_map.cards)} clusters: {directory}")
    if locked:
        click.echo(f"without texts and quotations: {', '.join(locked)}", err=True)


def locked_datasets(pool: Pool, registry: Registry) -> list[str]:
    """Datasets of the pool whose texts may not be redistributed."""
    return [name for name in pool.datasets if not registry.dataset(name).may_redistribute_text]


def clustered_schema(dim: int, *, has_texts: bool) -> pa.Schema:
    """Columns of clustered.parquet.

    Args:
        dim: of the embeddings.
        has_texts: with the chunks' texts and places.
    """
    fields = [
        pa.field("dataset", pa.string()),
        pa.field("shard", pa.string()),
        pa.field("chunk_id", pa.string()),  # hex, as every command shows it
        pa.field("doc_id", pa.string()),
        pa.field("cluster_id", pa.int32()),  # -1: noise
        pa.field("nearest_cluster_id", pa.int32()),
        pa.field("strength", pa.float32()),
        pa.field("embedding", schemas.vector_type(dim)),
    ]
    if has_texts:
        fields.append(pa.field("text", pa.string()))
    return pa.schema(fields)


def _clustered(
    tables: PoolTables, schema: pa.Schema, *, has_texts: bool
) -> Iterator[pa.RecordBatch]:
    manifests = tables.manifests()
    for dataset, shard, vectors, placed in tables.placed(manifests):
        tables.check_sealed(dataset, shard, manifests[dataset])
        wanted = ["chunk_id", "doc_id", *(["text"] if has_texts else [])]
        texts = tables.table(dataset, "chunks").read(shard, wanted)
        if not texts["chunk_id"].equals(vectors["chunk_id"]):
            raise SchemaError(
                f"{dataset}/{shard}: the embeddings are not of these chunks; materialize them again"
            )
        columns = {
            "dataset": pa.repeat(pa.scalar(dataset), len(vectors)),
            "shard": pa.repeat(pa.scalar(shard), len(vectors)),
            "chunk_id": _as_hex(vectors["chunk_id"]),
            "doc_id": texts["doc_id"],
            "cluster_id": pc.if_else(
                placed["is_noise"], pa.scalar(-1, pa.int32()), placed["cluster_id"]
            ),
            "nearest_cluster_id": placed["cluster_id"],
            "strength": placed["strength"],
            "embedding": vectors["embedding"],
        }
        if has_texts:
            columns["text"] = texts["text"]
        yield from pa.table(columns, schema=schema).to_batches()


def _as_hex(ids: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Chunk ids as other tools can join them; pandas has no type for fixed-size bytes in lists."""
    return pa.array([chunk_id.hex() for chunk_id in ids.to_pylist()], pa.string())


def _write_table(path: Path, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> int:
    rows = 0
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with pq.ParquetWriter(unfinished, schema, compression="zstd") as writer:
            for batch in batches:
                writer.write_batch(batch)
                rows += batch.num_rows
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return rows


def _replace(path: Path, content: bytes) -> None:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_bytes(content)
    unfinished.replace(path)
