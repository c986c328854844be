"""Encodes chunks of 2,048 tokens on a GPU, by ours and by `SentenceTransformer.encode`.

The model has the size of BAAI/bge-m3 and random weights: speed and the arithmetic's error do not
depend on what a model has learnt. The peer is run as it comes (float32), and as a person who knows
it would run it: in two bytes, with torch's own attention and, where its package is installed, with
flash attention. All of a run is on one GPU, one after another, and clocks are read when it has
finished.

Shares: of the dense peak, by 1.649 TFLOP a chunk; of idle time, by events between batches on the
GPU's own clock (what it waits for within a batch counts as work); of tokenising, against the whole.
Source: 1.649 TFLOP, counted with torch's FlopCounter on XLM-RoBERTa-large at 2,048 tokens.
"""

import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from acidburn_assets.adapters.encoder import SentenceEncoder, load_encoder
from acidburn_assets_tests.adapters import tiny_model
from benchmarks import evaluation, report, timing

N_TOKENS = 2_048
TFLOP_PER_CHUNK = 1.649
N_CHUNKS, N_CHUNKS_FLOAT32 = 1_536, 96
"""Of a lap: seconds of an H200's work for each."""
N_ROUNDS = 3
N_COMPARED = 64

DENSE_TFLOPS = {
    "H200": 989,
    "H100 PCIe": 756,
    "H100": 989,
    "A100": 312,
    "L40S": 362,
    "RTX 6000 Ada": 364,
    "4090": 165,
}
"""Peak in two bytes with float32 sums, without sparsity; the first name that is found counts.
Source: NVIDIA's data sheets."""


class _Variant(NamedTuple):
    """A way to encode."""

    name: str
    encode: Callable[[Sequence[str]], np.ndarray]
    n_chunks: int


def run(*, is_json: bool) -> None:
    """Measures, and prints the table; ends the process with 2 where there is no GPU."""
    import torch

    if not torch.cuda.is_available():
        sys.stderr.write("not run: no CUDA device here\n")
        raise SystemExit(2)
    with tempfile.TemporaryDirectory() as made:
        folder = tiny_model.write(
            Path(made) / "bge-m3-random",
            sentencepiece=True,
            size=tiny_model.BGE_M3,
            sentences=[document.text for document in evaluation.documents()],
            sentence={"max_seq_length": tiny_model.BGE_M3.n_positions - 2},
        )
        _measure(folder, is_json=is_json)


def _measure(folder: Path, *, is_json: bool) -> None:
    import torch
    from sentence_transformers import __version__

    ours = load_encoder(str(folder), device="cuda")
    texts = _chunks(ours)
    variants = [_Variant(f"ours, {ours.dtype}", lambda t: _encode(ours, t), N_CHUNKS)]
    variants += _peers(folder, ours.dtype)
    reference = variants[-1].encode(texts[:N_COMPARED]).astype(np.float64)
    # random weights make all texts much alike: what tells them apart is compared
    mean = reference.mean(axis=0)
    centered = _centered(reference, mean)
    laps: dict[str, list[timing.Lap]] = {one.name: [] for one in variants}
    for one in variants:
        one.encode(texts[:8])  # warm
    for index in range(N_ROUNDS):
        for one in [*variants[index % len(variants) :], *variants[: index % len(variants)]]:
            torch.cuda.synchronize()
            began = time.perf_counter()
            one.encode(texts[: one.n_chunks])
            torch.cuda.synchronize()
            laps[one.name].append(timing.Lap(time.perf_counter() - began, 0.0))
    gpu = torch.cuda.get_device_name()
    peak = next((tflops for name, tflops in DENSE_TFLOPS.items() if name in gpu), None)
    rows: list[dict[str, Any]] = []
    for one in variants:
        # laps of one chunk each, so that ways with fewer chunks can be compared
        each = [timing.Lap(lap.wall / one.n_chunks, 0.0) for lap in laps[one.name]]
        first = [timing.Lap(lap.wall / N_CHUNKS, 0.0) for lap in laps[variants[0].name]]
        rate = timing.rate(each, 1, clock="wall")
        cosines = np.einsum("nd,nd->n", _centered(one.encode(texts[:N_COMPARED]), mean), centered)
        rows.append(
            {
                "encoder": one.name,
                "chunks per second": rate,
                "of the peak": rate.median * TFLOP_PER_CHUNK / peak if peak else None,
                "speed of ours to it": timing.ratio(first, each, clock="wall"),
                "1 - cosine, worst": float(1 - cosines.min()),
            }
        )
    idle, tokenising = _shares(ours, texts)
    facts = {
        "GPU": gpu,
        "peak TFLOPS": peak or "not known",
        "tokens per chunk": N_TOKENS,
        "without padding": ours.is_packed,
        "GPU idle share": idle,
        "tokenising share": tokenising,
        "torch": torch.__version__,
        "sentence-transformers": __version__,
        "rounds": N_ROUNDS,
    }
    report.show("embed on a GPU", rows, facts=facts, is_json=is_json)
    if is_json:
        best = min(rows[1:-1], key=lambda row: row["speed of ours to it"].median)
        summary = {
            "chunks_per_s": round(rows[0]["chunks per second"].median, 1),
            "peak_share": rows[0]["of the peak"],
            "vs_best": round(best["speed of ours to it"].median, 2),
            "vs_float32": round(rows[-1]["speed of ours to it"].median, 2),
            "idle_share": round(idle, 4),
            "tokenising_share": round(tokenising, 4),
            "min_cosine": round(1 - rows[0]["1 - cosine, worst"], 6),
        }
        print(json.dumps(summary))


def _chunks(encoder: SentenceEncoder) -> list[str]:
    """Texts that the model reads as just about `N_TOKENS`."""
    table = evaluation.chunks(
        encoder.tokenizer, N_CHUNKS, target_tokens=N_TOKENS - encoder.tokenizer.n_special_tokens
    )
    full = [
        text
        for text, n_tokens in zip(
            table["text"].to_pylist(), table["n_tokens"].to_pylist(), strict=True
        )
        if n_tokens >= 0.9 * N_TOKENS
    ]
    return (full * (N_CHUNKS // len(full) + 1))[:N_CHUNKS]


def _peers(folder: Path, dtype: str) -> list[_Variant]:
    import torch
    from sentence_transformers import SentenceTransformer

    ways = ["sdpa"] + ["flash_attention_2"] * (importlib.util.find_spec("flash_attn") is not None)
    found = []
    for attention in ways:
        quick = SentenceTransformer(
            str(folder),
            device="cuda",
            model_kwargs={"dtype": getattr(torch, dtype), "attn_implementation": attention},
        )
        for size in (32, 128):
            name = f"SentenceTransformer, {dtype}, {attention}, {size}"
            found.append(_Variant(name, _peer(quick, size), N_CHUNKS // 3))
    plain = SentenceTransformer(str(folder), device="cuda")
    name = "SentenceTransformer, float32, as it comes, 32"
    return [*found, _Variant(name, _peer(plain, 32), N_CHUNKS_FLOAT32)]


def _peer(model: Any, size: int) -> Callable[[Sequence[str]], np.ndarray]:
    def encode(texts: Sequence[str]) -> np.ndarray:
        made = model.encode(
            list(texts), batch_size=size, normalize_embeddings=True, show_progress_bar=False
        )
        vectors = np.asarray(made, dtype=np.float32)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))

    return encode


def _centered(vectors: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Unit vectors of what is left without the mean."""
    rest = vectors.astype(np.float64) - mean
    return np.asarray(rest / np.linalg.norm(rest, axis=1, keepdims=True))


def _encode(encoder: SentenceEncoder, texts: Sequence[str]) -> np.ndarray:
    windows = [texts[start : start + 512] for start in range(0, len(texts), 512)]
    return np.concatenate([made.vectors for made in encoder.embed_iter(windows, "document")])


def _shares(encoder: SentenceEncoder, texts: Sequence[str]) -> tuple[float, float]:
    """Of a run: the share in which the GPU waited between batches, and that of tokenising if it
    were not done ahead."""
    import torch

    events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
    forward = encoder._forward

    def marked(inputs: Sequence[np.ndarray]) -> torch.Tensor:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        vectors = forward(inputs)
        end.record()
        events.append((begin, end))
        return vectors

    encoder._forward = marked  # type: ignore[method-assign]  # events around every batch
    began = time.perf_counter()
    _encode(encoder, texts)
    torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    encoder._forward = forward  # type: ignore[method-assign]
    whole = events[0][0].elapsed_time(events[-1][1])  # ms, as the next
    busy = sum(begin.elapsed_time(end) for begin, end in events)
    began = time.perf_counter()
    encoder.tokenizer.input_ids(texts)
    return 1 - busy / whole, (time.perf_counter() - began) / seconds
