"""`D/embeddings`: a shard that is cut off goes on where its parts end."""

from collections.abc import Sequence

import dagster as dg
import pytest

from acidburn_assets.assets import embeddings as asset
from acidburn_assets.commands.materialize import materialize
from acidburn_assets.core import embeddings
from acidburn_assets.core.embeddings import Encoded, InputType
from acidburn_assets.core.errors import ConfigError, ModelError
from acidburn_assets.core.failures import kind_of
from acidburn_assets.io_managers import versions
from acidburn_assets.io_managers.objects import Tables
from acidburn_assets.resources import EncoderResource
from acidburn_assets.runtime import backends
from acidburn_assets_tests.fakes import FakeEncoder, FakeTokenizer
from acidburn_assets_tests.worlds import World

KEY = dg.AssetKey(["notes", "embeddings"])
OBJECT_KEY = "notes/embeddings/000001.parquet"


class Fragile(FakeEncoder):
    """Fails once, in the window that comes after some good ones of the second shard."""

    def __init__(self) -> None:
        super().__init__(batch_tokens=100)
        self.asked: list[str] = []
        self.fails_at: str = ""

    def encode(self, texts: Sequence[str], input_type: InputType) -> Encoded:
        if self.fails_at in texts:
            self.fails_at = ""
            raise RuntimeError("the device is gone")
        self.asked += texts
        return super().encode(texts, input_type)


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> Fragile:
    """The encoder of every run of the test."""
    fake = Fragile()
    monkeypatch.setenv("ACIDBURN_MODEL", "fake")
    monkeypatch.setattr(backends, "describe_model", lambda _: fake.card)
    monkeypatch.setattr(backends, "load_tokenizer", lambda _: FakeTokenizer())
    monkeypatch.setattr(backends, "load_encoder", lambda _: fake)
    monkeypatch.setattr(embeddings, "WINDOW_BATCHES", 1)
    return fake


def figures(world: World) -> dict[str, object]:
    """What the UI shows of the second shard."""
    with world.instance() as instance:
        record = versions.require_materialization(instance, KEY, "000001")
        return versions.figures_of(record)


def test_a_shard_that_is_cut_off_goes_on_where_its_parts_end(
    blank_world: World, encoder: Fragile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACIDBURN_PART_SECONDS", "0")
    assert not materialize("notes", only={"plan", "chunks"}).failures
    store = blank_world.store
    texts = Tables(store, dg.AssetKey(["notes", "chunks"])).read("000001")["text"].to_pylist()
    encoder.fails_at = texts[10]
    outcome = materialize("notes", only={"embeddings"})
    assert "the device is gone" in outcome.failures["notes/embeddings"]
    done = encoder.asked[-len(texts) :]
    assert store.head(OBJECT_KEY) is None
    left = [listed.key for listed in store.list("_parts/")]
    # of the first shard, which was stored, nothing is left
    assert left
    assert all(key.startswith("_parts/notes/embeddings/000001/") for key in left)

    encoder.asked.clear()
    assert not materialize("notes", only={"embeddings"}).failures
    n_resumed = len(texts) - len(encoder.asked)
    assert 0 < n_resumed <= 10
    assert encoder.asked == texts[n_resumed:]
    assert done[-n_resumed:] == texts[:n_resumed]
    assert list(store.list("_parts/")) == []
    resumed = figures(blank_world)
    assert (resumed["rows"], resumed["resumed_rows"]) == (len(texts), n_resumed)

    # and made in one go it is the same
    monkeypatch.setenv("ACIDBURN_PART_SECONDS", "60")
    encoder.asked.clear()
    assert not materialize("notes", only={"embeddings"}, is_forced=True).failures
    assert encoder.asked[-len(texts) :] == texts
    whole = figures(blank_world)
    assert (whole["resumed_rows"], whole["parts"]) == (0, 0)
    for name in ("sha256", "rows", "tokens", "truncated", "bytes"):
        assert whole[name] == resumed[name], name
    assert whole["tokens"] == FakeTokenizer().count(texts).sum()


def test_a_model_that_cannot_be_had_is_no_shard_s_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a shard's own failure it quarantined every shard after three tries."""

    def refuse(_: object) -> None:
        raise ModelError("no model 'nope'")

    monkeypatch.setattr(backends, "load_encoder", refuse)
    resource = EncoderResource(
        model="nope", revision="", device="cpu", dtype="auto", batch_tokens=0
    )
    with pytest.raises(ConfigError, match="no model 'nope'") as caught:
        asset._load(resource)
    assert kind_of(caught.value) == "held"
