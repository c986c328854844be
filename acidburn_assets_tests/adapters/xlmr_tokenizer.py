"""A tokenizer of XLM-R's kind, trained on the spot: its sentencepiece file and tokenizer.json.

As XLM-R's and bge-m3's it is a Unigram model without bytes to fall back on, normalises with
`nmt_nfkc`, and numbers `<s> <pad> </s> <unk>` from 0, sentencepiece's pieces behind them, and
`<mask>` last.
"""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

FILE = "sentencepiece.bpe.model"


def train(texts: Iterable[str], folder: Path, *, n_pieces: int) -> Any:
    """Trains the tokenizer and writes both of its files.

    Args:
        texts: sentences or paragraphs; what is longer than 4,192 bytes is left out.
        folder: that exists.
        n_pieces: at most; fewer where the texts give no more.

    Returns:
        The tokenizer of transformers.
    """
    import sentencepiece
    from transformers import XLMRobertaTokenizer
    from transformers.convert_slow_tokenizer import XLMRobertaConverter
    from transformers.utils import sentencepiece_model_pb2_new as protobuf

    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=written,
        model_type="unigram",
        vocab_size=n_pieces,
        hard_vocab_limit=False,
        character_coverage=0.9995,
        normalization_rule_name="nmt_nfkc",
        minloglevel=2,
    )
    (folder / FILE).write_bytes(written.getvalue())
    # transformers reads the file itself only with the protobuf of the day; its conversion is used
    model = protobuf.ModelProto()
    model.ParseFromString(written.getvalue())
    parts = XLMRobertaConverter.convert_from_spm(
        vocab=[(piece.piece, piece.score) for piece in model.pieces],
        _spm_precompiled_charsmap=model.normalizer_spec.precompiled_charsmap,
    )
    tokenizer = XLMRobertaTokenizer(**parts)
    tokenizer.save_pretrained(folder)
    return tokenizer
