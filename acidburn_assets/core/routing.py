"""Which cells a question belongs to, and so which clusters.

A cell's score is a sum of two: the question's cosine to the cell's centroid, and the share of the
question's words that are in the title and keywords of its cluster. A cluster stands where its best
cell stands. The same question always gets the same route. Searching inside the cells is the work of
whoever asked.

Scores are added, not ranks: reciprocal rank fusion gave a cluster that shares one stray word as
much as the nearest one, and was worse than centroids alone (.706 to .786 of a full scan's nDCG@10,
with whole clusters). The best of a cluster's medoids was a third summand while clusters were the
unit of search; with cells it takes .01 to .03 away.
Source: measured, 5,176 passages of docstrings, 400 known-item questions.
"""

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from acidburn_assets.core.records import Record

LEXICAL_WEIGHT = 0.1
"""Of the share of words in common, in units of cosine. Source: as above, .001 to .01 better than 0
with cells of 50 and more, no different with smaller ones; 0.3 is up to .02 worse."""

_WORD = re.compile(r"[^\W_]+")
_NOWHERE = np.empty(0, np.int64)


class Cluster(NamedTuple):
    """What is known of a cluster when a question comes."""

    cluster_id: int
    title: str
    keywords: Sequence[str]


class Cells(NamedTuple):
    """What is known of a pool's cells when a question comes; every chunk lies in one."""

    ids: np.ndarray  # (c,) int64
    centroids: np.ndarray  # (c, dim) float32, unit length
    owners: np.ndarray  # (c,) int64, position of the cluster that each is of
    n_chunks: np.ndarray  # (c,) int64, noise counted


class ClusterScore(Record):
    """How near a cluster is to the question."""

    cluster_id: int
    score: float  # of its best cell; what the order is by
    cell: float  # cosine to the centroid of the nearest cell
    lexical: float  # weighted share of the question's words that title and keywords have


class Ranking(NamedTuple):
    """Cells of a pool, best first."""

    cell_ids: np.ndarray  # (c,) int64
    n_chunks: np.ndarray  # (c,) int64, of each

    def within(self, n_chunks: int) -> list[int]:
        """Ids of the best cells that hold so many chunks at most together; one in any case."""
        ids: list[int] = self.cell_ids[: self.n_within(n_chunks)].tolist()
        return ids

    def n_within(self, n_chunks: int) -> int:
        """How many cells `within` names."""
        fitting = np.searchsorted(np.cumsum(self.n_chunks), n_chunks, side="right")
        return max(1, int(fitting))


class Route(NamedTuple):
    """All cells, best first, and what their clusters have to do with the question."""

    cells: Ranking
    score: np.ndarray  # (c,) float64, falling
    owners: np.ndarray  # (c,) int64, position of each one's cluster
    cluster_ids: np.ndarray  # (k,) int64, by position
    cell: np.ndarray  # (k,) float32, of each cluster's nearest cell
    lexical: np.ndarray  # (k,) float64

    def explain(self, n_clusters: int) -> tuple[ClusterScore, ...]:
        """Scores of the first so many clusters, best first."""
        return self._explain(self.owners, n_clusters)

    def explain_within(self, n_chunks: int) -> tuple[ClusterScore, ...]:
        """Scores of the clusters whose cells are `within`, best first."""
        n_cells = self.cells.n_within(n_chunks)
        return self._explain(self.owners[:n_cells], len(self.cluster_ids))

    def _explain(self, owners: np.ndarray, n_clusters: int) -> tuple[ClusterScore, ...]:
        positions, first = np.unique(owners, return_index=True)
        order = np.argsort(first)[:n_clusters]
        return tuple(
            ClusterScore(
                cluster_id=int(self.cluster_ids[position]),
                score=float(self.score[at]),
                cell=float(self.cell[position]),
                lexical=float(self.lexical[position]),
            )
            for position, at in zip(positions[order], first[order], strict=True)
        )


class Router:
    """Ranks the cells of one pool."""

    def __init__(self, clusters: Sequence[Cluster], cells: Cells) -> None:
        """Indexes the words of titles and keywords.

        Args:
            clusters: in any order.
            cells: of the same clusters, one of each at least.
        """
        self._ids = np.array([cluster.cluster_id for cluster in clusters], np.int64)
        self._cells = cells
        self._clusters_of = _index_words(clusters)

    def route(self, vector: np.ndarray, question: str) -> Route:
        """Ranks all cells; of equals the first comes first.

        Args:
            vector: of the question, unit length, float32  # (dim,)
            question: its text.
        """
        cell = self._cells.centroids @ vector  # (c,)
        nearest = np.full(len(self._ids), -np.inf, np.float32)
        np.maximum.at(nearest, self._cells.owners, cell)
        lexical = self._lexical(question)
        score = cell + LEXICAL_WEIGHT * lexical[self._cells.owners]
        order = np.argsort(-score, kind="stable")
        return Route(
            self._ranking(order),
            score[order],
            self._cells.owners[order],
            self._ids,
            nearest,
            lexical,
        )

    def by_centroid(self, vector: np.ndarray) -> Ranking:
        """Ranks all cells by their centroids alone: how an inverted file (IVF) chooses.

        Args:
            vector: of the question, unit length, float32  # (dim,)
        """
        return self._ranking(np.argsort(-(self._cells.centroids @ vector), kind="stable"))

    def _ranking(self, order: np.ndarray) -> Ranking:
        return Ranking(self._cells.ids[order], self._cells.n_chunks[order])

    def _lexical(self, question: str) -> np.ndarray:
        """Share of the question's words that a cluster has, weighted by inverse document
        frequency; a word that no cluster has counts as the rarest  # (k,)."""
        found = np.zeros(len(self._ids))
        total = 0.0
        for word in sorted(set(words(question))):
            positions = self._clusters_of.get(word, _NOWHERE)
            weight = _idf(len(positions), len(self._ids))
            found[positions] += weight
            total += weight
        return found / total if total else found


def words(text: str) -> list[str]:
    """Words as titles and questions are compared by: letters and digits, case folded;
    `read_csv` is two."""
    return _WORD.findall(text.casefold())


def _index_words(clusters: Sequence[Cluster]) -> dict[str, np.ndarray]:
    """Positions of the clusters that have a word in title or keywords."""
    positions: defaultdict[str, list[int]] = defaultdict(list)
    for position, cluster in enumerate(clusters):
        for word in set(words(" ".join([cluster.title, *cluster.keywords]))):
            positions[word].append(position)
    return {word: np.array(found, np.int64) for word, found in positions.items()}


def _idf(n_having: int, n_clusters: int) -> float:
    """Never negative. Source: Robertson, Zaragoza, The probabilistic relevance framework: BM25 and
    beyond, 2009, in Lucene's form."""
    return math.log(1 + (n_clusters - n_having + 0.5) / (n_having + 0.5))
