"""The query engine of a pool: question → vector → cells → passages, each with where it is from.

`ask` is for people and services, `measure` for the retrieval report; both go the same way. What
is near what is decided in `core.routing` and `adapters.postgres.search`.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from acidburn_assets.adapters.object_store import ObjectStore, read_table
from acidburn_assets.adapters.postgres import Hit, Hits, PassageSearch, Postgres, pool_state
from acidburn_assets.core import keys, retrieval_report, routing, schemas
from acidburn_assets.core.cluster_map import ClusterMap
from acidburn_assets.core.embeddings import Encoder
from acidburn_assets.core.errors import (
    ConfigError,
    ModelError,
    NotMaterialized,
    ObjectMissing,
    SchemaError,
)
from acidburn_assets.core.records import Record
from acidburn_assets.core.retrieval_report import Choice, Outcome, Question, RetrievalReport
from acidburn_assets.core.routing import Cells, ClusterScore, Ranking, Router

N_CONSIDERED = 16
"""Clusters that the trail shows at least. Chosen."""

SHARE_SCANNED, MAX_SCANNED = 0.1, 20_000
"""Passages that a question is compared with, unless it is said how many: a tenth of the pool, and
never more than so many. Source: the retrieval report's recall at a tenth; 20,000 rows of 1,024
values take Postgres about 50 ms on one core."""


class Passage(Record):
    """One passage of an answer."""

    rank: int  # 1 is nearest
    chunk_id: str  # hex
    dataset: str
    shard: str
    doc_id: str
    title: str
    char_start: int  # document[char_start:char_end] == text
    char_end: int
    cluster_id: int
    cluster_title: str
    score: float  # cosine
    text: str
    revision: str  # of the dataset
    embeddings_sha256: str
    source_sha256: str  # of the slice in Postgres
    run_id: str  # that loaded it


class RoutedCluster(Record):
    """A cluster and why it stands where it stands."""

    cluster_id: int
    title: str
    score: float
    cell: float
    lexical: float


class Trail(Record):
    """What was looked at for an answer, and what that took."""

    clusters_considered: tuple[RoutedCluster, ...]  # best first
    clusters_searched: tuple[RoutedCluster, ...]  # those whose cells were looked into
    n_cells_searched: int
    n_cells_total: int
    n_rows_scanned: int
    n_rows_total: int
    share_scanned: float
    n_shards_behind: int
    """Loaded shards that follow another clustering than the map that routed; their passages may
    be missed until chunk_embeddings is materialized."""
    seconds: dict[str, float]  # by stage
    usd: float


class Answer(Record):
    """Passages for a question, nearest first."""

    question: str
    pool: str
    model: str  # fingerprint of the encoder
    passages: tuple[Passage, ...]
    trail: Trail


class Engine:
    """Answers questions from one pool. May be used by several threads."""

    def __init__(
        self, *, store: ObjectStore, postgres: Postgres, encoder: Encoder, pool: str
    ) -> None:
        """Reads the pool's map and centroids, and checks that all of it is of one model.

        Args:
            store: where the map and the centroids are.
            postgres: where the pool's passages are.
            encoder: of questions.
            pool: its name.

        Raises:
            NotMaterialized: the pool's map, centroids or passages have not been made.
            ModelError: the encoder is not the one that made the pool's vectors.
        """
        self._store = store
        self._encoder = encoder
        self._pool = pool
        self._map = _read_map(store, pool)
        state = pool_state(postgres, pool)
        if state is None or not state.n_chunks:
            raise NotMaterialized(
                f"nothing of the pool {pool!r} is in Postgres ({postgres.where}); materialize "
                "chunk_embeddings of its datasets"
            )
        for where, model in (("cluster map", self._map.model), ("vectors", state.facts.model)):
            if model != encoder.card.fingerprint:
                raise ModelError(
                    f"the {where} of the pool {pool!r} are of the model {model} "
                    f"({state.facts.model_name!r} in Postgres), and questions would be encoded by "
                    f"{encoder.card.name!r} ({encoder.card.fingerprint}); set ACIDBURN_MODEL to "
                    "the pool's model"
                )
        self._n_rows = state.n_chunks
        self._n_shards_behind = sum(
            n_shards
            for clustering, n_shards in state.clusterings.items()
            if clustering != self._map.cluster_model_sha256
        )
        self._titles = {card.cluster_id: card.title for card in self._map.cards}
        self._router = _make_router(self._map, _read_centroids(store, pool, encoder.card.dim), pool)
        self._search = PassageSearch(postgres, pool)

    @property
    def cluster_map(self) -> ClusterMap:
        """The map that routes."""
        return self._map

    def ask(self, question: str, *, n_scanned: int | None = None, n_passages: int = 10) -> Answer:
        """The nearest passages of the cells that a question belongs to.

        Args:
            question: as a person wrote it.
            n_scanned: how many passages it is compared with at most, those of one cell at least;
                None: `SHARE_SCANNED` and `MAX_SCANNED`.
            n_passages: how many passages are wanted.

        Raises:
            ConfigError: the question is blank or too long, or a number is not positive.
            DatabaseUnavailable, DatabaseError: the database cannot say.
        """
        if not question.strip():
            raise ConfigError("the question is empty; ask something")
        if n_scanned is None:
            n_scanned = min(max(1, round(SHARE_SCANNED * self._n_rows)), MAX_SCANNED)
        if n_scanned < 1 or n_passages < 1:
            raise ConfigError(
                f"n_scanned ({n_scanned}) and n_passages ({n_passages}) must be 1 or more"
            )
        clock = _Clock()
        vector = self._encoder.encode([question], "query").vectors[0]
        clock.lap("encode")
        route = self._router.route(vector, question)
        clock.lap("route")
        chosen = route.cells.within(n_scanned)
        found = self._search.inside(vector, chosen, limit=n_passages)
        clock.lap("search")
        texts = self._texts(found.hits)
        clock.lap("texts")
        searched = route.explain_within(n_scanned)
        return Answer(
            question=question,
            pool=self._pool,
            model=self._encoder.card.fingerprint,
            passages=tuple(
                self._passage(rank, hit, texts[hit.chunk_id])
                for rank, hit in enumerate(found.hits, start=1)
            ),
            trail=Trail(
                clusters_considered=self._explain(route.explain(max(N_CONSIDERED, len(searched)))),
                clusters_searched=self._explain(searched),
                n_cells_searched=len(chosen),
                n_cells_total=len(route.cells.cell_ids),
                n_rows_scanned=found.n_rows_scanned,
                n_rows_total=self._n_rows,
                share_scanned=found.n_rows_scanned / self._n_rows,
                n_shards_behind=self._n_shards_behind,
                seconds=clock.laps,
                usd=0.0,
            ),
        )

    def measure(
        self,
        questions: Sequence[Question],
        *,
        seed: int,
        shares: Sequence[float] = retrieval_report.SHARES,
    ) -> RetrievalReport:
        """Asks questions with known answers in every way, and sums up.

        Args:
            questions: from `retrieval_report.choose_questions`.
            seed: of the questions, kept in the report.
            shares: of the pool that may be scanned, one line each.

        Raises:
            DatabaseUnavailable, DatabaseError: the database cannot say.
        """
        texts = [question.text for question in questions]
        vectors = self._encoder.encode(texts, "query").vectors if texts else np.empty((0, 0))
        outcomes = [
            outcome
            for question, vector in zip(questions, vectors, strict=True)
            for outcome in self._ways(question, vector, shares)
        ]
        return retrieval_report.sum_up(
            outcomes,
            pool=self._pool,
            model=self._encoder.card.fingerprint,
            cluster_model_sha256=self._map.cluster_model_sha256,
            n_chunks=self._n_rows,
            n_clusters=len(self._titles),
            seed=seed,
        )

    def close(self) -> None:
        """Closes the connections that are kept for the next question."""
        self._search.close()

    def _ways(
        self, question: Question, vector: np.ndarray, shares: Sequence[float]
    ) -> Iterator[Outcome]:
        clock = _Clock()
        routed = self._router.route(vector, question.text).cells
        clock.lap("routed")
        by_centroid = self._router.by_centroid(vector)
        clock.lap("centroid")
        orders: tuple[tuple[Choice, Ranking], ...] = (("routed", routed), ("centroid", by_centroid))
        for choice, order in orders:
            for share in shares:
                cells = order.within(round(share * self._n_rows))
                hits = self._search.inside(vector, cells, limit=retrieval_report.K)
                yield _outcome(question, choice, share, hits, clock.laps[choice])
        hits = self._search.everywhere(vector, limit=retrieval_report.K)
        yield _outcome(question, "all", None, hits, 0.0)

    def _passage(self, rank: int, hit: Hit, text: str) -> Passage:
        return Passage(
            rank=rank,
            chunk_id=hit.chunk_id.hex(),
            dataset=hit.dataset,
            shard=hit.shard,
            doc_id=hit.doc_id,
            title=hit.title,
            char_start=hit.char_start,
            char_end=hit.char_end,
            cluster_id=hit.cluster_id,
            cluster_title=self._titles[hit.cluster_id],
            score=hit.score,
            text=text,
            revision=hit.revision,
            embeddings_sha256=hit.embeddings_sha256,
            source_sha256=hit.source_sha256,
            run_id=hit.run_id,
        )

    def _explain(self, scores: Sequence[ClusterScore]) -> tuple[RoutedCluster, ...]:
        return tuple(
            RoutedCluster(title=self._titles[score.cluster_id], **score.model_dump())
            for score in scores
        )

    def _texts(self, hits: Sequence[Hit]) -> dict[bytes, str]:
        """Texts by chunk id; those that Postgres does not hold are read from the bucket."""
        texts = {hit.chunk_id: hit.text for hit in hits if hit.text is not None}
        in_bucket: defaultdict[str, list[Hit]] = defaultdict(list)
        for hit in hits:
            if hit.text is None:
                key = keys.object_key(hit.dataset, "chunks", hit.shard, suffix=".parquet")
                in_bucket[key].append(hit)
        for key, wanted in in_bucket.items():
            texts |= _read_texts(self._store, key, wanted)
        return texts


class _Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """What passed since the last lap was for this stage."""
        now = time.perf_counter()
        self.laps[stage] = now - self._last
        self._last = now


def _read_map(store: ObjectStore, pool: str) -> ClusterMap:
    key = keys.object_key(pool, "cluster_map", suffix=".json")
    try:
        return ClusterMap.from_bytes(store.get_bytes(key), key=key)
    except ObjectMissing as error:
        raise _not_made(pool, "cluster_map") from error


def _read_centroids(store: ObjectStore, pool: str, dim: int) -> pa.Table:
    key = keys.object_key(pool, "centroids", suffix=".parquet")
    try:
        table = read_table(store, key)
    except ObjectMissing as error:
        raise _not_made(pool, "centroids") from error
    schemas.check(table, schemas.centroids(dim), key=key)
    return table.combine_chunks()


def _not_made(pool: str, asset: str) -> NotMaterialized:
    return NotMaterialized(f"the pool {pool!r} has no {asset} yet; materialize {pool}/{asset}")


def _make_router(cluster_map: ClusterMap, table: pa.Table, pool: str) -> Router:
    """Cards and centroids of the same clusters made into a router.

    Raises:
        SchemaError: they are not of the same clusters.
    """
    ids = table["cluster_id"].to_pylist()
    if ids != [card.cluster_id for card in cluster_map.cards]:
        raise SchemaError(
            f"the cluster map of {pool!r} was made from other centroids; materialize "
            f"{pool}/cluster_map again"
        )
    dim = table.schema.field("centroid").type.list_size
    cell_ids = table["cell_ids"].combine_chunks()
    return Router(
        [routing.Cluster(card.cluster_id, card.title, card.keywords) for card in cluster_map.cards],
        Cells(
            ids=cell_ids.flatten().to_numpy().astype(np.int64),
            centroids=_matrix(table["cell_centroids"].combine_chunks().flatten(), dim),
            owners=pc.list_parent_indices(cell_ids).to_numpy(),
            n_chunks=table["cell_n_chunks"].combine_chunks().flatten().to_numpy(),
        ),
    )


def _matrix(column: pa.Array, dim: int) -> np.ndarray:
    """float32  # (n, dim)."""
    values: np.ndarray = column.flatten().to_numpy().reshape(-1, dim)
    return values


def _read_texts(store: ObjectStore, key: str, wanted: Sequence[Hit]) -> dict[bytes, str]:
    """Texts by chunk id from the row groups that hold the documents' rows.

    Raises:
        NotMaterialized: the object is gone, or was made again with other chunks.
    """
    texts: dict[bytes, str] = {}
    try:
        with store.open_parquet(key) as file:
            for group in _row_groups(file, {hit.doc_row for hit in wanted}):
                table = file.read_row_group(group, columns=["chunk_id", "text"])
                ids = pa.array([hit.chunk_id for hit in wanted], schemas.CHUNK_ID)
                found = table.filter(pc.is_in(table["chunk_id"], value_set=ids))
                texts |= dict(
                    zip(found["chunk_id"].to_pylist(), found["text"].to_pylist(), strict=True)
                )
    except ObjectMissing as error:
        raise _chunks_gone(key, wanted[0]) from error
    for hit in wanted:
        if hit.chunk_id not in texts:
            raise _chunks_gone(key, hit)
    return texts


def _chunks_gone(key: str, hit: Hit) -> NotMaterialized:
    return NotMaterialized(
        f"{key!r} does not hold the chunk {hit.chunk_id.hex()} that Postgres has; materialize "
        f"{hit.dataset}/chunks and {hit.dataset}/chunk_embeddings of the shard {hit.shard!r}"
    )


def _row_groups(file: pq.ParquetFile, doc_rows: set[int]) -> list[int]:
    """Row groups whose range of document rows holds one of these."""
    column = file.schema_arrow.get_field_index("doc_row")
    chosen = []
    for group in range(file.metadata.num_row_groups):
        statistics = file.metadata.row_group(group).column(column).statistics
        if statistics is None or any(statistics.min <= row <= statistics.max for row in doc_rows):
            chosen.append(group)
    return chosen


def _outcome(
    question: Question, choice: Choice, share: float | None, hits: Hits, seconds: float
) -> Outcome:
    return Outcome(
        question=question,
        choice=choice,
        share=share,
        relevance=tuple(
            question.is_answered_by(hit.dataset, hit.doc_id, hit.char_start, hit.char_end)
            for hit in hits.hits
        ),
        n_rows_scanned=hits.n_rows_scanned,
        seconds=seconds + hits.seconds,
    )
