"""The embedding model's own tokenizer, read by `tokenizers` alone: no torch, no transformers.

Chunking counts with it and the encoder feeds the model with it, so what fits for one fits for the
other.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from acidburn_assets.adapters import models
from acidburn_assets.core.errors import ModelError

if TYPE_CHECKING:
    import tokenizers

_SLICE_TEXTS = 64
"""Texts tokenised at once: an encoding of `tokenizers` takes some 150 bytes a token, ids 4."""


class ModelTokenizer:
    """Tokens of texts: never truncated, never padded.

    Attributes:
        name: of the model.
        sha256: of what the tokens of a text depend on, hex.
        fingerprint: its first 16 digits.
        max_tokens: tokens of a document that the model reads, without its special tokens and the
            prompt that documents get.
    """

    def __init__(
        self,
        backend: "tokenizers.Tokenizer",
        *,
        name: str,
        sha256: str,
        max_input_tokens: int,
        document_prompt: str = "",
    ) -> None:
        self._backend = backend
        self.name = name
        self.sha256 = sha256
        self.fingerprint = sha256[:16]
        self.n_special_tokens = backend.num_special_tokens_to_add(is_pair=False)
        self.max_input_tokens = max_input_tokens
        reserved = self.n_special_tokens
        if document_prompt:
            reserved += len(backend.encode(document_prompt, add_special_tokens=False))
        self.max_tokens = max_input_tokens - reserved
        if self.max_tokens < 1:
            raise ModelError(
                f"{name!r} reads {max_input_tokens} tokens, of which {reserved} are special tokens "
                "and its document prompt; set ACIDBURN_MODEL to another model"
            )

    def spans(self, text: str) -> np.ndarray:
        """Where each token lies in the text: no special tokens.

        In order of their starts. Characters between tokens belong to none: blanks, and what the
        tokenizer's normalisation drops, such as accents after their letter. An encoding takes some
        150 bytes a token while it is made, so long documents are better given piece by piece.

        Returns:
            (n_tokens, 2) int64, characters (code points) of `text`.
        """
        with _refusing_surrogates():
            encoding = self._backend.encode(text, add_special_tokens=False)
        return np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)  # (n_tokens, 2)

    def count(self, texts: Sequence[str]) -> np.ndarray:
        """Tokens of each text: no special tokens.

        Returns:
            (len(texts),) int64.
        """
        counts = (len(ids) for ids in self._encode(texts, add_special_tokens=False))
        return np.fromiter(counts, dtype=np.int64, count=len(texts))

    def input_ids(self, texts: Sequence[str]) -> list[np.ndarray]:
        """What the model reads of each text: its token ids, special tokens included.

        Returns:
            (n_tokens,) int32 for each text.
        """
        return list(self._encode(texts, add_special_tokens=True))

    def _encode(self, texts: Sequence[str], *, add_special_tokens: bool) -> Iterator[np.ndarray]:
        for start in range(0, len(texts), _SLICE_TEXTS):
            part = list(texts[start : start + _SLICE_TEXTS])
            with _refusing_surrogates():
                encodings = self._backend.encode_batch_fast(
                    part, add_special_tokens=add_special_tokens
                )
            for encoding in encodings:
                yield np.array(encoding.ids, dtype=np.int32)


@contextmanager
def _refusing_surrogates() -> Iterator[None]:
    try:
        yield
    except TypeError as error:
        raise ModelError(
            "a text is no Unicode: it holds half of a surrogate pair; replace that character"
        ) from error


def load_tokenizer(
    model: str, *, revision: str = "", hf_token: str = "", hub_endpoint: str | None = None
) -> ModelTokenizer:
    """Loads a model's tokenizer.

    Args:
        model: `minilm`, a folder, or `owner/name` on the hub.
        revision: of a hub's model; "" is its newest.
        hf_token: Hugging Face token; "" asks the hub as nobody.
        hub_endpoint: None is huggingface.co.

    Raises:
        ModelError: no such model, or it has no tokenizer.json.
        ConfigError: a revision was given for what has none.
        ServiceUnavailable: the hub did not answer.
    """
    files = models.find(model, revision=revision, hf_token=hf_token, hub_endpoint=hub_endpoint)
    return read_tokenizer(files, models.read_config(files))


def read_tokenizer(files: models.ModelFiles, config: models.ModelConfig) -> ModelTokenizer:
    """Reads the tokenizer of a model that was found.

    Raises:
        ModelError: it has no tokenizer.json, or one that cannot be read.
    """
    # `tokenizers` warns on stderr at every fork once its own threads have run, and a forked child
    # that inherited them would hang; whoever set the variable knows why
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from tokenizers import Tokenizer, normalizers

    path = files.folder / config.transformer / "tokenizer.json"
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise ModelError(
            f"{files.name!r} has no tokenizer.json; write one with "
            "AutoTokenizer.from_pretrained(…).save_pretrained(…) of transformers into its folder, "
            "or set ACIDBURN_MODEL to another model"
        ) from error
    try:
        backend = Tokenizer.from_buffer(content)
    except Exception as error:  # `tokenizers` raises the bare class
        raise ModelError(f"{files.name!r}: {str(path)!r} cannot be read: {error}") from error
    backend.no_truncation()
    backend.no_padding()
    digest = hashlib.sha256(content)
    if config.is_lowercased:
        own = [backend.normalizer] if backend.normalizer else []
        backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])
        digest.update(b"lowercase")
    return ModelTokenizer(
        backend,
        name=files.name,
        sha256=digest.hexdigest(),
        max_input_tokens=config.max_input_tokens,
        document_prompt=config.document_prompt,
    )
