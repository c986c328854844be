"""Encodes the same texts by our encoder and by `SentenceTransformer.encode`.

On a CPU: texts of skewed lengths, half of them below 65 tokens, and chunks as long as the model
reads; the peer in batches of 32, its default, and of 512, or of all texts where there are fewer.
Both have one thread: what a core does in a second is compared, however many there are and whatever
else they do. How near vectors come to the reference, the peer's float32 in batches of 32, is told
by their cosines and by recall@10: how many of a text's ten nearest by the reference are so by them
too, among all texts of the run.

On a GPU (`--device cuda`) the model has the size of BAAI/bge-m3 and random weights, and reads
chunks of 2,048 tokens; see `benchmarks.embed_gpu`.
"""

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from acidburn_assets.adapters import models
from acidburn_assets.adapters.encoder import SentenceEncoder, load_encoder
from acidburn_assets.adapters.tokenizer import ModelTokenizer, load_tokenizer
from benchmarks import embed_gpu, evaluation, report, timing

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

K = 10
NEAR_MAXIMUM = 0.8  # of what the model reads, at least
MEDIAN_TOKENS, SIGMA, LEAST_TOKENS = 65, 0.7, 20
"""Of the skewed lengths, log-normal between 20 tokens and what the model reads: the mean is 82."""


@click.command()
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--long", "n_long", default=48, show_default=True, type=click.IntRange(K + 1))
@click.option("--skewed", "n_skewed", default=512, show_default=True, type=click.IntRange(K + 1))
@click.option("--rounds", "n_rounds", default=3, show_default=True, type=click.IntRange(1))
@click.option("--model", default="minilm", show_default=True)
@click.option("--json", "is_json", is_flag=True, help="End with one JSON object.")
def command(
    device: str, n_long: int, n_skewed: int, n_rounds: int, model: str, is_json: bool
) -> None:
    """Compare encoders: speed, cosine to float32, recall@10."""
    if device == "cuda":
        embed_gpu.run(is_json=is_json)
        return
    import torch
    from sentence_transformers import SentenceTransformer, __version__

    torch.set_num_threads(1)
    tokenizer = load_tokenizer(model)
    chunks = evaluation.chunks(tokenizer, 2_000)
    is_long = chunks["n_tokens"].to_numpy() >= NEAR_MAXIMUM * tokenizer.max_tokens
    passages = chunks["text"].to_pylist()
    long = [text for text, chosen in zip(passages, is_long, strict=True) if chosen][:n_long]
    corpora = {"near maximum": long, "skewed": skew(passages, n_skewed, tokenizer)}
    ours = load_encoder(model, device="cpu")
    variants: dict[str, Callable[[Sequence[str]], np.ndarray]] = {
        _name(ours): partial(_encode, ours)
    }
    if ours.dtype != "float32":
        exact = load_encoder(model, device="cpu", dtype="float32")
        variants[_name(exact)] = partial(_encode, exact)
    peer = SentenceTransformer(str(models.find(model).folder), device="cpu")
    variants[f"{PEER}, 32"] = partial(_encode_peer, peer, 32)
    variants[f"{PEER}, 512"] = partial(_encode_peer, peer, 512)
    for work in variants.values():
        work(passages[:4])
    vectors: dict[tuple[str, str], np.ndarray] = {}
    laps = {
        kind: timing.time_rounds(
            {
                name: partial(_keep, vectors, (kind, name), work, texts)
                for name, work in variants.items()
            },
            n_rounds=n_rounds,
            is_warmed=True,
        )
        for kind, texts in corpora.items()
    }
    rows = _rows(corpora, laps, vectors, reference=f"{PEER}, 32")
    facts = {
        **{f"{kind}, texts": len(texts) for kind, texts in corpora.items()},
        **{f"{kind}, tokens": int(tokenizer.count(t).sum()) for kind, t in corpora.items()},
        "model": model,
        "threads": torch.get_num_threads(),
        "sentence-transformers": __version__,
        "rounds": n_rounds,
    }
    report.show("embed", rows, facts=facts, is_json=is_json)
    if is_json:
        print(json.dumps(_summary(rows, ours)))


PEER = "SentenceTransformer"


def _name(encoder: SentenceEncoder) -> str:
    return f"ours, {encoder.dtype}" + (" without padding" if encoder.is_packed else "")


def _rows(
    corpora: dict[str, list[str]],
    laps: dict[str, dict[str, list[timing.Lap]]],
    vectors: dict[tuple[str, str], np.ndarray],
    *,
    reference: str,
) -> list[dict[str, Any]]:
    stacked = {
        name: np.concatenate([vectors[kind, name] for kind in corpora])
        for name in next(iter(laps.values()))
    }
    ends = np.cumsum([len(texts) for texts in corpora.values()])[:-1]
    kept = {
        name: dict(
            zip(corpora, np.split(neighbors_kept(made, stacked[reference]), ends), strict=True)
        )
        for name, made in stacked.items()
    }
    rows = []
    for kind, texts in corpora.items():
        for name, own in laps[kind].items():
            cosines = np.einsum("nd,nd->n", vectors[kind, name], vectors[kind, reference])
            peers = {size: laps[kind][f"{PEER}, {size}"] for size in (32, 512)}
            rows.append(
                {
                    "encoder": f"{kind}: {name}",
                    "texts per CPU-second": timing.rate(own, len(texts), clock="cpu"),
                    **{
                        f"speed to {PEER}, {size}": timing.ratio(own, peer, clock="cpu")
                        for size, peer in peers.items()
                    },
                    "1 - cosine, mean": float(1 - cosines.mean()),
                    "1 - cosine, worst": float(1 - cosines.min()),
                    "recall@10": float(kept[name][kind].mean()),
                }
            )
    return rows


def _summary(rows: Sequence[dict[str, Any]], ours: SentenceEncoder) -> dict[str, Any]:
    near, skewed = (
        next(row for row in rows if row["encoder"] == f"{kind}: {_name(ours)}")
        for kind in ("near maximum", "skewed")
    )
    return {
        "skewed_vs_32": round(skewed[f"speed to {PEER}, 32"].median, 2),
        "skewed_vs_512": round(skewed[f"speed to {PEER}, 512"].median, 2),
        "near_max_vs_32": round(near[f"speed to {PEER}, 32"].median, 2),
        "min_cosine": round(1 - max(row["1 - cosine, worst"] for row in (near, skewed)), 6),
        "recall_at_10": round(min(row["recall@10"] for row in (near, skewed)), 4),
        "bf16_units": ours.dtype == "bfloat16",
    }


def skew(passages: Sequence[str], n_texts: int, tokenizer: ModelTokenizer) -> list[str]:
    """Beginnings of passages, of log-normal length; the same every time.

    Args:
        passages: in random order, taken again from the first where there are too few.
        n_texts: how many are wanted.
        tokenizer: counts what is cut.
    """
    lengths = np.random.default_rng(0).lognormal(np.log(MEDIAN_TOKENS), SIGMA, n_texts)
    lengths = lengths.round().clip(LEAST_TOKENS, tokenizer.max_tokens).astype(int)
    texts = []
    for row, n_tokens in enumerate(lengths):
        passage = passages[row % len(passages)]
        ends = tokenizer.spans(passage)[:n_tokens, 1]
        texts.append(passage[: int(ends[-1])])
    return texts


def neighbors_kept(vectors: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Share of each text's K nearest others by the reference that are so by `vectors` too.

    Args:
        vectors: unit length  # (n, dim)
        reference: of the same texts  # (n, dim)

    Returns:
        (n,) in [0, 1].
    """
    pairs = zip(_nearest(vectors), _nearest(reference), strict=True)
    return np.array([len(set(own) & set(other)) / K for own, other in pairs])


def _nearest(vectors: np.ndarray) -> list[list[int]]:
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -np.inf)
    nearest: list[list[int]] = np.argsort(-cosines, axis=1)[:, :K].tolist()
    return nearest


def _encode(encoder: SentenceEncoder, texts: Sequence[str]) -> np.ndarray:
    return encoder.encode(texts, "document").vectors


def _encode_peer(model: "SentenceTransformer", size: int, texts: Sequence[str]) -> np.ndarray:
    made = model.encode(
        list(texts), batch_size=size, normalize_embeddings=True, show_progress_bar=False
    )
    return np.asarray(made)


def _keep(
    vectors: dict[tuple[str, str], np.ndarray],
    key: tuple[str, str],
    work: Callable[[Sequence[str]], np.ndarray],
    texts: Sequence[str],
) -> None:
    made = work(texts).astype(np.float64)
    vectors[key] = made / np.linalg.norm(made, axis=1, keepdims=True)


if __name__ == "__main__":
    command()
