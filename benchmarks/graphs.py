"""A whole graph as it stands when all of it was made: runs, events, objects, rows of the ledger.

Everything is made up but the bookkeeping: the assets are `build_defs`' own, each event has the
tags and figures that the I/O managers write, what is stored has the etag that was reported, and
every range of shards has the run that made it. So the automation finds nothing to do. Events are
written many at a time; run by run, as they come about, they would take most of an hour.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
from dagster._core.events import (
    AssetMaterializationPlannedData,
    DagsterEvent,
    DagsterEventType,
    StepMaterializationData,
)
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log import SqlEventLogStorage

from acidburn_assets.adapters.object_store import ObjectStore, write_parquet
from acidburn_assets.adapters.postgres import PoolFacts, Postgres, migrate, replace_lineage
from acidburn_assets.io_managers import history, versions
from acidburn_assets.io_managers.base import ETAG, Managers
from acidburn_assets.io_managers.objects import ObjectIOManager
from acidburn_assets.io_managers.slices import POOL_TABLES, SHARD_TABLES
from acidburn_assets.partitions import RANGE_END_TAG, RANGE_START_TAG, register_shards
from benchmarks import corpora
from benchmarks.corpora import DATASET, POOL, digest

JOB = "__ASSET_JOB"

EMBEDDINGS_FIGURES: Mapping[str, Any] = {
    "model": "0123456789abcdef",
    "model_name": "BAAI/bge-m3",
    "dim": 1_024,
    "device": "cuda",
    "dtype": "float16",
    "tokens": 102_400_000,
    "truncated": 0,
    "resumed_rows": 0,
    "parts": 12,
    "chunks_per_second": 610.5,
    "tokens_per_second": 1_250_000,
}
"""What embeddings say of a shard besides what all assets say."""


class Graph(NamedTuple):
    """What a graph is recorded with."""

    instance: dg.DagsterInstance
    nodes: Any  # Dagster's asset graph of the registry
    managers: Managers
    store: ObjectStore
    objects: Path  # the store's folder
    postgres: Postgres


def record(graph: Graph, size: corpora.Size) -> int:
    """Makes the whole graph sound.

    Args:
        graph: where.
        size: how much.

    Returns:
        Asset partitions, those of assets without shards included.
    """
    migrate(graph.postgres)
    keys = [f"{index:06d}" for index in range(size.n_shards)]
    register_shards(graph.instance, DATASET, keys)
    versions.observe_revision(graph.instance, dg.AssetKey([DATASET, "source"]), digest("source"))
    versions.observe_revision(graph.instance, dg.AssetKey(["encoder", "model"]), digest("encoder"))
    _load_lineage(graph, size, keys)
    n_partitions = 0
    for key in graph.nodes.toposorted_asset_keys:
        if graph.nodes.get(key).is_materializable:
            n_partitions += _record(graph, key, size, keys)
    return n_partitions


def partitioned(graph: Graph) -> list[dg.AssetKey]:
    """The assets that have shards."""
    return sorted(
        key
        for key in graph.nodes.get_all_asset_keys()
        if graph.nodes.get(key).is_materializable and graph.nodes.get(key).is_partitioned
    )


def object_paths(graph: Graph, key: dg.AssetKey) -> list[Path]:
    """The files of an asset's shards, in order."""
    return sorted((graph.objects / "/".join(key.path)).glob("*.parquet"))


def _load_lineage(graph: Graph, size: corpora.Size, keys: list[str]) -> None:
    model, manifest = digest("cluster_model", ""), digest("manifest", "")
    table, sources = corpora.make_lineage(size, keys, model, manifest)
    made, _ = write_parquet(
        graph.store, f"{POOL}/lineage.parquet", table.schema, table.to_batches()
    )
    replace_lineage(
        graph.postgres,
        PoolFacts(POOL, "knowledge", digest("encoder"), "BAAI/bge-m3", 1_024),
        lineage=table.to_batches(),
        sources=sources,
        source_sha256=made.sha256,
        run_id="bench",
    )


def _record(graph: Graph, key: dg.AssetKey, size: corpora.Size, keys: list[str]) -> int:
    """One asset: what is stored, then the runs and events that tell of it."""
    node = graph.nodes.get(key)
    shards: list[str | None] = [*keys] if node.is_partitioned else [None]
    _store(graph, key, size, keys)
    if key.path[-1] in history.KEPT:
        history.keep(graph.store, key)
    etags = graph.managers.of(graph.nodes, key).listed(key)
    current = versions.all_versions(graph.instance, graph.nodes, key)
    events = {
        parent: versions.latest_events(
            graph.instance, parent, graph.nodes.get(parent).is_partitioned
        )
        for parent in node.parent_keys
    }
    n_per_run = node.backfill_policy.max_partitions_per_run if node.is_partitioned else 1
    for start in range(0, len(shards), n_per_run):
        made = shards[start : start + n_per_run]
        run_id = _add_run(graph.instance, key, made)
        materialized = [
            dg.AssetMaterialization(
                key,
                partition=shard,
                metadata=_figures(graph, key, shard, size, etags[shard]),
                tags=_with_pointers(current[shard], events, shard).tags(
                    _data_version(graph, key, shard)
                ),
            )
            for shard in made
        ]
        _write_events(graph.instance, run_id, key, materialized)
    return len(shards)


def _with_pointers(
    current: versions.Versions,
    events: Mapping[dg.AssetKey, Mapping[str | None, int]],
    shard: str | None,
) -> versions.Versions:
    """Which event each input is of; in bulk, `versions.all_versions` leaves it out."""
    if shard is None:
        return current
    pointers = {parent: of.get(shard, of.get(None)) for parent, of in events.items()}
    return current._replace(pointers=pointers)


def _store(graph: Graph, key: dg.AssetKey, size: corpora.Size, keys: list[str]) -> None:
    owner, asset = key.path
    if asset in SHARD_TABLES:
        _fill_ledger(graph.postgres, SHARD_TABLES[asset], size, keys)
    elif asset == "cluster_headers":
        with graph.postgres.connect(purpose="filling the ledger") as connection:
            connection.execute(
                "insert into acidburn.pool_loads (pool_id, table_name, source_sha256, clustering,"
                " made_from, n_rows, run_id)"
                " select pool_id, 'cluster_headers', %s, '', '', 0, 'bench' from acidburn.pools",
                [digest(asset)],
            )
    elif asset in POOL_TABLES or asset == "lineage":
        pass  # loaded and stored before, from one table
    elif asset == "plan":
        content = corpora.make_plan(size, keys).to_bytes()
        graph.store.put_bytes(f"{owner}/plan.json", content)
    elif asset == "cluster_map":
        content = corpora.make_cluster_map(size, digest("cluster_model", "")).to_bytes()
        graph.store.put_bytes(f"{owner}/cluster_map.json", content)
    elif graph.nodes.get(key).is_partitioned:
        # past the store, which waits for the disk five times for each: they are listed, not read
        folder = graph.objects / owner / asset
        folder.mkdir(parents=True)
        for shard in keys:
            (folder / f"{shard}.parquet").write_bytes(shard.encode())
    else:
        manager = graph.managers.of(graph.nodes, key)
        assert isinstance(manager, ObjectIOManager), "what is in Postgres is dealt with above"
        graph.store.put_bytes(manager.object_key(key, None), asset.encode())


def _fill_ledger(postgres: Postgres, table: str, size: corpora.Size, keys: list[str]) -> None:
    with postgres.connect(purpose="filling the ledger") as connection:
        connection.execute(
            "insert into acidburn.shards (dataset, shard, pool_id, first_row, n_rows, licence,"
            " may_redistribute_text)"
            " select %s, shard, pool_id, 0, %s, 'CC0-1.0', true"
            " from acidburn.pools, unnest(%s::text[]) as shard on conflict do nothing",
            [DATASET, corpora.DOCUMENTS_PER_SHARD, keys],
        )
        connection.execute(
            "insert into acidburn.loads (shard_id, table_name, source_sha256, revision,"
            " chunks_sha256, embeddings_sha256, assignments_sha256, clustering, made_from, n_rows,"
            " run_id)"
            " select shard_id, %s, encode(sha256((%s || shard)::bytea), 'hex'), %s,"
            " '', '', '', '', '', %s, 'bench' from acidburn.shards",
            [table, table, digest("revision"), size.n_chunks],
        )


def _data_version(graph: Graph, key: dg.AssetKey, shard: str | None) -> str:
    owner, asset = key.path
    if asset == "lineage":
        info = graph.store.head(f"{owner}/lineage.parquet")
        assert info is not None, "written before anything else"
        return info.sha256
    return digest(asset, shard or "")


def _figures(
    graph: Graph, key: dg.AssetKey, shard: str | None, size: corpora.Size, etag: str
) -> dict[str, Any]:
    asset = key.path[-1]
    version = _data_version(graph, key, shard)
    figures = {
        "bytes": 88_000_000,
        "sha256": version,
        "uri": dg.MetadataValue.url(graph.store.uri(f"{'/'.join(key.path)}/{shard}.parquet")),
        "rows": size.n_chunks,
        "cost_usd": 0.0,
        ETAG: etag,
        "seconds": 81.935,
        "rows_per_second": 610.2,
    }
    if asset == "embeddings":
        figures |= EMBEDDINGS_FIGURES
    if asset == "lineage":
        models = {digest("cluster_model", ""): size.n_shards}
        figures["cluster_models"] = dg.MetadataValue.json(models)
    if asset == "cluster_map":
        info = graph.store.head(f"{key.path[0]}/cluster_map.json")
        assert info is not None, "written before its event"
        figures["sha256"] = info.sha256
    return figures


def _add_run(instance: dg.DagsterInstance, key: dg.AssetKey, made: Sequence[str | None]) -> str:
    tags = {}
    if made[0] is not None and made[-1] is not None:
        tags = {RANGE_START_TAG: made[0], RANGE_END_TAG: made[-1]}
    run = dg.DagsterRun(
        job_name=JOB,
        asset_selection=frozenset([key]),
        status=dg.DagsterRunStatus.SUCCESS,
        tags=tags,
    )
    instance.run_storage.add_run(run)
    return run.run_id


def _write_events(
    instance: dg.DagsterInstance,
    run_id: str,
    key: dg.AssetKey,
    materialized: Sequence[dg.AssetMaterialization],
) -> None:
    """What was planned, then what was made."""
    storage = instance.event_log_storage
    assert isinstance(storage, SqlEventLogStorage)
    planned = [
        _entry(
            run_id,
            key,
            DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
            AssetMaterializationPlannedData(key, partition=one.partition),
        )
        for one in materialized
    ]
    if planned[:-1]:
        with storage.index_connection() as connection:
            connection.execute(storage.prepare_insert_event_batch(planned[:-1]))
    storage.store_event(planned[-1])  # which also tells the table of assets
    made = [
        _entry(run_id, key, DagsterEventType.ASSET_MATERIALIZATION, StepMaterializationData(one))
        for one in materialized
    ]
    storage.store_event_batch(made)


def _entry(run_id: str, key: dg.AssetKey, kind: DagsterEventType, content: Any) -> EventLogEntry:
    step = "__".join(key.path)
    return EventLogEntry(  # type: ignore[no-untyped-call]  # Dagster gives it no types
        error_info=None,
        level=10,
        user_message="",
        run_id=run_id,
        timestamp=time.time(),
        step_key=step,
        job_name=JOB,
        dagster_event=DagsterEvent(
            event_type_value=kind.value, job_name=JOB, step_key=step, event_specific_data=content
        ),
    )
