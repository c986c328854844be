"""A sentence-transformers model that is made on the spot: XLM-R in shape, random in its weights.

It is tiny unless another size is asked for; `BGE_M3` is the size of BAAI/bge-m3.

Like bge-m3 it pools the first token, numbers its positions from 2, and has a tokenizer of its own,
here trained on a few sentences: by `tokenizers`, or by sentencepiece as XLM-R's was.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from acidburn_assets_tests.adapters import xlmr_tokenizer

POSITIONS = 66
MAX_INPUT_TOKENS = 64  # what 66 positions hold when they are numbered from 2
DIM = 32


class Size(NamedTuple):
    """Of the transformer."""

    dim: int = DIM
    n_layers: int = 2
    n_heads: int = 2
    n_inner: int = 64
    n_positions: int = POSITIONS
    n_pieces: int = 300  # of the tokenizer
    n_rows: int | None = None  # of the embedding table; as many as the tokenizer has pieces


TINY = Size()
BGE_M3 = Size(1024, 24, 16, 4096, 8194, 8000, 250_002)
"""Source: config.json of BAAI/bge-m3. The tokenizer is trained on what is at hand."""

_SENTENCES = (
    "a shard is a contiguous range of the rows of a dataset",
    "clusters are found in the embeddings of chunks, passages are found in clusters",
    "ein Dokument wird an Absätzen, Sätzen und Wörtern geteilt",
    "def encode(texts): return [vector for vector in model(texts)]",
    "聚类把相似的文本放在一起",
)


def write(
    folder: Path,
    *,
    sentencepiece: bool = False,
    size: Size = TINY,
    sentences: Sequence[str] = _SENTENCES * 10,
    pooling: dict[str, Any] | None = None,
    prompts: dict[str, str] | None = None,
    sentence: dict[str, Any] | None = None,
    dense: int | None = None,
) -> Path:
    """Makes the model.

    Args:
        folder: is made.
        sentencepiece: whether the tokenizer is one of XLM-R's kind, its sentencepiece file beside
            tokenizer.json.
        size: of the transformer.
        sentences: what the tokenizer is trained on.
        pooling: of 1_Pooling/config.json, besides the dimension; first token where it is None.
        prompts: of config_sentence_transformers.json.
        sentence: sentence_bert_config.json, left out where it is None.
        dense: width of a Dense module after pooling, none where it is None.
    """
    import torch
    from transformers import XLMRobertaConfig, XLMRobertaModel

    folder.mkdir(parents=True, exist_ok=True)
    if sentencepiece:
        tokenizer = xlmr_tokenizer.train(sentences, folder, n_pieces=size.n_pieces)
    else:
        tokenizer = _train_tokenizer(sentences, size.n_pieces)
    tokenizer.model_max_length = size.n_positions
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    model = XLMRobertaModel(
        XLMRobertaConfig(
            vocab_size=size.n_rows or len(tokenizer),
            hidden_size=size.dim,
            num_hidden_layers=size.n_layers,
            num_attention_heads=size.n_heads,
            intermediate_size=size.n_inner,
            max_position_embeddings=size.n_positions,
            pad_token_id=1,
        )
    )
    model.save_pretrained(folder)
    modules = ["Transformer", "Pooling", *(["Dense"] if dense else []), "Normalize"]
    _write_json(
        folder / "modules.json",
        [
            {
                "idx": index,
                "name": str(index),
                "path": "" if index == 0 else f"{index}_{kind}",
                "type": f"sentence_transformers.models.{kind}",
            }
            for index, kind in enumerate(modules)
        ],
    )
    _write_json(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": size.dim, **(pooling or {"pooling_mode_cls_token": True})},
    )
    if dense:
        from sentence_transformers.sentence_transformer.modules import Dense

        place = folder / "2_Dense"
        place.mkdir()
        Dense(size.dim, dense).save(str(place))
    if prompts is not None:
        _write_json(folder / "config_sentence_transformers.json", {"prompts": prompts})
    if sentence is not None:
        _write_json(folder / "sentence_bert_config.json", sentence)
    return folder


def _train_tokenizer(sentences: Sequence[str], n_pieces: int) -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=n_pieces,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        show_progress=False,
    )
    backend.train_from_iterator(sentences, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        cls_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        sep_token="</s>",
        unk_token="<unk>",
    )


def _write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
