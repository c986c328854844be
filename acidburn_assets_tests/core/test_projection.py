import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidburn_assets.core import schemas
from acidburn_assets.core.cluster_model import sample_rows
from acidburn_assets.core.errors import SchemaError
from acidburn_assets.core.projection import (
    HUES,
    MAP_POINTS,
    Box,
    anchors,
    choose_points,
    far_apart_hues,
    make_table,
    place_labels,
)
from acidburn_assets_tests.core.cluster_samples import id_array, random_ids

SIDES = st.floats(1, 300)
BOXES = st.lists(st.builds(Box, st.floats(0, 900), st.floats(0, 600), SIDES, SIDES), max_size=12)


def assignments(n: int) -> pa.Table:
    columns = {
        "chunk_id": id_array(random_ids(n)),
        "cluster_id": np.arange(n, dtype=np.int32) % 3,
        "cell_id": np.arange(n, dtype=np.int32) % 6,
        "strength": np.ones(n, dtype=np.float32),
        "distance": np.zeros(n, dtype=np.float32),
        "is_noise": np.arange(n) % 2 == 0,
    }
    return pa.table(columns, schema=schemas.ASSIGNMENTS)


def test_a_map_is_bounded_and_not_drawn_from_the_fitted_rows() -> None:
    counts = {"a/000000": 160_000, "b/000000": 40_000}
    chosen = choose_points(counts, seed=0)
    assert sum(map(len, chosen.values())) == MAP_POINTS
    fitted = sample_rows(counts, limit=MAP_POINTS, seed=0)
    shared = np.intersect1d(chosen["a/000000"], fitted["a/000000"])
    assert len(shared) < len(chosen["a/000000"]) / 4


def test_rows_of_a_map_name_their_shard() -> None:
    chosen = {"a/000000": np.array([1, 4]), "b/000007": np.array([0])}
    points = np.arange(6, dtype=np.float32).reshape(3, 2)
    table = make_table(points, assignments(3), chosen)
    assert table.schema == schemas.PROJECTION
    assert table["dataset"].to_pylist() == ["a", "a", "b"]
    assert table["shard"].to_pylist() == ["000000", "000000", "000007"]
    assert table["x"].to_pylist() == [0.0, 2.0, 4.0]
    assert table["y"].to_pylist() == [1.0, 3.0, 5.0]
    assert table["cluster_id"].to_pylist() == [0, 1, 2]


def test_points_of_other_rows_are_refused() -> None:
    with pytest.raises(SchemaError, match="2 rows were chosen"):
        make_table(np.zeros((3, 2)), assignments(3), {"a/000000": np.array([1, 4])})


def test_a_label_stands_at_a_point_of_its_own_cluster() -> None:
    """The median of a ring is its empty middle, where another cluster may lie."""
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    ring = np.column_stack([np.cos(angles), np.sin(angles)])
    middle = np.zeros((5, 2))
    far = np.full((60, 2), 9.0)
    points = np.concatenate([ring, middle, far]).astype(np.float32)
    clusters = np.repeat([0, 1, 1], [40, 5, 60]).astype(np.int32)
    places = anchors(points, clusters, np.arange(len(points)) >= 45)
    assert np.hypot(*places[0]) == pytest.approx(1.0)
    assert places[1] == (0.0, 0.0)
    assert list(places) == [0, 1]  # by members on the map; noise is not counted


def test_anchors_come_largest_first() -> None:
    clusters = np.repeat([4, 2, 7], [3, 9, 3]).astype(np.int32)
    places = anchors(np.zeros((15, 2), dtype=np.float32), clusters, np.zeros(15, dtype=bool))
    assert list(places) == [2, 4, 7]


def test_a_map_of_noise_has_no_anchor() -> None:
    points = np.zeros((3, 2), dtype=np.float32)
    assert anchors(points, np.zeros(3, dtype=np.int32), np.ones(3, dtype=bool)) == {}


def test_hues_repeat_only_far_apart() -> None:
    places = {cluster: (float(cluster), 0.0) for cluster in range(40)}
    hues = far_apart_hues(places)
    assert set(hues.values()) == set(range(len(HUES)))
    for cluster in range(39):
        assert hues[cluster] != hues[cluster + 1]


def test_no_place_has_no_hue() -> None:
    assert far_apart_hues({}) == {}


@given(boxes=BOXES)
def test_placed_labels_never_overlap_and_stay_inside(boxes: list[Box]) -> None:
    placed = list(place_labels(dict(enumerate(boxes)), width=900, height=600, limit=25).values())
    for index, box in enumerate(placed):
        assert box.is_inside(900, 600)
        assert not any(box.overlaps(other) for other in placed[:index])


def test_a_free_label_stands_where_it_belongs() -> None:
    box = Box(450, 300, 80, 12)
    assert place_labels({3: box}, width=900, height=600, limit=25) == {3: box}


def test_the_second_of_two_labels_moves_and_a_third_without_room_is_left_out() -> None:
    box = Box(50, 20, 100, 12)
    placed = place_labels(dict.fromkeys(range(9), box), width=100, height=40, limit=25)
    assert placed == {0: box, 1: box._replace(y=32), 2: box._replace(y=8)}


def test_no_more_labels_than_wanted_are_placed() -> None:
    wanted = {cluster: Box(450, 20 + 30 * cluster, 40, 12) for cluster in range(10)}
    assert list(place_labels(wanted, width=900, height=600, limit=4)) == [0, 1, 2, 3]
