"""Which clusters a question belongs to.

Three rankings of all clusters are fused: the question's cosine to the centroid, to the best of the
medoids, and the words it shares with title and keywords. The same question always gets the same
route. Searching inside the clusters is the work of whoever asked.
"""

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from acidburn_assets.core.records import Record

RRF_K = 60
"""Source: Cormack, Clarke, Büttcher, Reciprocal rank fusion outperforms Condorcet and individual
rank learning methods, SIGIR 2009."""

_BM25_K1 = 1.2
"""Saturation of repeated words. Source: Robertson, Zaragoza, The probabilistic relevance
framework: BM25 and beyond, 2009 (1.2 to 2 in practice)."""

_TITLE_WEIGHT = 2
"""A word of the title counts as often. Chosen, not measured."""

_WORD = re.compile(r"[^\W_]+")


class Cluster(NamedTuple):
    """What is known of a cluster when a question comes."""

    cluster_id: int
    title: str
    keywords: Sequence[str]


class ClusterScore(Record):
    """How near a cluster is to the question."""

    cluster_id: int
    fused: float  # what the order is by
    centroid: float  # cosine
    medoid: float | None  # cosine of the best; None for a cluster without medoids
    lexical: float  # BM25 over title and keywords; 0: no word in common


class Route(NamedTuple):
    """All clusters of a pool, best first."""

    cluster_ids: np.ndarray  # (k,) int64
    fused: np.ndarray  # (k,) float64, falling
    centroid: np.ndarray  # (k,) float32
    medoid: np.ndarray  # (k,) float32, -inf without medoids
    lexical: np.ndarray  # (k,) float64

    def best(self, n_clusters: int) -> list[int]:
        """Ids of the first so many, all where there are fewer."""
        ids: list[int] = self.cluster_ids[:n_clusters].tolist()
        return ids

    def explain(self, n_clusters: int) -> tuple[ClusterScore, ...]:
        """Scores of the first so many."""
        return tuple(
            ClusterScore(
                cluster_id=int(self.cluster_ids[index]),
                fused=float(self.fused[index]),
                centroid=float(self.centroid[index]),
                medoid=float(self.medoid[index]) if np.isfinite(self.medoid[index]) else None,
                lexical=float(self.lexical[index]),
            )
            for index in range(min(n_clusters, len(self.cluster_ids)))
        )


class Router:
    """Ranks the clusters of one pool."""

    def __init__(
        self,
        clusters: Sequence[Cluster],
        *,
        centroids: np.ndarray,
        medoids: np.ndarray,
        medoid_owners: np.ndarray,
    ) -> None:
        """Indexes the words of titles and keywords.

        Args:
            clusters: in any order.
            centroids: of the same clusters, unit length, float32  # (k, dim)
            medoids: of all of them, unit length, float32  # (m, dim)
            medoid_owners: position in `clusters` that each medoid belongs to, int  # (m,)
        """
        self._ids = np.array([cluster.cluster_id for cluster in clusters], np.int64)
        self._centroids = centroids
        self._medoids = medoids
        self._medoid_owners = medoid_owners
        self._postings = _index_words(clusters)

    def route(self, vector: np.ndarray, question: str) -> Route:
        """Ranks all clusters.

        Args:
            vector: of the question, unit length, float32  # (dim,)
            question: its text.
        """
        centroid = self._centroids @ vector  # (k,)
        medoid = np.full(len(self._ids), -np.inf, np.float32)
        np.maximum.at(medoid, self._medoid_owners, self._medoids @ vector)
        lexical = self._lexical(question)
        fused = _reciprocal_ranks(centroid) + _reciprocal_ranks(medoid)
        # a cluster that shares no word has no rank by words, rather than an arbitrary one
        fused += np.where(lexical > 0, _reciprocal_ranks(lexical), 0)
        order = np.argsort(-fused, kind="stable")
        return Route(self._ids[order], fused[order], centroid[order], medoid[order], lexical[order])

    def by_centroid(self, vector: np.ndarray) -> list[int]:
        """Ids of all clusters by centroid alone: how an inverted file (IVF) chooses.

        Args:
            vector: of the question, unit length, float32  # (dim,)
        """
        ids: list[int] = self._ids[np.argsort(-(self._centroids @ vector), kind="stable")].tolist()
        return ids

    def _lexical(self, question: str) -> np.ndarray:
        scores = np.zeros(len(self._ids))
        for word in sorted(set(words(question))):
            if word in self._postings:
                positions, weights = self._postings[word]
                scores[positions] += weights
        return scores


def words(text: str) -> list[str]:
    """Words as titles and questions are compared by: letters and digits, case folded;
    `read_csv` is two."""
    return _WORD.findall(text.casefold())


def _index_words(clusters: Sequence[Cluster]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """For each word, the clusters that have it and its BM25 weight in each.

    Without length normalisation: labels are about as long as one another, and a cluster is not
    less about a word for having more keywords.
    """
    counts: defaultdict[str, dict[int, int]] = defaultdict(dict)
    for position, cluster in enumerate(clusters):
        weighted = [(cluster.title, _TITLE_WEIGHT), *((word, 1) for word in cluster.keywords)]
        for text, weight in weighted:
            for word in words(text):
                counts[word][position] = counts[word].get(position, 0) + weight
    postings = {}
    for word, found in counts.items():
        idf = math.log(1 + (len(clusters) - len(found) + 0.5) / (len(found) + 0.5))
        frequency = np.array(list(found.values()), np.float64)
        weights = idf * frequency * (_BM25_K1 + 1) / (frequency + _BM25_K1)
        postings[word] = (np.array(list(found), np.int64), weights)
    return postings


def _reciprocal_ranks(scores: np.ndarray) -> np.ndarray:
    """1 / (RRF_K + rank) by falling score, rank 1 first; of equals the first in the array."""
    ranks = np.empty(len(scores), np.int64)
    ranks[np.argsort(-scores, kind="stable")] = np.arange(1, len(scores) + 1)
    return 1 / (RRF_K + ranks)
