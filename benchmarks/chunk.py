"""Cuts the same documents by ours and by other chunkers, with one tokenizer and one target.

A chunk over the target is truncated by the model: its end is lost. A span is wrong where
`document[start:end]` is not the chunk's text: a passage then cannot be cited. A gap is a stretch
of text, not blank, that is in no span, wrong ones left out.

The others are optional: `pip install --editable '.[bench]'`.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import click

from acidburn_assets.adapters.tokenizer import load_tokenizer
from acidburn_assets.core.chunks import Tokenizer, resolve_sizes
from acidburn_assets.core.datasets import ChunkSizes
from benchmarks import chunkers, evaluation, report, timing
from benchmarks.chunkers import Maker, Piece


@click.command()
@click.option("--corpus", type=click.Choice(["python", "techdocs"]), default="python")
@click.option("--megabytes", default=0.6, show_default=True, type=click.FloatRange(0, 100))
@click.option("--target", "target_tokens", type=int, help="Of a chunk; else what the model reads.")
@click.option("--overlap", "overlap_tokens", type=int, help="Else a tenth of the target.")
@click.option("--rounds", "n_rounds", default=3, show_default=True, type=click.IntRange(1))
@click.option("--model", default="minilm", show_default=True)
@click.option("--json", "is_json", is_flag=True, help="End with one JSON object.")
def command(
    corpus: str,
    megabytes: float,
    target_tokens: int | None,
    overlap_tokens: int | None,
    n_rounds: int,
    model: str,
    is_json: bool,
) -> None:
    """Compare chunkers: speed, chunks over the limit, wrong spans, gaps."""
    tokenizer = load_tokenizer(model)
    declared = ChunkSizes(target_tokens=target_tokens, overlap_tokens=overlap_tokens)
    sizes = resolve_sizes(declared, max_tokens=tokenizer.max_tokens)
    texts = list(_first(evaluation.texts(corpus), round(megabytes * 1e6)))
    n_megabytes = sum(len(text.encode()) for text in texts) / 1e6
    makers = chunkers.makers(model, tokenizer, sizes)
    made = {name: _cut_all(make, texts) for name, make in makers.items()}
    laps = timing.time_rounds(
        {name: partial(_cut_all, make, texts) for name, make in makers.items()},
        n_rounds=n_rounds,
        is_warmed=True,
    )
    rows = [
        {
            "chunker": name,
            "MB per CPU-second": timing.rate(laps[name], n_megabytes, clock="cpu"),
            "speed to ours": timing.ratio(laps[name], laps["ours"], clock="cpu"),
            "chunks": sum(map(len, pieces)),
            **count_faults(texts, pieces, tokenizer, sizes.target_tokens),
        }
        for name, pieces in made.items()
    ]
    facts = {
        "corpus": corpus,
        "documents": len(texts),
        "MB": n_megabytes,
        "model": model,
        **sizes._asdict(),
        "rounds": n_rounds,
        "peers absent": ", ".join(chunkers.absent()) or "none",
    }
    report.show("chunk", rows, facts=facts, is_json=is_json)


def count_faults(
    texts: Sequence[str], pieces: Sequence[Sequence[Piece]], tokenizer: Tokenizer, target: int
) -> dict[str, int]:
    """What is wrong with the chunks of some documents.

    Args:
        texts: of the documents.
        pieces: of each document.
        tokenizer: of the model that will read the chunks.
        target: most tokens of a chunk.
    """
    n_over_limit = n_wrong_spans = n_gaps = 0
    for text, found in zip(texts, pieces, strict=True):
        n_over_limit += int((tokenizer.count([one.text for one in found]) > target).sum())
        spans = sorted(
            (one.start, one.end) for one in found if text[one.start : one.end] == one.text
        )
        n_wrong_spans += len(found) - len(spans)
        covered = 0
        for start, end in [*spans, (len(text), len(text))]:
            n_gaps += bool(text[covered:start].strip())
            covered = max(covered, end)
    return {"over limit": n_over_limit, "wrong spans": n_wrong_spans, "gaps": n_gaps}


def _cut_all(make: Maker, texts: Sequence[str]) -> list[list[Piece]]:
    return list(map(make(), texts))


def _first(texts: Sequence[str], n_bytes: int) -> Iterator[str]:
    """Whole texts until so many bytes are reached."""
    for text in texts:
        if n_bytes <= 0:
            return
        n_bytes -= len(text.encode())
        yield text


if __name__ == "__main__":
    command()
