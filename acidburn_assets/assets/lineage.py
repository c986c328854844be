"""`P/lineage`: how many chunks each shard gave to each cluster, and what each was made from."""

import dagster as dg
import pyarrow.compute as pc

from acidburn_assets.assets import specs
from acidburn_assets.core import lineage as tracing
from acidburn_assets.core.datasets import Pool
from acidburn_assets.core.errors import NotMaterialized, ObjectCorrupt
from acidburn_assets.core.manifest import Manifest, ManifestEntry
from acidburn_assets.io_managers import history, versions
from acidburn_assets.io_managers.base import Made, Work, work
from acidburn_assets.io_managers.objects import Batches, Tables
from acidburn_assets.io_managers.pools import PoolTables
from acidburn_assets.resources import StoreResource

N_SHOWN_CLUSTERS, N_SHOWN_SHARDS = 50, 3
"""Rows of the table in the UI, and shards in each. Chosen: what one looks at."""


def build(pool: Pool) -> dg.AssetsDefinition:
    """The node of one pool."""
    lineage_key = specs.key(pool.name, "lineage")

    @dg.asset(
        key=lineage_key,
        deps=[specs.key(dataset, "assignments") for dataset in pool.datasets],
        io_manager_key="tables",
        code_version=specs.version("lineage-2", pool.datasets),
        group_name=pool.name,
        kinds={"parquet"},
        description="Shard × cluster counts: which shards fed which clusters.",
    )
    def lineage(context: dg.AssetExecutionContext, store: StoreResource) -> dg.Output[Work]:
        objects = store.create()
        tables = PoolTables(objects, pool)

        def make(_: str | None) -> Made:
            manifests = tables.manifests()
            counts, shards = [], []
            for dataset, manifest in manifests.items():
                assignments = tables.table(dataset, "assignments")
                origin = _Origin(context.instance, pool.name, manifest)
                for entry in manifest.entries:
                    counted = tracing.count_shard(
                        assignments.read(entry.shard, ["cluster_id", "is_noise"]),
                        dataset=dataset,
                        shard=entry.shard,
                    )
                    counts.append(counted)
                    shards.append(
                        origin.of(
                            entry, assignments, n_noise=pc.sum(counted["n_noise"]).as_py() or 0
                        )
                    )
            sources = tracing.Sources(
                pool=pool.name,
                manifests={name: one.content_version() for name, one in manifests.items()},
                shards=tuple(sorted(shards, key=lambda one: (one.dataset, one.shard))),
            )
            table = tracing.merge(counts, sources)
            return Made(
                Batches(table.schema, table.to_batches()),
                {
                    "shards": len(shards),
                    "chunks": pc.sum(table["n_chunks"]).as_py() or 0,
                    "noise": pc.sum(table["n_noise"]).as_py() or 0,
                    "cluster_models": dg.MetadataValue.json(sources.cluster_models),
                    "history": dg.MetadataValue.text(history.kept_keys(objects, lineage_key)),
                    "largest": specs.table(
                        [
                            _row(fed)
                            for fed in tracing.largest_clusters(
                                table, n_clusters=N_SHOWN_CLUSTERS, n_shards=N_SHOWN_SHARDS
                            )
                        ]
                    ),
                    **specs.COST_FREE,
                },
            )

        return work(make, before_event=lambda: history.keep(objects, lineage_key))

    return lineage


class _Origin:
    """What the shards of one dataset were made from, as it was recorded."""

    def __init__(self, instance: dg.DagsterInstance, pool: str, manifest: Manifest) -> None:
        dataset = manifest.dataset
        self._manifest = manifest
        self._model_key = specs.key(pool, "cluster_model")
        self._embeddings_key = specs.key(dataset, "embeddings")
        self._assignments_key = specs.key(dataset, "assignments")
        self._assigned = history.latest_events(instance, self._assignments_key)
        self._model_name = ""
        if manifest.entries:  # all of one model, or the manifest would not have been sealed
            embedded = versions.require_materialization(
                instance, self._embeddings_key, manifest.entries[0].shard
            )
            self._model_name = versions.figures_of(embedded)["model_name"]

    def of(self, entry: ManifestEntry, assignments: Tables, *, n_noise: int) -> tracing.Source:
        """One shard.

        Raises:
            NotMaterialized: its assignments were not reported, or are of other embeddings.
            ObjectCorrupt: its assignments are not those that were reported.
        """
        name = f"{self._assignments_key.to_user_string()}, shard {entry.shard!r}"
        record = self._assigned.get(entry.shard)
        if record is None:
            raise NotMaterialized(f"{name} has not been made: materialize it first")
        tags = versions.tags_of(record)
        stored = assignments.info(entry.shard)
        if stored.sha256 != versions.data_version(tags):
            raise ObjectCorrupt(
                f"{stored.key!r} holds {stored.sha256[:12]}, but "
                f"{versions.data_version(tags)[:12]} was recorded: materialize the shard again"
            )
        if versions.input_version(tags, self._embeddings_key) != entry.sha256:
            raise NotMaterialized(
                f"{name} was made from other embeddings than the manifest sealed: materialize it "
                "again"
            )
        return tracing.Source(
            dataset=self._manifest.dataset,
            shard=entry.shard,
            revision=self._manifest.revision,
            first_row=entry.first_row,
            n_rows=entry.n_rows,
            n_chunks=entry.n_chunks,
            n_noise=n_noise,
            model=self._manifest.model,
            model_name=self._model_name,
            chunks_sha256=entry.chunks_sha256,
            embeddings_sha256=entry.sha256,
            embeddings_code_version=entry.code_version,
            embeddings_run_id=entry.run_id,
            embeddings_event_id=entry.event_id,
            assignments_sha256=stored.sha256,
            assignments_code_version=versions.code_version(tags),
            assignments_run_id=record.run_id,
            assignments_event_id=record.storage_id,
            cluster_model=versions.input_version(tags, self._model_key),
        )


def _row(fed: tracing.Fed) -> dict[str, object]:
    """A cluster in the table that the UI shows."""
    return {
        "cluster": fed.cluster_id,
        "chunks": fed.n_chunks,
        "noise": fed.n_noise,
        "shards": fed.n_shards,
        "fed most by": ", ".join(
            f"{row.dataset}/{row.shard} ({row.n_chunks:,})" for row in fed.largest
        ),
    }
