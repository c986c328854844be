"""Chunkers behind one interface: ours, and others where they are installed.

All of them cut with the same tokenizer of `tokenizers`. What is measured is `chunk`'s matter.
"""

import importlib
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple, TypeAlias

from acidburn_assets.adapters import models
from acidburn_assets.core.chunks import Sizes, Tokenizer, cut

PEERS = {
    "semantic-text-splitter": "semantic_text_splitter",
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


def makers(model: str, tokenizer: Tokenizer, sizes: Sizes) -> dict[str, Maker]:
    """Ours first, then every peer that is installed.

    Args:
        model: `minilm`, a folder, or `owner/name` on the hub.
        tokenizer: its tokenizer.
        sizes: of chunks; `no overlap` in a name says that there the overlap is 0.
    """
    without = sizes._replace(overlap_tokens=0)
    return {
        "ours": lambda: partial(cut_ours, tokenizer=tokenizer, sizes=sizes),
        "ours, no overlap": lambda: partial(cut_ours, tokenizer=tokenizer, sizes=without),
        **dict(_peers(_backend(model), tokenizer, sizes)),
    }


def cut_ours(text: str, *, tokenizer: Tokenizer, sizes: Sizes) -> list[Piece]:
    """Ours, as pieces."""
    spans = cut(text, tokenizer, sizes)
    return [Piece(span.start, span.end, text[span.start : span.end]) for span in spans]


def _peers(backend: Any, tokenizer: Tokenizer, sizes: Sizes) -> Iterator[tuple[str, Maker]]:
    target, overlap = sizes
    missing = absent()
    if "semantic-text-splitter" not in missing:
        semantic = importlib.import_module("semantic_text_splitter").TextSplitter
        make = partial(semantic.from_huggingface_tokenizer, backend, target, overlap)
        yield "semantic-text-splitter", lambda: partial(_cut_semantic, make())
    if "chonkie" not in missing:
        chonkie = importlib.import_module("chonkie")
        recursive = partial(chonkie.RecursiveChunker, backend, target)
        sentences = partial(chonkie.SentenceChunker, backend, target, overlap)
        # it knows no overlap
        yield "chonkie recursive, no overlap", lambda: partial(_cut_chonkie, recursive())
        yield "chonkie sentences", lambda: partial(_cut_chonkie, sentences())
    if "langchain-text-splitters" not in missing:
        langchain = partial(
            importlib.import_module("langchain_text_splitters").RecursiveCharacterTextSplitter,
            chunk_size=target,
            chunk_overlap=overlap,
            length_function=lambda text: int(tokenizer.count([text])[0]),
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
