from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from acidburn_assets.core import cluster_model, schemas
from acidburn_assets.core.assignments import assign
from acidburn_assets.core.cluster_model import ClusterModel
from acidburn_assets.core.errors import ModelError, SchemaError
from acidburn_assets_tests.core.cluster_samples import blobs, id_array, model_of, random_ids


def made_bytes(batches: list[pa.RecordBatch]) -> bytes:
    table = pa.Table.from_batches(batches).combine_chunks()
    return b"".join(
        column.to_numpy().tobytes() for column in table.drop(["chunk_id"]).columns
    ) + b"".join(table["chunk_id"].to_pylist())


@pytest.fixture(scope="module")
def corpus() -> tuple[np.ndarray, ClusterModel]:
    """More clusters than a vector register is wide, and a dimension that no tile divides."""
    vectors, truth = blobs(tuple(range(10, 60)), dim=101, n_noise=400, seed=1)
    return vectors, model_of(vectors, truth)


def test_every_vector_gets_its_nearest_centroid(
    corpus: tuple[np.ndarray, ClusterModel],
) -> None:
    vectors, model = corpus
    ids = random_ids(len(vectors))
    made = assign(vectors, model, id_array(ids))
    wide = vectors.astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    cosines = wide @ model.centroids.astype(np.float64).T
    assert made.schema == schemas.ASSIGNMENTS
    assert made["cluster_id"].to_numpy().tolist() == cosines.argmax(axis=1).tolist()
    np.testing.assert_allclose(made["distance"], 1 - cosines.max(axis=1), atol=1e-7)
    assert made["chunk_id"].to_pylist() == [row.tobytes() for row in ids]


def test_a_vector_lies_in_the_cluster_of_its_nearest_cell() -> None:
    """One cluster is long: its far end is nearer to the other one's centroid than to its own."""
    angles = np.concatenate([np.linspace(0, 1.2, 40), np.full(10, 1.6)])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    labels = np.array([0] * 40 + [1] * 10)
    round_model = model_of(vectors, labels)
    ends = np.array([0.1, 0.6, 1.1], dtype=np.float32)
    cells = np.stack([np.cos(ends), np.sin(ends)], axis=1)
    long_model = replace(
        round_model,
        cell_centroids=np.concatenate([cells, round_model.centroids[1:]]),
        cell_clusters=np.array([0, 0, 0, 1], dtype=np.int32),
    )
    end = vectors[38:40]
    nearest, own = (assign(end, one, id_array(random_ids(2))) for one in (round_model, long_model))
    assert nearest["cluster_id"].to_pylist() == [1, 1]
    assert own["cluster_id"].to_pylist() == [0, 0]
    assert own["cell_id"].to_pylist() == [2, 2]
    distances = 1 - end.astype(np.float64) @ long_model.centroids[0].astype(np.float64)
    np.testing.assert_allclose(own["distance"], distances, atol=1e-6)


@pytest.mark.parametrize("n_rows", [1, 7, 64, 1000])
def test_batches_of_any_size_give_the_same_bytes(
    corpus: tuple[np.ndarray, ClusterModel], n_rows: int
) -> None:
    """A float32 matrix product may differ in its last bit with the number of rows."""
    vectors, model = corpus
    ids = id_array(random_ids(len(vectors)))
    parts = [
        assign(vectors[start : start + n_rows], model, ids[start : start + n_rows])
        for start in range(0, len(vectors), n_rows)
    ]
    assert made_bytes(parts) == made_bytes([assign(vectors, model, ids)])


def test_blocks_change_nothing(
    corpus: tuple[np.ndarray, ClusterModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors, model = corpus
    ids = id_array(random_ids(len(vectors)))
    whole = made_bytes([assign(vectors, model, ids)])
    monkeypatch.setattr(cluster_model, "BLOCK_VALUES", 999)
    assert made_bytes([assign(vectors, model, ids)]) == whole


def test_noise_is_what_lies_beyond_the_radius_and_is_weak(
    corpus: tuple[np.ndarray, ClusterModel],
) -> None:
    vectors, model = corpus
    made = assign(vectors, model, id_array(random_ids(len(vectors))))
    is_noise = made["is_noise"].to_numpy(zero_copy_only=False)
    radii = model.radii[made["cluster_id"].to_numpy()]
    strengths = made["strength"].to_numpy()
    np.testing.assert_array_equal(is_noise, made["distance"].to_numpy() > radii)
    assert is_noise[-400:].mean() > 0.9  # vectors in random directions
    assert is_noise[:-400].mean() == pytest.approx(0.05, abs=0.03)  # radius: 95 % of members
    assert strengths[is_noise].max() < 0.5 <= strengths[~is_noise].min()
    assert strengths.min() > 0


def test_a_centroid_itself_has_strength_one(corpus: tuple[np.ndarray, ClusterModel]) -> None:
    _, model = corpus
    made = assign(model.centroids, model, id_array(random_ids(len(model.centroids))))
    assert made["cluster_id"].to_numpy().tolist() == list(range(len(model.centroids)))
    np.testing.assert_allclose(made["strength"], 1.0, atol=1e-6)


def test_a_vector_between_two_centroids_goes_to_the_lower_id() -> None:
    vectors = np.array([[1, 0]] * 5 + [[0, 1]] * 4, dtype=np.float32)
    model = model_of(vectors, np.array([0] * 5 + [1] * 4))
    made = assign(np.array([[1, 1]], dtype=np.float32), model, id_array(random_ids(1)))
    assert made["cluster_id"].to_pylist() == [0]


def test_copies_of_a_text_are_members_of_their_own_cluster() -> None:
    vectors = np.repeat(blobs((1, 1), dim=384)[0], 8, axis=0)
    model = model_of(vectors, np.repeat([0, 1], 8))
    made = assign(vectors, model, id_array(random_ids(16)))
    assert made["is_noise"].to_pylist() == [False] * 16


def test_no_vector_gives_no_row(corpus: tuple[np.ndarray, ClusterModel]) -> None:
    vectors, model = corpus
    made = assign(vectors[:0], model, id_array(random_ids(0)))
    assert made.num_rows == 0
    assert made.schema == schemas.ASSIGNMENTS


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_a_vector_without_direction_names_its_row(
    corpus: tuple[np.ndarray, ClusterModel], value: float
) -> None:
    vectors, model = corpus
    broken = vectors[:5].copy()
    broken[3] = value
    with pytest.raises(ModelError, match="row 3 of 5"):
        assign(broken, model, id_array(random_ids(5)))


def test_vectors_of_another_model_are_refused(corpus: tuple[np.ndarray, ClusterModel]) -> None:
    vectors, model = corpus
    with pytest.raises(ModelError, match="dimension 101"):
        assign(vectors[:5, :50], model, id_array(random_ids(5)))


def test_ids_of_other_rows_are_refused(corpus: tuple[np.ndarray, ClusterModel]) -> None:
    vectors, model = corpus
    with pytest.raises(SchemaError, match="4 chunk ids"):
        assign(vectors[:5], model, id_array(random_ids(4)))
