import io
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidburn_assets.core import cluster_model
from acidburn_assets.core.cluster_model import (
    MIGRATION,
    NOISE,
    RADIUS_FLOOR,
    ClusterModel,
    Descent,
    rank_clusters,
    row_cosines,
    sample_rows,
    strength,
    unit_centroids,
)
from acidburn_assets.core.errors import ConfigError, ModelError, SchemaError
from acidburn_assets_tests.core.cluster_samples import (
    blobs,
    fit_of,
    fitted_on,
    model_of,
    random_ids,
)

SHARD_SIZES = st.dictionaries(
    st.sampled_from([f"d/{index:06d}" for index in range(8)]), st.integers(0, 60)
)


@pytest.mark.parametrize(
    ("sizes", "limit", "expected"),
    [
        ({"d/0": 10, "d/1": 10}, 6, {"d/0": 3, "d/1": 3}),
        ({"d/0": 90, "d/1": 10}, 10, {"d/0": 9, "d/1": 1}),
        ({"d/0": 5, "d/1": 5, "d/2": 5}, 4, {"d/0": 2, "d/1": 1, "d/2": 1}),  # ties by name
        ({"d/0": 3, "d/1": 0}, 100, {"d/0": 3}),
        ({}, 5, {}),
    ],
)
def test_each_shard_gives_rows_in_proportion(
    sizes: dict[str, int], limit: int, expected: dict[str, int]
) -> None:
    chosen = sample_rows(sizes, limit=limit, seed=0)
    assert {shard: len(rows) for shard, rows in chosen.items()} == expected


@given(sizes=SHARD_SIZES, limit=st.integers(1, 200), seed=st.integers(0, 5))
def test_a_sample_has_its_size_and_no_row_twice(
    sizes: dict[str, int], limit: int, seed: int
) -> None:
    chosen = sample_rows(sizes, limit=limit, seed=seed)
    n_all = sum(sizes.values())
    assert sum(map(len, chosen.values())) == min(limit, n_all)
    for shard, rows in chosen.items():
        assert (np.diff(rows) > 0).all()
        assert 0 <= rows[0] <= rows[-1] < sizes[shard]
        assert abs(len(rows) - sizes[shard] * min(limit, n_all) / n_all) < 1


def test_another_shard_takes_rows_away_but_brings_no_other_ones() -> None:
    before = sample_rows({"d/0": 100, "d/1": 100}, limit=60, seed=3)
    after = sample_rows({"d/0": 100, "d/1": 100, "d/2": 100}, limit=60, seed=3)
    for shard in before:
        assert set(after[shard]) < set(before[shard])


def test_seed_and_shard_decide_which_rows() -> None:
    one = sample_rows({"d/0": 1000, "d/1": 1000}, limit=100, seed=0)
    other = sample_rows({"d/0": 1000, "d/1": 1000}, limit=100, seed=1)
    assert not np.array_equal(one["d/0"], other["d/0"])
    assert not np.array_equal(one["d/0"], one["d/1"])


def test_sampled_rows_stay_the_same_for_ever() -> None:
    """A numpy generator may change its stream in any release; pools must not be refitted for it."""
    assert sample_rows({"d/000000": 1000}, limit=5, seed=0)["d/000000"].tolist() == [
        *(151, 281, 404, 633, 716)
    ]


def test_no_row_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match="sample_rows"):
        sample_rows({"d/0": 3}, limit=0, seed=0)


def test_a_model_survives_its_bytes() -> None:
    vectors, truth = blobs(n_noise=10)
    model = model_of(vectors, truth)
    read = ClusterModel.from_bytes(model.to_bytes(), key="science/cluster_model.npz")
    assert read.meta == model.meta
    assert read.to_bytes() == model.to_bytes()
    np.testing.assert_array_equal(read.sample_labels, truth)


def test_bytes_hold_no_date_and_no_pickle() -> None:
    content = model_of(*blobs()).to_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as members:
        assert {member.date_time for member in members.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        for name in members.namelist():
            np.lib.format.read_array(io.BytesIO(members.read(name)), allow_pickle=False)


@pytest.mark.parametrize("content", [b"", b"no model", b"PK\x03\x04 broken"])
def test_bytes_that_are_no_model_name_their_key(content: bytes) -> None:
    with pytest.raises(SchemaError, match=r"'p/cluster_model\.npz' is not a cluster model"):
        ClusterModel.from_bytes(content, key="p/cluster_model.npz")


def test_a_model_of_pickled_objects_is_refused() -> None:
    content = io.BytesIO()
    np.savez(content, centroids=np.array([{"a": 1}], dtype=object))
    with pytest.raises(SchemaError, match="not a cluster model"):
        ClusterModel.from_bytes(content.getvalue(), key="k")


@given(data=st.data())
def test_a_damaged_model_is_never_read_as_another(data: st.DataObject) -> None:
    content = model_of(*blobs((4, 3), dim=4)).to_bytes()
    at = data.draw(st.integers(0, len(content) - 1))
    damaged = bytearray(content)
    damaged[at] ^= data.draw(st.integers(1, 255))
    for broken in (bytes(damaged), content[:at]):
        try:
            read = ClusterModel.from_bytes(broken, key="k")
        except SchemaError:
            continue
        assert read.to_bytes() == content  # a byte that no reader looks at


@pytest.mark.parametrize(
    ("array", "wrong", "reason"),
    [
        ("radii", np.ones(7, dtype=np.float32), "radii is"),
        ("sample_labels", np.zeros(120), "sample_labels is float64"),
        ("centroids", np.ones((3, 24), dtype=np.float32), "unit length"),
        ("radii", np.zeros(3, dtype=np.float32), "radius"),
        ("cluster_ids", np.array([0, 2, 1], dtype=np.int32), "cluster ids"),
        (
            "cluster_ids",
            np.array([0, 1, 3], dtype=np.int32),
            "from 0 to below 3",
        ),
        ("migration", np.zeros(1), "migration is float64"),
        ("migration", np.full(1, 9, dtype=MIGRATION), "migration table"),
    ],
)
def test_arrays_that_do_not_fit_are_named(array: str, wrong: np.ndarray, reason: str) -> None:
    with np.load(io.BytesIO(model_of(*blobs()).to_bytes()), allow_pickle=False) as members:
        arrays = {**members, array: wrong}
    content = io.BytesIO()
    np.savez(content, **arrays)
    with pytest.raises(SchemaError, match=reason):
        ClusterModel.from_bytes(content.getvalue(), key="k")


def test_an_array_that_is_missing_is_named() -> None:
    with np.load(io.BytesIO(model_of(*blobs()).to_bytes()), allow_pickle=False) as members:
        arrays = {name: array for name, array in members.items() if name != "parents"}
    content = io.BytesIO()
    np.savez(content, **arrays)
    with pytest.raises(SchemaError, match="parents"):
        ClusterModel.from_bytes(content.getvalue(), key="k")


def test_clusters_are_numbered_by_size_whatever_the_engine_called_them() -> None:
    vectors, truth = blobs((20, 60, 40), n_noise=5)
    ranked, old = rank_clusters(truth, vectors)
    assert np.bincount(ranked[ranked >= 0]).tolist() == [60, 40, 20]
    assert old.tolist() == [1, 2, 0]
    renamed = np.array([7, 3, 5, NOISE])[truth]
    again, _ = rank_clusters(renamed, vectors)
    np.testing.assert_array_equal(again, ranked)


def test_clusters_of_one_size_are_numbered_by_their_centroids() -> None:
    vectors, truth = blobs((30, 30, 30))
    ranked, _ = rank_clusters(truth, vectors)
    again, _ = rank_clusters(2 - truth, vectors)
    np.testing.assert_array_equal(again, ranked)


def test_a_model_sums_its_fit_up() -> None:
    vectors, truth = blobs((60, 40, 20), n_noise=30)
    model = model_of(vectors, truth)
    assert model.sizes.tolist() == [60, 40, 20]
    assert model.meta.n_clusters == 3
    assert model.meta.n_sample == 150
    assert model.meta.noise_share == 0.2
    assert model.meta.persistence == 0.5
    assert model.meta.separation is not None
    assert model.meta.separation > 0.3  # the directions are random, the spread is small
    for cluster in range(3):
        distances = 1 - vectors[truth == cluster].astype(np.float64) @ model.centroids[cluster]
        share_within = np.mean(distances <= model.radii[cluster] + 1e-3)
        assert share_within == pytest.approx(0.95, abs=0.03)


def test_separation_is_the_margin_to_the_nearest_other_centroid() -> None:
    vectors = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], dtype=np.float32)
    model = model_of(vectors, np.array([0, 0, 1, 1]))
    assert model.meta.separation == 1.0


def test_one_cluster_has_no_separation() -> None:
    vectors, truth = blobs((30,))
    assert model_of(vectors, truth).meta.separation is None


def test_copies_of_one_text_have_a_radius_that_holds_them() -> None:
    vectors = np.tile(blobs((1,))[0], (9, 1))
    model = model_of(vectors, np.zeros(9, dtype=np.int32))
    assert model.radii == pytest.approx([RADIUS_FLOOR])


def test_members_that_cancel_out_are_refused() -> None:
    vectors = np.array([[1, 0], [-1, 0]], dtype=np.float32)
    with pytest.raises(ModelError, match="cancel out"):
        unit_centroids(vectors, np.zeros(2, dtype=np.int32))


def test_ids_of_other_rows_are_refused() -> None:
    vectors, truth = blobs()
    model = model_of(vectors, truth)
    with pytest.raises(SchemaError, match="chunk ids"):
        cluster_model.summarize(
            fit_of(truth, vectors),
            vectors,
            random_ids(3),
            pool="p",
            fitted_on=model.meta.fitted_on,
        )


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, truth = blobs(n_noise=10)
    whole = model_of(vectors, truth)
    monkeypatch.setattr(cluster_model, "BLOCK_VALUES", 100)
    assert model_of(vectors, truth).to_bytes() == whole.to_bytes()


def test_strength_is_one_at_the_centroid_and_half_at_the_radius() -> None:
    distances = np.array([0.0, 0.2, 0.6])
    assert strength(distances, np.full(3, 0.2)).tolist() == pytest.approx([1.0, 0.5, 0.25])


def test_a_row_has_its_cosine_whatever_rows_stand_beside_it() -> None:
    vectors, _ = blobs((500,), dim=384)
    right = np.roll(vectors, 1, axis=0)
    whole = row_cosines(vectors, right)
    alone = [row_cosines(vectors[[at]], right[[at]])[0] for at in range(len(vectors))]
    assert whole.tolist() == alone


def test_what_there_is_of_clusters_stands_in_the_order_of_their_ids() -> None:
    vectors, truth = blobs((60, 40, 20), n_noise=5)
    fit = replace(
        fit_of(truth, vectors, n_cells_each=2),
        persistence=np.array([0.6, 0.4, 0.2], dtype=np.float32),
        parents=np.array([0, 1, 1], dtype=np.int32),
        group_parents=np.array([-1, -1], dtype=np.int32),
        linkage=np.array([[1, 2, 0.3, 2], [0, 3, 0.9, 3]]),
    )
    ids = random_ids(len(vectors))
    descent = Descent(1, "ef" * 32, np.array([4, 9, 2]), 10, np.empty(0, MIGRATION))
    plain, moved = (
        cluster_model.summarize(fit, vectors, ids, pool="p", fitted_on=fitted_on(), descent=one)
        for one in (None, descent)
    )
    was = [2, 0, 1]  # the row that each had in the order of the fit
    assert moved.cluster_ids.tolist() == [2, 4, 9]
    for name in ("centroids", "radii", "sizes", "persistence", "parents"):
        np.testing.assert_array_equal(getattr(moved, name), getattr(plain, name)[was])
    np.testing.assert_array_equal(moved.sample_labels, np.array([1, 2, 0, NOISE])[truth])
    assert moved.cell_clusters.tolist() == [0, 0, 1, 1, 2, 2]
    np.testing.assert_array_equal(moved.cell_centroids, plain.cell_centroids[[4, 5, 0, 1, 2, 3]])
    # rows 1 and 2 of the fit, joined first, are rows 2 and 0 now
    assert moved.linkage.tolist() == [[0, 2, 0.3, 2], [1, 3, 0.9, 3]]
    read = ClusterModel.from_bytes(moved.to_bytes(), key="k")
    assert (read.meta.generation, read.meta.previous, read.meta.next_id) == (1, "ef" * 32, 10)
