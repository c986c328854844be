"""Words cut to their stems, so that `inverting` finds `inverts`: Snowball's, in C (PyStemmer)."""

import threading
from collections.abc import Sequence
from functools import cache
from typing import Any

LANGUAGE = "english"
"""Words of other languages are cut by the same rules, questions like passages, so they find each
other all the same; what is written in other letters stays as it is."""

_local = threading.local()


def stem(words: Sequence[str]) -> Sequence[str]:
    """Stems of words in lower case, one each. May be called by several threads."""
    stemmer = getattr(_local, "stemmer", None)
    if stemmer is None:
        # one for each thread: it keeps a buffer
        stemmer = _local.stemmer = _module().Stemmer(LANGUAGE)
    stems: list[str] = stemmer.stemWords(list(words))
    return stems


def version() -> str:
    """Of the rules; other ones make other stems."""
    return f"{LANGUAGE}, PyStemmer {_module().version()}"


@cache
def _module() -> Any:
    import Stemmer  # type: ignore[import-not-found, import-untyped, unused-ignore]

    return Stemmer
