"""What every source shares: digests, and the promise that a planned piece is still what it was.

A digest is a sha256 over whatever decides the documents of a unit: a footer, a block of bytes, a
file, or the documents themselves where they are made rather than stored.
"""

import hashlib
from collections.abc import Iterable

from acidburn_assets.core.documents import Document
from acidburn_assets.core.errors import SourceChanged
from acidburn_assets.core.shards import Unit


def check_unchanged(unit: Unit, digest: str, *, dataset: str) -> None:
    """Compares a unit as planned with the digest found now.

    Raises:
        SourceChanged: they differ.
    """
    if digest != unit.digest:
        raise changed(unit, f"now {digest[:12]}", dataset=dataset)


def changed(unit: Unit, now: str, *, dataset: str) -> SourceChanged:
    """The error for a unit that is not what was planned.

    Args:
        unit: as planned.
        now: what was found instead.
        dataset: its name.
    """
    return SourceChanged(
        f"dataset {dataset!r}: {unit.path!r} (piece {unit.index}) is not what was planned: "
        f"planned {unit.digest[:12]}, {now}. "
        f"Plan the dataset again: acidburn materialize {dataset}"
    )


def documents_digest(documents: Iterable[Document]) -> str:
    """sha256 over documents, hex; rows are left out, so that a module or block keeps its digest
    when something before it grows."""
    content = hashlib.sha256()
    for document in documents:
        for field in (document.doc_id, document.title, document.text, document.problem or ""):
            encoded = field.encode()
            # the length keeps ("ab", "c") and ("a", "bc") apart
            content.update(len(encoded).to_bytes(8, "little") + encoded)
    return content.hexdigest()


def combined_digest(parts: Iterable[tuple[str, str]]) -> str:
    """sha256 over (name, digest) pairs in their order, hex: the revision of a local dataset."""
    content = hashlib.sha256()
    for name, digest in parts:
        content.update(f"{name}\0{digest}\n".encode())
    return content.hexdigest()


def is_unicode(text: str) -> bool:
    """False for lone surrogates: JSON and Python escapes can spell them, UTF-8 cannot."""
    return text.isascii() or text.encode(errors="replace").decode() == text
