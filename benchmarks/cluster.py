"""Clusters labelled texts by our engine and by others, and looks for what a search would find.

Three parts. Agreement: all engines on the same vectors, each in a process of its own; AMI is
agreement with the labels beyond chance (Vinh, Epps, Bailey 2010), noise counted as a cluster of its
own, ARI likewise (Hubert, Arabie 1985). Texts without a label are clustered, not judged, and ours
makes no cells there, since no other engine does; they count in the other parts. Routing:
what lies in the part of a corpus that is scanned, cells in the order of their exact centroids'
cosine to the question, beside an inverted file (k-means) of as many cells. Growth: `growth`'s own.

UMAP is run as BERTopic sets it: 15 neighbours, 5 dimensions, no least distance. Where its package
lies elsewhere, name that folder last in PYTHONPATH. scikit-learn's HDBSCAN is run with --quick
alone: it finds what the package finds, in more than its time.
"""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np

from acidburn_assets.adapters import clusterer
from acidburn_assets.core.assignments import assign
from acidburn_assets.core.centroids import CentroidAccumulator
from acidburn_assets.core.cluster_model import row_blocks
from acidburn_assets.core.datasets import PoolSettings
from benchmarks import clusterers, evaluation, growth, report
from benchmarks.clusterers import EVOC, KMEANS, OURS, PLAYBOOK, SKLEARN, UMAP

SETS = {"stackoverflow20": "stackoverflow20", "clinc150": "clinc150", "reuters": "reuters_body"}
"""Collections that people have labelled, and their files."""

TIMED = "stackoverflow20"
"""The one whose CPU seconds are compared: 20,000 titles."""

SHARES = (0.02, 0.05, 0.10, 0.20)
"""Of a corpus that is scanned."""

SHARE_OF_JSON = 0.10

SIZES, SIZES_QUICK = (10_000, 20_000, 50_000, 200_000, 1_000_000), (5_000, 10_000)
"""Of the pools that are grown."""

K = 10


@click.command()
@click.option("--min-cluster-size", default=100, show_default=True, type=click.IntRange(2))
@click.option("--min-samples", default=20, show_default=True, type=click.IntRange(1))
@click.option("--seeds", "n_seeds", default=3, show_default=True, type=click.IntRange(1))
@click.option("--quick", is_flag=True, help="A sixth of one collection, no large pool: 3 minutes.")
@click.option("--json", "is_json", is_flag=True, help="End with one JSON object.")
def command(
    min_cluster_size: int, min_samples: int, n_seeds: int, quick: bool, is_json: bool
) -> None:
    """Compare clusterings: agreement, noise, CPU, memory; routing; growth with n."""
    sets = {name: read_labelled(file) for name, file in SETS.items()}
    corpora = {name: read_judged(name) for name in ("vaswani", "reuters")}
    if quick:
        sets = {TIMED: sets[TIMED].first(6_000)}
        corpora.pop("reuters")
        n_seeds = 1
    clusterer.warm()
    task = clusterers.Task(OURS, min_cluster_size, min_samples, n_clusters=1)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        agreement: list[dict[str, Any]] = []
        for name, labelled in sets.items():
            rows = list(
                compare(name, labelled, task, n_seeds=n_seeds, has_sklearn=quick, folder=folder)
            )
            facts = {"texts": len(labelled.labels), **_facts(task, n_seeds)}
            report.show(f"cluster: {name}", rows, facts=facts, is_json=is_json)
            agreement += rows
        settings = PoolSettings(min_cluster_size=min_cluster_size, min_samples=min_samples)
        routes = {
            name: [route(corpus, settings, seed=seed) for seed in range(n_seeds)]
            for name, corpus in corpora.items()
        }
        routing = [row for name, found in routes.items() for row in _routing_rows(name, found)]
        report.show("cluster: routing", routing, facts={"seeds": n_seeds}, is_json=is_json)
        real = np.concatenate([labelled.vectors for labelled in sets.values()])
        grown = [
            growth.measure(real, n, settings, folder=folder)
            for n in (SIZES_QUICK if quick else SIZES)
        ]
        report.show(
            "cluster: growth", grown, facts=growth.project(grown, settings), is_json=is_json
        )
    if is_json:
        print(json.dumps(summary(agreement, routes, grown)))


def _facts(task: clusterers.Task, n_seeds: int) -> dict[str, Any]:
    absent = clusterers.absent()
    return {
        "min_cluster_size": task.min_cluster_size,
        "min_samples": task.min_samples,
        "seeds": n_seeds,
        "absent": f"{', '.join(absent)}: {clusterers.INSTALL}" if absent else "none",
    }


# ---- agreement ------------------------------------------------------------------------------


class Labelled(NamedTuple):
    """A collection and what people said of it."""

    vectors: np.ndarray  # (n, dim) float32, unit length
    labels: np.ndarray  # (n,) str, "" where nobody said anything

    def first(self, n: int) -> "Labelled":
        """So many rows at random, always the same."""
        rows = np.random.default_rng(0).permutation(len(self.labels))[:n]
        return Labelled(self.vectors[rows], self.labels[rows])


def read_labelled(file: str) -> Labelled:
    """A labelled collection of the evaluation data."""
    table = evaluation.read(file)
    labels = np.array([label or "" for label in table["label"].to_pylist()])
    return Labelled(evaluation.embed(table["text"].to_pylist()), labels)


def compare(
    name: str,
    labelled: Labelled,
    task: clusterers.Task,
    *,
    n_seeds: int,
    has_sklearn: bool,
    folder: Path,
) -> Iterator[dict[str, Any]]:
    """One row for each engine that is installed.

    Args:
        name: of the collection.
        labelled: what is clustered.
        task: the sizes.
        n_seeds: of ours and of UMAP; others have one.
        has_sklearn: whether scikit-learn's HDBSCAN is run too.
        folder: for what is passed between processes.
    """
    path = folder / "vectors.npy"
    np.save(path, labelled.vectors, allow_pickle=False)
    engines = [OURS, UMAP, EVOC, KMEANS, PLAYBOOK, SKLEARN]
    if not has_sklearn:
        engines.remove(SKLEARN)
    for engine in engines:
        if engine in clusterers.absent():
            continue
        click.echo(f"{name}: {engine}", err=True)
        n_clusters = len(set(labelled.labels.tolist()) - {""})
        runs = clusterers.run(
            task._replace(engine=engine, n_clusters=n_clusters),
            path,
            n_seeds=n_seeds if engine in (OURS, UMAP) else 1,
            folder=folder,
        )
        judged = [judge(found.labels, labelled.labels) for found in runs]
        yield {
            "engine": f"{name}: {engine}",
            **{figure: float(np.mean([each[figure] for each in judged])) for figure in judged[0]},
            "AMI, range": " ".join(f"{each['AMI']:.3f}" for each in judged),
            "CPU s": float(np.median([found.cpu for found in runs])),
            "wall s": float(np.median([found.wall for found in runs])),
            "peak MB": round(max(found.peak_mb for found in runs)),
        }


def judge(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Clusters, noise and agreement with what people said.

    Args:
        found: (n,) whole numbers, negative is noise.
        truth: (n,) str, "" is not judged.
    """
    from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score

    is_judged = truth != ""
    is_member = is_judged & (found >= 0)
    return {
        "clusters": float(len(np.unique(found[found >= 0]))),
        "noise": float(np.mean(found < 0)),
        "AMI": float(adjusted_mutual_info_score(truth[is_judged], found[is_judged])),
        "ARI": float(adjusted_rand_score(truth[is_judged], found[is_judged])),
        "AMI without noise": float(adjusted_mutual_info_score(truth[is_member], found[is_member])),
        "ARI without noise": float(adjusted_rand_score(truth[is_member], found[is_member])),
    }


# ---- routing --------------------------------------------------------------------------------


class Judged(NamedTuple):
    """A corpus with questions and what answers them."""

    vectors: np.ndarray  # (n, dim) float32
    questions: np.ndarray  # (q, dim) float32
    relevant: list[np.ndarray]  # rows that answer each question


class Routed(NamedTuple):
    """What the scanned part of a corpus held, by share scanned, ours and an inverted file's."""

    n_cells: int
    reachable: float  # share of the chunks that some cell holds
    relevant: dict[str, list[float]]
    nearest: dict[str, list[float]]


def read_judged(name: str) -> Judged:
    """`vaswani`: abstracts and questions with judgements; `reuters`: bodies and their titles."""
    if name == "reuters":
        documents, queries = (
            evaluation.read("reuters_body"),
            evaluation.read("reuters_titlequeries"),
        )
        pairs = list(zip(queries["qid"].to_pylist(), queries["docid"].to_pylist(), strict=True))
    else:
        documents, queries = evaluation.read("vaswani_docs"), evaluation.read("vaswani_queries")
        judgements = evaluation.read("vaswani_qrels").to_pylist()
        pairs = [(each["qid"], each["docid"]) for each in judgements if each["rel"] > 0]
    row_of = {document: row for row, document in enumerate(documents["id"].to_pylist())}
    rows: dict[str, list[int]] = {qid: [] for qid in queries["qid"].to_pylist()}
    for qid, document in pairs:
        rows[qid].append(row_of[document])
    return Judged(
        evaluation.embed(documents["text"].to_pylist()),
        evaluation.embed(queries["text"].to_pylist(), "query"),
        [np.array(found) for found in rows.values()],
    )


def route(corpus: Judged, settings: PoolSettings, *, seed: int) -> Routed:
    """Fits, assigns and scans a corpus, and the same by an inverted file.

    Args:
        corpus: what is asked.
        settings: of the fit.
        seed: of both.
    """
    from sklearn.cluster import KMeans

    vectors = corpus.vectors
    model = growth.fit(vectors, settings.model_copy(update={"seed": seed}), n_chunks=len(vectors))
    assigned = assign(vectors, model, growth.chunk_ids(len(vectors)))
    own = assigned["cell_id"].to_numpy()
    exact = CentroidAccumulator(model)
    exact.add(vectors, own, assigned["is_noise"].to_numpy(zero_copy_only=False))
    flat = KMeans(len(model.cell_centroids), n_init=1, random_state=seed).fit(vectors)
    flat_centroids = flat.cluster_centers_ / np.linalg.norm(
        flat.cluster_centers_, axis=1, keepdims=True
    )
    nearest = nearest_rows(corpus.questions, vectors, K)
    found: dict[str, dict[str, list[float]]] = {"relevant": {}, "nearest": {}}
    for name, cell_of, centroids in (
        ("ours", own, exact.cell_centroids()),
        ("IVF", flat.labels_, flat_centroids),
    ):
        ranks = scan_ranks(corpus.questions @ centroids.T, cell_of)
        found["relevant"][name] = shares_found(ranks, corpus.relevant, SHARES)
        found["nearest"][name] = shares_found(ranks, list(nearest), SHARES)
    return Routed(
        len(model.cell_centroids), float(exact.n_cell_chunks.sum() / len(vectors)), **found
    )


def nearest_rows(questions: np.ndarray, vectors: np.ndarray, k: int) -> np.ndarray:
    """(q, k) int64, the rows nearest to each question in any order."""
    found = [
        np.argpartition(questions[rows] @ -vectors.T, k, axis=1)[:, :k]
        for rows in row_blocks(len(questions), n_columns=len(vectors))
    ]
    return np.concatenate(found)


def scan_ranks(scores: np.ndarray, cell_of: np.ndarray) -> np.ndarray:
    """When each row is scanned: cells in the order of their scores, a cell's rows in theirs.

    Args:
        scores: (q, c) of each cell for each question.
        cell_of: (n,) the cell of each row.

    Returns:
        (q, n) int32, 0 is scanned first.
    """
    ranks = np.empty((len(scores), len(cell_of)), dtype=np.int32)
    for question, score in enumerate(scores):
        place = np.empty(len(score), dtype=np.int64)
        place[np.argsort(-score, kind="stable")] = np.arange(len(score))
        ranks[question, np.argsort(place[cell_of], kind="stable")] = np.arange(len(cell_of))
    return ranks


def shares_found(
    ranks: np.ndarray, wanted: Sequence[np.ndarray], shares: Sequence[float]
) -> list[float]:
    """Mean share of the wanted rows among the first so many scanned, for each share.

    Args:
        ranks: (q, n), from `scan_ranks`.
        wanted: rows of each question; a question without any is passed over.
        shares: of n.
    """
    asked = [(own, rows) for own, rows in zip(ranks, wanted, strict=True) if len(rows)]
    return [
        float(np.mean([np.mean(own[rows] < share * ranks.shape[1]) for own, rows in asked]))
        for share in shares
    ]


def _routing_rows(name: str, found: Sequence[Routed]) -> Iterator[dict[str, Any]]:
    for engine in ("ours", "IVF"):
        figures: Mapping[str, Callable[[Routed], dict[str, list[float]]]] = {
            "relevant": lambda one: one.relevant,
            "top 10": lambda one: one.nearest,
        }
        yield {
            "routing": f"{name}: {engine}",
            "cells": round(float(np.mean([one.n_cells for one in found]))),
            **{
                f"{what}, {share:.0%}": float(np.mean([pick(one)[engine][at] for one in found]))
                for what, pick in figures.items()
                for at, share in enumerate(SHARES)
            },
        }


# ---- the last line --------------------------------------------------------------------------


def summary(
    agreement: Sequence[Mapping[str, Any]],
    routes: Mapping[str, Sequence[Routed]],
    grown: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """The run in a few figures; null where an engine is absent.

    Args:
        agreement: rows of `compare`.
        routes: by corpus, one for each seed.
        grown: rows of `growth.measure`, in order of size.
    """
    by_name = {row["engine"]: row for row in agreement}
    sets = list(dict.fromkeys(name.split(": ")[0] for name in by_name))

    def figure(name: str, engine: str, what: str) -> float | None:
        row = by_name.get(f"{name}: {engine}")
        return None if row is None else float(row[what])

    def cpu_to_ours(engine: str) -> float | None:
        ours, theirs = (figure(TIMED, one, "CPU s") for one in (OURS, engine))
        return None if ours is None or theirs is None else round(theirs / ours, 2)

    columns = {"ours": OURS, "umap_hdbscan": UMAP, "playbook": PLAYBOOK}
    at = SHARES.index(SHARE_OF_JSON)
    million = next((row for row in grown if row["vectors"] == 1_000_000), None)
    return {
        "ami": {
            name: {
                key: None if (ami := figure(name, engine, "AMI")) is None else round(ami, 4)
                for key, engine in columns.items()
            }
            for name in sets
        },
        "cpu_vs_umap_hdbscan": cpu_to_ours(UMAP),
        "cpu_vs_hdbscan": cpu_to_ours(PLAYBOOK),
        "fit_1m_seconds": None if million is None else round(million["wall s"], 1),
        "fit_1m_peak_gb": None if million is None else round(million["peak MB"] / 1_024, 2),
        "reachable_share": min(
            [row["reachable"] for row in grown]
            + [one.reachable for found in routes.values() for one in found]
        ),
        "recall_vs_ivf": {
            name: round(
                float(
                    np.mean([one.relevant["ours"][at] for one in found])
                    / np.mean([one.relevant["IVF"][at] for one in found])
                ),
                4,
            )
            for name, found in routes.items()
        },
    }


if __name__ == "__main__":
    command()
