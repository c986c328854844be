"""Cuts the same documents by ours and by other chunkers, with one tokenizer and one target.

A chunk over the target is truncated by the model: its end is lost. A span is wrong where
`document[start:end]` is not the chunk's text: a passage then cannot be cited. A gap is a stretch
of text, not blank, that is in no span, wrong ones left out.

Ours is measured on all of the text. The others are tens of times slower: they, and ours once more,
are measured on its first part, and ratios are of that part alone.

The others are optional: `pip install --editable '.[bench]'`.
"""

import json
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import click

from acidburn_assets.adapters.tokenizer import load_tokenizer
from acidburn_assets.core.chunks import Tokenizer, resolve_sizes
from acidburn_assets.core.datasets import ChunkSizes
from benchmarks import chunkers, evaluation, report, timing, xlmr
from benchmarks.chunkers import Maker, Piece

OURS = "ours"
CORPORA = ["both", "techdocs", "python", "arxiv", "reuters"]


@click.command()
@click.option("--corpus", type=click.Choice(CORPORA), default="both", show_default=True)
@click.option("--megabytes", default=100.0, type=click.FloatRange(0), help="Of text, for ours.")
@click.option(
    "--peer-megabytes",
    default=2.0,
    show_default=True,
    type=click.FloatRange(0),
    help="The first of them, for the others and for ours once more.",
)
@click.option("--target", "target_tokens", type=int, help="Of a chunk; else 2,048 or what fits.")
@click.option("--overlap", "overlap_tokens", type=int, help="Else a tenth of it, 200 at most.")
@click.option("--rounds", "n_rounds", default=2, show_default=True, type=click.IntRange(1))
@click.option(
    "--model",
    default=xlmr.NAME,
    show_default=True,
    help="`xlmr`: a tokenizer of XLM-R's kind, trained on the text; `minilm`, a folder or a name.",
)
@click.option("--json", "is_json", is_flag=True, help="End with one JSON object.")
def command(
    corpus: str,
    megabytes: float,
    peer_megabytes: float,
    target_tokens: int | None,
    overlap_tokens: int | None,
    n_rounds: int,
    model: str,
    is_json: bool,
) -> None:
    """Compare chunkers: speed, chunks over the limit, wrong spans, gaps."""
    texts = list(_first(evaluation.texts(corpus), round(megabytes * 1e6)))
    part = list(_first(texts, round(peer_megabytes * 1e6)))
    folder = str(xlmr.train(texts)) if model == xlmr.NAME else model
    tokenizer = load_tokenizer(folder)
    declared = ChunkSizes(target_tokens=target_tokens, overlap_tokens=overlap_tokens)
    sizes = resolve_sizes(declared, max_tokens=tokenizer.max_tokens)
    ours = partial(partial, chunkers.cut_ours, tokenizer=tokenizer)
    without = sizes._replace(overlap_tokens=0)
    on_all: dict[str, Maker] = {
        OURS: partial(ours, sizes=sizes),
        f"{OURS}, no overlap": partial(ours, sizes=without),
    }
    on_part: dict[str, Maker] = {
        f"{OURS}, on the part": on_all[OURS],
        **chunkers.makers(folder, tokenizer, sizes),
    }
    rows = [
        *_measure(on_all, texts, tokenizer, sizes.target_tokens, n_rounds),
        *_measure(on_part, part, tokenizer, sizes.target_tokens, n_rounds),
    ]
    facts = {
        "corpus": corpus,
        "documents": len(texts),
        "MB": _megabytes(texts),
        "documents of the part": len(part),
        "MB of the part": _megabytes(part),
        "model": model,
        "engine": tokenizer.engine,
        **sizes._asdict(),
        "rounds": n_rounds,
        "peers absent": ", ".join(chunkers.absent()) or "none",
    }
    report.show("chunk", rows, facts=facts, is_json=is_json)
    if is_json:
        print(json.dumps(_verdict(rows)))


def _measure(
    makers: dict[str, Maker],
    texts: Sequence[str],
    tokenizer: Tokenizer,
    target: int,
    n_rounds: int,
) -> list[dict[str, Any]]:
    """A row for each; ratios are to the first."""
    made = {name: _cut_all(make, texts) for name, make in makers.items()}
    laps = timing.time_rounds(
        {name: partial(_cut_all, make, texts) for name, make in makers.items()},
        n_rounds=n_rounds,
        is_warmed=True,
    )
    first = next(iter(makers))
    return [
        {
            "chunker": name,
            "MB per CPU-second": timing.rate(laps[name], _megabytes(texts), clock="cpu"),
            "ours is faster by": timing.ratio(laps[first], laps[name], clock="cpu"),
            "chunks": sum(map(len, pieces)),
            **count_faults(texts, pieces, tokenizer, target),
        }
        for name, pieces in made.items()
    ]


def _verdict(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of ours on all of the text, and against semantic-text-splitter as its documentation has it
    used with a model of the hub: with the model's tokenizer.json."""
    ours = rows[0]
    ratios = {row["chunker"]: row["ours is faster by"].median for row in rows}
    semantic = ratios.get(chunkers.SEMANTIC)
    return {
        "mb_per_s_core": round(ours["MB per CPU-second"].median, 2),
        "vs_semantic_text_splitter": None if semantic is None else round(semantic, 1),
        "over_limit": ours["over limit"],
        "wrong_spans": ours["wrong spans"],
        "gaps": ours["gaps"],
    }


def _megabytes(texts: Sequence[str]) -> float:
    return sum(len(text.encode()) for text in texts) / 1e6


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
