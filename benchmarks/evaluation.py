"""What the benchmarks are run on.

Texts come from the documentation that every Python carries, read as the demo reads it. Labelled
collections are not shipped: they lie in the folder that ACIDBURN_EVAL_DATA names, and a benchmark
that needs one says so and ends where it is absent. Vectors are made by the packaged model and kept
between runs, by the content of their texts.
"""

import hashlib
import os
import sys
import tempfile
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from acidburn_assets.adapters import stemmer
from acidburn_assets.adapters.encoder import load_encoder
from acidburn_assets.adapters.sources import open_source
from acidburn_assets.adapters.tokenizer import ModelTokenizer
from acidburn_assets.core import schemas
from acidburn_assets.core.chunks import Tally, Tokenizer, chunk_documents, resolve_sizes
from acidburn_assets.core.datasets import ChunkSizes, Dataset, Filters
from acidburn_assets.core.documents import Document, screen
from acidburn_assets.core.embeddings import InputType
from acidburn_assets.core.term_weights import count_terms, weigh_terms
from acidburn_assets.settings import PROJECT_ROOT

_Item = TypeVar("_Item")

DEFAULT_FOLDER = PROJECT_ROOT.parent / "shared" / "data"

DATASET = Dataset(
    name="python_docs",
    source="python_docs",
    licence="PSF-2.0",
    may_redistribute_text=True,
    tier="none",
    filters=Filters(include=("stdlib", "topics"), packages=("numpy",)),
)


_FILES = {"arxiv": "arxiv_ai", "questions": "stackoverflow20", "reuters": "reuters_body"}


def read(name: str) -> pa.Table:
    """A collection of the evaluation data; ends the process with 2 where it is absent.

    Args:
        name: of the file, without `.parquet`.
    """
    path = Path(os.environ.get("ACIDBURN_EVAL_DATA") or DEFAULT_FOLDER) / f"{name}.parquet"
    if not path.is_file():
        sys.stderr.write(
            f"no evaluation data: {str(path)!r} is absent; set ACIDBURN_EVAL_DATA to the folder "
            f"that holds {path.name}\n"
        )
        raise SystemExit(2)
    return pq.read_table(path)


def sample(name: str, n_rows: int) -> pa.Table:
    """Rows of a collection at random, always the same, in the collection's order."""
    table = read(name)
    chosen = np.random.default_rng(0).permutation(table.num_rows)[:n_rows]
    return table.take(pa.array(np.sort(chosen)))


def embed(texts: Sequence[str], input_type: InputType = "document") -> np.ndarray:
    """MiniLM's vectors, rounded as they are stored; of long texts, of as much as it reads.

    They are kept in a folder of temporary files: 20,000 newswires take minutes.

    Args:
        texts: in the order of the rows.
        input_type: what they are to the model.

    Returns:
        (n, 384) float32.
    """
    encoder = load_encoder("minilm", device="cpu")
    beginnings = [_beginning(text, encoder.tokenizer) for text in texts]
    named = hashlib.sha256(f"{encoder.card.fingerprint} {encoder.dtype} {input_type}".encode())
    for text in beginnings:
        named.update(hashlib.sha256(text.encode()).digest())
    path = Path(tempfile.gettempdir()) / "acidburn-benchmarks" / f"{named.hexdigest()}.npy"
    if not path.is_file():
        path.parent.mkdir(exist_ok=True)
        vectors = encoder.encode(beginnings, input_type).vectors.astype(np.float16)
        partial = path.with_suffix(f".{os.getpid()}")  # a run that is stopped leaves no half file
        with partial.open("wb") as file:
            np.save(file, vectors, allow_pickle=False)
        partial.replace(path)
    return np.load(path, allow_pickle=False).astype(np.float32)


def _beginning(text: str, tokenizer: ModelTokenizer) -> str:
    """As many words as the model reads."""
    spans = tokenizer.spans(text)
    if len(spans) <= tokenizer.max_tokens:
        return text
    # what is cut inside a word may have more tokens than before
    return text[: spans[tokenizer.max_tokens - 1, 1]].rsplit(maxsplit=1)[0]


def texts(corpus: str) -> list[str]:
    """Whole texts in random order, so that the first few are like all of them.

    Args:
        corpus: `python` for `documents`; `techdocs` for PEPs and Rust RFCs, joined from parts;
            `both` for all of these, and those that `stored_texts` knows.
    """
    if corpus == "both":
        return _shuffled([*texts("techdocs"), *texts("python")])
    if corpus == "python":
        return [document.text for document in documents()]
    return _shuffled(stored_texts(corpus))


def stored_texts(corpus: str) -> list[str]:
    """Whole texts of the evaluation data, in the order of their names or as stored.

    Args:
        corpus: `techdocs`, `arxiv` for abstracts, `reuters` for newswire, `questions` for titles.
    """
    if corpus in _FILES:
        return list(map(str, read(_FILES[corpus])["text"].to_pylist()))
    parts = read("techdocs_chunks").select(["doc", "text"])
    joined: dict[str, list[str]] = {}
    for doc, text in zip(parts["doc"].to_pylist(), parts["text"].to_pylist(), strict=True):
        joined.setdefault(doc, []).append(text)
    return ["\n\n".join(joined[doc]) for doc in sorted(joined)]


def documents() -> list[Document]:
    """The Python documentation in random order: language reference, standard library, NumPy."""
    source = open_source(DATASET, cache=Path(os.devnull))
    return _shuffled(
        document
        for document in source.read(source.units())
        if screen(document, max_document_bytes=DATASET.filters.max_document_bytes).is_kept
    )


def stored_documents(corpus: str) -> list[Document]:
    """The texts of a corpus as documents, in random order.

    Args:
        corpus: as `stored_texts` knows them.
    """
    return _shuffled(
        Document(row=row, doc_id=str(row), title="", text=text)
        for row, text in enumerate(stored_texts(corpus))
    )


def chunks(
    tokenizer: Tokenizer,
    n_chunks: int,
    *,
    target_tokens: int | None = None,
    of: Iterable[Document] | None = None,
) -> pa.Table:
    """The first so many chunks, of `schemas.CHUNKS`.

    Args:
        tokenizer: of the model that reads them.
        n_chunks: at most; fewer where the documents hold no more.
        target_tokens: None: as long as the model reads.
        of: documents; None: `documents`.
    """
    batches = chunk_documents(
        documents() if of is None else of,
        dataset=DATASET,
        revision="",
        tokenizer=tokenizer,
        sizes=resolve_sizes(
            ChunkSizes(target_tokens=target_tokens), max_tokens=tokenizer.max_tokens
        ),
        tally=Tally(),
    )
    # a batch holds a thousand or more, or is the last
    n_batches = n_chunks // 1000 + 1
    return pa.Table.from_batches(islice(batches, n_batches), schemas.CHUNKS).slice(0, n_chunks)


def term_weights(chunks: pa.Table) -> pa.Table:
    """The terms of chunks, of `schemas.TERM_WEIGHTS`."""
    batches = chunks.to_batches()
    counted = [count_terms(batch["text"], stemmer.stem) for batch in batches]
    weighed = weigh_terms(counted, [batch["chunk_id"] for batch in batches])
    return pa.Table.from_batches(weighed, schemas.TERM_WEIGHTS)


def _shuffled(items: Iterable[_Item]) -> list[_Item]:
    kept = list(items)
    return [kept[index] for index in np.random.default_rng(0).permutation(len(kept))]
