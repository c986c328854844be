"""A pool of real text to which a tenth is added: of its clusters nearly all are who they were.

Passages of the documentation that every Python carries, embedded by the real encoder and clustered
by the real engine.
"""

from importlib import import_module
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from acidburn_assets.adapters.encoder import load_encoder
from acidburn_assets.adapters.tokenizer import load_tokenizer
from acidburn_assets.core.datasets import PoolSettings

evaluation, refit = (import_module(f"benchmarks.{name}") for name in ("evaluation", "refit"))

N_PASSAGES = 2_200
SETTINGS = PoolSettings(min_cluster_size=15, min_samples=5)


@pytest.fixture(scope="module")
def passages() -> pa.Table:
    """Short ones, which are quick to embed."""
    table: pa.Table = evaluation.chunks(load_tokenizer("minilm"), N_PASSAGES, target_tokens=64)
    return table


@pytest.fixture(scope="module")
def vectors(passages: pa.Table) -> np.ndarray:
    encoder = load_encoder("minilm", device="cpu")
    made = encoder.encode(passages["text"].to_pylist(), "document").vectors
    return np.asarray(made.astype(np.float16).astype(np.float32))


@pytest.fixture(scope="module")
def grown(vectors: np.ndarray) -> Any:
    """A tenth of the same kind was added."""
    order = np.random.default_rng(0).permutation(len(vectors))
    return refit.fit_anew(vectors, order < len(vectors) // 11, SETTINGS)


def test_a_tenth_more_of_the_same_asks_for_no_refit_and_so_for_no_label(grown: Any) -> None:
    assert grown.found.new_share == pytest.approx(1 / 11, abs=0.001)
    assert grown.found.reasons == ()


def test_a_refit_after_a_tenth_more_labels_less_than_a_fifth_of_the_clusters_again(
    grown: Any,
) -> None:
    assert grown.after.meta.n_clusters >= 15
    assert grown.changed_share < 0.2
    ids = set(grown.before.cluster_ids.tolist())
    assert len(ids & set(grown.after.cluster_ids.tolist())) > 0.8 * len(ids)


def test_a_tenth_on_other_topics_asks_for_a_refit(passages: pa.Table, vectors: np.ndarray) -> None:
    of_numpy = np.array(["numpy" in text.casefold() for text in passages["text"].to_pylist()])
    found = refit.fit_anew(vectors, of_numpy, SETTINGS).found
    assert found.new_share > 0.05
    assert found.novel_mass + found.weak_excess > 0.03
    assert found.reasons
