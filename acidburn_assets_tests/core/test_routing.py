import numpy as np
import pyarrow as pa
import pytest

from acidburn_assets.core import schemas
from acidburn_assets.core.cell_terms import CellTerms
from acidburn_assets.core.ranking import Query
from acidburn_assets.core.routing import (
    LEXICAL_WEIGHT,
    PICK_WEIGHT,
    Cells,
    Route,
    Router,
)

EYE = np.eye(4, dtype=np.float32)
IDS = np.array([10, 11, 12, 13])
BREAD, YEAST, OCEAN = 1, 2, 3
ONE_EACH = Cells(np.arange(4), EYE, np.arange(4), np.full(4, 10))
TERMS = [(BREAD, 0, 1.1), (BREAD, 3, 2.2), (YEAST, 0, 1.1), (OCEAN, 2, 2.2)]
"""Term, cell, weight: two of the cells are about bread, one of these about yeast too."""


def make_router(
    cells: Cells = ONE_EACH, terms: list[tuple[int, int, float]] | None = None
) -> Router:
    columns = list(zip(*(TERMS if terms is None else terms), strict=True)) or [(), (), ()]
    table = pa.table(
        [
            pa.array(columns[0], pa.int32()),
            pa.array(columns[1], pa.int32()),
            pa.array(columns[2], pa.float32()),
        ],
        schema=schemas.CELL_TERMS,
    )
    return Router(IDS, cells, CellTerms(table, cells.ids))


def best(route: Route, n_clusters: int = 4) -> list[int]:
    return [score.cluster_id for score in route.explain(n_clusters)]


def toward(*weights: float, terms: dict[int, float] | None = None) -> Query:
    vector = np.array(weights, np.float32)
    return Query(vector / np.float32(np.linalg.norm(vector)), terms or {})


def test_nearest_centroid_comes_first_without_words_in_common() -> None:
    route = make_router().route(toward(0.1, 0.2, 0.9, 0.3))
    assert best(route, 4) == [12, 13, 11, 10]
    assert best(route, 2) == [12, 13]
    assert best(route, 99) == best(route, 4)


def test_words_in_common_lift_a_cell() -> None:
    meaning = (0.46, 0.5, 0.45, 0.1)
    assert best(make_router().route(toward(*meaning)), 1) == [11]
    assert best(make_router().route(toward(*meaning, terms={YEAST: 3, BREAD: 1})), 1) == [10]


def test_a_cell_scores_what_the_best_of_its_chunks_could() -> None:
    scores = make_router().route(toward(1, 1, 1, 1, terms={BREAD: 1.0})).explain(4)
    lexical = {score.cluster_id: score.lexical for score in scores}
    # a weight of 2.2 is all that a term can have
    assert lexical == {10: pytest.approx(0.5), 11: 0, 12: 0, 13: pytest.approx(1)}


def test_stray_word_does_not_outweigh_the_nearest_cell() -> None:
    asked = {OCEAN: 1.0} | {100 + word: 1.0 for word in range(9)}
    assert best(make_router().route(toward(0.95, 0.1, 0.2, 0.1, terms=asked)), 1) == [10]


def test_score_is_the_weighted_sum() -> None:
    first = make_router().route(toward(0, 0, 1, 0, terms={OCEAN: 0.7})).explain(1)[0]
    assert first.cluster_id == 12
    assert (first.cell, first.lexical) == pytest.approx((1, 1))
    assert first.score == pytest.approx(1 + LEXICAL_WEIGHT)


def test_question_without_words_has_no_words_in_common() -> None:
    assert {score.lexical for score in make_router().route(toward(1, 0, 0, 0)).explain(4)} == {0}


def test_same_question_has_the_same_route() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        meaning = rng.standard_normal(4)
        first = make_router().route(toward(*meaning, terms={BREAD: 1.0, OCEAN: 2.0}))
        again = make_router().route(toward(*meaning, terms={OCEAN: 2.0, BREAD: 1.0}))
        assert best(first, 4) == best(again, 4)
        assert np.array_equal(first.score, again.score)


def test_equal_clusters_keep_their_order() -> None:
    assert best(make_router().route(toward(1, 1, 1, 1)), 4) == [10, 11, 12, 13]


def test_centroids_alone_know_no_words() -> None:
    ranking = make_router().by_centroid(toward(0.1, 0.2, 0.9, 0.3).vector)
    assert ranking.cell_ids.tolist() == [2, 3, 1, 0]


def test_terms_find_their_cells_whatever_order_these_have() -> None:
    cells = Cells(np.array([3, 0, 2, 1]), EYE, np.arange(4), np.full(4, 10))
    lexical = make_router(cells).route(toward(1, 1, 1, 1, terms={OCEAN: 1.0}))
    # the cell numbered 2 stands third and is of the third cluster
    assert best(lexical, 1) == [12]


def test_picked_clusters_come_first_of_those_that_are_about_as_near() -> None:
    route = make_router().route(toward(0.9, 0.5, 0.45, 0.1))
    preferred = make_router().prefer(route, {12})
    assert best(route) == [10, 11, 12, 13]
    assert best(preferred) == [10, 12, 11, 13]
    assert preferred.cells.cell_ids.tolist() == [0, 2, 1, 3]
    assert preferred.score[1] == pytest.approx(route.score[2] + PICK_WEIGHT)


def test_a_cluster_stands_where_its_best_cell_stands() -> None:
    """One of the last cluster's cells is right beside the question, the other far away."""
    cells = Cells(
        np.array([7, 8, 9]),
        np.stack(
            [toward(1, 0.2, 0, 0).vector, toward(0, 1, 0, 0).vector, toward(1, 0, 0, 0).vector]
        ),
        np.array([0, 3, 3]),
        np.array([10, 10, 10]),
    )
    route = make_router(cells, []).route(toward(1, 0, 0, 0))
    assert route.cells.cell_ids.tolist() == [9, 7, 8]
    assert [score.cluster_id for score in route.explain(9)] == [13, 10]
    assert route.explain(1)[0].cell == pytest.approx(1)


@pytest.mark.parametrize(
    ("n_chunks", "expected"),
    [
        (0, [2]),
        (29, [2]),
        (30, [2]),
        (39, [2]),
        (40, [2, 3]),
        (45, [2, 3, 1]),
        (1000, [2, 3, 1, 0]),
    ],
)
def test_cells_are_looked_into_while_they_fit(n_chunks: int, expected: list[int]) -> None:
    cells = Cells(np.arange(4), EYE, np.arange(4), np.array([50, 5, 30, 10]))
    route = make_router(cells).route(toward(0.1, 0.2, 0.9, 0.3))
    assert route.cells.within(n_chunks) == expected
    clusters = [score.cluster_id for score in route.explain_within(n_chunks)]
    assert clusters == [10 + cell for cell in expected]
