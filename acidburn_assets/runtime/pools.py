"""One pool that is searched: map, centroids and lexicon from the bucket, passages in Postgres.

Finding and explaining, nothing more: what is asked, how far a search goes and what is made of it is
`search`'s. All that is read is of one state of the pool, and checked to be.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from acidburn_assets.adapters import stemmer
from acidburn_assets.adapters.object_store import ObjectStore, read_table
from acidburn_assets.adapters.postgres import Hit, PassageSearch, Postgres, pool_state
from acidburn_assets.core import keys, schemas
from acidburn_assets.core.answers import Card, Passage, Place, RoutedCluster
from acidburn_assets.core.cell_terms import CellTerms
from acidburn_assets.core.cluster_map import ClusterMap
from acidburn_assets.core.embeddings import ModelCard
from acidburn_assets.core.errors import ModelError, NotMaterialized, ObjectMissing, SchemaError
from acidburn_assets.core.lexicon import Lexicon
from acidburn_assets.core.ranking import Query
from acidburn_assets.core.routing import Cells, ClusterScore, Router
from acidburn_assets.core.term_weights import TermFinder, question_terms, spans_of

N_FIRST_WORDS = 20
"""By which texts are told apart before they are compared whole. Chosen."""


class SearchedPool:
    """A pool as it is searched. May be used by several threads."""

    def __init__(self, store: ObjectStore, postgres: Postgres, card: ModelCard, name: str) -> None:
        """Reads the pool's map, centroids and lexicon, and checks that all of it is of one model.

        Args:
            store: where they are.
            postgres: where the pool's passages are.
            card: of the encoder of questions.
            name: of the pool.

        Raises:
            NotMaterialized: the pool's map, centroids, lexicon or passages have not been made.
            ModelError: the encoder is not the one that made the pool's vectors.
        """
        self.name = name
        self._store = store
        self.cluster_map = _read_map(store, name)
        state = pool_state(postgres, name)
        if state is None or not state.n_chunks:
            raise NotMaterialized(
                f"nothing of the pool {name!r} is in Postgres ({postgres.where}); materialize "
                "chunk_embeddings of its datasets"
            )
        for where, model in (
            ("cluster map", self.cluster_map.model),
            ("vectors", state.facts.model),
        ):
            if model != card.fingerprint:
                raise ModelError(
                    f"the {where} of the pool {name!r} are of the model {model} "
                    f"({state.facts.model_name!r} in Postgres), and questions would be encoded by "
                    f"{card.name!r} ({card.fingerprint}); set ACIDBURN_MODEL to the pool's model"
                )
        self.n_rows = state.n_chunks
        self.n_shards_behind = sum(
            n_shards
            for clustering, n_shards in state.clusterings.items()
            if clustering != self.cluster_map.cluster_model_sha256
        )
        self.titles = {card.cluster_id: card.title for card in self.cluster_map.cards}
        self.router = _make_router(
            self.cluster_map,
            _read_table(store, name, "centroids", schemas.centroids(card.dim)),
            _read_table(store, name, "cell_terms", schemas.CELL_TERMS),
            name,
        )
        self._lexicon = Lexicon(_read_table(store, name, "lexicon", schemas.LEXICON))
        self.search = PassageSearch(postgres, name)

    def query(self, question: str, vector: np.ndarray) -> Query:
        """A question as this pool's passages are compared with it.

        Args:
            question: its text.
            vector: float32, unit length  # (dim,)
        """
        return Query(vector, self._lexicon.weigh(question_terms(question, stemmer.stem)))

    def cards(self, cluster_ids: Iterable[int]) -> list[Card]:
        """What a model is shown of clusters, in their order."""
        cards = {card.cluster_id: card for card in self.cluster_map.cards}
        return [
            Card(one, cards[one].title, cards[one].summary, cards[one].keywords)
            for one in cluster_ids
        ]

    def explain(
        self, scores: Sequence[ClusterScore], picked: frozenset[int] | None = None
    ) -> tuple[RoutedCluster, ...]:
        """Clusters with their titles.

        Args:
            scores: from the route.
            picked: clusters that the router's model chose; None: none was asked.
        """
        return tuple(
            RoutedCluster(
                title=self.titles[score.cluster_id],
                reason=(
                    "near"
                    if picked is None
                    else ("picked" if score.cluster_id in picked else "hedge")
                ),
                **score.model_dump(),
            )
            for score in scores
        )

    def finder(self, query: Query) -> TermFinder:
        """Finds the question's terms in passages."""
        return TermFinder(query.terms, stemmer.stem)

    def passages(
        self, hits: Sequence[Hit], finder: TermFinder, *, limit: int
    ) -> tuple[Passage, ...]:
        """The best so many hits with their texts; of equal texts the best stands for all.

        Args:
            hits: best first.
            finder: of the question's terms, for the matches.
            limit: passages at most.

        Raises:
            NotMaterialized: a text that lies in the bucket is gone.
        """
        texts = self.texts(hits)
        groups: dict[str, list[Hit]] = {}
        for hit, key in zip(hits, _keys([texts[hit.chunk_id] for hit in hits]), strict=True):
            groups.setdefault(key, []).append(hit)
        return tuple(
            Passage(
                **self._place(same[0]),
                rank=rank,
                score=same[0].score,
                cosine=same[0].cosine,
                lexical=same[0].lexical,
                text=texts[same[0].chunk_id],
                matches=spans_of(finder.find(texts[same[0].chunk_id])),
                duplicates=tuple(Place(**self._place(hit)) for hit in same[1:]),
            )
            for rank, same in enumerate(list(groups.values())[:limit], start=1)
        )

    def texts(self, hits: Sequence[Hit]) -> dict[bytes, str]:
        """Texts by chunk id; those that Postgres does not hold are read from the bucket.

        Raises:
            NotMaterialized: one is not there.
        """
        texts = {hit.chunk_id: hit.text for hit in hits if hit.text is not None}
        in_bucket: defaultdict[str, list[Hit]] = defaultdict(list)
        for hit in hits:
            if hit.text is None:
                key = keys.object_key(hit.dataset, "chunks", hit.shard, suffix=".parquet")
                in_bucket[key].append(hit)
        for key, wanted in in_bucket.items():
            texts |= _read_texts(self._store, key, wanted)
        return texts

    def close(self) -> None:
        """Closes the connections that are kept for the next question."""
        self.search.close()

    def _place(self, hit: Hit) -> Mapping[str, object]:
        return {
            "chunk_id": hit.chunk_id.hex(),
            "dataset": hit.dataset,
            "shard": hit.shard,
            "doc_id": hit.doc_id,
            "title": hit.title,
            "char_start": hit.char_start,
            "char_end": hit.char_end,
            "cluster_id": hit.cluster_id,
            # a shard that is ahead of the map may be of a cluster that the map does not have yet
            "cluster_title": self.titles.get(hit.cluster_id, f"cluster {hit.cluster_id}"),
            "revision": hit.revision,
            "embeddings_sha256": hit.embeddings_sha256,
            "source_sha256": hit.source_sha256,
            "run_id": hit.run_id,
        }


def _keys(texts: Sequence[str]) -> list[str]:
    """For each text what only texts of the same words, in the same order, share with it."""
    # most differ in their first words already
    first = [_of_words(text.split(maxsplit=N_FIRST_WORDS)[:N_FIRST_WORDS]) for text in texts]
    n_alike = Counter(first)
    return [
        _of_words(text.split()) if n_alike[key] > 1 else key
        for text, key in zip(texts, first, strict=True)
    ]


def _of_words(words: Sequence[str]) -> str:
    return " ".join(words).casefold()


def _read_map(store: ObjectStore, pool: str) -> ClusterMap:
    key = keys.object_key(pool, "cluster_map", suffix=".json")
    try:
        return ClusterMap.from_bytes(store.get_bytes(key), key=key)
    except ObjectMissing as error:
        raise _not_made(pool, "cluster_map") from error


def _read_table(store: ObjectStore, pool: str, asset: str, schema: pa.Schema) -> pa.Table:
    key = keys.object_key(pool, asset, suffix=".parquet")
    try:
        table = read_table(store, key)
    except ObjectMissing as error:
        raise _not_made(pool, asset) from error
    schemas.check(table, schema, key=key)
    return table.combine_chunks()


def _not_made(pool: str, asset: str) -> NotMaterialized:
    return NotMaterialized(f"the pool {pool!r} has no {asset} yet; materialize {pool}/{asset}")


def _make_router(cluster_map: ClusterMap, table: pa.Table, terms: pa.Table, pool: str) -> Router:
    """Cards, centroids and terms of the same clusters made into a router.

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
    by_cluster = cell_ids.flatten().to_numpy().astype(np.int64)
    if len(terms) and not np.isin(terms["cell_id"].to_numpy(), by_cluster).all():
        raise SchemaError(
            f"the cell terms of {pool!r} were made from other cells; materialize "
            f"{pool}/cell_terms again"
        )
    return Router(
        np.array(ids),
        Cells(
            ids=by_cluster,
            centroids=_matrix(table["cell_centroids"].combine_chunks().flatten(), dim),
            owners=pc.list_parent_indices(cell_ids).to_numpy(),
            n_chunks=table["cell_n_chunks"].combine_chunks().flatten().to_numpy(),
        ),
        CellTerms(terms, by_cluster),
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
