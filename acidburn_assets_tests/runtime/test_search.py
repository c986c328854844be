import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest

from acidburn_assets.adapters.object_store import ObjectStore, open_store, write_parquet
from acidburn_assets.adapters.postgres import (
    Load,
    PoolFacts,
    Postgres,
    ShardFacts,
    replace_chunk_embeddings,
)
from acidburn_assets.adapters.postgres.rows import StoreText
from acidburn_assets.core import retrieval_report, schemas
from acidburn_assets.core.answers import Picked, Reviewed
from acidburn_assets.core.cell_terms import CellTermsAccumulator
from acidburn_assets.core.cluster_map import Card, ClusterMap, DatasetTerms
from acidburn_assets.core.embeddings import Encoded, InputType, ModelCard
from acidburn_assets.core.errors import (
    ConfigError,
    ModelError,
    NotMaterialized,
    QuestionError,
    SchemaError,
)
from acidburn_assets.core.lexicon import Lexicon, LexiconAccumulator
from acidburn_assets.runtime.search import Engine
from acidburn_assets_tests import postgres_samples
from acidburn_assets_tests.postgres_server import database, dsn, postgres_server

__all__ = ["database", "dsn", "postgres_server"]

DIM = 64
TOPICS = {
    0: ("Baking bread", "flour yeast dough oven crust knead"),
    1: ("Ocean tides", "moon water harbour ebb flow gravity"),
    2: ("Parsing files", "delimiter header column encoding stream reader"),
    3: ("Growing roses", "soil prune thorn petal garden bloom"),
    4: ("Playing chess", "bishop opening endgame pawn castle gambit"),
}
N_DOCUMENTS = 40  # 8 to a topic
CLUSTERING = "c" * 64


class BagOfWords:
    """An encoder without a model: every word is a direction of its own."""

    card = ModelCard(
        name="bag-of-words",
        revision="",
        dim=DIM,
        max_tokens=50,
        pooling="mean",
        weights_sha256="w",
        tokenizer_sha256="t",
    )
    device = "cpu"
    dtype = "float32"

    def encode(self, texts: Sequence[str], input_type: InputType) -> Encoded:
        assert input_type in ("document", "query")
        vectors = np.full((len(texts), DIM), 1e-3, np.float32)
        for row, text in enumerate(texts):
            for word in re.findall(r"[^\W_]+", text.casefold()):
                vectors[row] += np.random.default_rng(list(word.encode())).standard_normal(DIM)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return Encoded(vectors, n_tokens=0, n_truncated=0, seconds=0.0)


class Corpus(NamedTuple):
    chunks: pa.Table
    embeddings: pa.Table
    assignments: pa.Table
    centroids: pa.Table
    term_weights: pa.Table
    lexicon: pa.Table
    cell_terms: pa.Table


def make_corpus() -> Corpus:
    rows = np.arange(N_DOCUMENTS)
    topics = rows % len(TOPICS)
    rng = np.random.default_rng(0)
    texts = [
        " ".join([*rng.permutation(TOPICS[topic][1].split())[:4], f"unique{row}"])
        for row, topic in zip(rows, topics.tolist(), strict=True)
    ]
    vectors = BagOfWords().encode(texts, "document").vectors.astype(np.float16).astype(np.float32)
    ids = pa.array([bytes([row + 1] * 16) for row in rows], schemas.CHUNK_ID)
    chunks = pa.table(
        [
            ids,
            pa.array([f"doc {row}" for row in rows]),
            pa.array(rows, pa.int64()),
            pa.array([f"Unique{row} {texts[row].split()[0]}" for row, topic in enumerate(topics)]),
            pa.array(np.zeros(N_DOCUMENTS), pa.int32()),
            pa.array(np.zeros(N_DOCUMENTS), pa.int64()),
            pa.array([len(text) for text in texts], pa.int64()),
            pa.array(np.full(N_DOCUMENTS, 5), pa.int32()),
            pa.array(texts),
        ],
        schema=schemas.CHUNKS,
    )
    assignments = pa.table(
        [
            ids,
            pa.array(topics, pa.int32()),
            pa.array(topics, pa.int32()),  # one cell each
            pa.array(np.ones(N_DOCUMENTS), pa.float32()),
            pa.array(np.zeros(N_DOCUMENTS), pa.float32()),
            pa.array([False] * N_DOCUMENTS),
        ],
        schema=schemas.ASSIGNMENTS,
    )
    means = np.stack([vectors[topics == topic].mean(axis=0) for topic in TOPICS])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    first = [int(np.flatnonzero(topics == topic)[0]) for topic in TOPICS]
    centroids = pa.table(
        [
            pa.array(list(TOPICS), pa.int32()),
            pa.array([8] * len(TOPICS), pa.int64()),
            pa.array([0] * len(TOPICS), pa.int64()),
            pa.array([0.5] * len(TOPICS), pa.float32()),
            vectors_column(means),
            pa.array([[ids[row].as_py()] for row in first], pa.list_(schemas.CHUNK_ID)),
            pa.array(
                [[vectors[row].tolist()] for row in first], pa.list_(schemas.vector_type(DIM))
            ),
            pa.array([[topic] for topic in TOPICS], pa.list_(pa.int32())),
            pa.array([[8]] * len(TOPICS), pa.list_(pa.int64())),
            pa.array([[mean.tolist()] for mean in means], pa.list_(schemas.vector_type(DIM))),
        ],
        schema=schemas.centroids(DIM),
    )
    embeddings = pa.table([ids, vectors_column(vectors)], schema=schemas.embeddings(DIM))
    weighed = postgres_samples.weigh(chunks)
    lexicon = LexiconAccumulator()
    lexicon.add(weighed["terms"].combine_chunks().flatten().to_numpy(), len(weighed))
    cell_terms = CellTermsAccumulator(Lexicon(lexicon.finish()), len(TOPICS))
    cell_terms.add(topics, weighed)
    return Corpus(
        chunks, embeddings, assignments, centroids, weighed, lexicon.finish(), cell_terms.finish()
    )


def vectors_column(vectors: np.ndarray) -> pa.Array:
    values = pa.array(vectors.astype(np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(values, type=schemas.vector_type(DIM))


def make_map(model: str = BagOfWords.card.fingerprint, n_cards: int = len(TOPICS)) -> ClusterMap:
    cards = tuple(
        Card(
            cluster_id=topic,
            parent=None,
            title=title,
            summary="",
            summary_chunk_id=None,
            summary_dataset=None,
            keywords=tuple(keywords.split()),
            size=8,
            n_noise=0,
            medoids=(),
            label_source="heuristic",
            label_model=None,
            label_key=None,
            label_basis="keyless-1",
            label_generation=0,
            label_size=8,
            label_failure=None,
            faithfulness=None,
            stability=None,
            usd=0,
        )
        for topic, (title, keywords) in list(TOPICS.items())[:n_cards]
    )
    return ClusterMap(
        pool="library",
        datasets=(DatasetTerms(dataset="books", licence="MIT", may_redistribute_text=True),),
        model=model,
        cluster_model_sha256=CLUSTERING,
        generation=0,
        centroids_key="library/centroids.parquet",
        centroids_sha256="e" * 64,
        status="complete",
        n_llm=0,
        n_heuristic=len(cards),
        n_failed=0,
        usd=0,
        cards=cards,
        groups=(),
    )


CORPUS = make_corpus()


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    store = open_store((tmp_path / "objects").as_uri())
    put(store, CORPUS.centroids, "library/centroids.parquet")
    put(store, CORPUS.lexicon, "library/lexicon.parquet")
    put(store, CORPUS.cell_terms, "library/cell_terms.parquet")
    put(store, CORPUS.chunks, "books/chunks/000000.parquet", row_group_rows=7)
    store.put_bytes("library/cluster_map.json", make_map().to_bytes())
    return store


def put(store: ObjectStore, table: pa.Table, key: str, row_group_rows: int = 10_000) -> None:
    batches = table.to_batches()
    write_parquet(store, key, table.schema, batches, row_group_rows=row_group_rows)


def fill(
    postgres: Postgres,
    *,
    store_text: StoreText = "postgres",
    clustering: str = CLUSTERING,
    chunks: pa.Table = CORPUS.chunks,
    version: str = "c",
    pool: str = "library",
    dataset: str = "books",
) -> None:
    facts = PoolFacts(pool, "knowledge", BagOfWords.card.fingerprint, "bag-of-words", DIM)
    shard = ShardFacts(facts, dataset, "000000", 0, N_DOCUMENTS, "r7", "MIT", True)
    replace_chunk_embeddings(
        postgres,
        shard,
        Load("run-7", version, "embeddings of now", "a", clustering),
        chunks=chunks.to_batches(),
        embeddings=CORPUS.embeddings.to_batches(),
        assignments=CORPUS.assignments.to_batches(),
        term_weights=CORPUS.term_weights.to_batches(),
        store_text=store_text,
    )


def make_engine(store: ObjectStore, postgres: Postgres) -> Engine:
    return Engine(store=store, postgres=postgres, encoder=BagOfWords(), pool="library")


def test_answer_carries_passages_and_where_they_are_from(
    store: ObjectStore, database: Postgres
) -> None:
    fill(database)
    engine = make_engine(store, database)
    answer = engine.ask("unique12 delimiter header", n_scanned=16, n_passages=3)
    engine.close()
    first = answer.passages[0]
    row = CORPUS.chunks.slice(12, 1).to_pylist()[0]
    assert first.chunk_id == row["chunk_id"].hex()
    assert (first.rank, first.dataset, first.shard) == (1, "books", "000000")
    assert (first.doc_id, first.title, first.text) == ("doc 12", row["title"], row["text"])
    assert (first.char_start, first.char_end) == (0, len(row["text"]))
    assert (first.cluster_id, first.cluster_title) == (2, "Parsing files")
    assert (first.revision, first.run_id) == ("r7", "run-7")
    assert first.embeddings_sha256 == "embeddings of now"
    assert [passage.rank for passage in answer.passages] == [1, 2, 3]
    scores = [passage.score for passage in answer.passages]
    assert scores == sorted(scores, reverse=True)
    assert answer.model == BagOfWords.card.fingerprint


def test_trail_says_what_was_searched(store: ObjectStore, database: Postgres) -> None:
    fill(database)
    trail = make_engine(store, database).ask("moon over harbour", n_scanned=16).trail
    assert trail.clusters_searched[0].title == "Ocean tides"
    assert len(trail.clusters_considered) == 5
    assert trail.clusters_considered[:2] == trail.clusters_searched
    scores = [cluster.score for cluster in trail.clusters_considered]
    assert scores == sorted(scores, reverse=True)
    assert (trail.n_rows_scanned, trail.n_rows_total, trail.share_scanned) == (16, 40, 0.4)
    assert (trail.n_cells_searched, trail.n_cells_total) == (2, 5)
    assert (trail.n_shards_behind, trail.usd) == (0, 0.0)
    assert set(trail.seconds) == {"encode", "route", "search", "texts", "verify"}


def test_same_question_gets_the_same_answer(store: ObjectStore, database: Postgres) -> None:
    fill(database)
    engine = make_engine(store, database)
    first, again = (engine.ask("prune the thorn") for _ in range(2))
    assert first.passages == again.passages
    assert first.trail.clusters_considered == again.trail.clusters_considered


def test_texts_that_stay_in_the_bucket_are_read_there(
    store: ObjectStore, database: Postgres
) -> None:
    fill(database)
    expected = make_engine(store, database).ask("bishop or pawn").passages
    fill(database, store_text="bucket")
    found = make_engine(store, database).ask("bishop or pawn").passages
    assert [one.text for one in found] == [one.text for one in expected]
    assert found[0].text.count(" ") == 4


def test_chunks_made_again_with_other_texts_are_noticed(
    store: ObjectStore, database: Postgres
) -> None:
    fill(database, store_text="bucket")
    engine = make_engine(store, database)
    put(store, CORPUS.chunks.slice(0, 1), "books/chunks/000000.parquet")
    with pytest.raises(NotMaterialized, match="materialize books/chunks"):
        engine.ask("bishop or pawn")
    store.delete("books/chunks/000000.parquet")
    with pytest.raises(NotMaterialized, match="of the shard '000000'"):
        engine.ask("bishop or pawn")


def test_shards_of_another_clustering_are_counted(store: ObjectStore, database: Postgres) -> None:
    fill(database, clustering="of yesterday")
    assert make_engine(store, database).ask("moon").trail.n_shards_behind == 1


@pytest.mark.parametrize("missing", ["cluster_map.json", "centroids.parquet"])
def test_missing_object_names_the_asset_to_materialize(
    store: ObjectStore, database: Postgres, missing: str
) -> None:
    fill(database)
    store.delete(f"library/{missing}")
    asset = missing.partition(".")[0]
    with pytest.raises(NotMaterialized, match=f"materialize library/{asset}"):
        make_engine(store, database)


def test_empty_database_names_the_asset_to_materialize(
    store: ObjectStore, database: Postgres
) -> None:
    with pytest.raises(NotMaterialized, match="materialize chunk_embeddings"):
        make_engine(store, database)


def test_map_of_another_model_is_refused(store: ObjectStore, database: Postgres) -> None:
    fill(database)
    store.put_bytes("library/cluster_map.json", make_map(model="beef").to_bytes())
    with pytest.raises(ModelError, match=r"cluster map .* model beef .*'bag-of-words'"):
        make_engine(store, database)


def test_map_of_other_centroids_is_refused(store: ObjectStore, database: Postgres) -> None:
    fill(database)
    store.put_bytes("library/cluster_map.json", make_map(n_cards=4).to_bytes())
    with pytest.raises(SchemaError, match="other centroids"):
        make_engine(store, database)


def test_senseless_questions_are_refused(store: ObjectStore, database: Postgres) -> None:
    fill(database)
    engine = make_engine(store, database)
    with pytest.raises(ConfigError, match="the question is empty"):
        engine.ask(" \n")
    with pytest.raises(ConfigError, match="must be 1 or more"):
        engine.ask("moon", n_scanned=0)
    with pytest.raises(ConfigError, match="must be 1 or more"):
        engine.ask("moon", n_passages=0)


def test_report_measures_the_same_way_as_ask(store: ObjectStore, database: Postgres) -> None:
    fill(database)
    engine = make_engine(store, database)
    questions = retrieval_report.choose_questions(CORPUS.chunks, dataset="books", seed=0, limit=20)
    report = engine.measure(questions, seed=0)
    assert (report.n_titles, report.n_chunks, report.n_clusters) == (20, 40, 5)
    full, one, less = report.line("all"), report.line("routed", 0.2), report.line("routed", 0.1)
    assert full is not None
    assert one is not None
    assert less is not None
    assert full.share_scanned == 1
    assert one.share_scanned == pytest.approx(0.2)
    assert less.share_scanned == pytest.approx(0.2)  # a cell at least, and each holds a fifth
    assert full.recall_at_10.mean > 0.9
    assert one.ndcg_to_all is not None
    assert one.ndcg_to_all.mean > 0.9
    found = [
        passage.doc_id == question.doc_id
        for question in questions
        for passage in engine.ask(question.text, n_scanned=8, n_passages=1).passages
    ]
    assert sum(found) / len(found) <= one.recall_at_10.mean


@pytest.mark.parametrize(
    "question",
    [
        "می‌خواهم ماه را ببینم",  # Persian, with a mark that keeps letters apart
        "\u200fהירח\u200f",
        "👨\u200d👩\u200d👧 by the moon",
        "moon\u00ad light\ttonight\r\nand more",
    ],
)
def test_marks_that_scripts_need_are_text(
    store: ObjectStore, database: Postgres, question: str
) -> None:
    fill(database)
    assert make_engine(store, database).ask(question).question == question


@pytest.mark.parametrize("question", ["moon\0", "\x1b[31mmoon", "moon\ud800", "\x07"])
def test_what_is_no_text_is_no_question(
    store: ObjectStore, database: Postgres, question: str
) -> None:
    fill(database)
    with pytest.raises(QuestionError, match="no text"):
        make_engine(store, database).ask(question)


class Paid:
    """An advisor that counts what it is asked."""

    model = "paid-1"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def pick(self, *_: object, **__: object) -> Picked:
        self.asked.append("pick")
        return Picked((), ())

    def review(self, *_: object, **__: object) -> Reviewed:
        self.asked.append("review")
        return Reviewed(False, (), (), (), None, ())


def test_a_search_without_advice_pays_nobody(store: ObjectStore, database: Postgres) -> None:
    fill(database)
    advisor = Paid()
    engine = Engine(
        store=store, postgres=database, encoder=BagOfWords(), pool="library", advisor=advisor
    )
    assert engine.writer == "paid-1"
    found = engine.ask("bishop or pawn", advises=False)
    assert advisor.asked == []
    assert found.verification.status == "not_needed"
    assert found.passages
    engine.ask("bishop or pawn")
    assert advisor.asked == ["pick", "review"]
    assert make_engine(store, database).writer is None


def test_a_shard_that_is_ahead_of_the_map_is_answered_from(
    store: ObjectStore, database: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its clusters were found after the map was labelled; asking failed with a KeyError."""
    ahead = pa.array([topic + 70 for topic in CORPUS.assignments["cluster_id"].to_pylist()])
    assignments = CORPUS.assignments.set_column(
        CORPUS.assignments.schema.get_field_index("cluster_id"),
        CORPUS.assignments.schema.field("cluster_id"),
        ahead.cast(pa.int32()),
    )
    monkeypatch.setattr(sys.modules[__name__], "CORPUS", CORPUS._replace(assignments=assignments))
    fill(database, clustering="of tomorrow")
    answer = make_engine(store, database).ask("bishop or pawn")
    assert answer.passages[0].cluster_title == "cluster 74"
    assert answer.trail.n_shards_behind == 1
