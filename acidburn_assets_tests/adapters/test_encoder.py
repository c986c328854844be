import gc
import hashlib
import shutil
import socket
import time
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from acidburn_assets.adapters import cpu_products, encoder, models, packing
from acidburn_assets.adapters.encoder import SentenceEncoder
from acidburn_assets.core import embeddings
from acidburn_assets.core.embeddings import ModelCard
from acidburn_assets.core.errors import ConfigError, ModelError, ProcessLost
from acidburn_assets_tests import fakes
from acidburn_assets_tests.adapters import tiny_model

TEXTS = [
    "The cat sat on the mat.",
    "A kitten was lying on the rug.",
    "Quarterly revenue grew by a tenth, driven by cloud services.",
    "Sales rose ten percent over the quarter thanks to hosted software.",
    "def add(a, b):\n    return a + b",
    "cat",
    *(f"Paragraph {n} is about topic {n % 7}. " * (n % 5 + 1) for n in range(15)),
]


@pytest.fixture(scope="module")
def minilm() -> SentenceEncoder:
    return encoder.load_encoder("minilm", device="cpu", dtype="float32", batch_tokens=512)


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.write(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def tiny(tiny_folder: Path) -> SentenceEncoder:
    return encoder.load_encoder(str(tiny_folder), device="cpu", dtype="float32")


@pytest.fixture
def cpu_with_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    # more CPUs can compute in it, slowly; what is tested is the choice
    if not cpu_products.can_use_bfloat16():
        pytest.skip("this CPU cannot compute in bfloat16")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})


@pytest.fixture
def cpu_without_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)


def reference(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """As sentence-transformers makes them, padded and in float32."""
    from sentence_transformers import SentenceTransformer

    vectors = SentenceTransformer(str(folder), device="cpu").encode(list(texts))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def rounded(vectors: np.ndarray) -> np.ndarray:
    return embeddings.matrix(embeddings.to_storage(vectors))


def test_related_texts_are_nearer_than_unrelated_ones(minilm: SentenceEncoder) -> None:
    vectors = minilm.encode(TEXTS[:5], "document").vectors
    cosines = vectors @ vectors.T
    assert cosines[0, 1] > 0.5 > 0.2 > cosines[0, 2:].max()
    assert cosines[2, 3] > 0.5 > 0.2 > cosines[2, [0, 1, 4]].max()


def test_vectors_are_of_unit_length_in_the_order_of_the_texts(minilm: SentenceEncoder) -> None:
    encoded = minilm.encode(TEXTS, "document")
    assert encoded.vectors.shape == (len(TEXTS), 384)
    assert encoded.vectors.dtype == np.float32
    assert np.abs(np.linalg.norm(encoded.vectors, axis=1) - 1).max() < 1e-6
    assert encoded.n_truncated == 0
    assert encoded.seconds > 0
    expected = reference(models.find("minilm").folder, TEXTS)
    assert np.abs(encoded.vectors - expected).max() < 1e-5


def test_tokens_are_counted_with_the_special_ones(minilm: SentenceEncoder) -> None:
    assert minilm.encode(["one two three", "four"], "document").n_tokens == 5 + 3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_vector_does_not_depend_on_its_company(cpu_with_bfloat16: None, dtype: Any) -> None:
    loaded = encoder.load_encoder("minilm", device="cpu", dtype=dtype, batch_tokens=512)
    assert loaded.is_packed
    together = loaded.encode(TEXTS, "document").vectors
    alone = np.concatenate([loaded.encode([text], "document").vectors for text in TEXTS])
    backwards = loaded.encode(TEXTS[::-1], "document").vectors[::-1]
    assert (alone == together).all()
    assert (backwards == together).all()


def test_padded_a_vector_hardly_depends_on_its_company(
    minilm: SentenceEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "can_pack", lambda _: False)
    padded = encoder.load_encoder("minilm", device="cpu", dtype="float32", batch_tokens=512)
    assert not padded.is_packed
    together = padded.encode(TEXTS, "document").vectors
    alone = np.concatenate([padded.encode([text], "document").vectors for text in TEXTS])
    for other in (alone, minilm.encode(TEXTS, "document").vectors):
        assert np.abs(other - together).max() < 1e-5  # measured: 2e-7
        # fp16 has steps of 2**-12 below a half: a value may fall to the other side of one
        assert np.abs(rounded(other) - rounded(together)).max() <= 2**-12
        assert (rounded(other) != rounded(together)).mean() < 0.02  # measured: 0.003


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_number_of_threads_changes_no_bit(
    cpu_with_bfloat16: None, tiny_folder: Path, dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [text[:60] for text in TEXTS]
    made = []
    for n_threads in (1, 3):
        monkeypatch.setattr(encoder, "_n_cpu_threads", lambda n=n_threads: n)
        loaded = encoder.load_encoder(str(tiny_folder), device="cpu", dtype=dtype, batch_tokens=64)
        made.append(loaded.encode(texts, "document").vectors.tobytes())
    assert made[0] == made[1]


# ---- window after window --------------------------------------------------------------------


def test_windows_come_out_as_if_each_were_encoded_by_itself(tiny: SentenceEncoder) -> None:
    windows = [[text[:60] for text in TEXTS[start : start + 6]] for start in range(0, 20, 6)]
    drawn: list[int] = []

    def draw() -> Iterator[list[str]]:
        for index, window in enumerate(windows):
            drawn.append(index)
            yield window

    started = time.perf_counter()
    made = tiny.embed_iter(draw(), "document")
    seconds = 0.0
    for index, window in enumerate(windows):
        encoded = next(made)
        # one more is under way while this one is looked at
        assert drawn == list(range(min(index + 2, len(windows))))
        alone = tiny.encode(window, "document")
        assert (encoded.vectors == alone.vectors).all()
        assert encoded.n_tokens == alone.n_tokens
        seconds += encoded.seconds
    assert next(made, None) is None
    assert 0 < seconds <= time.perf_counter() - started


def test_windows_before_one_that_fails_are_given(tiny: SentenceEncoder) -> None:
    made = tiny.embed_iter([["a shard"], ["a range"], ["shard " * 200], ["never"]], "document")
    given = [next(made), next(made)]
    assert (given[1].vectors == tiny.encode(["a range"], "document").vectors).all()
    with pytest.raises(ModelError, match="'tiny' reads 64"):
        next(made)


def test_a_caller_who_wants_no_more_leaves_nothing_behind(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = encoder.load_encoder(str(tiny_folder), device="cpu", dtype="float32")
    n_begun = 0
    forward = loaded._forward

    def slow(inputs: Sequence[np.ndarray]) -> torch.Tensor:
        nonlocal n_begun
        n_begun += 1
        time.sleep(0.05)
        return forward(inputs)

    monkeypatch.setattr(loaded, "_forward", slow)
    loaded._budget = 4  # each text is a batch
    made = loaded.embed_iter([["a shard"] * 3, ["a range"] * 100], "document")
    next(made)
    made.close()  # type: ignore[attr-defined]  # a generator
    loaded.encode(["a shard"], "document")  # behind whatever is left
    assert n_begun < 20


def test_an_encoder_that_nobody_has_is_gone_with_its_model(tiny_folder: Path) -> None:
    """Its own threads held it, and every refused way to compute stayed on the GPU."""
    loaded = encoder.load_encoder(str(tiny_folder), device="cpu", dtype="float32")
    loaded.encode(["a shard"], "document")
    seen = weakref.ref(loaded._model)
    del loaded
    gc.collect()
    assert seen() is None


@pytest.mark.parametrize("blank", ["", "  \n"])
def test_a_blank_document_is_refused_by_row(tiny: SentenceEncoder, blank: str) -> None:
    with pytest.raises(ModelError, match="document 1 of 2 is blank"):
        tiny.encode(["a shard", blank], "document")


def test_no_text_is_no_vector(minilm: SentenceEncoder) -> None:
    encoded = minilm.encode([], "document")
    assert encoded.vectors.shape == (0, 384)
    assert encoded.n_tokens == 0


def test_a_text_of_full_length_is_read_whole_and_a_longer_one_refused(
    minilm: SentenceEncoder,
) -> None:
    full = "word " * 254
    ending = minilm.encode([full, "word " * 253 + "cat"], "document")
    assert ending.n_tokens == 512
    assert (ending.vectors[0] != ending.vectors[1]).any()
    with pytest.raises(ModelError, match="document 1 of 2 has 257 tokens, 'minilm' reads 256"):
        minilm.encode(["short", full + "word"], "document")
    with pytest.raises(
        ConfigError, match="the question has 257 tokens, and the model reads 256; shorten it"
    ):
        minilm.encode([full + "word"], "query")


def test_minilm_keeps_its_fingerprint() -> None:
    """Another one would make every stored corpus look like another model's."""
    card = encoder.describe_model("minilm")
    assert card.fingerprint == "bb54bd33c56465c7"
    assert (card.dim, card.max_tokens, card.pooling) == (384, 254, "mean")
    digest = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    assert card.weights_sha256 == digest


def test_the_loaded_model_is_the_described_one(minilm: SentenceEncoder) -> None:
    assert minilm.card == encoder.describe_model("minilm")
    assert ModelCard.from_bytes(minilm.card.to_bytes(), key="card") == minilm.card


def test_a_local_model_is_loaded_without_the_network(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*address: Any) -> None:
        raise AssertionError(f"a connection to {address} was tried")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert encoder.load_encoder(str(tiny_folder), device="cpu").card.dim == tiny_model.DIM


def test_the_first_token_is_pooled_where_the_model_says_so(
    tiny: SentenceEncoder, tiny_folder: Path
) -> None:
    from transformers import XLMRobertaModel

    text = "a shard is a range"
    model = XLMRobertaModel.from_pretrained(tiny_folder)
    ids = tiny.tokenizer.input_ids([text])[0]
    with torch.inference_mode():
        first = model(torch.from_numpy(ids.astype(np.int64))[None]).last_hidden_state[0, 0].numpy()
    vector = tiny.encode([text, "a much longer text, so that there is padding"], "document").vectors
    assert tiny.card.pooling == "cls"
    assert vector[0] == pytest.approx(first / np.linalg.norm(first), abs=1e-5)


def test_positions_that_start_behind_the_padding_reach_the_limit(tiny: SentenceEncoder) -> None:
    """66 positions numbered from 2: sentence-transformers would let 66 tokens through, and fail."""
    full = "".join(["shard "] * 200)
    n_tokens = 0
    while n_tokens != tiny.card.max_tokens:
        full = full[:-1]
        n_tokens = int(tiny.tokenizer.count([full])[0])
        assert n_tokens >= tiny.card.max_tokens
    assert tiny.encode([full], "document").n_tokens == tiny_model.MAX_INPUT_TOKENS
    with pytest.raises(ModelError, match="has 65 tokens, 'tiny' reads 64"):
        tiny.encode([full + "聚"], "document")


def test_prompts_come_before_what_they_are_for(tmp_path: Path) -> None:
    prompts = {"query": "find a shard: ", "document": "a shard: "}
    folder = tiny_model.write(tmp_path / "tiny", prompts=prompts)
    prompted = encoder.load_encoder(str(folder), device="cpu", dtype="float32")
    plain = tiny_without_prompts(folder)
    text = "rows of a dataset"
    for input_type, prompt in prompts.items():
        vector = prompted.encode([text], input_type).vectors  # type: ignore[arg-type]  # its keys
        assert np.abs(vector - plain.encode([prompt + text], "document").vectors).max() < 1e-6
    assert prompted.card.query_prompt == "find a shard: "
    assert prompted.card.max_tokens < plain.card.max_tokens
    assert prompted.card.fingerprint != plain.card.fingerprint


def tiny_without_prompts(folder: Path) -> SentenceEncoder:
    (folder / "config_sentence_transformers.json").unlink()
    return encoder.load_encoder(str(folder), device="cpu", dtype="float32")


def test_a_dense_module_after_pooling_is_applied(tmp_path: Path) -> None:
    folder = tiny_model.write(tmp_path / "tiny", dense=12)
    loaded = encoder.load_encoder(str(folder), device="cpu", dtype="float32")
    assert loaded.card.dim == 12
    vectors = loaded.encode(["a shard", "a cluster"], "document").vectors
    assert np.abs(vectors - reference(folder, ["a shard", "a cluster"])).max() < 1e-6
    content = (folder / "model.safetensors").read_bytes()
    assert loaded.card.weights_sha256 != hashlib.sha256(content).hexdigest()


# ---- without padding ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pooling",
    [
        {"pooling_mode": "cls"},
        {"pooling_mode": "mean"},
        {"pooling_mode": "max"},
        {"pooling_mode": "mean_sqrt_len_tokens"},
        {"pooling_mode": "weightedmean"},
        {"pooling_mode": "lasttoken"},
        {"pooling_mode": ["cls", "mean"]},
    ],
    ids=lambda pooling: str(pooling["pooling_mode"]),
)
def test_packed_texts_are_pooled_as_the_model_says(tmp_path: Path, pooling: Any) -> None:
    folder = tiny_model.write(tmp_path / "tiny", pooling=pooling)
    loaded = encoder.load_encoder(str(folder), device="cpu", dtype="float32")
    assert loaded.is_packed
    texts = ["a shard", "a contiguous range of the rows of a dataset", "聚类", "a"]
    vectors = loaded.encode(texts, "document").vectors
    assert np.abs(vectors - reference(folder, texts)).max() < 1e-5


def test_positions_that_are_counted_wrongly_are_found_out(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """sentence-transformers 5.5 counted XLM-R's from 0 where it fed texts end to end."""
    monkeypatch.setattr(packing, "first_position", lambda *_: 0)
    loaded = encoder.load_encoder(str(tiny_folder), device="cpu", dtype="float32")
    assert "'tiny' is not used in float32 without padding on 'cpu': cosine " in caplog.text
    assert not loaded.is_packed
    texts = ["a shard", "a contiguous range of the rows of a dataset"]
    assert np.abs(
        loaded.encode(texts, "document").vectors - reference(tiny_folder, texts)
    ).max() < (1e-5)


def test_positions_go_on_over_texts_only_where_nobody_gives_them(tiny: SentenceEncoder) -> None:
    """What the model would do by itself with the same tokens, and why positions are given."""
    first, second = tiny.tokenizer.input_ids(["a shard", "a cluster"])
    model = tiny._model[0].auto_model
    ids = torch.from_numpy(np.concatenate([first, second]).astype(np.int64))[None]
    counted = model.embeddings.create_position_ids_from_input_ids(ids, model.config.pad_token_id)
    assert counted[0, len(first)] == len(first) + 2
    own = models.first_position(model.config.model_type, model.config.pad_token_id)
    assert (own, int(counted[0, 0])) == (2, 2)


def test_a_model_cut_to_its_first_values_is_normalised_after_the_cut(
    tiny_folder: Path, tiny: SentenceEncoder, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "cut")
    (folder / "config_sentence_transformers.json").write_text('{"truncate_dim": 8}')
    vector = encoder.load_encoder(str(folder), device="cpu", dtype="float32").encode(
        ["a shard"], "document"
    )
    start = tiny.encode(["a shard"], "document").vectors[:, :8]
    assert np.abs(vector.vectors - start / np.linalg.norm(start)).max() < 1e-6


def test_a_model_that_we_would_feed_wrongly_is_refused(tmp_path: Path) -> None:
    """Its pooling leaves the prompt out, which needs the prompt's length."""
    folder = tiny_model.write(
        tmp_path / "tiny",
        pooling={"pooling_mode_mean_tokens": True, "include_prompt": False},
        prompts={"query": "聚类把相似的文本放在一起"},
    )
    with pytest.raises(ModelError, match="does not come out as sentence-transformers makes it"):
        encoder.load_encoder(str(folder), device="cpu")


def test_bfloat16_agrees_with_float32(cpu_with_bfloat16: None, minilm: SentenceEncoder) -> None:
    loaded = encoder.load_encoder("minilm", device="cpu")
    assert loaded.dtype == "bfloat16"
    vectors = loaded.encode(TEXTS, "document").vectors
    cosines = (vectors * minilm.encode(TEXTS, "document").vectors).sum(axis=1)
    assert cosines.min() > 0.9998  # measured: 0.99995
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-6
    assert loaded.card.fingerprint == minilm.card.fingerprint


def test_a_cpu_without_bfloat16_computes_in_float32(
    cpu_without_bfloat16: None, tiny_folder: Path
) -> None:
    assert encoder.load_encoder(str(tiny_folder), device="cpu").dtype == "float32"
    with pytest.raises(ModelError, match="bfloat16 is no faster than float32 on this 'cpu'"):
        encoder.load_encoder(str(tiny_folder), device="cpu", dtype="bfloat16")


def test_a_device_is_described_for_a_person(
    cpu_with_bfloat16: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder, "_n_cpu_threads", lambda: 2)
    assert encoder.describe_device("cpu") == "cpu: 2 threads, bfloat16 products"
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert encoder.describe_device("cpu") == "cpu: 2 threads, float32 products"


def test_a_number_format_that_hurts_the_model_is_refused_with_the_reason(
    cpu_with_bfloat16: None,
    tiny_folder: Path,
    tiny: SentenceEncoder,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    use = SentenceEncoder.use

    def hurt(self: SentenceEncoder, dtype: str, *, is_packed: bool) -> None:
        use(self, dtype, is_packed=is_packed)
        if dtype == "bfloat16":
            with torch.no_grad():
                torch.nn.init.normal_(self._model[0].model.embeddings.word_embeddings.weight)

    monkeypatch.setattr(SentenceEncoder, "use", hurt)
    loaded = encoder.load_encoder(str(tiny_folder), device="cpu")
    assert loaded.dtype == "float32"
    assert "'tiny' is not used in bfloat16 on 'cpu': cosine " in caplog.text
    # the refused format left nothing behind
    again = loaded.encode(["a shard"], "document").vectors
    assert np.abs(again - tiny.encode(["a shard"], "document").vectors).max() < 1e-6
    with pytest.raises(ModelError, match="not used in bfloat16"):
        encoder.load_encoder(str(tiny_folder), device="cpu", dtype="bfloat16")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("FlashAttention only supports\nothers"), "FlashAttention only supports"),
        (ModelError("made values that are not finite"), "made values that are not finite"),
    ],
)
def test_a_way_to_compute_that_fails_is_refused_like_one_that_deviates(
    tiny_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    reason: str,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(packing, "encode_packed", fail)
    loaded = encoder.load_encoder(str(tiny_folder), device="cpu", dtype="float32")
    assert not loaded.is_packed
    assert f"without padding on 'cpu': {reason}" in caplog.text
    assert np.isfinite(loaded.encode(["a shard"], "document").vectors).all()


def test_a_device_that_fails_while_it_is_tried_is_told(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.AcceleratorError("unspecified launch failure")

    monkeypatch.setattr(packing, "encode_packed", fail)
    with pytest.raises(ProcessLost, match="unspecified launch failure"):
        encoder.load_encoder(str(tiny_folder), device="cpu", dtype="float32")


def test_values_that_are_not_finite_are_refused(tiny_folder: Path) -> None:
    loaded = encoder.load_encoder(str(tiny_folder), device="cpu", dtype="float32")
    with torch.no_grad():
        next(loaded._model.parameters()).fill_(torch.inf)
    with pytest.raises(ModelError, match="not finite in float32, of document 0 of 1"):
        loaded.encode(["a shard"], "document")


# ---- memory, and devices that go ------------------------------------------------------------


def with_room_for(
    loaded: SentenceEncoder, n_tokens: int, error: RuntimeError, patch: pytest.MonkeyPatch
) -> list[int]:
    """A device whose memory holds so many tokens; gives the list of what was tried."""
    tried: list[int] = []
    forward = loaded._forward

    def limited(inputs: Sequence[np.ndarray]) -> torch.Tensor:
        tried.append(sum(map(len, inputs)))
        if tried[-1] > n_tokens:
            raise error
        return forward(inputs)

    patch.setattr(loaded, "_forward", limited)
    return tried


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("MPS backend out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
    ],
)
def test_where_memory_is_small_batches_become_small_for_good(
    tiny_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: RuntimeError,
) -> None:
    loaded = encoder.load_encoder(str(tiny_folder), device="cpu", dtype="float32")
    texts = [text[:60] for text in TEXTS]
    expected = loaded.encode(texts, "document")
    assert expected.n_tokens > 256
    tried = with_room_for(loaded, 80, error, monkeypatch)
    made = loaded.encode(texts, "document")
    assert (made.vectors == expected.vectors).all()
    assert made.n_tokens == expected.n_tokens
    assert "'cpu' has too little memory for" in caplog.text
    assert loaded.batch_tokens == encoder.CPU_BATCH_TOKENS  # what windows are planned by
    tried.clear()
    assert (loaded.encode(texts, "document").vectors == expected.vectors).all()
    assert max(tried) <= 80


def test_too_little_memory_for_a_single_text_is_told(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = encoder.load_encoder(str(tiny_folder), device="cpu", dtype="float32")
    with_room_for(loaded, 3, torch.OutOfMemoryError("out of memory"), monkeypatch)
    message = r"'cpu' has too little memory for one text of \d+ tokens; use a device with more"
    with pytest.raises(ModelError, match=message):
        loaded.encode(["a shard is a contiguous range", "a"], "document")


def test_another_error_of_the_device_is_no_lack_of_memory(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = encoder.load_encoder(str(tiny_folder), device="cpu", dtype="float32")
    with_room_for(loaded, 0, torch.AcceleratorError("unspecified launch failure"), monkeypatch)
    with pytest.raises(ProcessLost, match=r"'cpu' failed: .*unspecified launch failure"):
        loaded.encode(["a shard"], "document")


@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_missed_before_anything_is_loaded(device: str) -> None:
    with pytest.raises(ModelError, match="no CUDA device: set ACIDBURN_DEVICE=cpu or run on a box"):
        encoder.load_encoder("owner/never-asked-for", device=device)
    with pytest.raises(ModelError, match="no CUDA device"):
        encoder.describe_device(device)


def test_broken_weights_are_named(tiny_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "broken")
    (folder / "model.safetensors").write_bytes(b"no weights at all")
    with pytest.raises(ModelError, match=r"'broken' in .* cannot be loaded on 'cpu'"):
        encoder.load_encoder(str(folder), device="cpu")


def test_weights_of_another_shape_are_named(tiny_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "broken")
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"hidden_size": 32', '"hidden_size": 48'))
    with pytest.raises(ModelError, match=r"'broken' in .* cannot be loaded on 'cpu'"):
        encoder.load_encoder(str(folder), device="cpu")


def test_an_unknown_model_is_named() -> None:
    with pytest.raises(ModelError, match="no model 'nope'"):
        encoder.load_encoder("nope", device="cpu")


def test_the_fake_keeps_the_real_one_s_contract() -> None:
    fake = fakes.FakeEncoder(dim=16)
    encoded = fake.encode([*TEXTS, ""], "document")
    assert encoded.vectors.shape == (len(TEXTS) + 1, 16)
    assert len(embeddings.to_storage(encoded.vectors)) == len(TEXTS) + 1
    assert (fake.encode([TEXTS[3]], "query").vectors == encoded.vectors[3]).all()
    assert fake.encode([], "document").vectors.shape == (0, 16)
    with pytest.raises(ModelError):
        fake.encode(["word " * 257], "document")
    with pytest.raises(ConfigError):
        fake.encode(["word " * 257], "query")


def test_the_fake_tokenizer_counts_what_it_spans() -> None:
    tokenizer = fakes.FakeTokenizer()
    text = "Two words, 聚类: done."
    assert [text[a:b] for a, b in tokenizer.spans(text)] == [
        *("Two", "words", ",", "聚类", ":", "done", ".")
    ]
    assert tokenizer.count([text, ""]).tolist() == [7, 0]
    assert tokenizer.spans("").shape == (0, 2)
