"""A recorded corpus of any size without a text in it: events, plan, map and lineage, all made up.

What an audit reads is there as the stages would have left it; what it does not read is not. How
many clusters a shard touches is an assumption: texts of one shard are of few topics, so a shard
draws some clusters at random and fills them by a heavy-tailed law.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import numpy as np
import pyarrow as pa

from acidburn_assets.adapters.object_store import ObjectStore, write_parquet
from acidburn_assets.core import schemas
from acidburn_assets.core.cluster_map import Card, ClusterMap, DatasetTerms, Medoid
from acidburn_assets.core.cost import GPUS
from acidburn_assets.core.lineage import Source, Sources, merge
from acidburn_assets.core.plan import Estimate, GpuEstimate, Plan, Sample
from acidburn_assets.core.shards import Shard, Unit
from acidburn_assets.io_managers import history
from acidburn_assets.io_managers.versions import Versions

DATASET, POOL = "corpus", "pool"

REGISTRY = f"""
datasets:
  - {{name: {DATASET}, source: text, path: ., licence: CC0-1.0, may_redistribute_text: true,
     pool: {POOL}}}
pools:
  {POOL}: {{}}
"""

DOCUMENTS_PER_SHARD = 5_000

NOISE_SHARE = 0.2


class Size(NamedTuple):
    """How much was recorded."""

    n_shards: int
    n_chunks: int  # of a shard
    n_clusters: int
    n_touched: int  # clusters that a shard draws from


class Corpus(NamedTuple):
    """What was recorded."""

    lineage: pa.Table
    sources: Sources
    lineage_sha256: str
    lineage_bytes: int


def record(instance: dg.DagsterInstance, store: ObjectStore, size: Size) -> Corpus:
    """Writes the objects and reports the events.

    Args:
        instance: whose events.
        store: where.
        size: how much.
    """
    model = digest("model")
    keys = [f"{index:06d}" for index in range(size.n_shards)]
    instance.add_dynamic_partitions(f"{DATASET}_shards", keys)
    store.put_bytes(f"{DATASET}/plan.json", make_plan(size, keys).to_bytes())
    manifest = digest("manifest")
    _report(instance, [DATASET, "plan"], None, digest("plan"), {})
    _report(instance, [DATASET, "manifest"], None, manifest, {})
    fitted = {dg.AssetKey([DATASET, "manifest"]): manifest}
    _report(instance, [POOL, "cluster_model"], None, model, fitted)
    for key in keys:
        for asset in ("chunks", "embeddings", "term_weights", "assignments"):
            version = digest(asset, key)
            _report(instance, [DATASET, asset], key, version, {}, {"rows": size.n_chunks})
    of_model = {dg.AssetKey([POOL, "cluster_model"]): model}
    content = make_cluster_map(size, model).to_bytes()
    info = store.put_bytes(f"{POOL}/cluster_map.json", content)
    history.keep(store, dg.AssetKey([POOL, "cluster_map"]))
    _report(instance, [POOL, "cluster_map"], None, digest("map"), of_model, {"sha256": info.sha256})
    return _record_lineage(instance, store, size, keys, model, manifest)


def _record_lineage(
    instance: dg.DagsterInstance,
    store: ObjectStore,
    size: Size,
    keys: list[str],
    model: str,
    manifest: str,
) -> Corpus:
    table, sources = make_lineage(size, keys, model, manifest)
    info, _ = write_parquet(store, f"{POOL}/lineage.parquet", table.schema, table.to_batches())
    history.keep(store, dg.AssetKey([POOL, "lineage"]))
    figures = {"sha256": info.sha256, "cluster_models": dg.MetadataValue.json({model: len(keys)})}
    _report(instance, [POOL, "lineage"], None, info.sha256, {}, figures)
    return Corpus(table, sources, info.sha256, info.n_bytes)


def make_lineage(
    size: Size, keys: list[str], model: str, manifest: str
) -> tuple[pa.Table, Sources]:
    """Which shards fed which clusters, and what each shard was made from.

    Args:
        size: how much.
        keys: of the shards.
        model: content version of the cluster model.
        manifest: content version of the sealed manifest.
    """
    counts = list(_counts(size, keys))
    n_noise = [int(np.sum(count["n_noise"].to_numpy())) for count in counts]
    sources = Sources(
        pool=POOL,
        manifests={DATASET: manifest},
        shards=tuple(
            _source(size, index, key, n_noise[index], model) for index, key in enumerate(keys)
        ),
    )
    return merge(counts, sources), sources


def _counts(size: Size, keys: list[str]) -> Iterator[pa.RecordBatch]:
    rng = np.random.default_rng(0)
    for key in keys:
        touched = np.sort(rng.choice(size.n_clusters, size.n_touched, replace=False))
        weights = rng.pareto(1.2, size.n_touched) + 0.3
        n_of = rng.multinomial(size.n_chunks, weights / weights.sum())
        n_noise = rng.binomial(n_of, NOISE_SHARE)
        present = n_of > 0
        n = int(present.sum())
        yield pa.RecordBatch.from_pydict(
            {
                "cluster_id": pa.array(touched[present], pa.int32()),
                "dataset": pa.repeat(DATASET, n),
                "shard": pa.repeat(key, n),
                "n_chunks": pa.array((n_of - n_noise)[present]),
                "n_noise": pa.array(n_noise[present]),
            },
            schema=schemas.LINEAGE,
        )


def _source(size: Size, index: int, key: str, n_noise: int, model: str) -> Source:
    return Source(
        dataset=DATASET,
        shard=key,
        revision=digest("revision"),
        first_row=index * DOCUMENTS_PER_SHARD,
        n_rows=DOCUMENTS_PER_SHARD,
        n_chunks=size.n_chunks,
        n_noise=n_noise,
        model=digest("encoder"),
        model_name="BAAI/bge-m3",
        chunks_sha256=digest("chunks", key),
        embeddings_sha256=digest("embeddings", key),
        embeddings_code_version="embeddings-1-0123456789ab",
        embeddings_run_id=digest("run", str(index // 64))[:36],
        embeddings_event_id=3 * index,
        assignments_sha256=digest("assignments", key),
        assignments_code_version="assignments-1-0123456789ab",
        assignments_run_id=digest("run", str(index // 128))[:36],
        assignments_event_id=3 * index + 1,
        cluster_model=model,
    )


def make_plan(size: Size, keys: list[str]) -> Plan:
    """The plan that cut the shards.

    Args:
        size: how much.
        keys: of the shards.
    """
    n_chunks = size.n_shards * size.n_chunks
    sample = Sample(n_documents=1, n_chars=1, n_tokens=1, n_chunks=1, skipped={})
    gpu = GpuEstimate(gpu=GPUS[0].name, chunks_per_second=1.0, usd_per_hour=1.0, hours=1.0, usd=1.0)
    return Plan(
        dataset=DATASET,
        revision=digest("revision"),
        model="BAAI/bge-m3",
        target_tokens=2_048,
        overlap_tokens=200,
        chunker="",
        dim=1_024,
        n_documents=size.n_shards * DOCUMENTS_PER_SHARD,
        n_bytes=8_000 * n_chunks,
        sample=sample,
        estimate=Estimate(
            n_tokens=2_000 * n_chunks,
            n_chunks=n_chunks,
            gpus=(gpu,),
            bucket_bytes=0,
            bucket_usd_per_month=0.0,
            postgres_bytes=0,
            postgres_plan="",
        ),
        shards=tuple(
            Shard(
                key=key,
                first_row=index * DOCUMENTS_PER_SHARD,
                n_rows=DOCUMENTS_PER_SHARD,
                estimated_chunks=size.n_chunks,
                units=tuple(
                    Unit(
                        path=f"train-{index:05d}.parquet",
                        index=group,
                        first_row=index * DOCUMENTS_PER_SHARD + 1_000 * group,
                        n_rows=1_000,
                        n_bytes=80_000_000,
                    )
                    for group in range(DOCUMENTS_PER_SHARD // 1_000)
                ),
            )
            for index, key in enumerate(keys)
        ),
    )


def make_cluster_map(size: Size, model: str) -> ClusterMap:
    """A map with a title and a summary for every cluster.

    Args:
        size: how much.
        model: content version of the cluster model.
    """
    return ClusterMap(
        pool=POOL,
        datasets=(DatasetTerms(dataset=DATASET, licence="CC0-1.0", may_redistribute_text=True),),
        model=digest("encoder"),
        cluster_model_sha256=model,
        generation=0,
        centroids_key=f"{POOL}/centroids.parquet",
        centroids_sha256=digest("centroids"),
        status="complete",
        n_llm=0,
        n_heuristic=size.n_clusters,
        n_failed=0,
        usd=0.0,
        cards=tuple(
            Card(
                cluster_id=cluster,
                parent=None,
                title=f"A title of four words {cluster}",
                summary="A sentence that says what the passages are about. " * 4,
                summary_chunk_id=digest("medoid", str(cluster))[:32],
                summary_dataset=DATASET,
                keywords=tuple(f"keyword {number}" for number in range(10)),
                size=size.n_shards * size.n_chunks // size.n_clusters,
                n_noise=0,
                medoids=tuple(
                    Medoid(
                        chunk_id=digest(str(n), str(cluster))[:32],
                        dataset=DATASET,
                        text="How a passage near the centroid begins. " * 6,
                    )
                    for n in range(5)
                ),
                label_source="heuristic",
                label_model=None,
                label_key=None,
                label_basis="keyless-1",
                label_generation=0,
                label_size=size.n_shards * size.n_chunks // size.n_clusters,
                label_failure=None,
                faithfulness=None,
                stability=0.5,
                usd=0.0,
            )
            for cluster in range(size.n_clusters)
        ),
        groups=(),
    )


def _report(
    instance: dg.DagsterInstance,
    path: list[str],
    partition: str | None,
    version: str,
    inputs: dict[dg.AssetKey, str],
    figures: dict[str, Any] | None = None,
) -> None:
    made_from = Versions(f"{path[-1]}-1", inputs, dict.fromkeys(inputs))
    instance.report_runless_asset_event(
        dg.AssetMaterialization(
            dg.AssetKey(path),
            partition=partition,
            metadata={**(figures or {})},
            tags=made_from.tags(version),
        )
    )


def digest(*parts: str) -> str:
    """A sha256, hex, as the content of something made up would have; equal for equal parts."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def write_registry(folder: Path) -> Path:
    """The registry of this corpus, as a file."""
    path = folder / "datasets.yaml"
    path.write_text(REGISTRY, encoding="utf-8")
    return path
