import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psycopg
import pytest

from acidburn_assets.adapters.postgres import Hits, PassageSearch, PoolFacts, Postgres
from acidburn_assets.adapters.postgres import search as searching
from acidburn_assets.adapters.stemmer import stem
from acidburn_assets.core.errors import DatabaseError, DatabaseUnavailable
from acidburn_assets.core.ranking import Query
from acidburn_assets.core.term_weights import question_terms
from acidburn_assets_tests import postgres_samples
from acidburn_assets_tests.postgres_samples import Sample
from acidburn_assets_tests.postgres_server import database, dsn, postgres_server

__all__ = ["database", "dsn", "postgres_server"]

POOL = PoolFacts("library", "knowledge", "f00d", "a-model", 64)
SAMPLES = [
    postgres_samples.make(300, shard=f"00000{index}", pool=POOL, n_clusters=7) for index in range(2)
]
OTHER = postgres_samples.make(100, dataset="forum", pool=POOL._replace(name="forums"))


@pytest.fixture
def search(database: Postgres) -> Iterator[PassageSearch]:
    for sample in (*SAMPLES, OTHER):
        postgres_samples.load(database, sample)
    search = PassageSearch(database, "library")
    yield search
    search.close()


def unit(seed: int) -> np.ndarray:
    vector = np.random.default_rng(seed).standard_normal(POOL.dim).astype(np.float32)
    return vector / np.float32(np.linalg.norm(vector))


def by_meaning(vector: np.ndarray) -> Query:
    return Query(vector, {}, lexical_share=0)


def brute_force(
    samples: list[Sample], vector: np.ndarray, cells: list[int] | None, limit: int
) -> tuple[list[bytes], np.ndarray, int]:
    """Ids and cosines, nearest first, with the rounding to fp16 that Postgres sees."""
    halves = np.concatenate([sample.halves for sample in samples]).astype(np.float64)
    ids = [chunk_id for sample in samples for chunk_id in sample.chunk_ids]
    of_cell = np.concatenate([sample.cells for sample in samples])
    question = vector.astype(np.float16).astype(np.float64)
    scores = halves @ question
    scores /= np.linalg.norm(halves, axis=1) * np.linalg.norm(question)
    inside = np.arange(len(ids)) if cells is None else np.flatnonzero(np.isin(of_cell, cells))
    best = inside[np.argsort(-scores[inside])][:limit]
    return [ids[index] for index in best], scores[best], len(inside)


def check(hits: Hits, expected: tuple[list[bytes], np.ndarray, int]) -> None:
    ids, scores, n_scanned = expected
    assert [hit.chunk_id for hit in hits.hits] == ids
    assert [hit.score for hit in hits.hits] == pytest.approx(scores, abs=1e-5)
    assert hits.n_rows_scanned == n_scanned


@pytest.mark.parametrize("cells", [[0], [1, 4], list(range(14))])
def test_search_inside_cells_is_exact(search: PassageSearch, cells: list[int]) -> None:
    for seed in range(5):
        hits = search.inside(by_meaning(unit(seed)), cells, limit=10)
        check(hits, brute_force(SAMPLES, unit(seed), cells, 10))
        assert {hit.cluster_id for hit in hits.hits} <= {cell // 2 for cell in cells}


def test_search_everywhere_is_exact_and_stays_in_its_pool(search: PassageSearch) -> None:
    for seed in range(5):
        hits = search.everywhere(by_meaning(unit(seed)), limit=25)
        check(hits, brute_force(SAMPLES, unit(seed), None, 25))


def by_words(sample: Sample, terms: dict[int, float]) -> dict[bytes, float]:
    """BM25 as a share of what is possible, by chunk; those without any of the terms left out."""
    found = {}
    for row in sample.term_weights.to_pylist():
        weights = dict(zip(row["terms"], row["weights"], strict=True))
        score = sum(weight * weights.get(term, 0.0) for term, weight in terms.items())
        if score:
            found[row["chunk_id"]] = score / (2.2 * sum(terms.values()))
    return found


def test_words_alone_rank_as_counted_by_hand(search: PassageSearch) -> None:
    # in `make`'s texts a number is in one chunk of each shard
    terms = dict.fromkeys(question_terms("text 17", stem), 2.5)
    hits = search.everywhere(Query(unit(0), terms, lexical_share=1), limit=600)
    expected = by_words(SAMPLES[0], terms) | by_words(SAMPLES[1], terms)
    assert {hit.chunk_id: hit.score for hit in hits.hits if hit.score} == (
        {chunk_id: pytest.approx(score, rel=1e-5) for chunk_id, score in expected.items()}
    )
    assert {"17" in (hit.text or "") for hit in hits.hits[:2]} == {True}


def test_score_is_the_sum_of_meaning_and_words(search: PassageSearch) -> None:
    terms = dict.fromkeys(question_terms("000001 17 é", stem), 1.5)
    for cells in ([1, 4, 9], None):
        query = Query(unit(3), terms, lexical_share=0.3)
        if cells is None:
            hits = search.everywhere(query, limit=600)
        else:
            hits = search.inside(query, cells, limit=600)
        ids, cosines, n_rows = brute_force(SAMPLES, unit(3), cells, 600)
        lexical = by_words(SAMPLES[0], terms) | by_words(SAMPLES[1], terms)
        scores = {
            chunk_id: 0.7 * cosine + 0.3 * lexical.get(chunk_id, 0.0)
            for chunk_id, cosine in zip(ids, cosines.tolist(), strict=True)
        }
        assert [hit.score for hit in hits.hits] == pytest.approx(
            sorted(scores.values(), reverse=True), abs=1e-4
        )
        assert {hit.chunk_id: pytest.approx(hit.score, abs=1e-4) for hit in hits.hits} == scores
        assert hits.n_rows_scanned == n_rows


def test_rows_that_were_loaded_before_there_were_terms_are_found_by_meaning(
    search: PassageSearch, dsn: str
) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("update acidburn.chunk_embeddings set terms = null")
    hits = search.everywhere(Query(unit(1), {5: 1.0}), limit=3)
    ids, cosines, _ = brute_force(SAMPLES, unit(1), None, 3)
    assert [hit.chunk_id for hit in hits.hits] == ids
    assert [hit.score for hit in hits.hits] == pytest.approx(cosines / 2, abs=1e-5)
    assert {hit.lexical for hit in hits.hits} == {0}


def test_vector_index_of_somebody_does_not_cost_passages(search: PassageSearch, dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "create index on acidburn.chunk_embeddings using hnsw"
            " ((embedding::extensions.halfvec(64)) extensions.halfvec_cosine_ops)"
        )
    check(search.everywhere(by_meaning(unit(1)), limit=25), brute_force(SAMPLES, unit(1), None, 25))


def test_hit_says_where_it_is_from(search: PassageSearch) -> None:
    sample = SAMPLES[1]
    hit = search.everywhere(by_meaning(sample.halves[8]), limit=1).hits[0]
    row = sample.chunks.slice(8, 1).to_pylist()[0]
    assert hit.chunk_id == row["chunk_id"]
    assert hit.score == pytest.approx(1, abs=1e-3)
    assert (hit.dataset, hit.shard, hit.revision, hit.run_id) == ("books", "000001", "r1", "run-1")
    assert (hit.doc_id, hit.doc_row, hit.title) == (row["doc_id"], row["doc_row"], row["title"])
    assert (hit.char_start, hit.char_end) == (row["char_start"], row["char_end"])
    assert (hit.text, hit.cluster_id) == (row["text"], sample.clusters[8])
    assert (hit.chunks_sha256, hit.embeddings_sha256) == ("chunks 0", "embeddings 0")


def test_empty_cell_gives_nothing(search: PassageSearch) -> None:
    assert search.inside(by_meaning(unit(0)), [99], limit=5)[:2] == ([], 0)
    assert search.inside(by_meaning(unit(0)), [], limit=5)[:2] == ([], 0)


def test_connection_lost_between_two_searches_is_replaced(search: PassageSearch, dsn: str) -> None:
    search.everywhere(by_meaning(unit(0)), limit=1)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where application_name = 'acidburn' and datname = current_database()"
        )
    assert len(search.everywhere(by_meaning(unit(0)), limit=3).hits) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="libpq traces on Linux only")
def test_a_search_is_one_journey_and_leaves_no_setting_behind(
    database: Postgres, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    postgres_samples.load(database, SAMPLES[0])
    connection = database.open()
    monkeypatch.setattr(database, "open", lambda: connection)
    search = PassageSearch(database, "library")
    search.inside(by_meaning(unit(0)), [0], limit=3)
    with (tmp_path / "trace").open("w") as trace:
        connection.pgconn.trace(trace.fileno())
        assert search.inside(by_meaning(unit(0)), [0, 1], limit=3).hits
        connection.pgconn.untrace()
    sent = re.findall(r"\tF\t\d+\t(\w+)", (tmp_path / "trace").read_text())
    assert sent.count("Execute") == 2
    assert (sent.count("Sync"), sent.count("Query")) == (1, 0)
    for name in ("statement_timeout", "enable_indexscan", "transaction_read_only"):
        found = connection.execute(
            "select setting = reset_val from pg_settings where name = %s", [name]
        ).fetchone()
        assert found == (True,), name
    search.close()


def test_a_search_changes_nothing(search: PassageSearch, monkeypatch: pytest.MonkeyPatch) -> None:
    changing = "with best as (delete from acidburn.loads returning 1) select count(*) from best"
    monkeypatch.setattr(searching, "_INSIDE", changing)
    monkeypatch.setattr(searching, "_WITH_FACTS", "")
    with pytest.raises(DatabaseError, match="read-only transaction"):
        search.inside(by_meaning(unit(0)), [0], limit=3)


def test_search_that_takes_too_long_is_given_up(database: Postgres, dsn: str) -> None:
    postgres_samples.load(database, SAMPLES[0])
    search = PassageSearch(database, "library", timeout_seconds=1)
    with psycopg.connect(dsn) as connection:
        connection.execute("lock table acidburn.chunk_texts in access exclusive mode")
        with pytest.raises(DatabaseUnavailable, match="searching the pool 'library': stopped"):
            search.everywhere(by_meaning(unit(0)), limit=1)
    assert len(search.everywhere(by_meaning(unit(0)), limit=1).hits) == 1
    search.close()
