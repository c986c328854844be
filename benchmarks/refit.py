"""Fits pools anew after a tenth was added: which clusters stay, and what is labelled again.

Of each collection ten elevenths are fitted as a pool is, and then all of it; which texts come later
is drawn anew in every round. Once more with whole topics held back, where people said what texts
are about: then a refit should be proposed, and otherwise not.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import click
import numpy as np

from acidburn_assets.adapters import clusterer
from acidburn_assets.adapters.tokenizer import load_tokenizer
from acidburn_assets.core import drift, migration
from acidburn_assets.core.cluster_model import ClusterModel, FittedOn, summarize
from acidburn_assets.core.datasets import PoolSettings
from acidburn_assets.core.drift import Drift
from benchmarks import evaluation, report

SETS = ("python", "clinc150", "stackoverflow20", "reuters_body")
NEW_SHARE = 1 / 11
"""Of all texts: a tenth of those that were there."""


class Refit(NamedTuple):
    """A pool before and after texts were added."""

    before: ClusterModel
    after: ClusterModel
    found: Drift  # in what was added, held against the model before

    @property
    def changed_share(self) -> float:
        """Of the clusters of now, those that are labelled again."""
        return 1 - len(migration.steady_ids(self.after)) / self.after.meta.n_clusters


class Texts(NamedTuple):
    """A collection as a pool sees it."""

    vectors: np.ndarray  # (n, dim) float32
    topics: np.ndarray | None  # (n,) what people said each is about; "": nothing


@click.command()
@click.option("--rows", "n_rows", default=5_000, show_default=True, type=click.IntRange(200))
@click.option("--min-cluster-size", default=25, show_default=True, type=click.IntRange(2))
@click.option("--min-samples", default=5, show_default=True, type=click.IntRange(1))
@click.option("--rounds", "n_rounds", default=3, show_default=True, type=click.IntRange(1))
@click.option("--set", "sets", multiple=True, default=SETS, show_default=True, help="Of texts.")
@click.option("--json", "is_json", is_flag=True, help="End with one JSON object.")
def command(
    n_rows: int,
    min_cluster_size: int,
    min_samples: int,
    n_rounds: int,
    sets: Sequence[str],
    is_json: bool,
) -> None:
    """Add a tenth to pools and fit them anew: clusters kept, labels made again, drift."""
    settings = PoolSettings(min_cluster_size=min_cluster_size, min_samples=min_samples)
    rows = []
    for name in sets:
        texts = read(name, n_rows)
        for what, is_new in additions(texts, n_rounds):
            refit = fit_anew(texts.vectors, is_new, settings)
            rows.append(
                {
                    "collection": name,
                    "added": what,
                    "share": refit.found.new_share,
                    "clusters before": refit.before.meta.n_clusters,
                    "now": refit.after.meta.n_clusters,
                    "labelled again": round(refit.changed_share, 4),
                    **migration.counts(refit.after),
                    "weak": refit.found.weak_excess,
                    "novel": refit.found.novel_mass,
                    "shift": refit.found.distance_shift,
                    "refit proposed": bool(refit.found.reasons),
                }
            )
    facts = {"rows": n_rows, "min_cluster_size": min_cluster_size, "min_samples": min_samples}
    report.show("refit", rows, facts=facts, is_json=is_json)


def read(name: str, n_rows: int) -> Texts:
    """So many texts of a collection: `python` for chunks of its documentation."""
    if name == "python":
        chunks = evaluation.chunks(load_tokenizer("minilm"), n_rows)
        return Texts(evaluation.embed(chunks["text"].to_pylist()), None)
    table = evaluation.sample(name, n_rows)
    topics = np.array([label or "" for label in table["label"].to_pylist()])
    return Texts(evaluation.embed(list(map(str, table["text"].to_pylist()))), topics)


def additions(texts: Texts, n_rounds: int) -> Iterator[tuple[str, np.ndarray]]:
    """What is added, and which texts those are, (n,) bool."""
    n = len(texts.vectors)
    for number in range(n_rounds):
        order = np.random.default_rng(number).permutation(n)
        yield f"a tenth, round {number + 1}", order < round(n * NEW_SHARE)
    if texts.topics is not None:
        names, sizes = np.unique(texts.topics[texts.topics != ""], return_counts=True)
        order = np.random.default_rng(0).permutation(len(names))
        n_topics = 1 + int(np.searchsorted(np.cumsum(sizes[order]), n * NEW_SHARE))
        yield f"{n_topics} topics", np.isin(texts.topics, names[order[:n_topics]])


def fit_anew(vectors: np.ndarray, is_new: np.ndarray, settings: PoolSettings) -> Refit:
    """Fits a pool without what is new, and then with it.

    Args:
        vectors: (n, dim) float32, unit length.
        is_new: (n,) bool.
        settings: of the pool.
    """
    ids = _numbered(len(vectors))
    before = _fit(vectors[~is_new], ids[~is_new], settings, None)
    after = _fit(vectors, ids, settings, before)
    n_new = int(is_new.sum())
    looked = drift.cover(vectors[is_new], before, n_in_fit=n_new)
    found = drift.judge(before, n_chunks=len(vectors), n_new=n_new, looked=looked)
    return Refit(before, after, found)


def _fit(
    vectors: np.ndarray, ids: np.ndarray, settings: PoolSettings, previous: ClusterModel | None
) -> ClusterModel:
    places = None if previous is None else migration.places_before(vectors, ids, previous)
    fit = clusterer.fit(vectors, settings, before=places)
    model = summarize(
        fit,
        vectors,
        ids,
        pool="benchmark",
        fitted_on=FittedOn(
            manifests={},
            shards={},
            n_chunks=len(vectors),
            model="minilm",
            dim=vectors.shape[1],
            settings=settings.of_fit(),
            engine_version=clusterer.ENGINE_VERSION,
        ),
        descent=(
            None
            if previous is None or places is None
            else migration.descend(fit.labels, vectors, places, previous)
        ),
    )
    return drift.with_coverage(model, vectors)


def _numbered(n: int) -> np.ndarray:
    """(n, 16) uint8: chunk ids of texts that lie in no pool."""
    ids = np.zeros((n, 16), dtype=np.uint8)
    ids[:, 8:] = np.arange(n, dtype=">u8").view(np.uint8).reshape(n, 8)
    return ids


if __name__ == "__main__":
    command()
