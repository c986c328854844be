"""The corpora and the registry of the run: much alike in text, each chunk its own, poison in one.

The same bytes for the same size, whatever the seed of the faults: an undisturbed run makes the same
objects as a disturbed one.
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from acidburn_assets_tests.samples import TOPICS


class Size(NamedTuple):
    """How much there is to make."""

    shards: dict[str, int]  # of each dataset
    chunks_per_shard: int
    pools: dict[str, str]  # of each dataset


FULL = Size(
    {"notes": 12, "articles": 10, "manual": 10},
    480,
    {"notes": "library", "articles": "library", "manual": "reference"},
)
"""Some minutes of undisturbed work on two cores, most of it embedding."""

SHORT = Size({"manual": 6}, 240, {"manual": "library"})
"""Every asset of a dataset and of a pool once."""

POISONED = "manual"
"""One of its files is changed after it was planned: the shard that begins with it is refused each
time, for good."""

_CHUNKS_PER_DOCUMENT = 24
"""Measured: with 32 tokens each, a chunk holds little more than a sentence."""
_SENTENCES = 24  # of a document

_SOURCES = {
    "notes": "source: jsonl\n    path: data/notes\n    id_column: id\n    title_column: title",
    "articles": "source: parquet\n    path: data/articles.parquet\n    id_column: id\n"
    "    title_column: title",
    "manual": "source: text\n    path: data/manual",
}


def write(folder: Path, size: Size) -> None:
    """Writes `datasets.yaml` and `data/`.

    Args:
        folder: exists and is empty.
        size: of the corpora.
    """
    (folder / "data").mkdir()
    for name, n_shards in size.shards.items():
        n_documents = n_shards * size.chunks_per_shard // _CHUNKS_PER_DOCUMENT
        _WRITERS[name](folder / "data", _documents(name, n_documents))
    (folder / "datasets.yaml").write_text(registry(size), encoding="utf-8")


def registry(size: Size) -> str:
    """The datasets.yaml of these corpora; everything is made unasked."""
    entries = [
        f"""
  - name: {name}
    {_SOURCES[name]}
    licence: CC0-1.0
    may_redistribute_text: true
    pool: {size.pools[name]}
    tier: {"verification" if size.pools[name] == "reference" else "knowledge"}
    automation: all
    chunks_per_shard: {size.chunks_per_shard}
    chunk: {{target_tokens: 32, overlap_tokens: 4}}
"""
        for name in size.shards
    ]
    pools = dict.fromkeys(size.pools.values())
    settings = "".join(f"  {pool}: {{min_cluster_size: 30, min_samples: 5}}\n" for pool in pools)
    return "datasets:" + "".join(entries) + "\npools:\n" + settings


def poison(folder: Path, unit: str) -> None:
    """Changes a file of the poisoned dataset.

    Args:
        folder: where `write` wrote.
        unit: path of the file, as the plan names it.
    """
    path = folder / "data" / POISONED / unit
    path.write_text(path.read_text(encoding="utf-8") + "One sentence more.\n", encoding="utf-8")


class _Document(NamedTuple):
    id: str
    title: str
    text: str


def _documents(dataset: str, n_documents: int) -> Iterator[_Document]:
    rng = random.Random(dataset)  # noqa: S311 - no secret
    topics = list(TOPICS)
    for number in range(n_documents):
        topic = topics[number % len(topics)]
        sentences = [
            f"{rng.choice(TOPICS[topic])} ({topic}, note {rng.randrange(10**6)})"
            for _ in range(_SENTENCES)
        ]
        yield _Document(f"{topic}-{number:05d}", f"{topic} {number}", " ".join(sentences))


def _write_jsonl(folder: Path, documents: Iterator[_Document]) -> None:
    (folder / "notes").mkdir()
    # a unit is a block of many lines or a file: small files, so that shards are of one size
    for number, document in enumerate(documents):
        path = folder / "notes" / f"{number // 5:05d}.jsonl"
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(document._asdict()) + "\n")


def _write_parquet(folder: Path, documents: Iterator[_Document]) -> None:
    rows = [document._asdict() for document in documents]
    pq.write_table(pa.Table.from_pylist(rows), folder / "articles.parquet", row_group_size=5)


def _write_text(folder: Path, documents: Iterator[_Document]) -> None:
    (folder / "manual").mkdir()
    for document in documents:
        path = folder / "manual" / f"{document.id}.txt"
        path.write_text(document.text + "\n", encoding="utf-8")


_WRITERS = {"notes": _write_jsonl, "articles": _write_parquet, "manual": _write_text}
