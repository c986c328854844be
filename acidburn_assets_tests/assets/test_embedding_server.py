"""`D/embeddings` made by a server: the same asset, the same space, and no key anywhere."""

import dagster as dg
import numpy as np
import pytest

from acidburn_assets.adapters.encoder import load_encoder
from acidburn_assets.commands.materialize import materialize
from acidburn_assets.core import embeddings
from acidburn_assets.io_managers import versions
from acidburn_assets.io_managers.objects import Tables
from acidburn_assets.runtime import backends
from acidburn_assets_tests.adapters import embedding_service
from acidburn_assets_tests.worlds import World

KEY = dg.AssetKey(["notes", "embeddings"])
SECRET = "emb-s3cret-of-this-test"


def test_a_server_s_vectors_are_the_model_s_and_its_key_is_written_nowhere(
    blank_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    minilm = load_encoder("minilm", device="cpu", dtype="float32")
    with embedding_service.running(minilm, "minilm", "all-MiniLM-L6-v2") as service:
        service.key = SECRET
        monkeypatch.setenv("ACIDBURN_EMBEDDINGS_URL", service.url)
        monkeypatch.setenv("ACIDBURN_EMBEDDINGS_KEY", SECRET)
        monkeypatch.setenv("ACIDBURN_EMBEDDINGS_MODEL", "all-MiniLM-L6-v2")
        assert not materialize("notes", only={"plan", "chunks", "embeddings"}).failures
        n_requests = len(service.requests)
    backends._server_encoder.cache_clear()
    with blank_world.instance() as instance:
        figures = versions.figures_of(versions.require_materialization(instance, KEY, "000001"))
    assert (figures["device"], figures["dtype"]) == ("server", "server's")
    assert figures["model"] == minilm.card.fingerprint
    assert n_requests > 0
    store = blank_world.store
    texts = Tables(store, dg.AssetKey(["notes", "chunks"])).read("000001")["text"].to_pylist()
    stored = embeddings.matrix(Tables(store, KEY).read("000001")["embedding"])
    assert np.abs(stored - minilm.encode(texts, "document").vectors).max() < 1e-3
    files = [path for path in blank_world.folder.rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []

    # without the server the same shards are up to date: nothing is embedded again
    monkeypatch.delenv("ACIDBURN_EMBEDDINGS_URL")
    before = blank_world.snapshot()
    assert not materialize("notes", only={"embeddings"}).failures
    assert blank_world.snapshot().rewritten_since(before) == set()
