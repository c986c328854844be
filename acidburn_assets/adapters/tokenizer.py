"""The embedding model's own tokenizer, without the model: no torch, no transformers.

Chunking counts with it and the encoder feeds the model with it, so what fits for one fits for the
other. Where a model has its sentencepiece file and that says the same as its tokenizer.json, texts
are tokenised by sentencepiece, else by `tokenizers`. Source: measured with a Unigram model of
48,000 pieces on 4 MB of documentation, 16 MB a second of CPU against 1.5, with the same ids.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from acidburn_assets.adapters import models
from acidburn_assets.core.errors import ModelError

if TYPE_CHECKING:
    import tokenizers
    from sentencepiece import SentencePieceProcessor

SENTENCEPIECE_FILES = ("sentencepiece.bpe.model", "spiece.model", "tokenizer.model")
"""Names that transformers gives the file, XLM-R's and bge-m3's first, whatever is inside."""

PROBES = (
    "Shards",
    "  two  blanks,\ttab\n\nand lines\r\n\u00a0\u2003\u3000end \n",
    "def norm(x):\n    return sum(value**2 for value in x) ** 0.5  # length\n",
    "Die Straße nach İstanbul führt über KÖLN; e\u0301te\u0301, naïve, ﬁne, ½ & ∑ ``q'' “q” …",
    "Москва, Ελλάδα, العربية, עברית, हिन्दी, ภาษาไทย, 한국어, Việt Nam",
    "聚类把相似的文本放在一起。検索は意味の近さで答える、ﾊﾝｶｸもＡＢＣも。",
    "😀 👩\u200d👩\u200d👧 family, 🇩🇪 flag, 👍🏽, 𝔘𝔫𝔦𝔠𝔬𝔡𝔢, \u200bzero\u200bwidth",
    "▁ low▁line \ufeffmark soft\u00adhyphen \u0301 lone mark, \ufffd \ue000 \x00 \x07 \x7f",
    "https://example.org/a_b?c=d&e=%20 1234567890 3.14 1,000 dGhlIHF1aWNrIGJyb3duIGZveA==",
    "Retrieval reads a map of clusters first and only then the passages inside them. " * 30,
)
"""Both must make the same ids of these before sentencepiece is used. Left out is what only one of
them joins or parts: letters with two marks each, U+0085, which `tokenizers` takes for a blank, and
runs of one sign, whose many splits score the same."""

_SLICE_TEXTS = 64
"""Texts tokenised at once: an encoding of `tokenizers` takes some 150 bytes a token, ids 4."""

_SCORE_TOLERANCE = 1e-4  # float32 in one file, decimal digits in the other

_logger = logging.getLogger(__name__)


class _Engine(Protocol):
    """What splits texts."""

    name: str
    n_special_tokens: int

    def spans(self, text: str) -> np.ndarray: ...

    def count(self, texts: Sequence[str]) -> Iterator[int]: ...

    def input_ids(self, texts: Sequence[str]) -> Iterator[np.ndarray]: ...


class ModelTokenizer:
    """Tokens of texts: never truncated, never padded.

    To another process it travels as the place of its files, which are read anew there.

    Attributes:
        name: of the model.
        engine: `sentencepiece` or `tokenizers`.
        sha256: of what the tokens of a text depend on, hex.
        fingerprint: its first 16 digits.
        max_tokens: tokens of a document that the model reads, without its special tokens and the
            prompt that documents get.
    """

    def __init__(
        self,
        engine: _Engine,
        files: models.ModelFiles,
        config: models.ModelConfig,
        *,
        sha256: str,
    ) -> None:
        """Use `load_tokenizer` or `read_tokenizer`."""
        self._engine = engine
        self._files = files
        self._config = config
        self.name = files.name
        self.engine = engine.name
        self.sha256 = sha256
        self.fingerprint = sha256[:16]
        self.n_special_tokens = engine.n_special_tokens
        self.max_input_tokens = config.max_input_tokens
        reserved = self.n_special_tokens + sum(engine.count([config.document_prompt]))
        self.max_tokens = self.max_input_tokens - reserved
        if self.max_tokens < 1:
            raise ModelError(
                f"{self.name!r} reads {self.max_input_tokens} tokens, of which {reserved} are "
                "special tokens and its document prompt; set ACIDBURN_MODEL to another model"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        return read_tokenizer, (self._files, self._config)

    def spans(self, text: str) -> np.ndarray:
        """Where each token lies in the text: no special tokens.

        In order of their starts. A token of sentencepiece may begin with the blanks before it; all
        other characters between tokens belong to none: blanks, and what the tokenizer's
        normalisation drops, such as accents after their letter. An encoding takes some 150 bytes a
        token while it is made, so long documents are better given piece by piece.

        Returns:
            (n_tokens, 2) int64, characters (code points) of `text`.

        Raises:
            ModelError: the text holds half of a surrogate pair.
        """
        return self._engine.spans(text)

    def count(self, texts: Sequence[str]) -> np.ndarray:
        """Tokens of each text: no special tokens.

        Returns:
            (len(texts),) int64.

        Raises:
            ModelError: a text holds half of a surrogate pair.
        """
        return np.fromiter(self._engine.count(texts), dtype=np.int64, count=len(texts))

    def input_ids(self, texts: Sequence[str]) -> list[np.ndarray]:
        """What the model reads of each text: its token ids, special tokens included.

        Returns:
            (n_tokens,) int32 for each text.

        Raises:
            ModelError: a text holds half of a surrogate pair.
        """
        return list(self._engine.input_ids(texts))


class _TokenizersEngine:
    """The library `tokenizers`. A control token in a text, such as `</s>`, is that token."""

    name = "tokenizers"

    def __init__(self, backend: "tokenizers.Tokenizer") -> None:
        self._backend = backend
        self.n_special_tokens = backend.num_special_tokens_to_add(is_pair=False)

    def spans(self, text: str) -> np.ndarray:
        with _refusing_surrogates():
            encoding = self._backend.encode(text, add_special_tokens=False)
        return np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)  # (n_tokens, 2)

    def count(self, texts: Sequence[str]) -> Iterator[int]:
        return (len(encoding) for encoding in self._encode(texts, add_special_tokens=False))

    def input_ids(self, texts: Sequence[str]) -> Iterator[np.ndarray]:
        for encoding in self._encode(texts, add_special_tokens=True):
            yield np.array(encoding.ids, dtype=np.int32)

    def _encode(
        self, texts: Sequence[str], *, add_special_tokens: bool
    ) -> "Iterator[tokenizers.Encoding]":
        for start in range(0, len(texts), _SLICE_TEXTS):
            part = list(texts[start : start + _SLICE_TEXTS])
            with _refusing_surrogates():
                encodings = self._backend.encode_batch_fast(
                    part, add_special_tokens=add_special_tokens
                )
            yield from encodings


class _SentencePieceEngine:
    """The library sentencepiece. A control token in a text, such as `</s>`, is plain text.

    That is how these models were trained, and a document cannot end its own text early or hide a
    word behind `<mask>`.
    """

    name = "sentencepiece"

    def __init__(
        self,
        processor: "SentencePieceProcessor",
        model_ids: np.ndarray,
        *,
        before: Sequence[int],
        after: Sequence[int],
    ) -> None:
        """Takes over the model's numbers.

        Args:
            processor: with the model's pieces.
            model_ids: (n_pieces,) int32, the model's id of each piece.
            before: ids that the model reads before every text.
            after: ids that it reads behind it.
        """
        self._processor = processor
        self._model_ids = model_ids
        self._before = np.array(before, dtype=np.int32)
        self._after = np.array(after, dtype=np.int32)
        self.n_special_tokens = len(before) + len(after)

    def spans(self, text: str) -> np.ndarray:
        with _refusing_surrogates():
            text.encode()
        offsets = self._processor.encode(text, return_type="offset_mapping")["offsets"]
        return np.array(offsets, dtype=np.int64).reshape(-1, 2)  # (n_tokens, 2)

    def count(self, texts: Sequence[str]) -> Iterator[int]:
        return (len(pieces) for pieces in self._encode(texts))

    def input_ids(self, texts: Sequence[str]) -> Iterator[np.ndarray]:
        for pieces in self._encode(texts):
            yield np.concatenate([self._before, self._model_ids[pieces], self._after])

    def _encode(self, texts: Sequence[str]) -> Iterator[np.ndarray]:
        """(n_tokens,) int32 for each text: sentencepiece's own numbers."""
        for text in texts:
            with _refusing_surrogates():
                content = text.encode()
            yield self._processor.encode(content, return_type="numpy")


@contextmanager
def _refusing_surrogates() -> Iterator[None]:
    try:
        yield
    except (TypeError, UnicodeEncodeError) as error:
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
    from tokenizers.models import Unigram

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
    engine: _Engine = _TokenizersEngine(backend)
    if isinstance(backend.model, Unigram):
        found = _read_sentencepiece(files, path.parent, json.loads(content), backend)
        if isinstance(found, str):
            _say_once(f"{files.name!r} is tokenised by `tokenizers`, ten times slower: {found}")
        else:
            engine, sentencepiece_model = found
            digest.update(b"sentencepiece" + sentencepiece_model)
    return ModelTokenizer(engine, files, config, sha256=digest.hexdigest())


def _read_sentencepiece(
    files: models.ModelFiles,
    folder: Path,
    declared: Mapping[str, Any],
    backend: "tokenizers.Tokenizer",
) -> tuple[_SentencePieceEngine, bytes] | str:
    """The engine with its file's content, or why it cannot stand for tokenizer.json.

    Args:
        files: of the model.
        folder: of its tokenizer.
        declared: tokenizer.json.
        backend: made of it.

    Raises:
        ModelError: the sentencepiece file cannot be read.
    """
    from sentencepiece import SentencePieceProcessor

    path = next((folder / name for name in SENTENCEPIECE_FILES if (folder / name).exists()), None)
    if path is None:
        return f"it has none of {', '.join(SENTENCEPIECE_FILES)}; put its own beside tokenizer.json"
    content = path.read_bytes()
    try:
        processor = SentencePieceProcessor(model_proto=content)
    except RuntimeError as error:
        raise ModelError(
            f"{files.name!r}: {str(path)!r} is no sentencepiece model: {error}; fetch it again, or "
            "delete it to tokenise by tokenizer.json alone"
        ) from error
    added = [token["content"] for token in declared["added_tokens"] if not token["special"]]
    if added:
        return f"its tokenizer.json adds words of its own, such as {added[0]!r}"
    model_ids = _model_ids(processor, declared["model"])
    if isinstance(model_ids, str):
        return f"{path.name} and tokenizer.json are not of one model: {model_ids}"
    probe = backend.encode("a")
    is_text = np.array(probe.special_tokens_mask) == 0
    first, last = np.flatnonzero(is_text)[[0, -1]]
    engine = _SentencePieceEngine(
        processor, model_ids, before=probe.ids[:first], after=probe.ids[last + 1 :]
    )
    for text, ids in zip(PROBES, engine.input_ids(PROBES), strict=True):
        if backend.encode(text).ids != ids.tolist():
            return f"{path.name} and tokenizer.json make other tokens of {text[:80]!r}"
    return engine, content


def _model_ids(processor: "SentencePieceProcessor", model: Mapping[str, Any]) -> np.ndarray | str:
    """The model's id of each piece, (n_pieces,) int32, or how the vocabularies differ.

    Pieces that no text gives, such as `<s>` and unused ones, have the id of the unknown piece.
    """
    numbers = {piece: (index, score) for index, (piece, score) in enumerate(model["vocab"])}
    ids = np.full(processor.get_piece_size(), model["unk_id"], dtype=np.int32)
    for index in range(len(ids)):
        if processor.IsControl(index) or processor.IsUnknown(index) or processor.IsUnused(index):
            continue
        piece, score = processor.id_to_piece(index), processor.get_score(index)
        if piece not in numbers:
            return f"{piece!r} is only in the first"
        ids[index], declared = numbers[piece]
        if abs(score - declared) > _SCORE_TOLERANCE:
            return f"{piece!r} scores {score:.4f} and {declared:.4f}"
    return ids


@cache
def _say_once(message: str) -> None:
    _logger.warning(message)
