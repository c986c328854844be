"""A tokenizer and an encoder without a model, for tests of what stands around them."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache

import numpy as np

from acidburn_assets.core.embeddings import Encoded, InputType, ModelCard
from acidburn_assets.core.errors import ConfigError, ModelError

_TOKEN = re.compile(r"\w+|[^\w\s]")


class FakeTokenizer:
    """Words and punctuation marks are tokens."""

    def __init__(self, *, name: str = "fake", max_tokens: int = 256) -> None:
        self.name = name
        self.fingerprint = "fa4e" * 4
        self.max_tokens = max_tokens

    def spans(self, text: str) -> np.ndarray:
        """(n_tokens, 2) int64, characters of `text`."""
        spans = [match.span() for match in _TOKEN.finditer(text)]
        return np.array(spans, dtype=np.int64).reshape(-1, 2)

    def count(self, texts: Sequence[str]) -> np.ndarray:
        """(len(texts),) int64."""
        return np.array([len(_TOKEN.findall(text)) for text in texts], dtype=np.int64)


class FakeEncoder:
    """A text's vector is the sum of its tokens' random directions: texts that share words are
    near, and the same text has the same vector in every process."""

    device = "cpu"
    dtype = "float32"

    def __init__(self, dim: int = 16, *, max_tokens: int = 256, batch_tokens: int = 2048) -> None:
        self._tokenizer = FakeTokenizer(max_tokens=max_tokens)
        self.batch_tokens = batch_tokens
        self.card = ModelCard(
            name="fake",
            revision="",
            dim=dim,
            max_tokens=max_tokens,
            pooling="mean",
            weights_sha256=hashlib.sha256(b"fake weights").hexdigest(),
            tokenizer_sha256=hashlib.sha256(b"fake tokenizer").hexdigest(),
        )

    def encode(self, texts: Sequence[str], input_type: InputType) -> Encoded:
        """One unit vector per text; refuses what is too long, as the real one does."""
        n_tokens = self._tokenizer.count(texts)
        if len(n_tokens) and n_tokens.max() > self.card.max_tokens:
            kind = ConfigError if input_type == "query" else ModelError
            raise kind(f"a {input_type} has {n_tokens.max()} tokens, over {self.card.max_tokens}")
        vectors = np.empty((len(texts), self.card.dim), dtype=np.float32)
        for row, text in enumerate(texts):
            # a text without a token has a direction of its own
            tokens = [token.lower() for token in _TOKEN.findall(text)] or [f"no token: {text}"]
            total = np.sum([_direction(token, self.card.dim) for token in tokens], axis=0)
            vectors[row] = total / np.linalg.norm(total)
        return Encoded(vectors, n_tokens=int(n_tokens.sum()), n_truncated=0, seconds=0.001)

    def embed_iter(
        self, windows: Iterable[Sequence[str]], input_type: InputType
    ) -> Iterator[Encoded]:
        """Window after window, none ahead."""
        for texts in windows:
            yield self.encode(texts, input_type)


@cache
def _direction(token: str, dim: int) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(token.encode()).digest()[:8])
    return np.random.default_rng(seed).standard_normal(dim)  # (dim,)
