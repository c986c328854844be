"""The benchmarks of asking find what is there, and count what they say they count."""

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pytest

from acidburn_assets.adapters.object_store import open_store
from acidburn_assets.adapters.postgres import Postgres
from acidburn_assets.core import gate as gating
from acidburn_assets.core.gate import Features
from acidburn_assets.runtime.pools import SearchedPool
from acidburn_assets_tests.core.cluster_samples import blobs
from acidburn_assets_tests.postgres_server import database, dsn, postgres_server

__all__ = ["database", "dsn", "postgres_server"]

# by name: they lie beside the package and are part of no distribution that could be declared
ask, gate, judged, layouts, lexical, peers, served = (
    import_module(f"benchmarks.{name}")
    for name in ("ask", "gate", "judged", "layouts", "lexical", "peers", "served")
)

WORDS = {0: "moon harbour gravity", 1: "flour yeast oven", 2: "pawn bishop gambit"}
N_ROWS = 300
DIM = 384


def make_collection() -> Any:
    """300 passages on three matters; each has a word that no other has, which is its question."""
    vectors, topics = blobs((100, 100, 100), dim=DIM)
    names = [f"passage{row:03d}x" for row in range(N_ROWS)]
    texts = [f"{WORDS[topic]} {name}" for topic, name in zip(topics.tolist(), names, strict=True)]
    asked = np.arange(0, N_ROWS, 30)
    return judged.Asked(
        "library",
        texts,
        vectors,
        [f"{texts[row].split()[0]} {names[row]}" for row in asked],
        vectors[asked],
        [np.array([row]) for row in asked],
    )


@pytest.fixture
def collection(database: Postgres, tmp_path: Path) -> Any:
    return served.serve(make_collection(), database, folder=tmp_path / "bucket")


def test_a_text_that_stands_twice_is_put_in_once_and_answers_for_both() -> None:
    first, new_row = judged.first_of_equals(["a", "b", "a", "c", "b"])
    assert first.tolist() == [0, 1, 3]
    assert new_row.tolist() == [0, 1, 0, 2, 1]


def test_words_that_few_texts_have_count_most() -> None:
    """BM25 by hand: two texts of three have `cat`, one has `ants`, twice."""
    bm25 = lexical.Bm25(["a cat sat", "the cats", "ants, ANTS and bees"])
    cat, ants = np.log(1 + 1.5 / 2.5), np.log(1 + 2.5 / 1.5)
    lengths = np.array([2, 1, 3])
    norm = lexical.K1 * (1 - lexical.B + lexical.B * lengths / 2)
    expected = [cat * 2.2 / (1 + norm[0]), cat * 2.2 / (1 + norm[1]), ants * 4.4 / (2 + norm[2])]
    assert bm25.scores("cat ants unheard") == pytest.approx(expected)
    assert lexical.best(bm25.scores("ants"), 3).tolist() == [2]
    assert lexical.best(np.array([1.0, 3.0, 2.0, 3.0]), 3).tolist() == [1, 3, 2]


def test_scores_computed_here_are_those_of_postgres(collection: Any, database: Postgres) -> None:
    searched = collection.searched(database)
    question, vector = collection.asked.questions[3], collection.asked.question_vectors[3]
    query = searched.query(question, vector)
    hits = searched.search.everywhere(query, limit=N_ROWS).hits
    searched.close()
    computed = ask.Scores(collection).of(query)
    assert len(hits) == N_ROWS
    for hit in hits:
        assert computed[collection.row(hit.chunk_id)] == pytest.approx(hit.score, abs=1e-5)
    assert collection.row(hits[0].chunk_id) == 90


def test_every_way_to_search_finds_what_its_words_name(
    collection: Any, database: Postgres, dsn: str
) -> None:
    asked = collection.asked
    backends = served.Backends(dsn)
    ways = ask.ours(collection, database, backends)
    searched = collection.searched(database)
    queries = [
        searched.query(question, vector)
        for question, vector in zip(asked.questions, asked.question_vectors, strict=True)
    ]
    searched.close()
    with peers.loaded(dsn, asked, n_lists=8) as others:
        others.build_ivf()
        assert "library_ivf_lists" in others.plans()["ivf"]
        assert "hnsw" in others.plans()["hnsw"]
        everything = [list(range(N_ROWS))] * len(queries)
        assert [sorted(rows) for rows in others.in_lists(8)] == everything
        ways |= ask.theirs(others, collection, queries, ways)
    judgements = {name: ask.Judged.of(way, asked.relevant) for name, way in ways.items()}
    for name, judgement in judgements.items():
        if "words" in name or "both" in name or name.startswith("all"):
            assert judgement.ndcg.tolist() == [1.0] * len(queries), name
    assert ways["all, both"].share == 1
    assert 0 < ways["routed, both, 10%"].share <= 0.1 + 100 / N_ROWS
    assert 0.1 < ways["IVFFlat, vectors, 20%"].share < 0.5  # by the first lists, others differ
    rows = {row["search"]: row for row in ask.table(ways, judgements)}
    assert rows["routed, both, 20%"]["to all"].mean == pytest.approx(1)
    with psycopg.connect(dsn) as connection:
        assert connection.execute("select to_regnamespace('bench')").fetchone() == (None,)


def test_the_server_is_charged_for_what_it_computes(dsn: str) -> None:
    backends = served.Backends(dsn)
    with psycopg.connect(dsn) as connection:
        before = backends.cpu_seconds()
        connection.execute("select sum(sqrt(n)) from generate_series(1, 2000000) n")
        assert backends.cpu_seconds() > before + 0.05


def test_emptied_and_foreign_questions_have_no_answer_in_sight(
    collection: Any, database: Postgres
) -> None:
    foreign = collection.asked._replace(name="other", questions=["where do kangaroos sleep"] * 10)
    own, emptied, other = gate.ask_all(collection, database, [foreign])
    assert (own.kind, emptied.kind, other.kind) == gate.KINDS
    assert own.figures.shape == (10, 4, len(Features._fields))
    assert own.is_found[:, -1].all()
    assert not emptied.is_found.any()
    assert not other.is_found.any()
    coverage = Features._fields.index("coverage")
    assert own.figures[:, -1, coverage].min() > 0.99
    assert emptied.figures[:, -1, coverage].max() < 0.9  # the word that only the answer had


def make_seen(kind: str, middle: float, *, pool: str = "a", is_found: bool = False) -> Any:
    random = np.random.default_rng(len(kind))
    figures = np.clip(middle + 0.1 * random.standard_normal((200, 4, 4)), 0, 1)
    return gate.Seen(pool, kind, figures, np.full((200, 4), is_found))


def test_a_gate_keeps_both_goals_where_questions_can_be_told() -> None:
    seen = [
        make_seen("own", 0.7, is_found=True),
        make_seen("emptied", 0.4),
        make_seen("foreign", 0.1),
    ]
    calibration, verdicts = gate.calibrate(seen, served.minilm_card())
    accepted = {one.kind: np.mean(v == 1) for one, v in zip(seen, verdicts, strict=True)}
    assert accepted["own"] > 0.9
    assert accepted["emptied"] <= 0.1
    assert accepted["foreign"] == 0
    assert calibration.false_accepts == pytest.approx(accepted["emptied"])
    assert calibration.reject <= calibration.accept
    assert set(calibration.weights) == set(Features._fields)


def test_thresholds_are_the_widest_that_keep_the_goal() -> None:
    wrong = [np.arange(100) / 100]
    accept = gate.least_threshold(wrong, goal=0.05)
    assert np.mean(wrong[0] >= accept) == 0.05
    reject = gate.greatest_threshold(wrong, goal=0.05)
    assert np.mean(wrong[0] < reject) == 0.05


def test_every_collection_counts_alike_in_a_fit() -> None:
    seen = [
        make_seen("own", 0.7, is_found=True),
        make_seen("emptied", 0.4),
        make_seen("foreign", 0.1),
        make_seen("own", 0.7, pool="b", is_found=True),
        gate.take(make_seen("emptied", 0.4, pool="b"), np.arange(50)),
        make_seen("foreign", 0.1, pool="b"),
    ]
    weights = gate.sample_weights(seen)
    n_each = [one.is_found.size for one in seen]
    shares = np.array([part.sum() for part in np.split(weights, np.cumsum(n_each)[:-1])])
    parts = list(gate.SHARES_OF_FIT.values())
    assert shares / weights.sum() == pytest.approx(np.array([*parts, *parts]) / 2)


def test_the_gate_that_is_shipped_is_of_the_packaged_model_and_keeps_its_goal() -> None:
    calibration = gating.calibration_of(served.minilm_card().fingerprint)
    assert calibration is not None
    assert calibration.false_accepts <= gate.GOAL
    assert calibration.accepted > 5 * calibration.false_accepts


def test_a_large_pool_is_the_same_in_both_layouts(
    database: Postgres, dsn: str, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    centres = layouts.near(np.zeros((30, layouts.DIM), np.float32), random)
    texts = [f"moon harbour gravity passage{row}x and others beside" for row in range(20)]
    chunks = served.passages(texts, layouts.chunk_ids(np.arange(20)), 0)
    weights = import_module("benchmarks.evaluation").term_weights(chunks).combine_chunks()
    corpus = layouts.Corpus(
        np.full(30, 20), np.repeat(np.arange(10), 3), centres, pa.array(texts), weights
    )
    bucket = open_store((tmp_path / "bucket").as_uri())
    asked = layouts.load(database, bucket, corpus)
    assert len(asked.texts) == layouts.N_QUESTIONS
    assert all(len(set(clusters)) == layouts.N_CLUSTERS for clusters in asked.clusters)
    assert asked.cells == [
        sorted(3 * cluster + at for cluster in clusters for at in range(3))
        for clusters in asked.clusters
    ]
    layouts.make_default_layout(dsn, n_shards=1)
    searched = SearchedPool(bucket, database, layouts.card(), layouts.POOL)
    query = searched.query(asked.texts[0], asked.vectors[0])
    searched.close()
    arguments = {
        "clusters": asked.clusters[0],
        "cells": asked.cells[0],
        **layouts.as_parameters(query),
    }
    found = {}
    with psycopg.connect(dsn, options="-c search_path=extensions,pg_catalog") as connection:
        stored: dict[str, str] = dict(
            connection.execute(
                "select attrelid::regclass::text, attstorage::text from pg_attribute"
                " where attname = 'embedding' and attrelid in"
                " ('acidburn.chunk_embeddings'::regclass, 'bench.default_layout'::regclass)"
            ).fetchall()
        )
        for name, statement in layouts.STATEMENTS.items():
            found[name] = connection.execute(statement.encode(), arguments).fetchall()
            counted = layouts.blocks_and_rows(connection, statement.encode(), [arguments])
            assert counted["rows"] == layouts.N_CLUSTERS * 60
            assert counted["blocks"] > 50
    assert stored == {"acidburn.chunk_embeddings": "p", "bench.default_layout": "e"}
    assert found[layouts.OURS] == found[f"{layouts.DEFAULT}, asked in our words"]
    scores = [[row[-1] for row in found[name]] for name in (layouts.OURS, layouts.DEFAULT)]
    assert scores[0] == scores[1]


def test_a_run_is_summed_up_by_its_largest_pool() -> None:
    def row(name: str, cpu: float, blocks: float) -> dict[str, Any]:
        return {"search": name, "p50 ms": 1.0, "p95 ms": 2.04, "CPU ms": cpu, "blocks": blocks}

    rows = [
        row(layouts.OURS, 2.0, 100.0),
        row(layouts.DEFAULT, 11.0, 2_000.0),
        row(layouts.ASK, 3.0, 0.0),
    ]
    costs = [layouts.Costs(100_000, [], {}), layouts.Costs(1_000_000, rows, {})]
    assert layouts.summary(costs) == {
        "cpu_vs_default_layout": 5.5,
        "blocks_vs_default_layout": 20.0,
        "p95_ms_1m": 2.0,
    }
    assert layouts.summary([layouts.Costs(20_000, rows, {})])["p95_ms_1m"] is None
