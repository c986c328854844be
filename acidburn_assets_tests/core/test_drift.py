import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidburn_assets.core import drift
from acidburn_assets.core.cluster_model import ClusterModel, Coverage
from acidburn_assets.core.drift import cover, judge, new_shards, with_coverage
from acidburn_assets.core.errors import ModelError
from acidburn_assets_tests.core.cluster_samples import blobs, fitted_on, model_of


@pytest.fixture(scope="module")
def fitted() -> ClusterModel:
    """Two of three topics, and how well they hold their own sample."""
    vectors, truth = blobs((60, 40, 60), n_noise=10)
    known = truth != 2
    return with_coverage(model_of(vectors[known], truth[known]), vectors[known])


def topic(number: int, *, n: int) -> np.ndarray:
    """More vectors of one of the three topics."""
    vectors, truth = blobs((60, 40, 60))
    return vectors[truth == number][:n]


def test_a_sample_is_covered_but_for_its_own_noise(fitted: ClusterModel) -> None:
    coverage = fitted.meta.coverage
    assert coverage is not None
    assert coverage.n_vectors == 110
    assert coverage.weak_share == pytest.approx((10 + 5) / 110, abs=0.03)  # 95 % are within
    assert coverage.novel_share < 0.03
    assert coverage.distance == pytest.approx(0.035, abs=0.01)


def test_vectors_of_known_topics_are_covered_like_the_sample(fitted: ClusterModel) -> None:
    found = cover(topic(0, n=40), fitted, n_in_fit=40)
    assert found.weak_share < 0.2
    assert found.novel_share == 0


def test_a_dense_place_without_a_cluster_is_novel(fitted: ClusterModel) -> None:
    found = cover(topic(2, n=40), fitted, n_in_fit=40)
    assert found.weak_share > 0.9
    assert found.novel_share > 0.5


def test_scattered_vectors_are_weak_but_not_novel(fitted: ClusterModel) -> None:
    scattered, _ = blobs((), n_noise=40, seed=3)
    found = cover(scattered, fitted, n_in_fit=40)
    assert found.weak_share > 0.9
    assert found.novel_share < 0.2


def test_a_place_is_as_dense_as_a_fit_would_see_it(fitted: ClusterModel) -> None:
    """Four vectors that stand for four in a sample form no cluster of five; for forty they do."""
    few = np.tile(topic(2, n=1), (4, 1))
    sparse = fitted.meta.fitted_on.settings.model_copy(update={"min_samples": 20})
    meta = fitted.meta.model_copy(update={"fitted_on": fitted_on(settings=sparse)})
    model = ClusterModel(**{**vars(fitted), "meta": meta})
    assert cover(few, model, n_in_fit=4).novel_share == 0
    assert cover(few, model, n_in_fit=40).novel_share == 1


def test_nothing_covers_nothing(fitted: ClusterModel) -> None:
    found = cover(np.empty((0, 24), dtype=np.float32), fitted, n_in_fit=0)
    assert found == Coverage(n_vectors=0, weak_share=0, distance=None, novel_share=0)


def test_what_is_compared_is_bounded(fitted: ClusterModel, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = cover(topic(2, n=60), fitted, n_in_fit=60)
    monkeypatch.setattr(drift, "NOVEL_ROWS", 20)
    assert cover(topic(2, n=60), fitted, n_in_fit=60).novel_share == pytest.approx(
        whole.novel_share, abs=0.15
    )


LIKE_THE_SAMPLE = {"n_vectors": 100, "weak_share": 0.1, "distance": 0.4, "novel_share": 0.0}


@pytest.mark.parametrize(
    ("looked", "n_chunks", "n_new", "reason"),
    [
        ({}, 1100, 100, None),
        ({"weak_share": 0.2}, 1100, 100, None),  # a tenth of a tenth
        ({"weak_share": 0.8}, 1100, 100, "6.4% more of the pool is weak"),
        ({"weak_share": 0.8}, 1050, 50, None),
        ({"weak_share": 0.2}, 1100, 1100, "10.0% more of the pool is weak"),
        ({"novel_share": 0.3}, 1100, 100, "2.7% of the pool lies densely where no cluster is"),
        ({"distance": 0.8}, 1100, 100, "members lie 9% farther"),
        ({"distance": None}, 1100, 100, None),
        ({}, 2100, 1100, "2.1 times as large"),
        (None, 400, 0, "40% as large"),
        (None, 900, 0, None),
    ],
)
def test_a_refit_is_proposed_where_the_pool_is_no_longer_what_it_was(
    looked: dict[str, float | None] | None, n_chunks: int, n_new: int, reason: str | None
) -> None:
    vectors, truth = blobs()
    model = model_of(vectors, truth)
    meta = model.meta.model_copy(
        update={
            "coverage": Coverage.model_validate(LIKE_THE_SAMPLE),
            "fitted_on": fitted_on(n_chunks=1000),
        }
    )
    found = judge(
        ClusterModel(**{**vars(model), "meta": meta}),
        n_chunks=n_chunks,
        n_new=n_new,
        looked=None if looked is None else Coverage.model_validate({**LIKE_THE_SAMPLE, **looked}),
    )
    assert len(found.reasons) == (reason is not None)
    if reason is not None:
        assert reason in found.reasons[0]


@given(
    weak=st.floats(0, 1),
    novel=st.floats(0, 1),
    n_chunks=st.integers(1, 10**9),
    share=st.floats(0, 1),
)
def test_drift_is_bounded_by_the_share_that_is_new(
    weak: float, novel: float, n_chunks: int, share: float
) -> None:
    vectors, truth = blobs((10, 8))
    model = with_coverage(model_of(vectors, truth), vectors)
    looked = Coverage(n_vectors=9, weak_share=weak, distance=0.5, novel_share=novel)
    n_new = int(n_chunks * share)
    found = judge(model, n_chunks=n_chunks, n_new=n_new, looked=looked)
    assert abs(found.weak_excess) <= found.new_share + 1e-6
    assert abs(found.novel_mass) <= found.new_share + 1e-6


def test_a_model_that_does_not_tell_how_it_covered_its_sample_is_refused() -> None:
    with pytest.raises(ModelError, match="--force"):
        judge(model_of(*blobs()), n_chunks=1, n_new=0, looked=None)


def test_a_shard_is_known_by_its_content_whatever_it_is_called() -> None:
    known = fitted_on(shards={"papers/000000": "aa", "papers/000001": "bb"})
    assert new_shards({"papers/000000": "bb", "notes/000000": "cc"}, known) == ["notes/000000"]
