"""Names clusters of real text with and without our rules, and prices the names of a model.

Documentation, newswire and abstracts are cut, embedded and clustered as a pool is; then each way to
name clusters reads the same sampled members. Titles are judged by embeddings alone, as the cluster
map judges them; shares of clusters whose title

- finds, encoded as a question, its own centroid before all others (`own first`),
- is told apart from those of the three nearest clusters: none at a cosine of .9 or more (`unique`),
- shares no word with those (`own words`);

and the mean share of ten members of a cluster, which no label was made from, that are nearer to
their title than to those three (`coverage`). Beside ours:

- `c-TF-IDF`: a cluster's four best words, stop words left out, as BERTopic names topics;
- `c-TF-IDF, embedded`: of its 30 best words the four nearest to its centroid, much as BERTopic's
  KeyBERTInspired chooses them.

Dollars are of requests that are built and not sent, by the labeler's own estimate: four bytes of
input make a token, an answer has 120, and the list price of the model.
"""

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import click
import numpy as np
import pyarrow as pa
from pydantic import SecretStr

from acidburn_assets.adapters import clusterer
from acidburn_assets.adapters.encoder import SentenceEncoder, load_encoder
from acidburn_assets.adapters.labeler import Labeler, LabelRequest
from acidburn_assets.adapters.tokenizer import load_tokenizer
from acidburn_assets.core import cluster_map as mapping
from acidburn_assets.core.cluster_model import members_of, unit_centroids
from acidburn_assets.core.datasets import PoolSettings
from acidburn_assets.core.labels import (
    STOP_WORDS,
    ClusterSample,
    Heuristic,
    Passage,
    describe,
    describe_groups,
    members_wanted,
)
from benchmarks import evaluation, report

SETS = ("python", "reuters", "arxiv")
N_HELD_OUT, N_MEDOIDS = 10, 5  # as the assets take them
N_TITLE_WORDS = 4
N_EMBEDDED_WORDS = 30
SAME_COSINE = 0.9
"""Titles as near as this say the same. Chosen."""
MODEL = "grok-4.3"

Encode = Callable[[Sequence[str]], np.ndarray]


class Corpus(NamedTuple):
    """Clusters of a corpus, and what labels are made from."""

    centroids: np.ndarray  # (k, dim) float32, unit length
    parents: np.ndarray  # (k,) int32: the group that each cluster lies in
    samples: dict[int, ClusterSample]
    members: dict[int, np.ndarray]  # (m, dim) float32: of the samples' members, in their order
    held_out: dict[int, np.ndarray]  # (h, dim) float32: of members that no label is made from


class Judgement(NamedTuple):
    """What titles are worth."""

    own_first: float
    unique: float
    own_words: float
    coverage: float


@click.command()
@click.option("--chunks", "n_chunks", default=2_000, show_default=True, type=click.IntRange(200))
@click.option("--min-cluster-size", default=15, show_default=True, type=click.IntRange(2))
@click.option("--min-samples", default=5, show_default=True, type=click.IntRange(1))
@click.option("--set", "sets", multiple=True, default=SETS, show_default=True, help="Of texts.")
@click.option("--read", "is_read", is_flag=True, help="Print every title and its keywords.")
@click.option("--json", "is_json", is_flag=True, help="End with one JSON object.")
def command(
    n_chunks: int,
    min_cluster_size: int,
    min_samples: int,
    sets: Sequence[str],
    is_read: bool,
    is_json: bool,
) -> None:
    """Judge keyless titles beside plain ones; price a model's."""
    encoder, tokenizer = load_encoder("minilm"), load_tokenizer("minilm")
    settings = PoolSettings(min_cluster_size=min_cluster_size, min_samples=min_samples)
    rows: list[dict[str, object]] = []
    judged: dict[str, Judgement] = {}
    n_clusters, usd = 0, 0.0
    for name in sets:
        documents = None if name == "python" else evaluation.stored_documents(name)
        chunks = evaluation.chunks(tokenizer, n_chunks, of=documents)
        vectors = encoder.encode(chunks["text"].to_pylist(), "document").vectors
        corpus = arrange(chunks, vectors.astype(np.float16).astype(np.float32), settings)
        started = time.process_time()
        labels = describe(corpus.samples, mapping.nearest_clusters(corpus.centroids))
        seconds = time.process_time() - started
        ways = {
            "ours": [label.title for label in labels.values()],
            **plain_titles(corpus, partial(_encode, encoder)),
        }
        for way, titles in ways.items():
            judgement = judge(titles, _encode(encoder, titles), corpus)
            rows.append(
                {"corpus": name, "clusters": len(titles), "titles": way, **judgement._asdict()}
            )
            if way == "ours":
                judged[name] = judgement
                rows[-1]["CPU s per 1,000"] = 1_000 * seconds / len(titles)
            else:
                rows[-1]["CPU s per 1,000"] = None
        n_clusters += len(labels)
        usd += price(requests_of(corpus, labels))
        if is_read:
            show(labels, groups=describe_groups(corpus.samples, *groups_of(corpus)))
    usd_per_1000 = 1_000 * usd / n_clusters
    facts = {"chunks": n_chunks, "model": MODEL, "dollars per 1,000 clusters": usd_per_1000}
    report.show("label", rows, facts=facts, is_json=False)
    if is_json:
        shown = {
            name: {
                "own_first": round(judgement.own_first, 4),
                "unique": round(judgement.unique, 4),
                "coverage": round(judgement.coverage, 4),
            }
            for name, judgement in judged.items()
        }
        print(json.dumps({"sets": shown, "usd_per_1000": round(usd_per_1000, 4)}))


def show(labels: Mapping[int, Heuristic], *, groups: Mapping[int, Heuristic]) -> None:
    """Prints what there is to read."""
    for kind, described in (("cluster", labels), ("group", groups)):
        for number, label in described.items():
            print(f"{kind} {number}: {label.title}  [{'; '.join(label.keywords)}]")
            print(f"    {label.summary}")


# ---- clusters ---------------------------------------------------------------------------------


def arrange(chunks: pa.Table, vectors: np.ndarray, settings: PoolSettings) -> Corpus:
    """Clusters chunks, and draws the members and medoids of each cluster.

    Args:
        chunks: of `schemas.CHUNKS`.
        vectors: (n, dim) float32, unit length.
        settings: of the pool that they make.
    """
    fit = clusterer.fit(vectors, settings)
    centroids = unit_centroids(vectors, fit.labels)
    passages = [
        Passage(row["chunk_id"].hex(), row["doc_id"], row["text"])
        for row in chunks.select(["chunk_id", "doc_id", "text"]).to_pylist()
    ]
    samples, members, held_out = {}, {}, {}
    for cluster, rows in enumerate(members_of(fit.labels, len(centroids))):
        drawn = sorted(rows.tolist(), key=lambda row: passages[row].chunk_id)
        # every cluster keeps some members to be named from
        n_shown = min(members_wanted(len(centroids)), max(1, len(drawn) - N_HELD_OUT))
        shown, hidden = drawn[:n_shown], drawn[n_shown : n_shown + N_HELD_OUT]
        nearest = rows[np.argsort(-(vectors[rows] @ centroids[cluster]), kind="stable")]
        samples[cluster] = ClusterSample(
            [passages[row] for row in shown], [passages[row] for row in nearest[:N_MEDOIDS]]
        )
        members[cluster], held_out[cluster] = vectors[shown], vectors[hidden]
    return Corpus(centroids, fit.parents, samples, members, held_out)


def groups_of(corpus: Corpus) -> tuple[dict[int, list[int]], dict[int, tuple[int, ...]]]:
    """The clusters of each group, and its nearest groups."""
    groups: dict[int, list[int]] = {}
    for cluster, parent in enumerate(corpus.parents.tolist()):
        groups.setdefault(parent, []).append(cluster)
    ordered = dict(sorted(groups.items()))
    centres = np.stack([corpus.centroids[members].mean(axis=0) for members in ordered.values()])
    return ordered, mapping.nearest_clusters(centres)


# ---- titles -----------------------------------------------------------------------------------


def plain_titles(corpus: Corpus, encode: Encode) -> dict[str, list[str]]:
    """Titles by the two plain ways."""
    ranked = ctfidf(
        [
            [_words(passage.text) for passage in corpus.samples[cluster].members]
            for cluster in sorted(corpus.samples)
        ]
    )
    embedded = []
    for cluster, words in enumerate(ranked):
        candidates = words[:N_EMBEDDED_WORDS]
        nearness = encode(candidates) @ corpus.centroids[cluster]  # (n,)
        order = np.argsort(-nearness, kind="stable")[:N_TITLE_WORDS]
        embedded.append(", ".join(candidates[place] for place in order.tolist()))
    return {
        "c-TF-IDF": [", ".join(words[:N_TITLE_WORDS]) for words in ranked],
        "c-TF-IDF, embedded": embedded,
    }


def ctfidf(clusters: Sequence[Sequence[Sequence[str]]]) -> list[list[str]]:
    """The words of each cluster by class-based TF-IDF, best first.

    Source: Grootendorst, BERTopic, 2022: tf / all words of the cluster · log(1 + A / f).

    Args:
        clusters: words of its texts.
    """
    counts = [Counter(word for words in texts for word in words) for texts in clusters]
    everywhere = sum(counts, Counter[str]())
    mean = everywhere.total() / max(1, len(counts))
    return [
        sorted(
            count,
            key=lambda word: (-count[word] * np.log1p(mean / everywhere[word]), word),
        )
        for count in counts
    ]


def judge(titles: Sequence[str], vectors: np.ndarray, corpus: Corpus) -> Judgement:
    """What titles are worth.

    Args:
        titles: of every cluster, in order.
        vectors: (k, dim) float32, unit length: the titles encoded as queries.
        corpus: whose clusters these are.
    """
    scores = mapping.score_titles(vectors, corpus.centroids, corpus.held_out)
    shares = [score.member_share for score in scores if score.member_share is not None]
    neighbours = mapping.nearest_clusters(corpus.centroids)
    near = [
        max(vectors[others,] @ vectors[row], default=-1.0) for row, others in neighbours.items()
    ]
    words = [set(_words(title)) for title in titles]
    is_apart = [
        not any(words[row] & words[other] for other in others) for row, others in neighbours.items()
    ]
    return Judgement(
        own_first=float(np.mean([score.title_rank == 1 for score in scores])),
        unique=float(np.mean(np.array(near) < SAME_COSINE)),
        own_words=float(np.mean(is_apart)),
        coverage=float(np.mean(shares)) if shares else 0.0,
    )


def _words(text: str) -> list[str]:
    found = re.findall(r"[^\W\d_]{2,}", text.casefold())
    return [word for word in found if word not in STOP_WORDS]


def _encode(encoder: SentenceEncoder, texts: Sequence[str]) -> np.ndarray:
    return encoder.encode(texts, "query").vectors


# ---- a model's price --------------------------------------------------------------------------


class _Nothing:
    """No answer is cached and no call is noted: none is made."""

    def get(self, key: str) -> bytes | None:
        raise AssertionError(f"{key} was asked for")

    def read(self) -> list[bytes]:
        raise AssertionError("the journal was read")

    def put(self, key: str, content: bytes) -> None:
        raise AssertionError(f"{len(content)} bytes were put under {key}")

    def remove(self, name: str) -> None:
        raise AssertionError(f"{name} was removed")


def requests_of(corpus: Corpus, labels: Mapping[int, Heuristic]) -> list[LabelRequest]:
    """What a model would be shown of every cluster, as the cluster map asks."""
    requests = []
    for cluster, others in mapping.nearest_clusters(corpus.centroids).items():
        picked = mapping.pick_exemplars(corpus.members[cluster], corpus.centroids[cluster])
        texts = [passage.text for passage in corpus.samples[cluster].members]
        requests.append(
            LabelRequest(
                cluster,
                labels[cluster].keywords,
                central=[texts[row] for row in picked.central],
                diverse=[texts[row] for row in picked.diverse],
                edge=[texts[row] for row in picked.edge],
                neighbours=[labels[other].title for other in others],
            )
        )
    return requests


def price(requests: Sequence[LabelRequest]) -> float:
    """USD that a model's labels should cost; none is asked for."""
    nothing = _Nothing()
    labeler = Labeler(
        SecretStr("of nobody"),
        base_url="http://127.0.0.1:9/v1",
        model=MODEL,
        budget_usd=0.0,
        cache=nothing,
        journal=nothing,
    )
    return labeler.estimate(requests)


if __name__ == "__main__":
    command()
