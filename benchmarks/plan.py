"""Compares what a plan foresees with what chunking makes, on corpora that the plan only samples.

The corpora are written as Parquet in the order in which they are published, in row groups of a few
megabytes as on the hub; where one is small enough to be counted whole, the sample's limits are
lowered until it is not.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import pyarrow as pa
import pyarrow.parquet as pq

from acidburn_assets.adapters.sources import open_source
from acidburn_assets.adapters.tokenizer import load_tokenizer
from acidburn_assets.core import plan as planning
from acidburn_assets.core.chunks import Sizes, Tally, Tokenizer, chunk_documents, resolve_sizes
from acidburn_assets.core.datasets import ChunkSizes, Dataset
from acidburn_assets.core.embeddings import ModelCard
from benchmarks import evaluation, report, xlmr

CORPORA = ("techdocs", "reuters", "arxiv")
"""Long documents, short ones of many lengths, short ones of like lengths."""

_CARD = ModelCard(
    name="BAAI/bge-m3",
    revision="",
    dim=1024,
    max_tokens=xlmr.MAX_INPUT_TOKENS,
    pooling="cls",
    weights_sha256="",
    tokenizer_sha256="",
)
"""For prices, which are not compared here."""


@click.command()
@click.option("--model", default=xlmr.NAME, show_default=True, help="As for `chunk`.")
@click.option("--target", "target_tokens", type=int, help="Of a chunk; else what the model reads.")
@click.option("--rows", "row_group_rows", default=50, show_default=True, type=click.IntRange(1))
@click.option("--json", "is_json", is_flag=True, help="End with one JSON object.")
def command(model: str, target_tokens: int | None, row_group_rows: int, is_json: bool) -> None:
    """Compare the plan's estimate of chunks with the chunks made."""
    corpora = {name: evaluation.stored_texts(name) for name in CORPORA}
    folder = str(xlmr.train(list(chain(*corpora.values())))) if model == xlmr.NAME else model
    tokenizer = load_tokenizer(folder)
    sizes = ChunkSizes(target_tokens=target_tokens)
    with TemporaryDirectory() as place:
        rows = [
            measure(
                name,
                texts,
                tokenizer,
                sizes=sizes,
                folder=Path(place),
                row_group_rows=row_group_rows,
            )
            for name, texts in corpora.items()
        ]
    facts = {
        "model": model,
        **resolve_sizes(sizes, max_tokens=tokenizer.max_tokens)._asdict(),
        "rows of a row group": row_group_rows,
    }
    report.show("plan", rows, facts=facts, is_json=is_json)
    if is_json:
        print(json.dumps({row["corpus"]: round(row["error"], 4) for row in rows}))


def measure(
    name: str,
    texts: list[str],
    tokenizer: Tokenizer,
    *,
    sizes: ChunkSizes,
    folder: Path,
    row_group_rows: int,
) -> dict[str, Any]:
    """A corpus planned from a sample, then chunked whole.

    Args:
        name: of the corpus.
        texts: of its documents, in order.
        tokenizer: of the model.
        sizes: of chunks.
        folder: where the corpus is written.
        row_group_rows: documents of a row group.
    """
    path = folder / f"{name}.parquet"
    pq.write_table(pa.table({"text": texts}), path, row_group_size=row_group_rows)
    dataset = Dataset(
        name=name,
        source="parquet",
        path=str(path),
        licence="as published",
        may_redistribute_text=False,
        tier="none",
        chunk=sizes,
    )
    source = open_source(dataset, cache=Path(os.devnull))
    with _forced_sample(len(texts)):
        plan = planning.plan_dataset(dataset, source, tokenizer=tokenizer, card=_CARD)
    tally = Tally()
    for _ in chunk_documents(
        source.read(source.units()),
        dataset=dataset,
        revision=plan.revision,
        tokenizer=tokenizer,
        sizes=Sizes(plan.target_tokens, plan.overlap_tokens),
        tally=tally,
    ):
        pass  # only the tally is wanted
    return {
        "corpus": name,
        "documents": plan.n_documents,
        "MB": plan.n_bytes / 1e6,
        "documents read": plan.sample.n_documents,
        "estimated chunks": plan.estimate.n_chunks,
        "made": tally.n_chunks,
        "error": plan.estimate.n_chunks / tally.n_chunks - 1,
    }


@contextmanager
def _forced_sample(n_documents: int) -> Iterator[None]:
    kept = planning.WHOLE_DOCUMENTS
    planning.WHOLE_DOCUMENTS = min(kept, n_documents - 1)
    try:
        yield
    finally:
        planning.WHOLE_DOCUMENTS = kept


if __name__ == "__main__":
    command()
