import json
import subprocess
import sys
from importlib import import_module
from typing import Literal

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from acidburn_assets.adapters import clusterer
from acidburn_assets.adapters.encoder import load_encoder
from acidburn_assets.core.cluster_model import NOISE
from acidburn_assets.core.datasets import PoolSettings
from acidburn_assets.core.errors import ModelError
from acidburn_assets_tests.core.cluster_samples import blobs, model_of

Engine = Literal["graph_hdbscan", "hdbscan", "kmeans"]
ENGINES: tuple[Engine, ...] = ("graph_hdbscan", "hdbscan", "kmeans")


def settings_of(engine: Engine, **changed: int) -> PoolSettings:
    sizes = {"min_cluster_size": 10, "min_samples": 5, "n_clusters": 4} | changed
    return PoolSettings(engine=engine, **sizes)


@pytest.fixture(scope="module")
def four_blobs() -> tuple[np.ndarray, np.ndarray]:
    return blobs((120, 90, 70, 40), dim=48)


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_finds_what_is_there_largest_first(
    four_blobs: tuple[np.ndarray, np.ndarray], engine: Engine
) -> None:
    vectors, truth = four_blobs
    fit = clusterer.fit(vectors, settings_of(engine))
    members = fit.labels != NOISE
    assert members.mean() > 0.9
    np.testing.assert_array_equal(fit.labels[members], truth[members])
    assert fit.labels.dtype == np.int32
    assert fit.strengths[members].min() > 0
    assert fit.strengths.max() <= 1
    assert fit.strengths[~members].max(initial=0) == 0
    assert fit.fallback_reason == ""
    assert fit.linkage.shape == (3, 4)
    assert "numpy" in fit.versions


@pytest.mark.parametrize("engine", ENGINES)
def test_the_same_vectors_give_the_same_bytes(
    four_blobs: tuple[np.ndarray, np.ndarray], engine: Engine
) -> None:
    vectors, _ = four_blobs
    one, other = (clusterer.fit(vectors, settings_of(engine)) for _ in range(2))
    for name in ("labels", "strengths", "persistence", "linkage", "parents", "group_parents"):
        assert getattr(one, name).tobytes() == getattr(other, name).tobytes(), name


def test_noise_of_the_graph_has_no_strength() -> None:
    """Its neighbours are as near as anyone's in a graph: what is noise there lies between."""
    vectors, _ = blobs((150, 150, 150), dim=48, n_noise=60)
    fit = clusterer.fit(vectors, settings_of("graph_hdbscan"))
    is_noise = fit.labels == NOISE
    assert 0 < is_noise.mean() < 0.3
    assert fit.strengths[is_noise].max() == 0
    assert fit.strengths[~is_noise].min() > 0


def test_the_default_agrees_with_the_reference_on_real_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Measured: .49. Beginnings of docstrings have no sharp clusters: two seeds of the reference
    agree at .63 to .67 on 2,500 longer ones."""
    evaluation = import_module("benchmarks.evaluation")
    texts = [document.text[:120] for document in evaluation.documents()[:1_500]]
    vectors = load_encoder("minilm", device="cpu").encode(texts, "document").vectors
    reference = clusterer.fit(vectors, settings_of("hdbscan")).labels
    assert reference.max() > 10
    exact = clusterer.fit(vectors, settings_of("graph_hdbscan")).labels
    np.testing.assert_array_equal(exact, reference)
    monkeypatch.setattr(clusterer, "EXACT_ROWS", 1_000)
    descended = clusterer.fit(vectors, settings_of("graph_hdbscan")).labels
    assert not np.array_equal(descended, reference)
    assert adjusted_rand_score(reference, descended) > 0.4


def test_the_seed_of_the_pool_moves_the_layout() -> None:
    vectors, _ = blobs((200, 200), dim=16, n_noise=300)
    one, other = (
        clusterer.fit(vectors, settings_of("graph_hdbscan", seed=seed)).strengths for seed in (0, 1)
    )
    assert not np.array_equal(one, other)


SCRIPT = """
import hashlib, importlib, json, pkgutil
import numpy as np
import evoc
from numba.core.dispatcher import Dispatcher
from acidburn_assets.adapters import clusterer
from acidburn_assets.core.datasets import PoolSettings
from acidburn_assets_tests.core.cluster_samples import blobs

def compiled():
    names = [module.name for module in pkgutil.iter_modules(evoc.__path__)]
    modules = [importlib.import_module(f"evoc.{name}") for name in names]
    return {
        f"{module.__name__}.{name} {signature}"
        for module in modules
        for name, function in vars(module).items() if isinstance(function, Dispatcher)
        for signature in function.signatures
    }

clusterer.warm()
warmed = compiled()
digest = hashlib.sha256()
vectors, _ = blobs((900, 700, 500, 40, 30), dim=48, n_noise=900)
vectors[50:90] = vectors[50]  # copies of one text
for engine in ("graph_hdbscan", "hdbscan", "kmeans"):
    fit = clusterer.fit(vectors, PoolSettings(engine=engine, min_cluster_size=10, min_samples=5))
    digest.update(fit.labels.tobytes() + fit.strengths.tobytes() + fit.linkage.tobytes())
clusterer.fit(vectors[::40], PoolSettings(min_cluster_size=5, min_samples=2))
clusterer.EXACT_ROWS = 1_000
fit = clusterer.fit(vectors, PoolSettings(min_cluster_size=10, min_samples=5))
digest.update(fit.labels.tobytes() + fit.strengths.tobytes())
print(json.dumps({"digest": digest.hexdigest(), "late": sorted(compiled() - warmed)}))
"""


def test_threads_change_no_bit_and_a_warm_engine_compiles_nothing() -> None:
    """Sums of several threads differ in their last bit."""
    found = []
    for n_threads in ("1", "2"):
        variables = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        threads = dict.fromkeys(variables, n_threads)
        python = [sys.executable, "-c", SCRIPT]
        root = str(clusterer.__file__).split("acidburn_assets")[0]
        made = subprocess.run(
            python, env={"PATH": "", "PYTHONPATH": root, **threads}, capture_output=True, text=True
        )
        assert made.returncode == 0, made.stderr
        found.append(json.loads(made.stdout))
    assert found[0]["digest"] == found[1]["digest"]
    assert found[0]["late"] == []


@pytest.mark.parametrize(
    ("vectors", "engine", "reason"),
    [
        (blobs((8,))[0], "graph_hdbscan", "8 vectors are fewer than the 11"),
        (blobs((1,))[0], "hdbscan", "all 1 vectors are the same"),
        (np.tile(blobs((1,))[0], (200, 1)), "graph_hdbscan", "all 200 vectors are the same"),
        (np.eye(70, dtype=np.float32), "hdbscan", "all 70 vectors are noise"),
    ],
)
def test_without_a_cluster_one_holds_everything_and_says_why(
    vectors: np.ndarray, engine: Engine, reason: str
) -> None:
    fit = clusterer.fit(vectors, settings_of(engine))
    assert reason in fit.fallback_reason
    assert fit.labels.tolist() == [0] * len(vectors)
    assert fit.parents.tolist() == [-1]
    assert np.isnan(fit.persistence).all()
    assert 0 < fit.strengths.min() <= fit.strengths.max() <= 1


@pytest.mark.parametrize("n_each", [4, 15, 31, 32])
def test_few_vectors_are_clustered_too(n_each: int) -> None:
    vectors, truth = blobs((n_each, n_each), dim=16)
    fit = clusterer.fit(vectors, PoolSettings(min_cluster_size=3, min_samples=1))
    members = fit.labels != NOISE
    assert members.mean() > 0.6
    assert not set(fit.labels[members & (truth == 0)]) & set(fit.labels[members & (truth == 1)])


@pytest.mark.parametrize("engine", ENGINES)
def test_two_texts_copied_a_hundred_times_are_two_clusters(engine: Engine) -> None:
    vectors = np.repeat(blobs((1, 1), dim=48)[0], 100, axis=0)
    fit = clusterer.fit(vectors, settings_of(engine))
    for cluster, copies in enumerate((fit.labels[:100], fit.labels[100:])):
        assert np.mean(copies == cluster) > 0.9 or np.mean(copies == 1 - cluster) > 0.9
    assert fit.labels.max() == 1


def test_kmeans_chooses_a_number_of_clusters_by_the_rule_of_thumb() -> None:
    vectors, _ = blobs((200,), dim=16)
    fit = clusterer.fit(vectors, PoolSettings(engine="kmeans"))
    assert fit.labels.max() + 1 == 10  # sqrt(200 / 2)


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_vector_without_direction_names_its_row(value: float) -> None:
    vectors, _ = blobs()
    vectors[7] = value
    with pytest.raises(ModelError, match="row 7 of 120"):
        clusterer.fit(vectors, settings_of("kmeans"))


def test_no_vector_at_all_is_refused() -> None:
    with pytest.raises(ModelError, match="no vector to cluster"):
        clusterer.fit(np.empty((0, 24), dtype=np.float32), settings_of("kmeans"))


def test_neighboring_clusters_share_a_parent() -> None:
    random = np.random.default_rng(0)
    continents = np.repeat(random.normal(size=(3, 32)), 3, axis=0)
    cities = continents + 0.3 * random.normal(size=(9, 32))
    truth = np.repeat(np.arange(9), 20)
    vectors = cities[truth] + 0.05 * random.normal(size=(180, 32))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    fit = clusterer.fit(vectors, settings_of("kmeans", n_clusters=9))
    continent_of = {int(fit.labels[at]): int(truth[at]) // 3 for at in range(180)}
    groups: dict[int, set[int]] = {}
    for cluster, parent in enumerate(fit.parents.tolist()):
        groups.setdefault(parent, set()).add(continent_of[cluster])
    assert sorted(groups) == [0, 1, 2]
    assert all(len(continents_in) == 1 for continents_in in groups.values())
    assert fit.parents[0] == 0


def test_few_clusters_have_no_level_above_them(four_blobs: tuple[np.ndarray, np.ndarray]) -> None:
    vectors, truth = four_blobs
    few = clusterer.fit(vectors[truth < 3], settings_of("kmeans", n_clusters=3))
    assert few.parents.tolist() == [-1, -1, -1]
    assert len(few.group_parents) == 0
    assert clusterer.fit(vectors, settings_of("kmeans")).group_parents.tolist() == [-1, -1]


def test_a_fit_becomes_a_model_whose_bytes_repeat(
    four_blobs: tuple[np.ndarray, np.ndarray],
) -> None:
    vectors, _ = four_blobs
    labels = [clusterer.fit(vectors, settings_of("graph_hdbscan")).labels for _ in range(2)]
    one, other = (model_of(vectors, found).to_bytes() for found in labels)
    assert one == other
