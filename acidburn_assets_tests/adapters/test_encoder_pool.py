import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from acidburn_assets.adapters.encoder import SentenceEncoder, load_encoder
from acidburn_assets.adapters.encoder_pool import EncoderPool, load_encoders
from acidburn_assets.core.errors import ModelError, ProcessLost
from acidburn_assets_tests.adapters import tiny_model

WINDOWS = [
    *(
        [f"a shard {window} of a dataset", *(f"row {row}" for row in range(window))]
        for window in range(9)
    ),
    [],
    [f"row {row}" for row in range(30)],
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.write(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def pool(folder: Path) -> Iterator[EncoderPool]:
    made = load_encoders(str(folder), device="cpu,cpu", dtype="float32")
    assert isinstance(made, EncoderPool)
    yield made
    made.close()


def test_several_devices_make_what_one_makes_in_the_same_order(
    folder: Path, pool: EncoderPool
) -> None:
    one = load_encoder(str(folder), device="cpu", dtype="float32")
    assert (pool.card, pool.device, pool.dtype) == (one.card, "cpu,cpu", "float32")
    assert pool.batch_tokens == one.batch_tokens
    own = {child.pid for child in psutil.Process().children()}
    alone = list(one.embed_iter(WINDOWS, "document"))
    together = list(pool.embed_iter(WINDOWS, "document"))
    assert len(together) == len(WINDOWS)
    for expected, encoded in zip(alone, together, strict=True):
        assert (encoded.vectors == expected.vectors).all()
        assert encoded.n_tokens == expected.n_tokens
        assert encoded.seconds > 0
    processes = {child.pid for child in psutil.Process().children()} - own
    list(pool.embed_iter(WINDOWS, "document"))
    assert processes <= {child.pid for child in psutil.Process().children()}  # they stay
    query = pool.encode(["a shard"], "query")
    assert np.array_equal(query.vectors, one.encode(["a shard"], "query").vectors)


def test_a_text_that_is_refused_is_refused_by_its_process_too(pool: EncoderPool) -> None:
    made = pool.embed_iter([["a shard"], ["shard " * 200]], "document")
    assert len(next(made).vectors) == 1
    with pytest.raises(ModelError, match="'tiny' reads 64"):
        next(made)


def test_a_device_whose_process_is_gone_is_told(pool: EncoderPool) -> None:
    own = {child.pid for child in psutil.Process().children()}
    made = pool.embed_iter(WINDOWS * 20, "document")
    next(made)
    victim = min({child.pid for child in psutil.Process().children()} - own)
    os.kill(victim, signal.SIGKILL)
    with pytest.raises(ProcessLost, match="one of 2 worker processes ended before its time"):
        list(made)


def test_one_device_needs_no_process(folder: Path) -> None:
    assert isinstance(load_encoders(str(folder), device="cpu"), SentenceEncoder)


@pytest.mark.parametrize("device", ["tpu", "cuda:x", "cpu,tpu"])
def test_a_device_that_nobody_knows_is_named(device: str) -> None:
    with pytest.raises(ModelError, match="set ACIDBURN_DEVICE to auto, cpu, mps, cuda"):
        load_encoders("never-asked-for", device=device)
