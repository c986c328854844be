"""The encoder: texts to unit vectors, with a model of sentence-transformers.

sentence-transformers loads the model and is the reference; batches, number format, attention and
threads are ours. Before an encoder is handed out, canary texts must come out as the reference makes
them, so a model that we would feed wrongly, or a number format that hurts it, never embeds
anything. How a transformer is fed without padding is `adapters.packing`'s work; several devices at
once are `adapters.encoder_pool`'s.
"""

import hashlib
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from acidburn_assets.adapters import cpu_products, models, packing
from acidburn_assets.adapters.ahead import look_ahead
from acidburn_assets.adapters.tokenizer import ModelTokenizer, read_tokenizer
from acidburn_assets.core.embeddings import (
    Encoded,
    Encoder,
    InputType,
    ModelCard,
    plan_batches,
    refuse_long,
)
from acidburn_assets.core.errors import ModelError, ProcessLost

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

__all__ = ["Encoder", "SentenceEncoder", "describe_device", "describe_model", "load_encoder"]

Dtype = Literal["auto", "float32", "bfloat16", "float16"]

CPU_BATCH_TOKENS = 2048
"""A CPU gains nothing from larger batches: they leave its caches, and hold more padding.
Source: measured with MiniLM on 2 cores, chunks a second of CPU at 2,048, 4,096 and 8,192 tokens:
65, 59 and 45 of 84 tokens on average; 24, 24 and 24 near the maximum of 254."""

GPU_BATCH_TOKENS = 65_536
"""Of 1,024 values each: some 2 GB while a layer of XLM-RoBERTa-large is computed. A GPU with less
halves it by itself. Chosen by arithmetic, not measured: 2 x 4,096 values of 2 bytes in the widest
place, and enough rows for a matrix product to fill the chip."""

WINDOWS_AHEAD = 1
"""Windows that are tokenised, and computed or wait for it, beside the one that is asked for."""

MIN_COSINE = 0.999
"""Between a canary's vector and the reference's. Source: measured with MiniLM, 0.99995 at worst
with bfloat16 products and 0.9999999 with float32; with XLM-R, 0.59 when positions were counted from
0 instead of 2."""

CANARIES = (
    "Shards",
    "What is a shard?",
    "A chunk is cut at the border of a paragraph, of a sentence, or at least of a word.",
    "def norm(x):\n    return sum(value**2 for value in x) ** 0.5  # length\n",
    "Die Straße nach İstanbul führt über Köln; e\u0301te\u0301, naïve, ﬁne, ½ & ∑.",
    "聚类把相似的文本放在一起。検索は意味の近さで答える。",
    "😀 👩‍👩‍👧 family, 🇩🇪 flag, 𝔘𝔫𝔦𝔠𝔬𝔡𝔢, \u200bzero width, tab\tand\r\nline",
    "Retrieval reads a map of clusters first and only then the passages inside them. " * 6,
    "A long text has positions that a short one has not, and neighbours far away. " * 40,
)
"""Short and long, code, scripts without spaces, and characters outside the first plane. What a
model cannot read whole is left out."""

_logger = logging.getLogger(__name__)


class _Begun(NamedTuple):
    """Texts that are being encoded."""

    n_tokens: np.ndarray  # (n,) int64
    batches: list[np.ndarray]  # rows of each
    made: "list[Future[torch.Tensor]]"  # vectors of each batch
    input_type: InputType
    at: float  # when

    def cancel(self) -> None:
        """Batches that nobody has begun to compute are not computed."""
        for future in self.made:
            future.cancel()


class SentenceEncoder:
    """A sentence-transformers model that is fed batches of like length, or texts end to end.

    On a CPU each batch is one thread's work from start to end, and the batches share the cores:
    threads inside every product would wait for each other at each of its ends, and a vector would
    depend on how many there are. Source: measured with MiniLM on 2 busy cores, chunks near the
    maximum: 13.4 a second of CPU, against 9.3 for `SentenceTransformer.encode` with 2 threads; 20.2
    with bfloat16 products. Chunks of 84 tokens: 38, 17.5 and 66.

    On a GPU one thread begins batch after batch and waits for none of them.

    Attributes:
        card: what the model is.
        tokenizer: its own.
        device: where it runs.
        dtype: of its matrix products.
        is_packed: whether texts are fed end to end, without padding.
        batch_tokens: most tokens of a batch at first, padding included; what windows are planned by
            stays, where memory is too small batches become smaller.
    """

    def __init__(
        self,
        model: "SentenceTransformer",
        tokenizer: ModelTokenizer,
        card: ModelCard,
        *,
        device: str,
        batch_tokens: int = 0,
    ) -> None:
        is_cpu = device == "cpu"
        self.card = card
        self.device = device
        self.dtype = "float32"
        self.is_packed = False
        self._model = model
        self._pad_id = model.tokenizer.pad_token_id or 0
        self.tokenizer = tokenizer
        most = CPU_BATCH_TOKENS if is_cpu else GPU_BATCH_TOKENS
        self.batch_tokens = min(batch_tokens or most, most) if is_cpu else batch_tokens or most
        self._budget = self.batch_tokens
        self._prompts = {"document": card.document_prompt, "query": card.query_prompt}
        self._threads = ThreadPoolExecutor(
            _n_cpu_threads() if is_cpu else 1,
            thread_name_prefix="encoder",
            # no method of ours: the threads would hold the encoder, and the encoder the threads
            initializer=_start_thread,
            initargs=(is_cpu,),
        )

    def encode(self, texts: Sequence[str], input_type: InputType) -> Encoded:
        """Makes one unit vector per text, in the texts' order.

        Memory: one batch's activations per thread, and 4 bytes a token and 4 a value for all texts.
        The same texts give the same vectors bit by bit, whatever the number of threads. Packed, on
        a CPU, a text has the same vector in any company, bit by bit; padded, its values move by
        2e-7 at most in float32, 1e-3 in bfloat16 (measured with MiniLM).

        Args:
            texts: without prompts.
            input_type: which of the model's prompts they get.

        Raises:
            ModelError: a document is empty, or longer than the model reads; nothing is truncated.
                Or the model made a value that is not finite, or the device has too little memory
                for a single text.
            ConfigError: a query is longer than the model reads.
            ProcessLost: the device failed.
        """
        return next(self.embed_iter([texts], input_type))

    def embed_iter(
        self, windows: Iterable[Sequence[str]], input_type: InputType
    ) -> Iterator[Encoded]:
        """Encodes window after window, each as `encode` does.

        While the caller has a window's vectors, the next one is computed; while it is computed, and
        its vectors are asked for, one more is tokenised.

        Args:
            windows: drawn as they are needed.
            input_type: as in `encode`.

        Raises:
            ModelError, ConfigError, ProcessLost: as `encode`, for the first window that fails; the
                vectors of those before it have been given.
        """
        latest = 0.0  # when the window before was ready: none counts another's seconds

        def finish(begun: _Begun) -> Encoded:
            nonlocal latest
            vectors = self._finish(begun)
            ready = time.perf_counter()
            seconds, latest = ready - max(begun.at, latest), ready
            n_tokens = int(begun.n_tokens.sum())
            return Encoded(vectors, n_tokens=n_tokens, n_truncated=0, seconds=seconds)

        return look_ahead(
            windows,
            lambda texts: self._begin(texts, input_type),
            finish,
            _Begun.cancel,
            n_ahead=WINDOWS_AHEAD,
        )

    def _begin(self, texts: Sequence[str], input_type: InputType) -> _Begun:
        at = time.perf_counter()
        prompt = self._prompts[input_type]
        refuse_empty(texts, input_type)
        inputs = self.tokenizer.input_ids([prompt + text for text in texts])
        n_tokens = np.fromiter(map(len, inputs), dtype=np.int64, count=len(inputs))  # (n,)
        refuse_long(
            n_tokens, input_type, model=self.card.name, limit=self.tokenizer.max_input_tokens
        )
        batches = plan_batches(n_tokens, batch_tokens=self._budget, is_padded=not self.is_packed)
        made = [
            self._threads.submit(self._encode_batch, [inputs[row] for row in batch])
            for batch in batches
        ]
        return _Begun(n_tokens, batches, made, input_type, at)

    def _finish(self, begun: _Begun) -> np.ndarray:
        """Vectors of all rows, (n, dim) float32."""
        vectors = np.empty((len(begun.n_tokens), self.card.dim), dtype=np.float32)
        try:
            for batch, future in zip(begun.batches, begun.made, strict=True):
                vectors[batch] = self._fetch(future.result())
        finally:
            begun.cancel()
        bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if len(bad):
            raise ModelError(
                f"{self.card.name!r} made values that are not finite in {self.dtype}, of "
                f"{begun.input_type} {bad[0]} of {len(vectors)}; set ACIDBURN_DTYPE=float32"
            )
        return vectors

    def _fetch(self, vectors: "torch.Tensor") -> np.ndarray:
        with _device_errors(self.device):
            return np.asarray(vectors.cpu().numpy())

    def _encode_batch(self, inputs: Sequence[np.ndarray]) -> "torch.Tensor":
        """Vectors of one batch, (n, dim) float32 on the device; in pieces where memory is small."""
        import torch

        lengths = np.fromiter(map(len, inputs), dtype=np.int64, count=len(inputs))
        pieces = plan_batches(lengths, batch_tokens=self._budget, is_padded=not self.is_packed)
        if len(pieces) > 1:  # memory was too small since the batch was planned
            made = [self._encode_batch([inputs[row] for row in piece]) for piece in pieces]
            order = np.argsort(np.concatenate(pieces))
            return torch.cat(made)[torch.from_numpy(order).to(made[0].device)]
        with _device_errors(self.device):
            vectors = self._try(inputs)
        if vectors is not None:
            return vectors
        if len(inputs) == 1:
            raise ModelError(
                f"{self.device!r} has too little memory for one text of {lengths[0]} tokens; use a "
                "device with more, or lower target_tokens in datasets.yaml"
            )
        longest = int(lengths.max())
        total = int(lengths.sum()) if self.is_packed else longest * len(inputs)
        self._budget = min(self._budget, max(longest, total // 2))
        _logger.warning(
            "%r has too little memory for %d tokens at once; from now on %d",
            self.device,
            total,
            self._budget,
        )
        return self._encode_batch(inputs)

    def _try(self, inputs: Sequence[np.ndarray]) -> "torch.Tensor | None":
        """Vectors of one batch; None where memory is too small."""
        import torch

        try:
            return self._forward(inputs)
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
        # past the except clause the error, and with it what it holds of the device, is gone
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()
        return None

    def _forward(self, inputs: Sequence[np.ndarray]) -> "torch.Tensor":
        """Vectors of one batch, (n, dim) float32 on the device."""
        import torch

        transformer, pooling, *others = self._model.children()
        with torch.inference_mode():
            if self.is_packed:
                sentences = packing.encode_packed(transformer, pooling, inputs, device=self.device)
                features: dict[str, Any] = {"sentence_embedding": sentences}
            else:
                features = transformer(self._padded(inputs))
                features["token_embeddings"] = features["token_embeddings"].float()
                features = pooling(features)
            for module in others:
                features = module(features)
            # a model trained for it may be cut to its first values, before it is normalised
            vectors = features["sentence_embedding"].float()[:, : self.card.dim]
            return torch.nn.functional.normalize(vectors, dim=1)

    def reference(self, texts: Sequence[str]) -> dict[InputType, np.ndarray]:
        """The texts' vectors as sentence-transformers makes them: its tokenizer, its batches.

        Of the model as it was loaded: asked for before `use`.

        Returns:
            (n, dim) float32, unit length, for each input type.
        """
        batch = list(texts)
        documents = self._model.encode_document(batch, show_progress_bar=False)
        queries = self._model.encode_query(batch, show_progress_bar=False)
        return {"document": _unit(documents), "query": _unit(queries)}

    def use(self, dtype: str, *, is_packed: bool) -> None:
        """Has the model fed and computed otherwise than the reference; there is no way back."""
        import torch

        transformer: Any = self._model[0]
        self.dtype = dtype
        self.is_packed = is_packed
        if is_packed:
            packing.prepare(transformer)
        if dtype == "float32":
            return
        if self.device == "cpu":
            cpu_products.use_bfloat16(transformer)
        else:
            transformer.to(getattr(torch, dtype))

    @property
    def can_pack(self) -> bool:
        """Whether texts can be fed end to end, as far as the architecture goes."""
        return packing.can_pack(self._model[0])

    def _padded(self, inputs: Sequence[np.ndarray]) -> "dict[str, torch.Tensor]":
        import torch

        shape = (len(inputs), max(map(len, inputs)))
        ids = np.full(shape, self._pad_id, dtype=np.int64)
        mask = np.zeros(shape, dtype=np.int64)
        for row, row_ids in enumerate(inputs):
            ids[row, : len(row_ids)] = row_ids
            mask[row, : len(row_ids)] = 1
        return {
            "input_ids": packing.upload(torch.from_numpy(ids), self.device),
            "attention_mask": packing.upload(torch.from_numpy(mask), self.device),
        }


def describe_model(
    model: str, *, revision: str = "", hf_token: str = "", hub_endpoint: str | None = None
) -> ModelCard:
    """Facts of a model, without loading it, and without downloading the weights of a hub's.

    Args:
        model: `minilm`, a folder, or `owner/name` on the hub.
        revision: of a hub's model; "" is its newest.
        hf_token: Hugging Face token; "" asks the hub as nobody.
        hub_endpoint: None is huggingface.co.

    Raises:
        ModelError: no such model, or one that is not supported.
        ConfigError: a revision was given for what has none.
        ServiceUnavailable: the hub did not answer.
    """
    files = models.find(model, revision=revision, hf_token=hf_token, hub_endpoint=hub_endpoint)
    config = models.read_config(files)
    names = models.weight_names(files, config)
    hashes = models.local_sha256(files, names)
    if set(names) - set(hashes):
        hashes = models.published_sha256(files, hf_token=hf_token, hub_endpoint=hub_endpoint)
    if set(names) - set(hashes):  # small ones are in git, which knows no sha256 of them
        models.fetch_weights(files, names, hf_token=hf_token, hub_endpoint=hub_endpoint)
        hashes = models.local_sha256(files, names)
    return _card(files, config, read_tokenizer(files, config), [hashes[name] for name in names])


def describe_device(device: str) -> str:
    """What a model would run on, for a person: `cpu: 2 threads, bfloat16 products`.

    Args:
        device: as `list_devices` takes it.

    Raises:
        ModelError: there is no such device.
    """
    import torch

    described = []
    for chosen in list_devices(device):
        dtype = _choose_dtypes(chosen, "auto")[0]
        if chosen.startswith("cuda"):
            gpu = torch.cuda.get_device_properties(chosen)
            what = f"{gpu.name} with {gpu.total_memory / 2**30:.0f} GiB"
        else:
            what = f"{_n_cpu_threads()} threads" if chosen == "cpu" else "Apple GPU"
        described.append(f"{chosen}: {what}, {dtype} products")
    return "; ".join(described)


def load_encoder(
    model: str,
    *,
    revision: str = "",
    device: str = "auto",
    dtype: Dtype = "auto",
    batch_tokens: int = 0,
    hf_token: str = "",
    hub_endpoint: str | None = None,
) -> SentenceEncoder:
    """Loads a model onto a device and checks it against sentence-transformers.

    Args:
        model: `minilm`, a folder, or `owner/name` on the hub.
        revision: of a hub's model; "" is its newest.
        device: `auto` (cuda, else mps, else cpu), `cpu`, `mps`, `cuda` or `cuda:N`.
        dtype: of the matrix products; `auto` is the fastest that the device is made for and with
            which the canaries agree.
        batch_tokens: most tokens of a batch, padding included; 0 is `CPU_BATCH_TOKENS` on a CPU,
            which is also the most there, and else `GPU_BATCH_TOKENS`.
        hf_token: Hugging Face token; "" asks the hub as nobody.
        hub_endpoint: None is huggingface.co.

    Raises:
        ModelError: no such model or device, or the canaries do not agree.
        ConfigError: a revision was given for what has none.
        ServiceUnavailable: the hub did not answer.
    """
    device = _choose_device(device)
    candidates = _choose_dtypes(device, dtype)
    files = models.find(model, revision=revision, hf_token=hf_token, hub_endpoint=hub_endpoint)
    config = models.read_config(files)
    tokenizer = read_tokenizer(files, config)
    names = models.weight_names(files, config)
    models.fetch_weights(files, names, hf_token=hf_token, hub_endpoint=hub_endpoint)
    hashes = models.local_sha256(files, names)
    card = _card(files, config, tokenizer, [hashes[name] for name in names])

    def load() -> SentenceEncoder:
        loaded = _load(files, device)
        return SentenceEncoder(loaded, tokenizer, card, device=device, batch_tokens=batch_tokens)

    encoder = load()
    canaries = readable_canaries(card, tokenizer)
    reference = encoder.reference(canaries)
    cosine = _worst_cosine(encoder, canaries, reference)
    if not cosine >= MIN_COSINE:
        raise ModelError(
            f"{card.name!r} does not come out as sentence-transformers makes it (cosine "
            f"{cosine:.4f} of the worst canary, {MIN_COSINE} is needed); set ACIDBURN_MODEL to "
            "another model"
        )
    for candidate, is_packed in product(candidates, (True, False)):
        if is_packed and not (encoder.can_pack and packing.is_fast(device, candidate)):
            continue
        if (candidate, is_packed) == ("float32", False):
            return encoder  # what was compared above
        encoder.use(candidate, is_packed=is_packed)
        with _refusal() as refused:
            cosine = _worst_cosine(encoder, canaries, reference)
            if cosine >= MIN_COSINE:
                return encoder
            refused.append(
                f"cosine {cosine:.4f} of the worst canary to float32, {MIN_COSINE} is needed"
            )
        refusal = (
            f"{card.name!r} is not used in {candidate}{' without padding' * is_packed} on "
            f"{device!r}: {refused[0]}"
        )
        if not is_packed and dtype != "auto":
            raise ModelError(f"{refusal}; set ACIDBURN_DTYPE=float32")
        _logger.warning(refusal)
        del encoder  # two would need twice the memory
        encoder = load()  # noqa: F841 - of the next round
    raise AssertionError("float32 is always the last candidate")


def _card(
    files: models.ModelFiles,
    config: models.ModelConfig,
    tokenizer: ModelTokenizer,
    hashes: Sequence[str],
) -> ModelCard:
    # of a single file its own hash, so that it can be compared with the one that the hub shows
    weights_sha256 = (
        hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()
    )
    return ModelCard(
        name=files.name,
        revision=files.revision,
        dim=config.dim,
        max_tokens=tokenizer.max_tokens,
        pooling=config.pooling,
        weights_sha256=weights_sha256,
        tokenizer_sha256=tokenizer.sha256,
        query_prompt=config.query_prompt,
        document_prompt=config.document_prompt,
    )


def _load(files: models.ModelFiles, device: str) -> "SentenceTransformer":
    import torch
    import transformers
    from safetensors import SafetensorError
    from sentence_transformers import SentenceTransformer

    # a bar per module on stderr, over in a moment
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        return SentenceTransformer(
            str(files.folder),
            device=device,
            local_files_only=True,
            model_kwargs={"dtype": torch.float32},
        )
    except (ImportError, KeyError, OSError, RuntimeError, SafetensorError, ValueError) as error:
        raise ModelError(
            f"{files.name!r} in {str(files.folder)!r} cannot be loaded on {device!r}: {error}"
        ) from error


def list_devices(device: str) -> list[str]:
    """The devices that a setting names.

    Args:
        device: `auto` and `cuda` are all GPUs; several are named with commas.

    Raises:
        ModelError: one of them is not there.
    """
    import torch

    chosen = [_choose_device(name.strip()) for name in device.split(",")]
    if chosen == ["cuda"]:
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return chosen


def _choose_device(device: str) -> str:
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, index = device.partition(":")
    is_known = (kind in ("cpu", "mps") and not index) or kind == "cuda"
    if not is_known or (index and not index.isdecimal()):
        raise ModelError(
            f"no device {device!r}: set ACIDBURN_DEVICE to auto, cpu, mps, cuda (all GPUs), or to "
            "some of them, such as cuda:0,cuda:1"
        )
    if kind == "cuda" and not torch.cuda.is_available():
        raise ModelError("no CUDA device: set ACIDBURN_DEVICE=cpu or run on a box with a GPU")
    if kind == "cuda" and index and not int(index) < torch.cuda.device_count():
        raise ModelError(f"no device {device!r}: there are {torch.cuda.device_count()} GPUs")
    if device == "mps" and not torch.backends.mps.is_available():
        raise ModelError("no MPS device: set ACIDBURN_DEVICE=cpu or run on a Mac with a GPU")
    return device


def _choose_dtypes(device: str, dtype: Dtype) -> tuple[Dtype, ...]:
    """What to try, best first; only what was asked for unless that is `auto`."""
    import torch

    if dtype == "float32":
        return ("float32",)
    fast: tuple[Dtype, ...] = ()
    if device.startswith("cuda"):
        # tensor cores: float16 from 7.0 on, bfloat16 from 8.0 on. float16 first, its values are
        # nearer to float32's. Source: measured, 1 - cosine 7e-7 against 4e-5
        capability = torch.cuda.get_device_capability(device)
        fast = ("float16", "bfloat16") if capability >= (8, 0) else ("float16",)
        fast = fast if capability >= (7, 0) else ()
    elif device == "cpu":
        has = torch.cpu.get_capabilities()
        is_made_for_it = has.get("avx512_bf16") or has.get("amx_bf16")
        fast = ("bfloat16",) if is_made_for_it and cpu_products.can_use_bfloat16() else ()
    if dtype == "auto":
        return (*fast, "float32")
    if dtype not in fast:
        raise ModelError(
            f"{dtype} is no faster than float32 on this {device!r}, which is made for "
            f"{list(fast) or 'float32 only'}; set ACIDBURN_DTYPE=float32, or auto"
        )
    return (dtype,)


@cache
def _n_cpu_threads() -> int:
    """Cores that torch would use. Asked once: `set_num_threads` in one thread changes what torch
    tells a new one."""
    import torch

    return torch.get_num_threads()


def refuse_empty(texts: Sequence[str], input_type: InputType) -> None:
    """The chunker makes no blank chunk: a blank one is a damaged table's, or somebody else's."""
    if input_type == "query":
        return
    for row, text in enumerate(texts):
        if not text or text.isspace():
            raise ModelError(
                f"document {row} of {len(texts)} is blank: it has nothing that a vector could "
                "stand for. Materialize its chunks again, or leave its row out of the table"
            )


def _start_thread(is_cpu: bool) -> None:
    import torch

    if is_cpu:
        torch.set_num_threads(1)  # of this thread's own products


def _is_out_of_memory(error: RuntimeError) -> bool:
    import torch

    # the allocators of a CPU and of MPS, and cuBLAS, have no class of their own
    said = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or any(
        words in said for words in ("defaultcpuallocator", "out of memory", "alloc_failed")
    )


@contextmanager
def _refusal() -> Iterator[list[str]]:
    """Collects why a way to compute is not used: what it raises, or what is appended."""
    import torch

    reasons: list[str] = []
    try:
        yield reasons
    except (ModelError, RuntimeError) as error:
        if isinstance(error, torch.AcceleratorError):
            raise  # the device is gone, and with it every other way
        reasons.append(str(error).splitlines()[0])


@contextmanager
def _device_errors(device: str) -> Iterator[None]:
    """A GPU that failed once answers nothing more in this process."""
    import torch

    try:
        yield
    except torch.AcceleratorError as error:
        raise ProcessLost(
            f"{device!r} failed: {str(error).splitlines()[0]}. What was finished is kept; a new "
            "process may find the device well again, else see its driver's log"
        ) from error


def _unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def readable_canaries(card: ModelCard, tokenizer: ModelTokenizer) -> list[str]:
    """Those of the canaries that the model reads whole, as documents and as queries."""
    *n_tokens, n_prompt = tokenizer.count([*CANARIES, card.query_prompt])
    room = card.max_tokens - n_prompt
    return [text for text, n in zip(CANARIES, n_tokens, strict=True) if n <= room]


def _worst_cosine(
    encoder: SentenceEncoder, canaries: Sequence[str], reference: dict[InputType, np.ndarray]
) -> float:
    return min(
        float((encoder.encode(canaries, input_type).vectors * vectors).sum(axis=1).min())
        for input_type, vectors in reference.items()
    )
