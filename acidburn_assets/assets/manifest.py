"""`D/manifest`: the sealed list of embedding shards, each with its hash, rows, run and event."""

from collections.abc import Sequence

import dagster as dg

from acidburn_assets.adapters import pictures
from acidburn_assets.adapters.object_store import ObjectInfo
from acidburn_assets.assets import specs
from acidburn_assets.core.datasets import Dataset
from acidburn_assets.core.errors import NotMaterialized, ObjectCorrupt
from acidburn_assets.core.manifest import MadeBy, Manifest, ManifestEntry, check_models
from acidburn_assets.core.plan import Plan
from acidburn_assets.core.shards import Shard
from acidburn_assets.io_managers import versions
from acidburn_assets.io_managers.base import Made, Work, work
from acidburn_assets.io_managers.failures import FailureLog, LeftOutShards
from acidburn_assets.io_managers.objects import Tables
from acidburn_assets.resources import EncoderResource, StoreResource


def build(dataset: Dataset) -> dg.AssetsDefinition:
    """The node of one dataset."""
    plan_key = specs.key(dataset.name, "plan")
    chunks_key = specs.key(dataset.name, "chunks")
    embeddings_key = specs.key(dataset.name, "embeddings")

    @dg.asset(
        key=specs.key(dataset.name, "manifest"),
        ins={
            "plan": dg.AssetIn(plan_key),
            "embeddings": dg.AssetIn(embeddings_key),
        },
        io_manager_key="records",
        code_version=specs.version("manifest-1"),
        group_name=dataset.name,
        kinds={"json"},
        description="The sealed list of embedding shards: what a cluster model is fitted on.",
    )
    def manifest(
        context: dg.AssetExecutionContext,
        plan: Plan,
        embeddings: Tables,
        encoder: EncoderResource,
        store: StoreResource,
    ) -> dg.Output[Work]:
        objects = store.create()

        def make(_: str | None) -> Made:
            card = encoder.card()
            made = versions.latest_shards(context.instance, embeddings_key)
            left_out = LeftOutShards(
                context.instance, context.job_def.asset_layer, FailureLog(objects), objects
            )(dataset.name)
            shards = [shard for shard in plan.shards if shard.key not in left_out]
            missing = [shard.key for shard in shards if shard.key not in made]
            if not shards:
                raise NotMaterialized(
                    f"all {len(plan.shards)} shards of {dataset.name!r} are quarantined: "
                    + next(iter(left_out.values())).reason
                )
            if missing:
                raise NotMaterialized(
                    f"{len(missing)} of {len(plan.shards)} shards of "
                    f"{embeddings_key.to_user_string()} are missing, first {missing[0]!r}: "
                    "materialize them first"
                )
            records = {
                shard.key: versions.require_materialization(
                    context.instance, embeddings_key, shard.key
                )
                for shard in shards
            }
            check_models(
                {key: _made_by(record) for key, record in records.items()},
                MadeBy(card.fingerprint, card.dim),
                dataset=dataset.name,
            )
            entries = tuple(
                _entry(shard, records[shard.key], embeddings.info(shard.key), chunks_key)
                for shard in shards
            )
            sealed = Manifest(
                dataset=dataset.name,
                revision=plan.revision,
                model=card.fingerprint,
                dim=card.dim,
                entries=entries,
                left_out=tuple(left_out[one.key] for one in plan.shards if one.key in left_out),
            )
            return Made(
                sealed,
                {
                    "shards": len(entries),
                    "left_out": [one.shard for one in sealed.left_out],
                    "rows": sealed.n_chunks,
                    "content_version": sealed.content_version(),
                    "throughput": specs.picture(
                        pictures.shard_throughput(
                            _rates(context.instance, embeddings_key, [e.shard for e in entries])
                        ),
                        "chunks per second of each shard",
                    ),
                    "sealed": specs.table(
                        [
                            {
                                "shard": entry.shard,
                                "chunks": entry.n_chunks,
                                "sha256": entry.sha256[:12],
                                "run": entry.run_id[:8],
                            }
                            for entry in entries[:100]
                        ]
                    ),
                    **specs.COST_FREE,
                },
            )

        return work(make, read={plan_key: plan})

    return manifest


def _rates(
    instance: dg.DagsterInstance, key: dg.AssetKey, shards: Sequence[str]
) -> dict[str, float]:
    """Chunks per second of each shard; one that was adopted was timed by no run and is left out."""
    figures = {
        shard: versions.figures_of(versions.require_materialization(instance, key, shard))
        for shard in shards
    }
    return {
        shard: found["chunks_per_second"]
        for shard, found in figures.items()
        if "chunks_per_second" in found
    }


def _made_by(record: dg.EventLogRecord) -> MadeBy:
    figures = versions.figures_of(record)
    return MadeBy(figures.get("model", "unknown"), figures.get("dim", 0))


def _entry(
    shard: Shard,
    record: dg.EventLogRecord,
    stored: ObjectInfo,
    chunks_key: dg.AssetKey,
) -> ManifestEntry:
    tags = versions.tags_of(record)
    recorded = versions.data_version(tags)
    if stored.sha256 != recorded:
        raise ObjectCorrupt(
            f"{stored.key!r} holds {stored.sha256[:12]}, but {recorded[:12]} was recorded for "
            f"shard {shard.key!r}: materialize the shard again"
        )
    return ManifestEntry(
        shard=shard.key,
        first_row=shard.first_row,
        n_rows=shard.n_rows,
        n_chunks=versions.figures_of(record)["rows"],
        sha256=recorded,
        chunks_sha256=versions.input_version(tags, chunks_key),
        event_id=record.storage_id,
        run_id=record.run_id,
        code_version=versions.code_version(tags),
    )
