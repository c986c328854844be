"""`P/cluster_model`: the clusters of a bounded sample, and whether they still fit what comes.

A manifest that changes need not mean that clusters are found anew: the model stays, byte for byte,
as long as the pool's `refit` says so, and how far what is new drifts from it is told. Where it is
fitted anew, clusters that go on keep their ids.
"""

from collections.abc import Mapping

import dagster as dg

from acidburn_assets.adapters import clusterer
from acidburn_assets.assets import specs
from acidburn_assets.core import cluster_model as clustering
from acidburn_assets.core import drift, migration
from acidburn_assets.core import embeddings as embedding
from acidburn_assets.core.cluster_model import ClusterModel, FittedOn
from acidburn_assets.core.datasets import Pool
from acidburn_assets.core.drift import Drift
from acidburn_assets.core.manifest import Manifest
from acidburn_assets.io_managers import history
from acidburn_assets.io_managers.base import Made, Work, is_forced, work
from acidburn_assets.io_managers.generations import Generations
from acidburn_assets.io_managers.pools import PoolTables
from acidburn_assets.resources import StoreResource

N_SHOWN_RELATIONS = 100
"""Rows of the migration table in the UI. Chosen: what one looks at."""


def build(pool: Pool) -> dg.AssetsDefinition:
    """The node of one pool."""
    model_key = specs.key(pool.name, "cluster_model")

    @dg.asset(
        key=model_key,
        deps=[specs.key(dataset, "manifest") for dataset in pool.datasets],
        io_manager_key="records",
        code_version=specs.version(
            "cluster_model-3", clusterer.ENGINE_VERSION, pool.settings.model_dump(), pool.datasets
        ),
        group_name=pool.name,
        kinds={"numpy"},
        pool="cpu",
        description="Density clusters of a seeded, shard-stratified sample of the pool.",
    )
    def cluster_model(context: dg.AssetExecutionContext, store: StoreResource) -> dg.Output[Work]:
        objects = store.create()
        tables = PoolTables(objects, pool)
        generations = Generations(objects, pool.name)
        kept = {"history": dg.MetadataValue.text(history.kept_keys(objects, model_key))}

        def make(_: str | None) -> Made:
            manifests = tables.manifests()
            now = _fitted_on(pool, tables, manifests)
            newest = generations.newest(model=now.model, dim=now.dim)
            if newest is not None and newest.meta.fitted_on == now:
                if not is_forced(context.run):
                    return Made(newest, {**_figures(newest), **kept})
                # made again of the same it is the same again, and follows what it followed
                before = newest.meta.previous
                return _fit(generations.read(before) if before else None, now, manifests, tables)
            why, found = _why_anew(newest, now, is_forced=is_forced(context.run)), None
            if newest is not None and not why:
                found = _look(newest, now, manifests, tables)
                if pool.settings.refit == "always":
                    why = "the pool changed"
                elif pool.settings.refit == "drift":
                    why = "; ".join(found.reasons)
                if not why:
                    context.log.info(f"the clusters stay: {_say(found)}")
                    return Made(newest, {**_figures(newest), **_figures_of_drift(found), **kept})
            context.log.info(f"fitting {pool.settings.engine}: {why}")
            return _fit(newest, now, manifests, tables)

        def _fit(
            previous: ClusterModel | None,
            now: FittedOn,
            manifests: Mapping[str, Manifest],
            tables: PoolTables,
        ) -> Made:
            chosen = clustering.sample_rows(
                tables.chunks_by_shard(manifests),
                limit=pool.settings.sample_rows,
                seed=pool.settings.seed,
            )
            sample = tables.take_embeddings(chosen, manifests)
            vectors = embedding.matrix(sample["embedding"])  # (n, dim) float32
            ids = embedding.id_matrix(sample["chunk_id"])
            places = None
            if previous is not None:
                places = migration.places_before(vectors, ids, previous)
            fit = clusterer.fit(vectors, pool.settings, n_chunks=now.n_chunks, before=places)
            model = clustering.summarize(
                fit,
                vectors,
                ids,
                pool=pool.name,
                fitted_on=now,
                descent=(
                    None
                    if previous is None or places is None
                    else migration.descend(fit.labels, vectors, places, previous)
                ),
            )
            if model.meta.is_fallback:
                context.log.warning(f"one cluster holds everything: {model.meta.fallback_reason}")
            seconds = {stage: round(taken, 2) for stage, taken in fit.seconds.items()}
            return Made(
                drift.with_coverage(model, vectors),
                {**_figures(model), "stage_seconds": seconds, **kept},
            )

        return work(make, before_event=lambda: history.keep(objects, model_key))

    return cluster_model


def _fitted_on(pool: Pool, tables: PoolTables, manifests: Mapping[str, Manifest]) -> FittedOn:
    first = next(iter(manifests.values()))
    return FittedOn(
        manifests={name: manifest.content_version() for name, manifest in manifests.items()},
        shards=tables.sha256_by_shard(manifests),
        n_chunks=sum(manifest.n_chunks for manifest in manifests.values()),
        model=first.model,
        dim=first.dim,
        settings=pool.settings.of_fit(),
        engine_version=clusterer.ENGINE_VERSION,
    )


def _why_anew(newest: ClusterModel | None, now: FittedOn, *, is_forced: bool) -> str:
    """Why the newest model cannot stay, whatever it is held against; "" where it can."""
    if newest is None:
        return "the pool has no clusters of this encoder"
    if is_forced:
        return "somebody asked for it"
    if newest.meta.is_fallback:
        return f"no clusters were found yet ({newest.meta.fallback_reason})"
    was = newest.meta.fitted_on
    if (was.settings, was.engine_version) != (now.settings, now.engine_version):
        return "settings or engine are others"
    return ""


def _look(
    model: ClusterModel, now: FittedOn, manifests: Mapping[str, Manifest], tables: PoolTables
) -> Drift:
    """Holds a bounded sample of what is new against the model."""
    sizes = tables.chunks_by_shard(manifests)
    new = drift.new_shards(now.shards, model.meta.fitted_on)
    n_new = sum(sizes[shard] for shard in new)
    looked = None
    if n_new:
        some = {shard: sizes[shard] for shard in drift.look_at(new)}
        chosen = clustering.sample_rows(some, limit=drift.LOOK_ROWS, seed=now.settings.seed)
        vectors = embedding.matrix(tables.take_embeddings(chosen, manifests)["embedding"])
        n_sample = min(now.settings.sample_rows, now.n_chunks)
        looked = drift.cover(vectors, model, n_in_fit=n_new * n_sample // now.n_chunks)
    return drift.judge(model, n_chunks=now.n_chunks, n_new=n_new, looked=looked)


def _say(found: Drift) -> str:
    return "; ".join(found.reasons) or f"{found.n_new} new chunks fit them"


def _figures(model: ClusterModel) -> dict[str, object]:
    meta = model.meta
    migrated = migration.table(model).to_pylist()
    # what stayed as it was is told last
    told = sorted(migrated, key=lambda row: row["kind"] == "kept")[:N_SHOWN_RELATIONS]
    return {
        "sampled": meta.n_sample,
        "clusters": meta.n_clusters,
        "cells": meta.n_cells,
        "groups": meta.n_groups,
        "noise_share": round(meta.noise_share, 4),
        "separation": meta.separation,
        "persistence": meta.persistence,
        "engine": meta.fitted_on.settings.engine,
        "fallback": meta.fallback_reason or "no",
        "generation": meta.generation,
        "fitted_on": meta.fitted_on.manifests,
        "refit_proposed": False,
        "sizes_in_sample": dg.MetadataValue.json(model.sizes.tolist()[:200]),
        **{f"clusters_{kind}": n for kind, n in migration.counts(model).items()},
        **({"migration": specs.table(told)} if told else {}),
        **specs.COST_FREE,
    }


def _figures_of_drift(found: Drift) -> dict[str, object]:
    return {
        "refit_proposed": bool(found.reasons),
        "refit_reasons": _say(found),
        "new_chunks": found.n_new,
        "growth": found.growth,
        "weak_excess": found.weak_excess,
        "novel_mass": found.novel_mass,
        "distance_shift": found.distance_shift,
    }
