"""Asks collections with known answers through Postgres, beside other ways to search the same.

Quality. Every collection is put where a search finds it (`served`) and asked: all of it by vectors,
by words and by both; the cells that the router chooses, at 2 to 20 % scanned; with widening, as
`ask` goes. Beside it pgvector's IVFFlat with as many lists as there are cells and the probes that
compare as much, its HNSW with as much CPU as ours, Postgres's own full text, and BM25 over whole
texts that is no part of us. Retention is a way's nDCG@10 to that of a scan of everything by the
same score. IVF's lists are scored by vectors, as it does, and by our score too: what then differs
is where was looked. Ranges are 95 % intervals of a bootstrap over questions, ratios in pairs.

Cost. See `layouts`: pools of 100,000 and 1,000,000 passages of 1,024 values.
"""

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import scipy.sparse

from acidburn_assets.adapters.postgres import Hits, Postgres
from acidburn_assets.core import gate, quality
from acidburn_assets.core.quality import Interval
from acidburn_assets.core.ranking import Query
from acidburn_assets.runtime.pools import SearchedPool
from benchmarks import judged, layouts, lexical, peers, report, served
from benchmarks.served import Served

SHARES = (0.02, 0.05, 0.10, 0.20)
"""Of a collection that may be scanned."""

SHARE_OF_JSON = 0.10

DEPTH = 100
"""Passages that are looked at, for recall@100."""

K = 10

N_BUILDS = 3
"""Of IVFFlat's lists, which begin at random rows: from one to the next its nDCG@10 differs by up to
.02."""

EF_SEARCHES = (40, 100, 200, 400, 1_000)
"""HNSW's: pgvector's default, and its most."""

SIZES, SIZES_QUICK = (100_000, 1_000_000), (20_000,)
"""Of the pools whose cost is measured."""

FULL_DENSE, FULL_HYBRID = "all, vectors", "all, both"
BM25, WIDENED = "all, words: BM25, not ours", "routed, both, widened"


class Way(NamedTuple):
    """What one way to search found for every question."""

    runs: list[list[np.ndarray]]  # of one run or several: the rows of each question, best first
    share: float | None = None  # that was scanned, mean
    cpu_ms: float | None = None  # of the server, per question
    full: str | None = None  # the way that scans everything by the same score


@click.command()
@click.option("--quick", is_flag=True, help="One collection and a pool of 20,000: 3 minutes.")
@click.option("--cost-of", type=click.IntRange(1_000), help="A pool of so many passages, no more.")
@click.option("--json", "is_json", is_flag=True, help="End with one JSON object.")
def command(quick: bool, cost_of: int | None, is_json: bool) -> None:
    """Compare searches: nDCG, recall, retention; latency, CPU and blocks of large pools."""
    sets: dict[str, dict[str, Any]] = {}
    names = judged.SETS[: 1 if quick else None] if cost_of is None else ()
    for name in names:
        click.echo(f"asking {name}", err=True)
        with tempfile.TemporaryDirectory(
            prefix="acidburn-bench-", ignore_cleanup_errors=True
        ) as made:
            ways, facts, relevant = measure_set(name, Path(made))
        judgements = {way: Judged.of(each, relevant) for way, each in ways.items()}
        rows = table(ways, judgements)
        report.show(f"ask: {name}", rows, facts=facts, is_json=is_json)
        sets[name] = summary(judgements)
    costs = []
    sizes = SIZES_QUICK if quick else SIZES
    for n_rows in sizes if cost_of is None else (cost_of,):
        click.echo(f"a pool of {n_rows:,}", err=True)
        costs.append(layouts.measure(n_rows))
        report.show(
            f"ask: {n_rows:,} passages", costs[-1].rows, facts=costs[-1].facts, is_json=is_json
        )
    if is_json:
        print(json.dumps({"sets": sets, **layouts.summary(costs)}))


def measure_set(name: str, folder: Path) -> tuple[dict[str, Way], dict[str, Any], list[np.ndarray]]:
    """All ways to search one collection, facts about it, and the rows that answer each question.

    Args:
        name: of `judged.SETS`.
        folder: for the bucket and the database.
    """
    asked = judged.read(name)
    with served.server(folder / "postgres") as (postgres, dsn):
        pool = served.serve(asked, postgres, folder=folder / "bucket")
        ways = ours(pool, postgres, served.Backends(dsn))
        searched = pool.searched(postgres)
        queries = [
            searched.query(question, vector)
            for question, vector in zip(asked.questions, asked.question_vectors, strict=True)
        ]
        searched.close()
        with peers.loaded(dsn, asked, n_lists=pool.n_cells) as others:
            ways |= theirs(others, pool, queries, ways)
    words = lexical.Bm25(asked.texts)
    ways[BM25] = Way([[lexical.best(words.scores(one), DEPTH) for one in asked.questions]])
    calibration = gate.calibration_of(served.minilm_card().fingerprint)
    facts = {
        "passages": len(asked.texts),
        "questions": len(asked.questions),
        "cells": pool.n_cells,
        "gate": "no calibration, so nothing is widened" if calibration is None else "calibrated",
    }
    return ways, facts, asked.relevant


# ---- ours -----------------------------------------------------------------------------------


def ours(pool: Served, postgres: Postgres, backends: served.Backends) -> dict[str, Way]:
    """The search as it is, and its parts.

    Args:
        pool: the collection.
        postgres: where it was put.
        backends: whose CPU is measured.
    """
    asked, searched = pool.asked, pool.searched(postgres)
    n_rows = len(asked.texts)
    queries = [
        searched.query(question, vector)
        for question, vector in zip(asked.questions, asked.question_vectors, strict=True)
    ]

    def ask(search: Callable[[Query], Hits], full: str | None) -> Way:
        before = backends.cpu_seconds()
        found = [search(query) for query in queries]
        spent = backends.cpu_seconds() - before
        return Way(
            runs=[[np.array([pool.row(hit.chunk_id) for hit in each.hits]) for each in found]],
            share=float(np.mean([each.n_rows_scanned for each in found]) / n_rows),
            cpu_ms=1000 * spent / len(found),
            full=full,
        )

    def everywhere(lexical_share: float | None) -> Callable[[Query], Hits]:
        return lambda query: searched.search.everywhere(
            scored_by(query, lexical_share), limit=DEPTH
        )

    def inside(share: float, lexical_share: float | None) -> Callable[[Query], Hits]:
        return lambda query: searched.search.inside(
            scored_by(query, lexical_share),
            routed(searched, query, share),
            limit=DEPTH,
        )

    scores: dict[str, float | None] = {"vectors": 0.0, "words": 1.0, "both": None}
    ways = {f"all, {name}": ask(everywhere(share), None) for name, share in scores.items()}
    for name in ("vectors", "both"):
        for share in SHARES:
            ways[f"routed, {name}, {share:.0%}"] = ask(inside(share, scores[name]), f"all, {name}")
    searched.close()
    ways[WIDENED] = widened(pool, postgres, backends)
    return ways


def scored_by(query: Query, lexical_share: float | None) -> Query:
    """The query with another weight of words; None: as it is."""
    return query if lexical_share is None else query._replace(lexical_share=lexical_share)


def routed(searched: SearchedPool, query: Query, share: float) -> list[int]:
    """The cells that the router chooses for a share of the pool."""
    ranking = searched.router.route(query).cells
    return ranking.within(round(share * searched.n_rows))


def widened(pool: Served, postgres: Postgres, backends: served.Backends) -> Way:
    """The whole of `ask`, which looks further where the gate is not satisfied."""
    engine = pool.engine(postgres)
    before = backends.cpu_seconds()
    answers = [engine.ask(question, n_passages=DEPTH) for question in pool.asked.questions]
    spent = backends.cpu_seconds() - before
    engine.close()
    return Way(
        runs=[
            [
                np.array([pool.row(bytes.fromhex(one.chunk_id)) for one in answer.passages])
                for answer in answers
            ]
        ],
        share=float(np.mean([answer.trail.share_scanned for answer in answers])),
        cpu_ms=1000 * spent / len(answers),
        full=FULL_HYBRID,
    )


# ---- theirs ---------------------------------------------------------------------------------


def theirs(
    others: peers.Peers, pool: Served, queries: Sequence[Query], own: dict[str, Way]
) -> dict[str, Way]:
    """Other ways to search the same rows.

    Args:
        others: the collection, loaded for them.
        pool: the same as ours.
        queries: of its questions.
        own: our ways; the work of HNSW is that of the routed one.
    """
    n_rows = len(pool.asked.texts)
    score = Scores(pool)
    ways: dict[str, Way] = {}
    probes: dict[float, int] = {}
    cpu_ms: dict[float, float] = {}
    lists: dict[float, list[list[np.ndarray]]] = {share: [] for share in SHARES}
    for _ in range(N_BUILDS):
        others.build_ivf()
        if not probes:
            probes = others.probes_for(SHARES)
            cpu_ms = {share: others.ivf_cpu_ms(n, limit=DEPTH) for share, n in probes.items()}
        for share, n_probes in probes.items():
            lists[share].append(others.in_lists(n_probes))
    for share, runs in lists.items():
        scanned = float(np.mean([len(rows) for run in runs for rows in run])) / n_rows
        ways[f"IVFFlat, vectors, {share:.0%}"] = Way(
            [[rows[:DEPTH] for rows in run] for run in runs], scanned, cpu_ms[share], FULL_DENSE
        )
        ways[f"IVFFlat's lists, our score, {share:.0%}"] = Way(
            [
                [
                    best_of(rows, score.of(query)[rows])
                    for rows, query in zip(run, queries, strict=True)
                ]
                for run in runs
            ],
            scanned,
            full=FULL_HYBRID,
        )
    work = own[f"routed, vectors, {SHARE_OF_JSON:.0%}"].cpu_ms or 0.0
    for ef_search in EF_SEARCHES:
        found = others.hnsw(ef_search, limit=DEPTH)
        ways[f"HNSW, ef_search {ef_search}"] = Way(
            [found.rows], cpu_ms=found.cpu_ms, full=FULL_DENSE
        )
        if found.cpu_ms >= work:
            break
    text = others.full_text(limit=DEPTH)
    ways["all, words: Postgres's ts_rank_cd"] = Way([text.rows], cpu_ms=text.cpu_ms)
    return ways


class Scores:
    """Our score of every row, computed here: for rows that others chose."""

    def __init__(self, pool: Served) -> None:
        """Takes the vectors and the term weights that were loaded."""
        weights = pool.term_weights
        lengths = np.diff(weights["terms"].combine_chunks().offsets.to_numpy())
        self._vectors = unit(pool.asked.vectors)
        terms = weights["terms"].combine_chunks().flatten().to_numpy()
        self._terms, columns = np.unique(terms, return_inverse=True)
        self._weights = scipy.sparse.csc_matrix(
            (
                weights["weights"].combine_chunks().flatten().to_numpy(),
                (np.repeat(np.arange(len(lengths)), lengths), columns),
            ),
            shape=(len(lengths), len(self._terms)),
        )

    def of(self, query: Query) -> np.ndarray:
        """As Postgres computes it  # (n,)."""
        cosine = self._vectors @ unit(query.vector)
        asked = np.array(sorted(query.terms), np.int64)
        at = np.minimum(np.searchsorted(self._terms, asked), len(self._terms) - 1)
        is_known = self._terms[at] == asked
        weights = np.array([query.terms[term] for term in asked.tolist()])
        words = self._weights[:, at[is_known]] @ weights[is_known] / query.bound
        score: np.ndarray = (1 - query.lexical_share) * cosine + query.lexical_share * words
        return score


def unit(vectors: np.ndarray) -> np.ndarray:
    """As Postgres holds them, at a length of 1: pgvector divides by the lengths.

    Args:
        vectors: (n, dim) or (dim,).
    """
    stored = vectors.astype(np.float16).astype(np.float32)
    made: np.ndarray = stored / np.linalg.norm(stored, axis=-1, keepdims=True)
    return made


def best_of(rows: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The first `DEPTH` rows by their scores, highest first."""
    return rows[np.argsort(-scores, kind="stable")[:DEPTH]]


# ---- judging --------------------------------------------------------------------------------


class Judged(NamedTuple):
    """Figures of one way, one per question, means of its runs  # (q,) each."""

    ndcg: np.ndarray
    recall: np.ndarray  # of K
    deep_recall: np.ndarray  # of DEPTH

    @classmethod
    def of(cls, way: Way, relevant: Sequence[np.ndarray]) -> "Judged":
        """Holds what was found against what answers."""
        figures = [
            [_figures(rows, right) for rows, right in zip(run, relevant, strict=True)]
            for run in way.runs
        ]
        return cls(*np.mean(figures, axis=0).T)


def _figures(rows: np.ndarray, relevant: np.ndarray) -> tuple[float, float, float]:
    is_right = np.isin(rows, relevant).tolist()
    return (
        quality.ndcg(is_right, len(relevant), k=K),
        quality.recall(is_right, len(relevant), k=K),
        quality.recall(is_right, len(relevant), k=DEPTH),
    )


def table(ways: dict[str, Way], judgements: dict[str, Judged]) -> list[dict[str, Any]]:
    """A row for each way to search."""
    return [
        {
            "search": name,
            "scanned": way.share,
            "nDCG@10": quality.mean(judgements[name].ndcg, seed=0),
            "to all": None if way.full is None else retention(judgements, name, way.full),
            "recall@10": float(judgements[name].recall.mean()),
            "recall@100": float(judgements[name].deep_recall.mean()),
            "CPU ms": way.cpu_ms,
        }
        for name, way in ways.items()
    ]


def retention(judgements: dict[str, Judged], name: str, full: str) -> Interval | None:
    """nDCG@10 of a way to that of another."""
    return quality.ratio(judgements[name].ndcg, judgements[full].ndcg, seed=0)


def summary(judgements: dict[str, Judged]) -> dict[str, float]:
    """A collection in a few figures."""
    at = f"{SHARE_OF_JSON:.0%}"
    hybrid = f"routed, both, {at}"
    ratios = {
        "retention_10": (hybrid, FULL_HYBRID),
        "retention_widened": (WIDENED, FULL_HYBRID),
        "vs_ivf": (hybrid, f"IVFFlat's lists, our score, {at}"),
    }
    return {
        "ndcg_full": round(float(judgements[FULL_DENSE].ndcg.mean()), 4),
        "ndcg_bm25": round(float(judgements[BM25].ndcg.mean()), 4),
        "ndcg_hybrid": round(float(judgements[FULL_HYBRID].ndcg.mean()), 4),
        **{
            name: round(found.mean, 4)
            for name, (one, other) in ratios.items()
            if (found := retention(judgements, one, other)) is not None
        },
    }


if __name__ == "__main__":
    command()
