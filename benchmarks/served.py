"""A collection put where a search finds it: a bucket in a folder, and a Postgres of its own.

By the functions that the assets call, one after the other, without Dagster: fit, assign, exact
centroids, keyless labels and the map, terms, vectors and texts in Postgres.
Vectors come ready made.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import psycopg
import pyarrow as pa
from pydantic import SecretStr

from acidburn_assets.adapters import embedded_postgres
from acidburn_assets.adapters.encoder import load_encoder
from acidburn_assets.adapters.object_store import ObjectStore, open_store, write_parquet
from acidburn_assets.adapters.postgres import (
    ClusterHeader,
    Load,
    PoolFacts,
    Postgres,
    ShardFacts,
    migrate,
    replace_chunk_embeddings,
    replace_cluster_headers,
)
from acidburn_assets.core import cluster_map as mapping
from acidburn_assets.core import embeddings, keys, schemas
from acidburn_assets.core.assignments import assign
from acidburn_assets.core.cell_terms import CellTermsAccumulator
from acidburn_assets.core.centroids import CentroidAccumulator, MedoidAccumulator
from acidburn_assets.core.cluster_map import ClusterFacts, ClusterMap
from acidburn_assets.core.cluster_model import ClusterModel
from acidburn_assets.core.datasets import PoolSettings
from acidburn_assets.core.embeddings import Encoded, InputType, ModelCard
from acidburn_assets.core.labels import ClusterSample, Passage, describe
from acidburn_assets.core.lexicon import Lexicon, LexiconAccumulator
from acidburn_assets.runtime.pools import SearchedPool
from acidburn_assets.runtime.search import Engine
from benchmarks import evaluation, growth
from benchmarks.judged import Asked

SHARD_ROWS = 10_000

N_MEMBERS = 200
"""That labels are made from, of each cluster, as the map reads them."""

_LICENCE = "not redistributed"


class KnownVectors:
    """The encoder of a collection whose questions were encoded before: it looks them up, so that
    what is timed is the search."""

    device, dtype, batch_tokens = "cpu", "float32", 1

    def __init__(self, card: ModelCard, questions: Sequence[str], vectors: np.ndarray) -> None:
        """Remembers.

        Args:
            card: of the model that encoded.
            questions: what is asked.
            vectors: of the questions, (q, dim) float32.
        """
        self.card = card
        self._vectors = dict(zip(questions, vectors, strict=True))

    def encode(self, texts: Sequence[str], input_type: InputType) -> Encoded:
        """See `Encoder`; a text that is not known is a KeyError."""
        assert input_type == "query"
        return Encoded(np.stack([self._vectors[text] for text in texts]), 0, 0, 0.0)

    def embed_iter(
        self, windows: Iterable[Sequence[str]], input_type: InputType
    ) -> Iterator[Encoded]:
        """See `Encoder`."""
        return (self.encode(texts, input_type) for texts in windows)


class Served(NamedTuple):
    """A collection that can be asked."""

    asked: Asked
    facts: PoolFacts
    store: ObjectStore
    n_cells: int
    term_weights: pa.Table  # of `schemas.TERM_WEIGHTS`, by row

    def row(self, chunk_id: bytes) -> int:
        """Of the collection."""
        return int.from_bytes(chunk_id, "big")

    def searched(self, postgres: Postgres) -> SearchedPool:
        """What finds passages of it."""
        return SearchedPool(self.store, postgres, minilm_card(), self.facts.name)

    def engine(self, postgres: Postgres) -> Engine:
        """What answers its questions."""
        asked = self.asked
        encoder = KnownVectors(minilm_card(), asked.questions, asked.question_vectors)
        return Engine(store=self.store, postgres=postgres, encoder=encoder, pool=self.facts.name)


@cache
def minilm_card() -> ModelCard:
    """Of the model that `evaluation.embed` uses."""
    return load_encoder("minilm", device="cpu").card


@contextmanager
def server(folder: Path) -> Iterator[tuple[Postgres, str]]:
    """A Postgres that lives as long as the block, with our tables, and its DSN.

    Args:
        folder: for its files, absent or empty.
    """
    with embedded_postgres.start(folder) as running:
        postgres = Postgres(SecretStr(running.dsn))
        migrate(postgres)
        yield postgres, running.dsn


def serve(
    asked: Asked, postgres: Postgres, *, folder: Path, settings: PoolSettings | None = None
) -> Served:
    """Puts a collection into a bucket and into Postgres.

    Args:
        asked: which.
        postgres: where, migrated.
        folder: of the bucket.
        settings: of the fit; None: a pool's defaults.
    """
    settings = settings or PoolSettings()
    store = open_store(folder.as_uri())
    card = minilm_card()
    n_rows, dim = asked.vectors.shape
    facts = PoolFacts(asked.name, "knowledge", card.fingerprint, card.name, dim)
    model = growth.fit(asked.vectors, settings, n_chunks=n_rows)
    ids = growth.chunk_ids(n_rows)
    placed = pa.Table.from_batches([assign(asked.vectors, model, ids)])
    table = exact_centroids(model, asked.vectors, ids, placed)
    key = keys.object_key(asked.name, "centroids", suffix=".parquet")
    stored, _ = write_parquet(store, key, table.schema, table.to_batches())
    made = make_map(asked, facts, model, table, placed, centroids=(key, stored.sha256))
    store.put_bytes(keys.object_key(asked.name, "cluster_map", suffix=".json"), made.to_bytes())
    load_headers(postgres, facts, made, table)
    weighed = []
    for start in range(0, n_rows, SHARD_ROWS):
        own = min(SHARD_ROWS, n_rows - start)
        chunks = passages(asked.texts[start : start + own], ids.slice(start, own), start)
        terms = evaluation.term_weights(chunks)
        weighed.append(terms)
        vectors = asked.vectors[start : start + own]
        replace_chunk_embeddings(
            postgres,
            ShardFacts(
                facts,
                dataset=asked.name,
                shard=keys.shard_key(start // SHARD_ROWS),
                first_row=start,
                n_rows=own,
                revision="",
                licence=_LICENCE,
                may_redistribute_text=False,
            ),
            Load("bench", str(start), str(start), str(start), model.content_version()),
            chunks=chunks.to_batches(),
            embeddings=[embeddings.record_batch(ids.slice(start, own), vectors)],
            assignments=placed.slice(start, own).to_batches(),
            term_weights=terms.to_batches(),
            store_text="postgres",
        )
    together = pa.concat_tables(weighed)
    n_cells = len(model.cell_centroids)
    put_terms(
        store, asked.name, lambda: [(placed["cell_id"].to_numpy(), together)], n_cells=n_cells
    )
    return Served(asked, facts, store, n_cells, together)


def put_terms(
    store: ObjectStore,
    pool: str,
    read: Callable[[], Iterable[tuple[np.ndarray, pa.Table]]],
    *,
    n_cells: int,
) -> None:
    """Lexicon and terms of the cells, as `P/lexicon` and `P/cell_terms` store them.

    Args:
        store: the bucket.
        pool: its name.
        read: gives of each shard the cells of its chunks  # (n,) int32
            and its terms, of `schemas.TERM_WEIGHTS`; called twice.
        n_cells: of the pool.
    """
    counted = LexiconAccumulator()
    for _, terms in read():
        counted.add(terms["terms"].combine_chunks().flatten().to_numpy(), len(terms))
    lexicon = counted.finish()
    collected = CellTermsAccumulator(Lexicon(lexicon), n_cells)
    for cell_ids, terms in read():
        collected.add(cell_ids, terms)
    for asset, table in (("lexicon", lexicon), ("cell_terms", collected.finish())):
        key = keys.object_key(pool, asset, suffix=".parquet")
        write_parquet(store, key, table.schema, table.to_batches())


def exact_centroids(
    model: ClusterModel, vectors: np.ndarray, ids: pa.Array, placed: pa.Table
) -> pa.Table:
    """As `P/centroids` makes it, of `schemas.centroids`."""
    own, is_noise = placed["cell_id"].to_numpy(), placed["is_noise"].to_numpy()
    sums = CentroidAccumulator(model)
    sums.add(vectors, own, is_noise)
    nearest = MedoidAccumulator(sums)
    nearest.add(vectors, embeddings.id_matrix(ids), own, is_noise)
    return nearest.finish().combine_chunks()


def make_map(
    asked: Asked,
    facts: PoolFacts,
    model: ClusterModel,
    table: pa.Table,
    placed: pa.Table,
    *,
    centroids: tuple[str, str],
) -> ClusterMap:
    """Keyless labels of every cluster, as `P/cluster_map` makes them.

    Args:
        asked: the collection.
        facts: the pool.
        model: its clusters.
        table: of `schemas.centroids`.
        placed: of `schemas.ASSIGNMENTS`, all of it.
        centroids: key and sha256 of the table's object.
    """
    random = np.random.default_rng(0)
    cluster_of = placed["cluster_id"].to_numpy().copy()
    cluster_of[placed["is_noise"].to_numpy()] = -1

    def passage(row: int) -> Passage:
        return Passage(row.to_bytes(16, "big").hex(), str(row), asked.texts[row])

    rows = table.select(["cluster_id", "n_chunks", "n_noise", "medoid_ids"]).to_pylist()
    samples, known = {}, []
    for row in rows:
        members = random.permutation(np.flatnonzero(cluster_of == row["cluster_id"]))[:N_MEMBERS]
        medoids = [passage(int.from_bytes(one, "big")) for one in row["medoid_ids"]]
        samples[row["cluster_id"]] = ClusterSample([passage(int(one)) for one in members], medoids)
        quoted = [
            mapping.Medoid(chunk_id=one.chunk_id, dataset=facts.name, text="") for one in medoids
        ]
        known.append(  # groups and quotations are not asked for
            ClusterFacts(row["cluster_id"], None, row["n_chunks"], row["n_noise"], tuple(quoted))
        )
    vectors = embeddings.matrix(table["centroid"])
    labels = describe(samples, mapping.nearest_clusters(vectors, ids=list(samples)))
    key, sha256 = centroids
    return mapping.build_cluster_map(
        pool=facts.name,
        datasets=[
            mapping.DatasetTerms(dataset=facts.name, licence=_LICENCE, may_redistribute_text=False)
        ],
        model=facts.model,
        cluster_model_sha256=model.content_version(),
        generation=model.meta.generation,
        centroids_key=key,
        centroids_sha256=sha256,
        facts=known,
        heuristics=labels,
        basis="keyless",
    )


def load_headers(postgres: Postgres, facts: PoolFacts, made: ClusterMap, table: pa.Table) -> None:
    """As `P/cluster_headers` loads them."""
    exact = table.select(["cluster_id", "radius", "medoid_ids"]).to_pylist()
    replace_cluster_headers(
        postgres,
        facts,
        headers=[
            ClusterHeader(
                cluster_id=card.cluster_id,
                parent=card.parent,
                title=card.title,
                summary=card.summary,
                keywords=card.keywords,
                n_chunks=card.size,
                n_noise=card.n_noise,
                radius=own["radius"],
                medoid_ids=own["medoid_ids"],
                label_source=card.label_source,
            )
            for card, own in zip(made.cards, exact, strict=True)
        ],
        centroids=embeddings.matrix(table["centroid"]),
        source_sha256=made.content_version(),
        clustering=made.cluster_model_sha256,
        run_id="bench",
    )


def passages(texts: Sequence[str], ids: pa.Array, first_row: int) -> pa.Table:
    """Whole documents as chunks, without titles, of `schemas.CHUNKS`."""
    n_rows = len(texts)
    rows = np.arange(first_row, first_row + n_rows)
    return pa.table(
        [
            ids,
            pa.array([str(row) for row in rows]),
            pa.array(rows, pa.int64()),
            pa.array([""] * n_rows),
            pa.array(np.zeros(n_rows), pa.int32()),
            pa.array(np.zeros(n_rows), pa.int64()),
            pa.array([len(text) for text in texts], pa.int64()),
            pa.array([len(text.split()) for text in texts], pa.int32()),
            pa.array(texts, pa.string()),
        ],
        schema=schemas.CHUNKS,
    )


class Backends:
    """CPU seconds of the server's processes that our searches speak to."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    def cpu_seconds(self) -> float:
        """That they used since they began; none must end between two calls."""
        with psycopg.connect(self._dsn) as connection:
            pids = connection.execute(
                "select pid from pg_stat_activity where backend_type = 'client backend'"
                " and datname = current_database() and pid <> pg_backend_pid()"
            ).fetchall()
        return sum(cpu_seconds(pid) for (pid,) in pids)


def cpu_seconds(pid: int) -> float:
    """That a process used since it began."""
    used = psutil.Process(pid).cpu_times()
    return float(used.user + used.system)
