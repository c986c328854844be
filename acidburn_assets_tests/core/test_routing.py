import numpy as np
import pytest

from acidburn_assets.core import routing
from acidburn_assets.core.routing import LEXICAL_WEIGHT, MEDOID_WEIGHT, Cluster, Router

EYE = np.eye(4, dtype=np.float32)
CLUSTERS = [
    Cluster(10, "Baking sourdough bread", ["flour", "yeast"]),
    Cluster(11, "Parsing CSV files", ["read_csv", "delimiter"]),
    Cluster(12, "Tides and moons", ["ocean", "gravity"]),
    Cluster(13, "Bread ovens", ["brick", "heat"]),
]


def make_router(medoids: np.ndarray = EYE, owners: tuple[int, ...] = (0, 1, 2, 3)) -> Router:
    return Router(
        CLUSTERS, centroids=EYE, medoids=medoids, medoid_owners=np.array(owners, np.int64)
    )


def toward(*weights: float) -> np.ndarray:
    vector = np.array(weights, np.float32)
    return vector / np.float32(np.linalg.norm(vector))


def test_nearest_centroid_comes_first_without_words_in_common() -> None:
    route = make_router().route(toward(0.1, 0.2, 0.9, 0.3), "zzz")
    assert route.best(4) == [12, 13, 11, 10]
    assert route.best(2) == [12, 13]
    assert route.best(99) == route.best(4)


def test_words_in_common_lift_a_cluster() -> None:
    vector = toward(0.4, 0.5, 0.45, 0.1)
    assert make_router().route(vector, "zzz").best(1) == [11]
    assert make_router().route(vector, "YEAST, bread?").best(1) == [10]


def test_rare_word_weighs_more_than_a_common_one() -> None:
    scores = make_router().route(toward(1, 1, 1, 1), "bread brick").explain(4)
    lexical = {score.cluster_id: score.lexical for score in scores}
    assert lexical[13] > lexical[10] > 0
    assert lexical[11] == lexical[12] == 0


def test_stray_word_does_not_outweigh_the_nearest_cluster() -> None:
    """Adding reciprocal ranks gave a cluster with one word in common as much as the nearest."""
    question = "the ocean and its harbours, ships, sailors, storms and sunken treasures"
    assert make_router().route(toward(0.95, 0.1, 0.2, 0.1), question).best(1) == [10]


def test_best_medoid_counts_and_not_the_mean() -> None:
    """A cluster with one medoid right beside the question and one far away."""
    medoids = np.stack([toward(0, 0, 0, 1), toward(1, 0, 0, 0), toward(0, 1, 0.2, 0)])
    router = make_router(medoids, (0, 0, 1))
    scores = {score.cluster_id: score for score in router.route(toward(0, 0, 0, 1), "").explain(4)}
    assert scores[10].medoid == pytest.approx(1)
    assert scores[11].medoid == pytest.approx(0)
    assert scores[12].medoid is None


def test_score_is_the_weighted_sum() -> None:
    best = make_router().route(toward(0, 0, 1, 0), "ocean").explain(1)[0]
    assert best.cluster_id == 12
    assert (best.centroid, best.medoid, best.lexical) == pytest.approx((1, 1, 1))
    assert best.score == pytest.approx(1 + MEDOID_WEIGHT + LEXICAL_WEIGHT)


def test_cluster_without_medoids_is_judged_by_its_centroid() -> None:
    router = make_router(EYE[:1], (0,))
    scores = {score.cluster_id: score for score in router.route(toward(1, 1, 0, 0), "").explain(4)}
    assert scores[11].medoid is None
    assert scores[11].score == pytest.approx(scores[10].score)


def test_question_without_words_has_no_words_in_common() -> None:
    assert {score.lexical for score in make_router().route(EYE[0], "?!").explain(4)} == {0}


def test_same_question_has_the_same_route() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        vector = toward(*rng.standard_normal(4))
        first = make_router().route(vector, "bread gravity brick")
        again = make_router().route(vector, "brick bread gravity")
        assert first.best(4) == again.best(4)
        assert np.array_equal(first.score, again.score)


def test_equal_clusters_keep_their_order() -> None:
    assert make_router().route(toward(1, 1, 1, 1), "").best(4) == [10, 11, 12, 13]


def test_centroids_alone_know_no_words() -> None:
    assert make_router().by_centroid(toward(0.1, 0.2, 0.9, 0.3)) == [12, 13, 11, 10]


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
