"""Encodes the same texts by our encoder and by `SentenceTransformer.encode`.

Two kinds of text: chunks as long as the model reads, and texts of skewed lengths, most of them
short; a batch of 512 holds all that a run has by default. On a CPU the peer gets torch's threads,
ours as many of its own; seconds of CPU count both alike. How near vectors come to the reference,
the peer's float32 in batches of 32, is told by their cosines and by recall@10: how many of a text's
ten nearest by the reference are so by them too, among all texts of the run.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import click
import numpy as np

from acidburn_assets.adapters import models
from acidburn_assets.adapters.encoder import SentenceEncoder, load_encoder
from acidburn_assets.adapters.tokenizer import load_tokenizer
from benchmarks import evaluation, report, timing

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

K = 10
NEAR_MAXIMUM = 0.8  # of what the model reads, at least
MEDIAN_WORDS, SIGMA = 16, 1.0
"""Of the skewed lengths, log-normal: titles and questions mostly, with a tail of long passages."""


@click.command()
@click.option("--long", "n_long", default=24, show_default=True, type=click.IntRange(K + 1))
@click.option("--skewed", "n_skewed", default=96, show_default=True, type=click.IntRange(K + 1))
@click.option("--rounds", "n_rounds", default=3, show_default=True, type=click.IntRange(1))
@click.option("--model", default="minilm", show_default=True)
@click.option("--json", "is_json", is_flag=True, help="End with one JSON object.")
def command(n_long: int, n_skewed: int, n_rounds: int, model: str, is_json: bool) -> None:
    """Compare encoders: speed, cosine to float32, recall@10."""
    import torch
    from sentence_transformers import SentenceTransformer, __version__

    tokenizer = load_tokenizer(model)
    chunks = evaluation.chunks(tokenizer, 2_000)
    is_long = chunks["n_tokens"].to_numpy() >= NEAR_MAXIMUM * tokenizer.max_tokens
    passages = chunks["text"].to_pylist()
    long = [text for text, chosen in zip(passages, is_long, strict=True) if chosen][:n_long]
    corpora = {"near maximum": long, "skewed": skew(passages, n_skewed)}
    ours = load_encoder(model)
    exact = load_encoder(model, dtype="float32")
    peer = SentenceTransformer(str(models.find(model).folder), device=ours.device)
    encode: dict[str, Callable[[Sequence[str]], np.ndarray]] = {
        f"ours, {ours.dtype}": partial(_encode, ours),
        "ours, float32": partial(_encode, exact),
        "SentenceTransformer, 32": partial(_encode_peer, peer, 32),
        "SentenceTransformer, 512": partial(_encode_peer, peer, 512),
    }
    for work in encode.values():
        work(passages[:4])
    vectors: dict[tuple[str, str], np.ndarray] = {}
    laps = {
        kind: timing.time_rounds(
            {
                name: partial(_keep, vectors, (kind, name), work, texts)
                for name, work in encode.items()
            },
            n_rounds=n_rounds,
            is_warmed=True,
        )
        for kind, texts in corpora.items()
    }
    first, *_, reference, _ = encode
    stacked = {name: np.concatenate([vectors[kind, name] for kind in corpora]) for name in encode}
    kept = {
        name: np.split(neighbors_kept(made, stacked[reference]), [len(long)])
        for name, made in stacked.items()
    }
    rows = []
    for index, (kind, texts) in enumerate(corpora.items()):
        for name in encode:
            own, others = laps[kind][name], laps[kind][first]
            cosines = np.einsum("nd,nd->n", vectors[kind, name], vectors[kind, reference])
            rows.append(
                {
                    "encoder": f"{kind}: {name}",
                    "texts per CPU-second": timing.rate(own, len(texts), clock="cpu"),
                    "CPU, speed to ours": timing.ratio(own, others, clock="cpu"),
                    "wall, speed to ours": timing.ratio(own, others, clock="wall"),
                    "1 - cosine, mean": float(1 - cosines.mean()),
                    "1 - cosine, worst": float(1 - cosines.min()),
                    "recall@10": float(kept[name][index].mean()),
                }
            )
    facts = {
        **{f"{kind}, texts": len(texts) for kind, texts in corpora.items()},
        **{f"{kind}, tokens": int(tokenizer.count(t).sum()) for kind, t in corpora.items()},
        "model": model,
        "device": ours.device,
        "torch threads": torch.get_num_threads(),
        "sentence-transformers": __version__,
        "rounds": n_rounds,
    }
    report.show("embed", rows, facts=facts, is_json=is_json)


def skew(passages: Sequence[str], n_texts: int) -> list[str]:
    """Beginnings of passages, of log-normal length; the same every time.

    Args:
        passages: in random order, taken again from the first where there are too few.
        n_texts: how many are wanted.
    """
    n_words = np.random.default_rng(0).lognormal(np.log(MEDIAN_WORDS), SIGMA, n_texts).round()
    return [
        " ".join(passages[row % len(passages)].split()[: max(1, int(count))])
        for row, count in enumerate(n_words)
    ]


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
