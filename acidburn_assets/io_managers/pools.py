"""Reading what a pool's datasets made: manifests, and rows of their shards, without loading all.

A fan-in through an I/O manager would hold every shard in memory at once; here shards are streamed
one after the other, and what is read is what the manifests sealed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import dagster as dg
import numpy as np
import pyarrow as pa

from acidburn_assets.adapters.object_store import ObjectStore
from acidburn_assets.core import embeddings as embedding
from acidburn_assets.core import schemas
from acidburn_assets.core.cluster_map import Medoid
from acidburn_assets.core.datasets import Pool
from acidburn_assets.core.errors import ModelError, ObjectCorrupt, SchemaError
from acidburn_assets.core.labels import ClusterSample, Passage, quotation
from acidburn_assets.core.manifest import Manifest, ManifestEntry
from acidburn_assets.core.samples import MemberSample, Place, rows_by_shard
from acidburn_assets.io_managers.objects import Tables, load_record


class PoolTables:
    """The tables of every dataset of one pool."""

    def __init__(self, store: ObjectStore, pool: Pool) -> None:
        self._store = store
        self._pool = pool

    def manifests(self) -> dict[str, Manifest]:
        """The sealed manifest of each dataset.

        Raises:
            NotMaterialized: one of them has not been made.
            ModelError: they are of different models: vectors of two models share no space.
        """
        manifests: dict[str, Manifest] = {
            name: load_record(self._store, dg.AssetKey([name, "manifest"]))
            for name in self._pool.datasets
        }
        models = {name: f"{one.model}, {one.dim}-d" for name, one in manifests.items()}
        if len(set(models.values())) > 1:
            raise ModelError(
                f"the datasets of pool {self._pool.name!r} were embedded by different models "
                f"{models}: materialize their embeddings and manifests with one model"
            )
        return manifests

    def chunks_by_shard(self, manifests: Mapping[str, Manifest]) -> dict[str, int]:
        """`dataset/shard` to its number of chunks, all shards of the pool."""
        return {
            f"{name}/{entry.shard}": entry.n_chunks
            for name, manifest in manifests.items()
            for entry in manifest.entries
        }

    def sha256_by_shard(self, manifests: Mapping[str, Manifest]) -> dict[str, str]:
        """`dataset/shard` to the sha256 of its embeddings, all shards of the pool."""
        return {
            f"{name}/{entry.shard}": entry.sha256
            for name, manifest in manifests.items()
            for entry in manifest.entries
        }

    def table(self, dataset: str, asset: str) -> Tables:
        """The shards of one asset of one dataset."""
        return Tables(self._store, dg.AssetKey([dataset, asset]))

    def take(
        self,
        asset: str,
        chosen: Mapping[str, np.ndarray],
        columns: Sequence[str],
        *,
        schema: pa.Schema | None = None,
    ) -> pa.Table:
        """Chosen rows of one asset, in the order of shards and rows.

        Args:
            asset: `chunks`, `embeddings` or `assignments`.
            chosen: `dataset/shard` to its rows, (m,) int64, rising.
            columns: to read.
            schema: that every shard must have, where it is given.

        Raises:
            SchemaError: a shard has another one, or there is no row.
        """
        parts = []
        for name in sorted(chosen):
            dataset, shard = name.split("/")
            offset = 0
            table = self.table(dataset, asset)
            for batch in table.batches(shard, columns):
                if schema is not None:
                    schemas.check(batch, schema, key=table.object_key(shard))
                inside = chosen[name] - offset
                inside = inside[(inside >= 0) & (inside < batch.num_rows)]
                if len(inside):
                    parts.append(batch.take(pa.array(inside)))
                offset += batch.num_rows
        if not parts:
            raise SchemaError(
                f"pool {self._pool.name!r} has no chunk to sample: every document of "
                f"{list(self._pool.datasets)} was skipped (see documents_skipped of the chunks)"
            )
        return pa.Table.from_batches(parts)

    def take_embeddings(
        self, chosen: Mapping[str, np.ndarray], manifests: Mapping[str, Manifest]
    ) -> pa.Table:
        """Chosen embeddings of shards that are still what was sealed.

        Raises:
            ObjectCorrupt: a shard's object is another than the manifest says.
            SchemaError: a shard's vectors are not of the manifests' dimension.
        """
        for name in chosen:
            dataset, shard = name.split("/")
            self.check_sealed(dataset, shard, manifests[dataset])
        schema = schemas.embeddings(next(iter(manifests.values())).dim)
        return self.take("embeddings", chosen, ["chunk_id", "embedding"], schema=schema)

    def check_sealed(self, dataset: str, shard: str, manifest: Manifest) -> None:
        """Refuses a shard that is no longer the one that the manifest sealed.

        Raises:
            ObjectCorrupt: its checksum differs.
        """
        entry = {one.shard: one for one in manifest.entries}[shard]
        stored = self.table(dataset, "embeddings").info(shard)
        if stored.sha256 != entry.sha256:
            raise ObjectCorrupt(
                f"{stored.key!r} holds {stored.sha256[:12]}, the manifest sealed "
                f"{entry.sha256[:12]}: materialize {dataset}/manifest again"
            )

    def placed(
        self, manifests: Mapping[str, Manifest]
    ) -> Iterator[tuple[str, str, pa.Table, pa.Table]]:
        """Every shard with its vectors and assignments: (dataset, shard, embeddings, assignments).

        Raises:
            SchemaError: the two tables of a shard do not hold the same chunks in the same order.
        """
        for dataset, entry in self.entries(manifests):
            vectors = self.table(dataset, "embeddings").read(entry.shard)
            placed = self.table(dataset, "assignments").read(entry.shard)
            self.check_same_chunks(placed, vectors, f"{dataset}/{entry.shard}")
            yield dataset, entry.shard, vectors, placed

    def entries(self, manifests: Mapping[str, Manifest]) -> Iterator[tuple[str, ManifestEntry]]:
        """Every shard of the pool with its dataset."""
        for dataset, manifest in manifests.items():
            for entry in manifest.entries:
                yield dataset, entry

    def check_same_chunks(self, placed: pa.Table, other: pa.Table, name: str) -> None:
        """Two tables of one shard belong together.

        Args:
            placed: its assignments.
            other: another table of it.
            name: `dataset/shard`, for the error.

        Raises:
            SchemaError: they do not hold the same chunks in the same order.
        """
        if not placed["chunk_id"].equals(other["chunk_id"]):
            raise SchemaError(
                f"{name}: the assignments are not of the chunks that are there now; materialize "
                "its embeddings, term_weights and assignments again"
            )

    def cluster_texts(
        self,
        manifests: Mapping[str, Manifest],
        centroids: pa.Table,
        *,
        n_members: int,
        n_held_out: int,
    ) -> "ClusterTexts":
        """Bounded samples of every cluster's passages, in one pass over the assignments.

        Args:
            manifests: of the pool.
            centroids: rows of `schemas.centroids`, for the medoids.
            n_members: of each cluster, drawn at random.
            n_held_out: more of each cluster, that share none with the members.
        """
        medoids: list[list[bytes]] = centroids["medoid_ids"].to_pylist()
        sample = MemberSample(
            n_members=n_members + n_held_out,
            wanted=[chunk_id for ids in medoids for chunk_id in ids],
        )
        for dataset, manifest in manifests.items():
            for entry in manifest.entries:
                placed = self.table(dataset, "assignments").read(entry.shard)
                sample.add(
                    f"{dataset}/{entry.shard}",
                    placed["chunk_id"].to_pylist(),
                    placed["cluster_id"].to_numpy(),
                    placed["is_noise"].to_numpy(),
                )
        drawn = sample.members()
        # the last ones are held out, so that more of them would leave the members as they are
        members = {cluster: places[:n_members] for cluster, places in drawn.items()}
        held_out = {cluster: places[n_members:] for cluster, places in drawn.items()}
        shown = [place for places in members.values() for place in places]
        rows = rows_by_shard([*shown, *sample.found.values()])
        texts = self.take("chunks", rows, ["chunk_id", "doc_id", "text"])
        return ClusterTexts(
            members=members,
            held_out=held_out,
            medoids={
                cluster: [sample.found[chunk_id] for chunk_id in ids]
                for cluster, ids in zip(centroids["cluster_id"].to_pylist(), medoids, strict=True)
            },
            passages={
                row["chunk_id"]: Passage(row["chunk_id"].hex(), row["doc_id"], row["text"])
                for row in texts.to_pylist()
            },
        )

    def vectors_of(self, places: Mapping[int, Sequence[Place]]) -> dict[int, np.ndarray]:
        """Embeddings of chosen chunks by cluster, each (m, dim) float32 in the places' order."""
        wanted = [place for chosen in places.values() for place in chosen]
        if not wanted:
            return {}
        table = self.take("embeddings", rows_by_shard(wanted), ["chunk_id", "embedding"])
        rows = {chunk_id: row for row, chunk_id in enumerate(table["chunk_id"].to_pylist())}
        vectors = embedding.matrix(table["embedding"])
        return {
            cluster: vectors[[rows[place.chunk_id] for place in chosen]]
            for cluster, chosen in places.items()
            if chosen
        }


@dataclass(frozen=True)
class ClusterTexts:
    """What a label is made from."""

    members: Mapping[int, Sequence[Place]]  # clusters without members have no entry
    held_out: Mapping[int, Sequence[Place]]
    medoids: Mapping[int, Sequence[Place]]  # of every cluster, by rising id
    passages: Mapping[bytes, Passage]  # of members and medoids

    def samples(self) -> dict[int, ClusterSample]:
        """Texts of every cluster; empty ones included."""
        return {cluster: self.of(cluster) for cluster in self.medoids}

    def of(self, cluster: int) -> ClusterSample:
        """Texts of one cluster."""
        return ClusterSample(
            members=self._texts(self.members.get(cluster, ())),
            medoids=self._texts(self.medoids[cluster]),
        )

    def quoted_medoids(self, cluster: int) -> tuple[Medoid, ...]:
        """The medoids of one cluster as its card shows them, nearest first."""
        return tuple(
            Medoid(
                chunk_id=place.chunk_id.hex(),
                dataset=place.shard.split("/")[0],
                text=quotation(self.passages[place.chunk_id].text),
            )
            for place in self.medoids[cluster]
        )

    def _texts(self, places: Sequence[Place]) -> list[Passage]:
        return [self.passages[place.chunk_id] for place in places]
