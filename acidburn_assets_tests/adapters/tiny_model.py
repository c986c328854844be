"""A sentence-transformers model that is made on the spot: XLM-R in shape, random in its weights.

Like bge-m3 it pools the first token, numbers its positions from 2, and has a tokenizer of its own,
here trained on a few sentences: by `tokenizers`, or by sentencepiece as XLM-R's was.
"""

import json
from pathlib import Path
from typing import Any

from acidburn_assets_tests.adapters import xlmr_tokenizer

POSITIONS = 66
MAX_INPUT_TOKENS = 64  # what 66 positions hold when they are numbered from 2
DIM = 32

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
        pooling: of 1_Pooling/config.json, besides the dimension; first token where it is None.
        prompts: of config_sentence_transformers.json.
        sentence: sentence_bert_config.json, left out where it is None.
        dense: width of a Dense module after pooling, none where it is None.
    """
    import torch
    from transformers import XLMRobertaConfig, XLMRobertaModel

    folder.mkdir(parents=True, exist_ok=True)
    if sentencepiece:
        tokenizer = xlmr_tokenizer.train(_SENTENCES * 10, folder, n_pieces=300)
    else:
        tokenizer = _train_tokenizer()
    tokenizer.model_max_length = POSITIONS
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    model = XLMRobertaModel(
        XLMRobertaConfig(
            vocab_size=len(tokenizer),
            hidden_size=DIM,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=POSITIONS,
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
        {"word_embedding_dimension": DIM, **(pooling or {"pooling_mode_cls_token": True})},
    )
    if dense:
        from sentence_transformers.sentence_transformer.modules import Dense

        place = folder / "2_Dense"
        place.mkdir()
        Dense(DIM, dense).save(str(place))
    if prompts is not None:
        _write_json(folder / "config_sentence_transformers.json", {"prompts": prompts})
    if sentence is not None:
        _write_json(folder / "sentence_bert_config.json", sentence)
    return folder


def _train_tokenizer() -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=300,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        show_progress=False,
    )
    backend.train_from_iterator(_SENTENCES * 10, trainer)
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
