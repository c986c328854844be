import numpy as np
import pytest

from acidburn_assets.core import routing
from acidburn_assets.core.routing import (
    LEXICAL_WEIGHT,
    Cells,
    Cluster,
    Route,
    Router,
)

EYE = np.eye(4, dtype=np.float32)
CLUSTERS = [
    Cluster(10, "Baking sourdough bread", ["flour", "yeast"]),
    Cluster(11, "Parsing CSV files", ["read_csv", "delimiter"]),
    Cluster(12, "Tides and moons", ["ocean", "gravity"]),
    Cluster(13, "Bread ovens", ["brick", "heat"]),
]


ONE_EACH = Cells(np.arange(4), EYE, np.arange(4), np.full(4, 10))


def make_router(cells: Cells = ONE_EACH) -> Router:
    return Router(CLUSTERS, cells)


def best(route: Route, n_clusters: int = 4) -> list[int]:
    return [score.cluster_id for score in route.explain(n_clusters)]


def toward(*weights: float) -> np.ndarray:
    vector = np.array(weights, np.float32)
    return vector / np.float32(np.linalg.norm(vector))


def test_nearest_centroid_comes_first_without_words_in_common() -> None:
    route = make_router().route(toward(0.1, 0.2, 0.9, 0.3), "zzz")
    assert best(route, 4) == [12, 13, 11, 10]
    assert best(route, 2) == [12, 13]
    assert best(route, 99) == best(route, 4)


def test_words_in_common_lift_a_cluster() -> None:
    vector = toward(0.46, 0.5, 0.45, 0.1)
    assert best(make_router().route(vector, "zzz"), 1) == [11]
    assert best(make_router().route(vector, "YEAST, bread?"), 1) == [10]


def test_rare_word_weighs_more_than_a_common_one() -> None:
    scores = make_router().route(toward(1, 1, 1, 1), "bread brick").explain(4)
    lexical = {score.cluster_id: score.lexical for score in scores}
    assert lexical[13] > lexical[10] > 0
    assert lexical[11] == lexical[12] == 0


def test_stray_word_does_not_outweigh_the_nearest_cluster() -> None:
    """Adding reciprocal ranks gave a cluster with one word in common as much as the nearest."""
    question = "the ocean and its harbours, ships, sailors, storms and sunken treasures"
    assert best(make_router().route(toward(0.95, 0.1, 0.2, 0.1), question), 1) == [10]


def test_score_is_the_weighted_sum() -> None:
    first = make_router().route(toward(0, 0, 1, 0), "ocean").explain(1)[0]
    assert first.cluster_id == 12
    assert (first.cell, first.lexical) == pytest.approx((1, 1))
    assert first.score == pytest.approx(1 + LEXICAL_WEIGHT)


def test_question_without_words_has_no_words_in_common() -> None:
    assert {score.lexical for score in make_router().route(EYE[0], "?!").explain(4)} == {0}


def test_same_question_has_the_same_route() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        vector = toward(*rng.standard_normal(4))
        first = make_router().route(vector, "bread gravity brick")
        again = make_router().route(vector, "brick bread gravity")
        assert best(first, 4) == best(again, 4)
        assert np.array_equal(first.score, again.score)


def test_equal_clusters_keep_their_order() -> None:
    assert best(make_router().route(toward(1, 1, 1, 1), ""), 4) == [10, 11, 12, 13]


def test_centroids_alone_know_no_words() -> None:
    ranking = make_router().by_centroid(toward(0.1, 0.2, 0.9, 0.3))
    assert ranking.cell_ids.tolist() == [2, 3, 1, 0]


def test_a_cluster_stands_where_its_best_cell_stands() -> None:
    """One of the last cluster's cells is right beside the question, the other far away."""
    cells = Cells(
        np.array([7, 8, 9]),
        np.stack([toward(1, 0.2, 0, 0), toward(0, 1, 0, 0), toward(1, 0, 0, 0)]),
        np.array([0, 3, 3]),
        np.array([10, 10, 10]),
    )
    route = make_router(cells).route(toward(1, 0, 0, 0), "")
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
    route = make_router(cells).route(toward(0.1, 0.2, 0.9, 0.3), "")
    assert route.cells.within(n_chunks) == expected
    clusters = [score.cluster_id for score in route.explain_within(n_chunks)]
    assert clusters == [10 + cell for cell in expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("read_csv(path)", ["read", "csv", "path"]),
        ("Straße, naïve 3.11!", ["strasse", "naïve", "3", "11"]),
        (" \n", []),
    ],
)
def test_words_are_letters_and_digits(text: str, expected: list[str]) -> None:
    assert routing.words(text) == expected
