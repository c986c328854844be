"""What was recorded, as trails: where a cluster came from, where a shard, document or chunk went.

Answers come from Dagster's own events, the sealed manifests and the tables in the bucket.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from acidburn_assets.adapters.object_store import ObjectStore
from acidburn_assets.commands.moments import Standing, find_standing, time_of
from acidburn_assets.core import migration
from acidburn_assets.core.audit import (
    ChunkTrail,
    ClusterShare,
    ClusterTrail,
    DocumentTrail,
    Made,
    Migration,
    Moment,
    PassageTrail,
    Relation,
    ShardShare,
    ShardTrail,
    Title,
    Titles,
)
from acidburn_assets.core.cluster_model import ClusterModel
from acidburn_assets.core.errors import ConfigError, NotMaterialized, ObjectMissing
from acidburn_assets.core.lineage import Source
from acidburn_assets.core.plan import Plan
from acidburn_assets.definitions import build_defs
from acidburn_assets.io_managers import history, versions
from acidburn_assets.io_managers.failures import FailureLog, LeftOutShards
from acidburn_assets.io_managers.generations import Generations
from acidburn_assets.io_managers.objects import Tables, load_record
from acidburn_assets.runtime import backends
from acidburn_assets.settings import Settings

_SHARD_ASSETS = (
    "plan",
    "chunks",
    "embeddings",
    "manifest",
    "term_weights",
    "assignments",
    "chunk_embeddings",
    "chunk_clusters",
)
_POOL_ASSETS = (
    *(
        "cluster_model",
        "centroids",
        "cluster_map",
        "cluster_headers",
        "lexicon",
        "cell_terms",
        "lineage",
        "lineage_table",
    ),
)


@dataclass
class Auditor:
    """Reads what was recorded."""

    settings: Settings
    instance: dg.DagsterInstance

    @cached_property
    def store(self) -> ObjectStore:
        """The bucket."""
        return backends.open_store(self.settings)

    @cached_property
    def left_out(self) -> versions.LeftOut:
        """Shards that a dataset goes on without."""
        log = FailureLog(self.store)
        return cache(LeftOutShards(self.instance, self.graph, log, self.store))

    @cached_property
    def graph(self) -> versions.AssetGraph:
        """The asset graph as the registry makes it now."""
        return build_defs().resolve_asset_graph()

    def cluster(self, identifier: str, pool: str | None, at: str | None = None) -> ClusterTrail:
        """Which shards fed a cluster.

        Args:
            identifier: its number.
            pool: whose; may be left out where there is one.
            at: an earlier moment, see `moments.find_standing`; None: as it stands.

        Raises:
            ConfigError: no such cluster, pool or moment, or several pools and none named.
            NotMaterialized: the pool has no lineage.
        """
        name = self.settings.registry.choose_pool(pool).name
        if not identifier.isdecimal():
            raise ConfigError(f"{identifier!r} is not a cluster's number")
        cluster_id = int(identifier)
        standing = find_standing(self.instance, self.store, name, at)
        titles = self._titles(name, standing.cluster_map)
        rows = standing.table.shards_of(cluster_id)
        if not rows and cluster_id not in titles:
            last = max([standing.table.last_cluster(), *titles])
            had = "it has" if at is None else f"at {at} it had"
            gap = "" if cluster_id > last else ": acidburn audit migration says what became of it"
            raise ConfigError(f"pool {name!r} has no cluster {cluster_id}; {had} 0 to {last}{gap}")
        sources = standing.table.sources.by_shard()
        called = titles.get(cluster_id)
        return ClusterTrail(
            pool=name,
            cluster_id=cluster_id,
            title=called.title if called else "",
            keywords=called.keywords if called else (),
            n_chunks=sum(row.n_chunks for row in rows),
            n_noise=sum(row.n_noise for row in rows),
            moment=_moment(standing, at),
            made=(
                self._made(name, _POOL_ASSETS, None)
                if at is None
                else self._made_then(name, standing)
            ),
            fitted_on=self._fitted_on(name, standing),
            shards=tuple(
                ShardShare(
                    n_chunks=row.n_chunks,
                    n_noise=row.n_noise,
                    source=sources[row.dataset, row.shard],
                )
                for row in rows
            ),
        )

    def migration(self, pool: str | None, generation: int | None = None) -> Migration:
        """What became of a pool's clusters when they were found anew.

        Args:
            pool: whose; may be left out where there is one.
            generation: to tell of; None: the one in use.

        Raises:
            ConfigError: no such pool or generation, or several pools and none named.
            NotMaterialized: the pool has no cluster model.
            ObjectMissing: a generation between was not kept.
        """
        name = self.settings.registry.choose_pool(pool).name
        model: ClusterModel = load_record(self.store, dg.AssetKey([name, "cluster_model"]))
        newest = model.meta.generation
        if generation is not None and generation > newest:
            raise ConfigError(
                f"the clusters of pool {name!r} have no generation {generation}; the one in use is "
                f"{newest}, the first is 0"
            )
        generations = Generations(self.store, name)
        wanted = newest if generation is None else generation
        while model.meta.previous is not None and model.meta.generation > wanted:
            model = generations.read(model.meta.previous)
        cluster_map = versions.latest_materialization(
            self.instance, dg.AssetKey([name, "cluster_map"]), None
        )
        titles = self._titles(name, cluster_map)
        return Migration(
            pool=name,
            generation=model.meta.generation,
            version=model.content_version(),
            previous=model.meta.previous,
            fitted_on=model.meta.fitted_on.manifests,
            counts=migration.counts(model),
            relations=tuple(
                Relation(
                    **row,
                    title=titles[row["new_cluster_id"]].title
                    if row["new_cluster_id"] in titles
                    else "",
                )
                for row in migration.table(model).to_pylist()
            ),
        )

    def shard(self, identifier: str) -> ShardTrail:
        """What became of a shard.

        Raises:
            ConfigError: not DATASET/SHARD, or no such shard.
        """
        name, slash, key = identifier.partition("/")
        if not slash:
            raise ConfigError(
                f"{identifier!r} is not DATASET/SHARD, such as {self._names()[0]}/000000"
            )
        dataset = self.settings.registry.dataset(name)
        plan = self._plan(name)
        planned = {shard.key: shard for shard in plan.shards}
        if key not in planned:
            raise ConfigError(
                f"{name!r} has no shard {key!r}; it has {min(planned)} to {max(planned)}, "
                f"say for example {name}/{min(planned)}"
            )
        source, clusters = self._fed(dataset.pool, name, key)
        return ShardTrail(
            dataset=name,
            shard=key,
            first_row=planned[key].first_row,
            n_rows=planned[key].n_rows,
            revision=plan.revision,
            licence=dataset.licence,
            made=self._made(name, _SHARD_ASSETS, key),
            source=source,
            clusters=clusters,
        )

    def document(self, doc_id: str, where: str | None) -> DocumentTrail:
        """What became of a document.

        Args:
            doc_id: its id in the dataset.
            where: DATASET or DATASET/SHARD to look in; None: everywhere.

        Raises:
            ConfigError: no dataset has it.
        """
        for name, shard, chunks in self._find(
            lambda table: pc.equal(table["doc_id"], doc_id), where
        ):
            rows = chunks.to_pylist()
            return DocumentTrail(
                dataset=name,
                revision=self._plan(name).revision,
                licence=self.settings.registry.dataset(name).licence,
                doc_id=doc_id,
                doc_row=rows[0]["doc_row"],
                title=rows[0]["title"],
                shard=shard,
                chunks=self._chunk_trails(name, shard, rows),
                made=self._made(name, _SHARD_ASSETS, shard),
            )
        raise ConfigError(
            f"no document {doc_id!r} in {[where] if where else sorted(self._names())}: "
            "either it was skipped (see documents_skipped of the chunks), or the id is another"
        )

    def passage(self, chunk_id: str, where: str | None = None) -> PassageTrail:
        """Where a passage stands.

        Args:
            chunk_id: 32 hex digits.
            where: DATASET or DATASET/SHARD to look in; None: everywhere.

        Raises:
            ConfigError: not a chunk id, or no dataset has it.
        """
        try:
            content = bytes.fromhex(chunk_id)
        except ValueError as error:
            raise ConfigError(f"{chunk_id!r} is not a chunk id: 32 hex digits") from error
        if len(content) != 16:
            raise ConfigError(f"{chunk_id!r} is not a chunk id: 32 hex digits")
        for name, shard, chunks in self._find(
            lambda table: pc.equal(table["chunk_id"], pa.scalar(content, pa.binary(16))), where
        ):
            row = chunks.to_pylist()[0]
            return PassageTrail(
                dataset=name,
                revision=self._plan(name).revision,
                licence=self.settings.registry.dataset(name).licence,
                doc_id=row["doc_id"],
                doc_row=row["doc_row"],
                title=row["title"],
                shard=shard,
                chunk=self._chunk_trails(name, shard, [row])[0],
                made=self._made(name, _SHARD_ASSETS, shard),
                text=row["text"],
            )
        raise ConfigError(f"no chunk {chunk_id!r} in {[where] if where else sorted(self._names())}")

    def _names(self) -> list[str]:
        return list(self.settings.registry.datasets)

    def _plan(self, dataset: str) -> Plan:
        plan: Plan = load_record(self.store, dg.AssetKey([dataset, "plan"]))
        return plan

    def _titles(self, pool: str, cluster_map: dg.EventLogRecord | None) -> Mapping[int, Title]:
        """What a map called the clusters; empty without one."""
        if cluster_map is None:
            return {}
        key = dg.AssetKey([pool, "cluster_map"])
        object_key = history.find(self.store, key, history.sha256_of(cluster_map))
        read = Titles.from_bytes(self.store.get_bytes(object_key), key=object_key)
        return {card.cluster_id: card for card in read.cards}

    def _titles_for(self, pool: str, assigned: Mapping[str, str]) -> Mapping[int, Title]:
        """What the clusters of assignments with these tags are called; empty until their map is
        made."""
        model_key = dg.AssetKey([pool, "cluster_model"])
        record = versions.latest_materialization(
            self.instance, dg.AssetKey([pool, "cluster_map"]), None
        )
        if record is None:
            return {}
        of_map = versions.input_version(versions.tags_of(record), model_key)
        is_same = of_map == versions.input_version(assigned, model_key)
        return self._titles(pool, record if is_same else None)

    def _fed(
        self, pool: str | None, dataset: str, shard: str
    ) -> tuple[Source | None, tuple[ClusterShare, ...]]:
        """A shard as its pool's lineage counted it, and what each cluster got of it."""
        if pool is None:
            return None, ()
        lineage_key = dg.AssetKey([pool, "lineage"])
        if versions.latest_materialization(self.instance, lineage_key, None) is None:
            return None, ()
        standing = find_standing(self.instance, self.store, pool, None)
        rows = standing.table.clusters_of(dataset=dataset, shard=shard)
        titles = self._titles(pool, standing.cluster_map)
        shares = tuple(
            ClusterShare(
                cluster_id=row.cluster_id,
                title=titles[row.cluster_id].title if row.cluster_id in titles else "",
                n_chunks=row.n_chunks,
                n_noise=row.n_noise,
            )
            for row in rows
        )
        return standing.table.sources.by_shard().get((dataset, shard)), shares

    def _find(
        self, condition: Callable[[pa.Table], pa.ChunkedArray], where: str | None
    ) -> Iterator[tuple[str, str, pa.Table]]:
        """Every shard that has matching chunks, with those."""
        dataset, _, only = (where or "").partition("/")
        names = [self.settings.registry.dataset(dataset).name] if dataset else self._names()
        made = {
            name: sorted(versions.latest_shards(self.instance, dg.AssetKey([name, "chunks"])))
            for name in names
        }
        if not any(made.values()):
            raise NotMaterialized(f"no chunks of {names} have been made: acidburn materialize all")
        if only:
            if only not in made[dataset]:
                raise ConfigError(
                    f"{dataset!r} has no chunks of a shard {only!r}; it has {made[dataset][0]} to "
                    f"{made[dataset][-1]}"
                )
            made = {dataset: [only]}
        for name, shards in made.items():
            tables = Tables(self.store, dg.AssetKey([name, "chunks"]))
            for shard in shards:
                ids = tables.read(shard, ["chunk_id", "doc_id"])
                if pc.any(condition(ids)).as_py():
                    chunks = tables.read(shard)
                    yield name, shard, chunks.filter(condition(chunks))

    def _chunk_trails(
        self, dataset: str, shard: str, rows: list[dict[str, Any]]
    ) -> tuple[ChunkTrail, ...]:
        pool = self.settings.registry.dataset(dataset).pool
        key = dg.AssetKey([dataset, "assignments"])
        placed: dict[bytes, dict[str, Any]] = {}
        titles: Mapping[int, Title] = {}
        assigned = versions.latest_materialization(self.instance, key, shard)
        if pool is not None and assigned is not None:
            wanted = [row["chunk_id"] for row in rows]
            table = Tables(self.store, key).read(shard)
            is_wanted = pc.is_in(table["chunk_id"].cast(pa.binary()), pa.array(wanted, pa.binary()))
            placed = {row["chunk_id"]: row for row in table.filter(is_wanted).to_pylist()}
            titles = self._titles_for(pool, versions.tags_of(assigned))
        return tuple(_chunk_trail(row, placed.get(row["chunk_id"], {}), titles) for row in rows)

    def _made(self, owner: str, assets: tuple[str, ...], shard: str | None) -> tuple[Made, ...]:
        found = []
        for asset in assets:
            key = dg.AssetKey([owner, asset])
            if not self.graph.has(key):
                continue
            partition = shard if self.graph.get(key).is_partitioned else None
            record = versions.latest_materialization(self.instance, key, partition)
            if record is not None:
                found.append(self._event(key, partition, record))
        return tuple(found)

    def _made_then(self, pool: str, standing: Standing) -> tuple[Made, ...]:
        events = {
            "cluster_model": standing.cluster_model,
            "cluster_map": standing.cluster_map,
            "lineage": standing.lineage,
        }
        return tuple(
            self._event(dg.AssetKey([pool, asset]), None, record)
            for asset, record in events.items()
            if record is not None
        )

    def _fitted_on(self, pool: str, standing: Standing) -> dict[str, str]:
        """Version of each manifest that the clusters were found in; a model that stayed when its
        pool changed has others among the inputs of its event."""
        if standing.cluster_model is None:
            return {}
        figures = versions.figures_of(standing.cluster_model)
        if "fitted_on" in figures:
            return dict(figures["fitted_on"])
        tags = versions.tags_of(standing.cluster_model)
        try:  # a model that was adopted
            model = Generations(self.store, pool).read(versions.data_version(tags))
            return model.meta.fitted_on.manifests
        except ObjectMissing:  # of a time when every event was a fit, and none was kept
            return {
                name.removesuffix("/manifest"): version
                for name, version in versions.input_versions(tags).items()
                if name.endswith("/manifest")
            }

    def _event(self, key: dg.AssetKey, partition: str | None, record: dg.EventLogRecord) -> Made:
        tags = versions.tags_of(record)
        current = versions.current_versions(
            self.instance, self.graph, key, partition, left_out=self.left_out
        )
        return Made(
            asset=key.to_user_string(),
            shard=partition,
            data_version=versions.data_version(tags),
            code_version=versions.code_version(tags),
            n_rows=versions.figures_of(record).get("rows"),
            run_id=record.run_id,
            event_id=record.storage_id,
            made_at=time_of(record),
            stale_because=current.changed_since(tags),
        )


def _moment(standing: Standing, at: str | None) -> Moment:
    return Moment(
        asked_for=at,
        lineage_event_id=standing.lineage.storage_id,
        lineage_sha256=history.sha256_of(standing.lineage),
        map_event_id=standing.cluster_map.storage_id if standing.cluster_map else None,
        made_at=time_of(standing.lineage),
    )


def _chunk_trail(
    row: Mapping[str, object], placed: Mapping[str, object], titles: Mapping[int, Title]
) -> ChunkTrail:
    cluster_id = placed.get("cluster_id")
    called = titles.get(cluster_id) if isinstance(cluster_id, int) else None
    chunk_id = row["chunk_id"]
    return ChunkTrail.model_validate(
        {
            "chunk_id": chunk_id.hex() if isinstance(chunk_id, bytes) else chunk_id,
            **{name: row[name] for name in ("chunk_index", "char_start", "char_end", "n_tokens")},
            **{name: placed.get(name) for name in ("cluster_id", "strength", "is_noise")},
            "cluster_title": called.title if called else None,
        }
    )
