"""Cuts the same documents by ours and by other chunkers, with one tokenizer and one target.

A chunk over the target is truncated by the model: its end is lost. A span is wrong where
`document[start:end]` is not the chunk's text: a passage then cannot be cited. A gap is a stretch
of text, not blank, that is in no chunk.

The others are optional: `pip install --editable '.[bench]'`.
"""

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import click
import numpy as np

from acidburn_assets import settings
from acidburn_assets.adapters.tokenizer import ModelTokenizer
from acidburn_assets.core.chunks import Sizes, cut, resolve_sizes
from acidburn_assets.core.datasets import ChunkSizes
from benchmarks import evaluation, report, timing


class Piece(NamedTuple):
    """A chunk as its maker gives it."""

    start: int
    end: int
    text: str


class Faults(NamedTuple):
    """What is wrong with the chunks of some documents."""

    n_over_limit: int
    n_wrong_spans: int
    n_gaps: int


Cutter: TypeAlias = Callable[[str], list[Piece]]

PEERS = {
    "semantic-text-splitter": "semantic_text_splitter",
    "chonkie": "chonkie",
    "langchain-text-splitters": "langchain_text_splitters",
}
"""Distributions and the modules they bring."""


@click.command()
@click.option("--documents", "source", type=click.Choice(["python", "techdocs"]), default="python")
@click.option("--megabytes", default=0.6, show_default=True, type=click.FloatRange(0, 100))
@click.option("--target", "target_tokens", type=int, help="Tokens of a chunk; else the model's.")
@click.option("--overlap", "overlap_tokens", type=int, help="Tokens; else a tenth of the target.")
@click.option("--rounds", "n_rounds", default=3, show_default=True, type=click.IntRange(1))
@click.option("--json", "is_json", is_flag=True, help="End with one JSON object.")
def command(
    source: str,
    megabytes: float,
    target_tokens: int | None,
    overlap_tokens: int | None,
    n_rounds: int,
    is_json: bool,
) -> None:
    """Compare chunkers: speed, chunks over the limit, wrong spans, gaps."""
    tokenizer = _load_tokenizer()
    declared = ChunkSizes(target_tokens=target_tokens, overlap_tokens=overlap_tokens)
    sizes = resolve_sizes(declared, max_tokens=tokenizer.max_tokens)
    texts = take(_techdocs() if source == "techdocs" else _python(), round(megabytes * 1e6))
    n_bytes = sum(len(text.encode()) for text in texts)
    cutters = {name: make(tokenizer, sizes) for name, make in available().items()}
    made = {name: [cutter(text) for text in texts] for name, cutter in cutters.items()}
    laps = timing.time_rounds(
        {
            name: lambda cutter=cutter: [cutter(text) for text in texts]  # type: ignore[misc]
            for name, cutter in cutters.items()
        },
        n_rounds=n_rounds,
        is_warmed=True,
    )
    rows = []
    for name, pieces in made.items():
        faults = find_faults(texts, pieces, tokenizer, sizes.target_tokens)
        rows.append(
            {
                "chunker": name,
                "MB per CPU s": timing.rate(laps[name], n_bytes / 1e6, clock="cpu"),
                "ours is × as fast": timing.ratio(laps["ours"], laps[name], clock="cpu"),
                "chunks": sum(map(len, pieces)),
                "over limit": faults.n_over_limit,
                "wrong spans": faults.n_wrong_spans,
                "gaps": faults.n_gaps,
            }
        )
    facts = {
        "documents": len(texts),
        "MB": n_bytes / 1e6,
        "target_tokens": sizes.target_tokens,
        "overlap_tokens": sizes.overlap_tokens,
        "tokenizer": tokenizer.name,
        "rounds": n_rounds,
        "absent": ", ".join(name for name in PEERS if not _is_installed(name)) or "none",
    }
    report.show("chunk", rows, facts=facts, is_json=is_json)
