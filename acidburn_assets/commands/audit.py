"""`acidburn audit cluster|shard|document|passage ID`: lineage, both ways.

Answers come from Dagster's own events, the sealed manifests and the tables in the bucket.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import click
import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from acidburn_assets import settings
from acidburn_assets.adapters.object_store import ObjectStore
from acidburn_assets.commands import trails
from acidburn_assets.commands.instance import open_instance
from acidburn_assets.core.audit import (
    ChunkTrail,
    ClusterTrail,
    DocumentTrail,
    Made,
    PassageTrail,
    ShardShare,
    ShardTrail,
)
from acidburn_assets.core.cluster_map import Card, ClusterMap
from acidburn_assets.core.errors import ConfigError, NotMaterialized
from acidburn_assets.core.lineage import LineageRow, clusters_of, shards_of
from acidburn_assets.core.plan import Plan
from acidburn_assets.definitions import build_defs
from acidburn_assets.io_managers import versions
from acidburn_assets.io_managers.objects import Tables, load_record
from acidburn_assets.runtime import backends
from acidburn_assets.settings import Settings

_SHARD_ASSETS = (
    "plan",
    "chunks",
    "embeddings",
    "manifest",
    "assignments",
    "chunk_embeddings",
    "chunk_clusters",
)
_POOL_ASSETS = ("cluster_model", "centroids", "cluster_map", "cluster_headers", "lineage")


@click.command()
@click.argument("kind", type=click.Choice(["cluster", "shard", "document", "passage"]))
@click.argument("identifier", metavar="ID")
@click.option("--pool", help="Pool of the cluster; may be left out where there is one.")
@click.option("--dataset", help="Dataset of the document; all are searched without it.")
@click.option("--json", "is_json", is_flag=True, help="Print the record as JSON.")
def command(
    kind: str, identifier: str, pool: str | None, dataset: str | None, is_json: bool
) -> None:
    """Say which shards fed a cluster, or where a shard, document or passage went.

    ID is a cluster's number, DATASET/SHARD, a document's id, or a passage's chunk id.
    """
    configured = settings.load()
    with open_instance(configured) as instance:
        auditor = Auditor(configured, instance)
        answers: dict[str, Callable[[], trails.Trail]] = {
            "cluster": lambda: auditor.cluster(identifier, pool),
            "shard": lambda: auditor.shard(identifier),
            "document": lambda: auditor.document(identifier, dataset),
            "passage": lambda: auditor.passage(identifier),
        }
        answer = answers[kind]()
    if is_json:
        click.echo(answer.model_dump_json(indent=2))
    else:
        trails.show(answer, Console(highlight=False))


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
    def graph(self) -> versions.AssetGraph:
        """The asset graph as the registry makes it now."""
        return build_defs().resolve_asset_graph()

    def cluster(self, identifier: str, pool: str | None) -> ClusterTrail:
        """Which shards fed a cluster.

        Raises:
            ConfigError: no such cluster or pool, or several pools and none named.
        """
        name = self.settings.registry.choose_pool(pool).name
        if not identifier.isdecimal():
            raise ConfigError(f"{identifier!r} is not a cluster's number")
        cluster_id = int(identifier)
        cards = self._cards(name)
        if cluster_id not in cards:
            raise ConfigError(
                f"pool {name!r} has no cluster {cluster_id}; it has 0 to {len(cards) - 1}"
            )
        card = cards[cluster_id]
        model = load_record(self.store, dg.AssetKey([name, "cluster_model"]))
        shares = self._shares(name, shards_of(self._lineage(name), cluster_id))
        return ClusterTrail(
            pool=name,
            cluster_id=cluster_id,
            title=card.title,
            keywords=card.keywords,
            n_chunks=sum(share.n_chunks for share in shares),
            n_noise=sum(share.n_noise for share in shares),
            made=self._made(name, _POOL_ASSETS, None),
            fitted_on=dict(model.meta.manifests),
            shards=shares,
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
        clusters: tuple[ShardShare, ...] = ()
        if dataset.pool is not None and self._has_lineage(dataset.pool):
            rows = clusters_of(self._lineage(dataset.pool), dataset=name, shard=key)
            clusters = self._shares(dataset.pool, rows)
        return ShardTrail(
            dataset=name,
            shard=key,
            first_row=planned[key].first_row,
            n_rows=planned[key].n_rows,
            revision=plan.revision,
            licence=dataset.licence,
            made=self._made(name, _SHARD_ASSETS, key),
            clusters=clusters,
        )

    def document(self, doc_id: str, dataset: str | None) -> DocumentTrail:
        """What became of a document.

        Raises:
            ConfigError: no dataset has it.
        """
        for name, shard, chunks in self._find(
            lambda table: pc.equal(table["doc_id"], doc_id), dataset
        ):
            rows = chunks.to_pylist()
            return DocumentTrail(
                dataset=name,
                revision=self._plan(name).revision,
                doc_id=doc_id,
                doc_row=rows[0]["doc_row"],
                title=rows[0]["title"],
                shard=shard,
                chunks=self._chunk_trails(name, shard, rows),
            )
        raise ConfigError(
            f"no document {doc_id!r} in {[dataset] if dataset else sorted(self._names())}: "
            "either it was skipped (see documents_skipped of the chunks), or the id is another"
        )

    def passage(self, chunk_id: str) -> PassageTrail:
        """Where a passage stands.

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
            lambda table: pc.equal(table["chunk_id"], pa.scalar(content, pa.binary(16))), None
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
        raise ConfigError(f"no chunk {chunk_id!r} in {sorted(self._names())}")

    def _names(self) -> list[str]:
        return list(self.settings.registry.datasets)

    def _plan(self, dataset: str) -> Plan:
        plan: Plan = load_record(self.store, dg.AssetKey([dataset, "plan"]))
        return plan

    def _cards(self, pool: str) -> Mapping[int, Card]:
        made: ClusterMap = load_record(self.store, dg.AssetKey([pool, "cluster_map"]))
        return {card.cluster_id: card for card in made.cards}

    def _has_lineage(self, pool: str) -> bool:
        key = dg.AssetKey([pool, "lineage"])
        return versions.latest_materialization(self.instance, key, None) is not None

    def _lineage(self, pool: str) -> pa.Table:
        return Tables(self.store, dg.AssetKey([pool, "lineage"])).read(None)

    def _shares(self, pool: str, rows: list[LineageRow]) -> tuple[ShardShare, ...]:
        cards = self._cards(pool)
        return tuple(self._share(row, cards) for row in rows)

    def _share(self, row: LineageRow, cards: Mapping[int, Card]) -> ShardShare:
        plan = self._plan(row.dataset)
        shard = plan.shard(row.shard)
        card = cards.get(row.cluster_id)
        return ShardShare(
            **row._asdict(),
            first_row=shard.first_row,
            n_rows=shard.n_rows,
            revision=plan.revision,
            cluster_title=card.title if card else "",
        )

    def _find(
        self, condition: Callable[[pa.Table], pa.ChunkedArray], dataset: str | None
    ) -> Iterator[tuple[str, str, pa.Table]]:
        """Every shard that has matching chunks, with those."""
        names = [self.settings.registry.dataset(dataset).name] if dataset else self._names()
        made = {
            name: sorted(versions.latest_shards(self.instance, dg.AssetKey([name, "chunks"])))
            for name in names
        }
        if not any(made.values()):
            raise NotMaterialized(f"no chunks of {names} have been made: acidburn materialize all")
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
        cards: Mapping[int, Card] = {}
        if pool is not None and shard in versions.latest_shards(self.instance, key):
            wanted = {row["chunk_id"] for row in rows}
            table = Tables(self.store, key).read(shard)
            placed = {
                row["chunk_id"]: row for row in table.to_pylist() if row["chunk_id"] in wanted
            }
            cards = self._cards(pool)
        return tuple(_chunk_trail(row, placed.get(row["chunk_id"], {}), cards) for row in rows)

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

    def _event(self, key: dg.AssetKey, partition: str | None, record: dg.EventLogRecord) -> Made:
        tags = versions.tags_of(record)
        current = versions.current_versions(self.instance, self.graph, key, partition)
        return Made(
            asset=key.to_user_string(),
            shard=partition,
            data_version=versions.data_version(tags),
            code_version=versions.code_version(tags),
            n_rows=versions.figures_of(record).get("rows"),
            run_id=record.run_id,
            event_id=record.storage_id,
            made_at=datetime.fromtimestamp(record.timestamp, UTC).isoformat(),
            stale_because=current.changed_since(tags),
        )


def _chunk_trail(
    row: Mapping[str, object], placed: Mapping[str, object], cards: Mapping[int, Card]
) -> ChunkTrail:
    cluster_id = placed.get("cluster_id")
    card = cards.get(cluster_id) if isinstance(cluster_id, int) else None
    chunk_id = row["chunk_id"]
    return ChunkTrail.model_validate(
        {
            "chunk_id": chunk_id.hex() if isinstance(chunk_id, bytes) else chunk_id,
            **{name: row[name] for name in ("chunk_index", "char_start", "char_end", "n_tokens")},
            **{name: placed.get(name) for name in ("cluster_id", "strength", "is_noise")},
            "cluster_title": card.title if card else None,
        }
    )
