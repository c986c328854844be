"""A model folder of XLM-R's kind without weights: its tokenizer, trained on the texts at hand.

XLM-R's and bge-m3's own files are not shipped. A vocabulary that was trained on other texts makes
more tokens of the same text, and a larger one is slower to look up; how texts are normalised and
split is the same.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from acidburn_assets import settings
from acidburn_assets_tests.adapters import xlmr_tokenizer

NAME = "xlmr"
N_PIECES = 48_000
MAX_INPUT_TOKENS = 8192  # bge-m3's

_MODULES = (("", "Transformer"), ("1_Pooling", "Pooling"))


def train(texts: Sequence[str], *, n_pieces: int = N_PIECES) -> Path:
    """The folder with the tokenizer of these texts, kept in the state folder's cache.

    Args:
        texts: to be cut later.
        n_pieces: at most; fewer where the texts give no more.
    """
    digest = hashlib.sha256(str(n_pieces).encode())
    for text in texts:
        digest.update(text.encode())
    folder = settings.load().home / "cache" / "benchmarks" / f"{NAME}-{digest.hexdigest()[:16]}"
    if folder.exists():
        return folder
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    (unfinished / "1_Pooling").mkdir(parents=True)
    lines = (line for text in texts for line in text.splitlines() if line.strip())
    xlmr_tokenizer.train(lines, unfinished, n_pieces=n_pieces)
    written = {
        "modules.json": [
            {"path": path, "type": f"sentence_transformers.models.{kind}"}
            for path, kind in _MODULES
        ],
        "1_Pooling/config.json": {"word_embedding_dimension": 1024, "pooling_mode": "cls"},
        "config.json": {
            "model_type": "xlm-roberta",
            "max_position_embeddings": MAX_INPUT_TOKENS + 2,
            "pad_token_id": 1,
        },
    }
    for name, content in written.items():
        (unfinished / name).write_text(json.dumps(content), encoding="utf-8")
    unfinished.rename(folder)
    return folder
