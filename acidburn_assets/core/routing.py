"""Which cells a question belongs to, and so which clusters.

A cell's score is a sum of two: the question's cosine to the cell's centroid, and what the best of
its chunks could score by the question's words (`cell_terms`). A cluster stands where its best cell
stands. The same question always gets the same route. Searching inside the cells is the work of
whoever asked.

The share of the question's words that are in a cluster's title and keywords was a summand before:
with cells of 16 passages it changed nothing, with larger ones it gave .001 to .01. The best of a
cluster's medoids was one while clusters were the unit of search; with cells it takes .01 to .03
away. Source: measured, 5,176 passages of docstrings, 400 known-item questions.
"""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from acidburn_assets.core.cell_terms import CellTerms
from acidburn_assets.core.ranking import Query
from acidburn_assets.core.records import Record

LEXICAL_WEIGHT = 0.5
"""Of the share of what is possible by words, in units of cosine. Source: measured as in
`cell_terms`; .25 and 1 are within .01, mostly below."""

PICK_WEIGHT = 0.1
"""Of a cluster that the router's model picked, in units of cosine. Chosen, not measured: it needs a
paid model."""


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
    lexical: float  # what the best chunk of the cell could score by words, 0 to 1


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
        first = np.full(len(self.cluster_ids), len(owners))
        np.minimum.at(first, owners, np.arange(len(owners)))
        (positions,) = np.nonzero(first < len(owners))
        first = first[positions]
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

    def __init__(self, cluster_ids: np.ndarray, cells: Cells, terms: CellTerms) -> None:
        """Takes what is known of the cells.

        Args:
            cluster_ids: of the clusters, by position  # (k,)
            cells: of the same clusters, one of each at least.
            terms: of the same cells in the same order.
        """
        self._ids = cluster_ids.astype(np.int64)
        self._cells = cells
        self._terms = terms

    def route(self, query: Query) -> Route:
        """Ranks all cells; of equals the first comes first.

        Args:
            query: the question.
        """
        cell = self._cosines(query.vector)
        by_words = self._terms.score(query.terms) / query.bound  # (c,)
        nearest = np.full(len(self._ids), -np.inf, np.float32)
        np.maximum.at(nearest, self._cells.owners, cell)
        lexical = np.zeros(len(self._ids))
        np.maximum.at(lexical, self._cells.owners, by_words)
        score = cell + LEXICAL_WEIGHT * by_words
        order = np.argsort(-score, kind="stable")
        return Route(
            self._ranking(order),
            score[order],
            self._cells.owners[order],
            self._ids,
            nearest,
            lexical,
        )

    def prefer(self, route: Route, cluster_ids: Collection[int]) -> Route:
        """The same with the cells of some clusters moved forward.

        Others that are much nearer stay before them: who chose the clusters may be wrong.

        Args:
            route: of a question.
            cluster_ids: those that somebody chose for it.
        """
        is_chosen = np.isin(self._ids[route.owners], list(cluster_ids))
        score = route.score + PICK_WEIGHT * is_chosen
        order = np.argsort(-score, kind="stable")
        cells = Ranking(route.cells.cell_ids[order], route.cells.n_chunks[order])
        return route._replace(cells=cells, score=score[order], owners=route.owners[order])

    def by_centroid(self, vector: np.ndarray) -> Ranking:
        """Ranks all cells by their centroids alone: how an inverted file (IVF) chooses.

        Args:
            vector: of the question, unit length, float32  # (dim,)
        """
        return self._ranking(np.argsort(-self._cosines(vector), kind="stable"))

    def _cosines(self, vector: np.ndarray) -> np.ndarray:
        """(c,) float32, of every cell's centroid.

        In one thread: a second one halves 4 ms of a million passages, but is waited for, by one
        question in twenty for as long again, where another question or Postgres has its core.
        """
        cosines: np.ndarray = np.einsum("cd,d->c", self._cells.centroids, vector)
        return cosines

    def _ranking(self, order: np.ndarray) -> Ranking:
        return Ranking(self._cells.ids[order], self._cells.n_chunks[order])
