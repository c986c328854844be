"""Citations of numbered passages in a written answer: [1], [2, 3]."""

import re
from collections.abc import Collection
from typing import NamedTuple

_CITATION = re.compile(r"`[^`]*`|[\[【]\s*(\d{1,4}(?:\s*[,;]\s*\d{1,4})*)\s*[\]】]")


class Cited(NamedTuple):
    """A text whose citations name what they may."""

    text: str  # each citation as [1], one number each
    numbers: tuple[int, ...]  # that are cited, in order of their first citation
    removed: tuple[int, ...]  # that were cited and may not be


def keep(text: str, allowed: Collection[int]) -> Cited:
    """Keeps the citations of some passages, and takes out all others.

    Args:
        text: with citations.
        allowed: numbers that may be cited.
    """
    numbers: dict[int, None] = {}
    removed: dict[int, None] = {}

    def replace(found: re.Match[str]) -> str:
        if found[1] is None:  # code, where brackets are an index
            return found[0]
        kept = []
        for number in map(int, re.split(r"\s*[,;]\s*", found[1])):
            if number in allowed:
                numbers[number] = None
                kept.append(f"[{number}]")
            else:
                removed[number] = None
        return "".join(dict.fromkeys(kept))

    shown = _CITATION.sub(replace, text)
    if removed:
        # where a citation stood before a full stop, a gap is left
        shown = re.sub(r"[ ]+([.,;:!?])", r"\1", re.sub(r"[ ]{2,}", " ", shown)).strip()
    return Cited(shown, tuple(numbers), tuple(removed))
