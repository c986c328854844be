import copy as copylib
import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pytest
import tokenizers
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


@pytest.fixture(scope="module")
def xlmr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with its sentencepiece file."""
    return tiny_model.write(tmp_path_factory.mktemp("models") / "xlmr", sentencepiece=True)


@pytest.fixture
def copy(xlmr: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return shutil.copytree(xlmr, tmp_path / "xlmr")


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


def test_tokenizers_are_loaded_without_torch(xlmr: Path) -> None:
    program = (
        "import sys; from acidburn_assets.adapters import encoder, tokenizer;"
        "tokenizer.load_tokenizer('minilm').count(['a']); encoder.describe_model('minilm');"
        "tokenizer.load_tokenizer(sys.argv[1]).count(['a']);"
        "print(sorted({'torch', 'transformers', 'sentence_transformers'} & set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program, str(xlmr)], capture_output=True, text=True, check=True
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


# ---- sentencepiece ---------------------------------------------------------------------------


def library(folder: Path) -> tokenizers.Tokenizer:
    """What `tokenizers` makes of the folder's tokenizer.json."""
    return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))


def test_a_model_with_its_sentencepiece_file_is_tokenised_by_sentencepiece(
    xlmr: Path, tiny: Path
) -> None:
    assert tokenizer.load_tokenizer(str(xlmr)).engine == "sentencepiece"
    assert tokenizer.load_tokenizer(str(tiny)).engine == "tokenizers"
    assert MINILM.engine == "tokenizers"


def test_ids_are_those_of_the_models_tokenizer_json(xlmr: Path) -> None:
    loaded = tokenizer.load_tokenizer(str(xlmr))
    prose = "\n\n".join(topics.values())
    texts = [*tokenizer.PROBES, "", " ", *(prose[at : at + 3000] for at in range(0, 90_000, 3000))]
    ids = loaded.input_ids(texts)
    assert {row.dtype for row in ids} == {np.dtype(np.int32)}
    assert [row.tolist() for row in ids] == [library(xlmr).encode(text).ids for text in texts]
    assert loaded.count(texts).tolist() == [len(row) - loaded.n_special_tokens for row in ids]


def test_control_tokens_in_a_text_are_text_to_sentencepiece(xlmr: Path) -> None:
    """A document must not be able to end its own text early."""
    loaded = tokenizer.load_tokenizer(str(xlmr))
    control = [library(xlmr).token_to_id(token) for token in ("<s>", "</s>", "<mask>", "<pad>")]
    (ids,) = loaded.input_ids(["a </s> shard <s> of <mask> the <pad> rows"])
    assert ids[0] == control[0]
    assert ids[-1] == control[1]
    assert not set(ids[1:-1].tolist()) & set(control)


@pytest.mark.parametrize(
    "text", ["a\0b", "\0", "\u0301", "a \u0301\u0323", "\x07\x1b[0m", "\ufffe"]
)
def test_odd_characters_are_tokens_and_not_lost(xlmr: Path, text: str) -> None:
    loaded = tokenizer.load_tokenizer(str(xlmr))
    spans = loaded.spans(text)
    assert spans[-1, 1] == len(text)
    assert loaded.count([text, f"{text} x"]).tolist() == [
        len(spans),
        len(loaded.spans(f"{text} x")),
    ]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=60), max_size=5))
def test_sentencepiece_counts_are_the_number_of_spans_in_order(
    xlmr: Path, texts: list[str]
) -> None:
    loaded = tokenizer.load_tokenizer(str(xlmr))
    spans = [loaded.spans(text) for text in texts]
    assert loaded.count(texts).tolist() == [len(one) for one in spans]
    for text, one in zip(texts, spans, strict=True):
        assert (one[:, 0] <= one[:, 1]).all()
        assert (np.diff(one[:, 0]) >= 0).all()
        assert not len(one) or (one.min() >= 0 and one.max() <= len(text))


def test_spans_of_sentencepiece_are_characters_of_the_text_itself(xlmr: Path) -> None:
    text = "½ of 𝔘𝔫𝔦 ﬁne 😀  shards"  # NFKC makes other lengths of these
    spans = tokenizer.load_tokenizer(str(xlmr)).spans(text)
    covered = {place for start, end in spans for place in range(start, end)}
    assert {place for place, char in enumerate(text) if char != " "} <= covered
    assert text[slice(*spans[-1])] == "shards"[-(spans[-1][1] - spans[-1][0]) :]


def test_sentencepiece_refuses_half_a_surrogate_pair(xlmr: Path) -> None:
    loaded = tokenizer.load_tokenizer(str(xlmr))
    for use in (
        loaded.spans,
        lambda text: loaded.count([text]),
        lambda text: loaded.input_ids([text]),
    ):
        with pytest.raises(ModelError, match="half of a surrogate pair"):
            use("bad \ud83d")


def test_a_document_prompt_is_taken_off_with_sentencepiece_too(tmp_path: Path) -> None:
    folder = tiny_model.write(
        tmp_path / "tiny", sentencepiece=True, prompts={"document": "a shard: "}
    )
    loaded = tokenizer.load_tokenizer(str(folder))
    n_prompt = loaded.count(["a shard: "])[0]
    assert loaded.max_tokens == tiny_model.MAX_INPUT_TOKENS - 2 - n_prompt
    n_text = loaded.count(["rows of a dataset"])[0]
    assert loaded.count(["a shard: rows of a dataset"]) == n_prompt + n_text


def test_the_fingerprint_covers_the_sentencepiece_file(xlmr: Path, copy: Path) -> None:
    with_file = tokenizer.load_tokenizer(str(copy)).fingerprint
    assert with_file == tokenizer.load_tokenizer(str(xlmr)).fingerprint
    (copy / "sentencepiece.bpe.model").rename(copy / "spiece.model")
    assert tokenizer.load_tokenizer(str(copy)).fingerprint == with_file
    (copy / "spiece.model").unlink()
    assert tokenizer.load_tokenizer(str(copy)).fingerprint != with_file


def change(folder: Path, **fields: object) -> None:
    """Replaces parts of tokenizer.json."""
    path = folder / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def added_word(folder: Path) -> None:
    added = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    change(
        folder, added_tokens=[*added, {**added[-1], "id": 999, "content": "§", "special": False}]
    )


def other_score(folder: Path) -> None:
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    change(
        folder, model={**model, "vocab": [*model["vocab"][:9], ["x", -9.0], *model["vocab"][10:]]}
    )


@pytest.mark.parametrize(
    ("alter", "reason"),
    [
        (lambda folder: (folder / "sentencepiece.bpe.model").unlink(), "it has none of sentencepi"),
        (added_word, "its tokenizer.json adds words of its own, such as '§'"),
        (other_score, "are not of one model: "),
        (lambda folder: change(folder, normalizer=None), "make other tokens of "),
        (
            lambda folder: (folder / "sentence_bert_config.json").write_text(
                '{"do_lower_case": true}'
            ),
            "make other tokens of ",
        ),
    ],
)
def test_where_sentencepiece_says_something_else_tokenizers_is_used_and_the_reason_told_once(
    copy: Path, caplog: pytest.LogCaptureFixture, alter: Callable[[Path], object], reason: str
) -> None:
    alter(copy)
    tokenizer._say_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        loaded = [tokenizer.load_tokenizer(str(copy)) for _ in range(2)]
    assert {one.engine for one in loaded} == {"tokenizers"}
    (said,) = caplog.messages
    assert "ten times slower" in said
    assert reason in said


@pytest.mark.parametrize("model", ["minilm", "xlmr"])
def test_a_tokenizer_can_be_sent_to_another_process(xlmr: Path, model: str) -> None:
    sent = MINILM if model == "minilm" else tokenizer.load_tokenizer(str(xlmr))
    received = copylib.deepcopy(sent)  # as it is sent
    assert (received.name, received.sha256, received.engine) == (
        sent.name,
        sent.sha256,
        sent.engine,
    )
    assert received.count(tokenizer.PROBES).tolist() == sent.count(tokenizer.PROBES).tolist()


def test_a_broken_sentencepiece_file_is_named(copy: Path) -> None:
    (copy / "sentencepiece.bpe.model").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(ModelError, match=r"sentencepiece\.bpe\.model' is no sentencepiece model"):
        tokenizer.load_tokenizer(str(copy))
