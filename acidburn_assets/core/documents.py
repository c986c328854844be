"""A document as a source hands it over, and the rules that decide whether it is kept.

What is not kept is counted under its reason and reported with the shard; nothing is dropped
silently. Reading documents is the sources' work (`adapters.sources`).
"""

import re
from typing import Literal, NamedTuple

Problem = Literal["null", "not_text", "not_utf8"]
Reason = Literal["null", "not_text", "not_utf8", "empty", "binary", "too_large", "bad_id"]


class Document(NamedTuple):
    """One row of a dataset."""

    row: int  # in the dataset, 0-based
    doc_id: str
    title: str  # "" where the dataset has none
    text: str  # "" where there is a problem
    problem: Problem | None = None  # why there is no text, found while reading


class Verdict(NamedTuple):
    """What a rule says of a document."""

    is_kept: bool
    reason: Reason | None


KEPT = Verdict(True, None)

BINARY_SHARE = 0.02
"""A text with more control characters than this is binary. Chosen, not measured: prose and code
have none but tab, newline, return and form feed; compressed bytes read as Latin-1 have 11 %."""

_SURROGATE = re.compile("[\ud800-\udfff]")  # JSON can smuggle one in; it has no UTF-8 form
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f]")


def screen(document: Document, *, max_document_bytes: int) -> Verdict:
    """Decides whether a document is chunked.

    Args:
        document: as read.
        max_document_bytes: UTF-8 bytes; a larger document is skipped as `too_large`.
    """
    if document.problem is not None:
        return Verdict(False, document.problem)
    if not document.doc_id or "\0" in document.doc_id or _SURROGATE.search(document.doc_id):
        return Verdict(False, "bad_id")
    text = document.text
    if _SURROGATE.search(text) or _SURROGATE.search(document.title):
        return Verdict(False, "not_utf8")
    if not text.strip():
        return Verdict(False, "empty")
    # len(text) is a lower bound of the bytes: the exact count is made only when it can matter
    if len(text) > max_document_bytes or (
        len(text) * 4 > max_document_bytes and len(text.encode()) > max_document_bytes
    ):
        return Verdict(False, "too_large")
    if "\0" in text or "\0" in document.title or _control_share(text) > BINARY_SHARE:
        return Verdict(False, "binary")
    return KEPT


def _control_share(text: str) -> float:
    return len(_CONTROL.findall(text)) / len(text)
