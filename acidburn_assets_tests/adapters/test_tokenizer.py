import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidburn_assets.adapters import models, tokenizer
from acidburn_assets.core.errors import ModelError
from acidburn_assets_tests.adapters import tiny_model

MINILM = tokenizer.load_tokenizer("minilm")


def cut(text: str) -> list[str]:
    return [text[start:end] for start, end in MINILM.spans(text)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.write(tmp_path_factory.mktemp("models") / "tiny")


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", []),
        ("   \n", []),
        ("Cut here.", ["Cut", "here", "."]),
        ("😀 hi 👩‍👩‍👧!", ["😀", "hi", "👩‍👩‍👧", "!"]),  # beyond the first plane
        ("İstanbul café", ["İstanbul", "café"]),  # two characters when in lower case
        ("e\u0301te\u0301 abc", ["e\u0301t", "e", "abc"]),  # accents are dropped
        ("聚类 x", ["聚", "类", "x"]),
        ("[CLS] x", ["[CLS]", "x"]),
    ],
)
def test_spans_are_characters_of_the_text_itself(text: str, tokens: list[str]) -> None:
    spans = MINILM.spans(text)
    assert spans.dtype == np.int64
    assert spans.shape == (len(tokens), 2)
    assert cut(text) == tokens


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=60), max_size=5))
def test_counts_are_the_number_of_spans(texts: list[str]) -> None:
    counts = MINILM.count(texts)
    assert counts.dtype == np.int64
    assert counts.tolist() == [len(MINILM.spans(text)) for text in texts]


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=80))
def test_spans_are_ordered_and_inside_the_text(text: str) -> None:
    spans = MINILM.spans(text)
    assert (spans[:, 0] <= spans[:, 1]).all()
    assert (np.diff(spans[:, 0]) >= 0).all()
    assert not len(spans) or (spans.min() >= 0 and spans.max() <= len(text))


def test_long_texts_are_neither_truncated_nor_padded() -> None:
    """The file of MiniLM asks for both: 128 tokens, always."""
    long = "word " * 1000
    assert MINILM.count(["word", long]).tolist() == [1, 1000]
    assert len(MINILM.spans(long)) == 1000
    assert [len(ids) for ids in MINILM.input_ids(["word", long])] == [3, 1002]


def test_many_texts_are_counted_in_their_order() -> None:
    texts = ["word " * n for n in range(tokenizer._SLICE_TEXTS * 2 + 3)]
    assert MINILM.count(texts).tolist() == list(range(len(texts)))


def test_minilm_reads_254_tokens_besides_its_two_special_ones() -> None:
    assert (MINILM.max_tokens, MINILM.max_input_tokens) == (254, 256)
    assert MINILM.name == "minilm"
    assert MINILM.fingerprint == "be50c3628f2bf5bb"


def test_positions_that_start_behind_the_padding_hold_fewer_tokens(tiny: Path) -> None:
    """XLM-R declares 66 positions, or a model_max_length of 66, for 64 tokens."""
    loaded = tokenizer.load_tokenizer(str(tiny))
    assert loaded.max_input_tokens == tiny_model.MAX_INPUT_TOKENS
    assert loaded.max_tokens == tiny_model.MAX_INPUT_TOKENS - 2
    assert loaded.name == "tiny"


def test_spans_of_a_unigram_tokenizer_are_characters_too(tiny: Path) -> None:
    loaded = tokenizer.load_tokenizer(str(tiny))
    text = "½ of 𝔘𝔫𝔦 ﬁne 😀 shards"  # NFKC makes other lengths of these
    spans = loaded.spans(text)
    assert len(spans) == loaded.count([text])[0]
    assert spans[-1, 1] == len(text)
    covered = {place for start, end in spans for place in range(start, end)}
    assert {place for place, char in enumerate(text) if char != " "} <= covered


def test_a_document_prompt_is_taken_off_what_a_document_may_have(tmp_path: Path) -> None:
    folder = tiny_model.write(tmp_path / "tiny", prompts={"document": "a shard: "})
    loaded = tokenizer.load_tokenizer(str(folder))
    n_prompt = loaded.count(["a shard: "])[0]
    assert n_prompt > 0
    assert loaded.max_tokens == tiny_model.MAX_INPUT_TOKENS - 2 - n_prompt


def test_a_model_that_puts_texts_in_lower_case_counts_them_so(tiny: Path, tmp_path: Path) -> None:
    cased = tokenizer.load_tokenizer(str(tiny))
    folder = tiny_model.write(tmp_path / "tiny", sentence={"do_lower_case": True})
    uncased = tokenizer.load_tokenizer(str(folder))
    loud = "A SHARD IS A RANGE"
    assert uncased.count([loud]) == cased.count([loud.lower()])
    assert cased.count([loud]) > uncased.count([loud])
    assert uncased.fingerprint != cased.fingerprint


def test_a_tokenizer_read_again_has_the_same_fingerprint(tiny: Path) -> None:
    again = tokenizer.load_tokenizer(str(tiny))
    assert again.fingerprint == tokenizer.load_tokenizer(str(tiny)).fingerprint
    assert again.fingerprint != MINILM.fingerprint


def test_a_model_without_tokenizer_json_says_how_to_write_one(tmp_path: Path) -> None:
    folder = tiny_model.write(tmp_path / "tiny")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"'tiny' has no tokenizer\.json; write one"):
        tokenizer.load_tokenizer(str(folder))


def test_a_broken_tokenizer_json_is_named(tmp_path: Path) -> None:
    folder = tiny_model.write(tmp_path / "tiny")
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match=r"tokenizer\.json' cannot be read"):
        tokenizer.load_tokenizer(str(folder))


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(ModelError, match="half of a surrogate pair"):
        MINILM.count(["fine", "bad \ud83d"])
    with pytest.raises(ModelError, match="half of a surrogate pair"):
        MINILM.spans("bad \ud83d")


def test_a_model_with_no_room_for_text_is_refused() -> None:
    config = models.read_config(models.find("minilm"))._replace(max_input_tokens=2)
    with pytest.raises(ModelError, match="reads 2 tokens, of which 2 are special"):
        tokenizer.read_tokenizer(models.find("minilm"), config)


def test_tokenizers_are_loaded_without_torch() -> None:
    program = (
        "import sys; from acidburn_assets.adapters import encoder, tokenizer;"
        "tokenizer.load_tokenizer('minilm').count(['a']); encoder.describe_model('minilm');"
        "print(sorted({'torch', 'transformers', 'sentence_transformers'} & set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"


def test_a_fork_after_tokenising_is_quiet_and_can_tokenise() -> None:
    """`tokenizers` prints a warning at forks, and threads of its own do not survive them."""
    program = (
        "import os; from acidburn_assets.adapters.tokenizer import load_tokenizer;"
        "t = load_tokenizer('minilm'); t.count(['a b'] * 200); pid = os.fork();"
        "n = t.count(['a b'] * 200).sum();"
        "os._exit(0 if n == 400 else 1) if pid == 0 else print(os.waitpid(pid, 0)[1], n)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert (answer.stdout.split(), answer.stderr) == (["0", "400"], "")
