"""Chunkers behind one interface: ours, and others where they are installed.

All of them cut with one model's tokenizer. What is measured is `chunk`'s matter.
"""

import importlib
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple, TypeAlias

from acidburn_assets.adapters import models
from acidburn_assets.adapters.tokenizer import ModelTokenizer
from acidburn_assets.core.chunks import Sizes, Tokenizer, cut

SEMANTIC = "semantic-text-splitter"

PEERS = {
    SEMANTIC: "semantic_text_splitter",
    "chonkie": "chonkie",
    "langchain-text-splitters": "langchain_text_splitters",
}
"""Distributions and the modules that they bring."""


class Piece(NamedTuple):
    """A chunk as its maker gives it."""

    start: int  # characters of the document
    end: int
    text: str


Cutter: TypeAlias = Callable[[str], list[Piece]]
Maker: TypeAlias = Callable[[], Cutter]
"""Makes a cutter that has seen no text yet: chonkie remembers what it has counted."""


def absent() -> list[str]:
    """Distributions that are not installed."""
    return [name for name, module in PEERS.items() if find_spec(module) is None]


def makers(model: str, tokenizer: ModelTokenizer, sizes: Sizes) -> dict[str, Maker]:
    """Every peer that is installed.

    Where the model is tokenised by sentencepiece, a peer is measured twice: with the tokenizer of
    `tokenizers` that it takes by itself, and with a function of ours that counts by sentencepiece,
    as someone would write who knows that it is faster.

    Args:
        model: `minilm`, a folder, or `owner/name` on the hub.
        tokenizer: its tokenizer.
        sizes: of chunks; `no overlap` in a name says that there the overlap is 0.
    """
    made = dict(_peers(_backend(model), sizes))
    if tokenizer.engine == "sentencepiece":
        counted = _counted_peers(lambda text: int(tokenizer.count([text])[0]), sizes)
        made |= {f"{name}, sentencepiece": make for name, make in counted}
    return made


def cut_ours(text: str, *, tokenizer: Tokenizer, sizes: Sizes) -> list[Piece]:
    """Ours, as pieces."""
    spans = cut(text, tokenizer, sizes)
    return [Piece(span.start, span.end, text[span.start : span.end]) for span in spans]


def _peers(backend: Any, sizes: Sizes) -> Iterator[tuple[str, Maker]]:
    """With the tokenizer as each takes it best."""
    target, overlap = sizes
    missing = absent()
    if SEMANTIC not in missing:
        semantic = importlib.import_module("semantic_text_splitter").TextSplitter
        make = partial(semantic.from_huggingface_tokenizer, backend, target, overlap)
        yield SEMANTIC, lambda: partial(_cut_semantic, make())
    yield from _chonkie(backend, sizes)
    yield from _langchain(
        lambda text: len(backend.encode_batch_fast([text], add_special_tokens=False)[0]), sizes
    )


def _counted_peers(count: Callable[[str], int], sizes: Sizes) -> Iterator[tuple[str, Maker]]:
    """With a function that counts tokens."""
    if SEMANTIC not in absent():
        semantic = importlib.import_module("semantic_text_splitter").TextSplitter
        make = partial(semantic.from_callback, count, *sizes)
        yield SEMANTIC, lambda: partial(_cut_semantic, make())
    yield from _chonkie(count, sizes)
    yield from _langchain(count, sizes)


def _chonkie(counter: Any, sizes: Sizes) -> Iterator[tuple[str, Maker]]:
    if "chonkie" in absent():
        return
    chonkie = importlib.import_module("chonkie")
    recursive = partial(chonkie.RecursiveChunker, counter, sizes.target_tokens)
    sentences = partial(chonkie.SentenceChunker, counter, *sizes)
    # it knows no overlap
    yield "chonkie recursive, no overlap", lambda: partial(_cut_chonkie, recursive())
    yield "chonkie sentences", lambda: partial(_cut_chonkie, sentences())


def _langchain(count: Callable[[str], int], sizes: Sizes) -> Iterator[tuple[str, Maker]]:
    if "langchain-text-splitters" in absent():
        return
    langchain = partial(
        importlib.import_module("langchain_text_splitters").RecursiveCharacterTextSplitter,
        chunk_size=sizes.target_tokens,
        chunk_overlap=sizes.overlap_tokens,
        length_function=count,
        add_start_index=True,
    )
    yield "langchain recursive", lambda: partial(_cut_langchain, langchain())


def _cut_semantic(splitter: Any, text: str) -> list[Piece]:
    return [Piece(at, at + len(piece), piece) for at, piece in splitter.chunk_indices(text)]


def _cut_chonkie(chunker: Any, text: str) -> list[Piece]:
    return [Piece(one.start_index, one.end_index, one.text) for one in chunker(text)]


def _cut_langchain(splitter: Any, text: str) -> list[Piece]:
    found = splitter.create_documents([text])
    made = [(one.metadata["start_index"], one.page_content) for one in found]
    return [Piece(at, at + len(piece), piece) for at, piece in made]


def _backend(model: str) -> Any:
    from tokenizers import Tokenizer as Backend

    files = models.find(model)
    folder = files.folder / models.read_config(files).transformer
    backend = Backend.from_file(str(folder / "tokenizer.json"))
    backend.no_truncation()
    backend.no_padding()
    return backend
