"""Generations of a cluster model: which is the newest, and what stayed since an earlier one."""

from pathlib import Path

import dagster as dg
import numpy as np
import pytest

from acidburn_assets.adapters.object_store import ObjectStore, open_store
from acidburn_assets.core.cluster_model import ClusterModel
from acidburn_assets.core.errors import ObjectMissing
from acidburn_assets.io_managers import history
from acidburn_assets.io_managers.generations import Generations
from acidburn_assets_tests.core.cluster_samples import blobs, model_of, random_ids

KEY = dg.AssetKey(["science", "cluster_model"])
CURRENT = "science/cluster_model.npz"
VECTORS, TRUTH = blobs((60, 40, 20))


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store((tmp_path / "objects").as_uri())


def put(store: ObjectStore, model: ClusterModel) -> None:
    store.put_bytes(CURRENT, model.to_bytes())
    history.keep(store, KEY)


@pytest.fixture
def three(store: ObjectStore) -> list[ClusterModel]:
    """Generations, the last of them in use. In the second cluster 2 is another, in the third 1."""
    models: list[ClusterModel] = []
    for generation, replaced in enumerate((None, 2, 1)):
        vectors = VECTORS.copy()
        if replaced is not None:
            vectors[replaced == TRUTH] = np.roll(vectors[replaced == TRUTH], 7, axis=1)
        models.append(
            model_of(
                vectors,
                TRUTH,
                sample_ids=random_ids(len(TRUTH), seed=generation),
                previous=models[-1] if models else None,
            )
        )
        put(store, models[-1])
    return models


def newest(store: ObjectStore, *, model: str = "encoder-1", dim: int = 24) -> ClusterModel | None:
    return Generations(store, "science").newest(model=model, dim=dim)


def test_the_newest_is_the_one_in_use(store: ObjectStore, three: list[ClusterModel]) -> None:
    found = newest(store)
    assert found is not None
    assert found.content_version() == three[2].content_version()


@pytest.mark.parametrize("content", [None, b"garbage"])
def test_where_that_is_lost_it_is_the_newest_that_was_kept(
    store: ObjectStore, three: list[ClusterModel], content: bytes | None
) -> None:
    store.delete(CURRENT)
    if content is not None:
        store.put_bytes(CURRENT, content)
    found = newest(store)
    assert found is not None
    assert found.to_bytes() == three[2].to_bytes()


def test_a_model_of_another_encoder_is_no_predecessor(
    store: ObjectStore, three: list[ClusterModel]
) -> None:
    assert newest(store, model="encoder-2") is None
    assert newest(store, dim=32) is None
    store.put_bytes(CURRENT, b"of an encoder that was tried meanwhile")
    found = newest(store)
    assert found is not None
    assert found.meta.generation == 2


def test_a_pool_without_models_has_no_newest(store: ObjectStore) -> None:
    assert newest(store) is None


def test_what_stayed_is_what_every_generation_kept(
    store: ObjectStore, three: list[ClusterModel]
) -> None:
    generations = Generations(store, "science")
    first, second, third = three
    versions = [one.content_version() for one in three]
    assert generations.steady_since(third, versions[2]) == set(third.cluster_ids.tolist())
    assert generations.steady_since(third, versions[1]) == {0}
    assert generations.steady_since(second, versions[0]) == {0, 1}
    assert generations.steady_since(third, versions[0]) == {0}
    assert generations.steady_since(first, versions[2]) == set()
    assert generations.steady_since(third, "f" * 64) == set()


def test_nothing_stayed_since_a_generation_that_is_lost(
    store: ObjectStore, three: list[ClusterModel]
) -> None:
    first, second, third = three
    store.delete(history.kept_key(KEY, second.content_version()))
    generations = Generations(store, "science")
    assert generations.steady_since(third, first.content_version()) == set()
    with pytest.raises(ObjectMissing, match=second.content_version()):
        generations.read(second.content_version())
