"""Several processes cut as one does: the same spans, in the texts' order."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import count, islice, pairwise
from pathlib import Path
from pydoc_data.topics import topics

import psutil
import pyarrow as pa
import pytest

from acidburn_assets.adapters import chunker
from acidburn_assets.adapters.chunker import Chunker
from acidburn_assets.adapters.tokenizer import ModelTokenizer, load_tokenizer
from acidburn_assets.core.chunks import Sizes, Tally, chunk_documents, cut
from acidburn_assets.core.datasets import Dataset
from acidburn_assets.core.documents import Document
from acidburn_assets.core.errors import ConfigError, ModelError
from acidburn_assets_tests.adapters import tiny_model

SIZES = Sizes(60, 6)

TEXTS = [text for _, text in sorted(topics.items())] + ["", " \n", "天气很好。" * 500, "x" * 50_000]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ModelTokenizer:
    folder = tiny_model.write(tmp_path_factory.mktemp("models") / "xlmr", sentencepiece=True)
    return load_tokenizer(str(folder))


@pytest.fixture(scope="module")
def pair(tokenizer: ModelTokenizer) -> Iterator[Chunker]:
    """Two processes that are started at once, and small batches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunker, "ALONE_SECONDS", 0.0)
        patch.setattr(chunker, "BATCH_CHARS", 20_000)
        opened = Chunker(tokenizer, n_processes=2)
        yield opened
        opened.close()


def children() -> set[int]:
    """Processes that this one has started, without multiprocessing's own."""
    return {
        child.pid
        for child in psutil.Process().children()
        if "spawn_main" in " ".join(child.cmdline())
    }


def test_processes_cut_as_one_does(pair: Chunker) -> None:
    before = children()
    spans = list(pair.cut_all(TEXTS, SIZES))
    assert len(children() - before) == 2
    assert spans == [cut(text, pair.tokenizer, SIZES) for text in TEXTS]
    assert sum(map(len, spans)) > 1000


def test_the_same_processes_cut_the_next_texts(pair: Chunker) -> None:
    list(pair.cut_all(TEXTS[:20], SIZES))
    before = children()
    again = list(pair.cut_all(reversed(TEXTS[:20]), Sizes(40, 0)))
    assert children() == before
    assert again == [cut(text, pair.tokenizer, Sizes(40, 0)) for text in reversed(TEXTS[:20])]


def test_chunks_are_the_same_bytes_however_many_processes_cut(
    pair: Chunker, tokenizer: ModelTokenizer
) -> None:
    documents = [Document(row, str(row), "", text) for row, text in enumerate(TEXTS)]
    dataset = Dataset(
        name="books", source="text", path="x", licence="x", may_redistribute_text=True, tier="none"
    )

    def chunk(opened: Chunker) -> tuple[pa.Table, Tally]:
        tally = Tally()
        batches = chunk_documents(
            documents,
            dataset=dataset,
            revision="r",
            tokenizer=opened.tokenizer,
            sizes=SIZES,
            tally=tally,
            cut_all=lambda texts: opened.cut_all(texts, SIZES),
        )
        return pa.Table.from_batches(batches), tally

    alone, in_two = chunk(Chunker(tokenizer, n_processes=1)), chunk(pair)
    assert in_two[0].equals(alone[0])
    assert in_two[1] == alone[1]
    assert alone[1].n_kept == len(TEXTS) - 2


def test_few_texts_are_drawn_ahead(pair: Chunker) -> None:
    drawn: list[int] = []

    def endless() -> Iterator[str]:
        for number in count():
            drawn.append(number)
            yield "word " * 4000

    assert len(list(islice(pair.cut_all(endless(), SIZES), 3))) == 3
    assert len(drawn) < 12


def test_little_text_is_cut_without_another_process(
    tokenizer: ModelTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunker, "ALONE_SECONDS", 600.0)
    before = children()
    with closing(Chunker(tokenizer, n_processes=2)) as opened:
        assert len(list(opened.cut_all(["word " * 100, "word " * 99], SIZES))) == 2
        assert children() == before
        monkeypatch.setattr(chunker, "ALONE_SECONDS", 0.0)
        assert len(list(opened.cut_all(["a few words more", "and more"], SIZES))) == 2
        assert len(children() - before) == 1  # one list, one process
    assert children() == before


def test_an_error_in_a_process_keeps_its_type_and_message(pair: Chunker) -> None:
    with pytest.raises(ModelError, match="half of a surrogate pair"):
        list(pair.cut_all([*TEXTS[:5], "bad \ud83d"], SIZES))
    with pytest.raises(ConfigError, match="the character '天' is 2 tokens of 'xlmr'"):
        list(pair.cut_all(["天"], Sizes(1, 0)))
    assert list(pair.cut_all(["still here"], SIZES)) == [cut("still here", pair.tokenizer, SIZES)]


def test_closed_before_anything_was_cut_nothing_is_left(tokenizer: ModelTokenizer) -> None:
    before = children()
    opened = Chunker(tokenizer, n_processes=2)
    opened.close()
    assert children() == before


def test_processes_left_open_are_as_many_as_cores_up_to_a_bound(
    tokenizer: ModelTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(3)), raising=False)
    assert Chunker(tokenizer).n_processes == 3
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(96)), raising=False)
    assert Chunker(tokenizer).n_processes == chunker.MAX_PROCESSES
    assert Chunker(tokenizer, n_processes=96).n_processes == 96


_LONG_DOCUMENT = """
import resource, sys
from pydoc_data.topics import topics
from acidburn_assets.adapters.tokenizer import load_tokenizer
from acidburn_assets.core.chunks import Sizes, Tally, chunk_documents
from acidburn_assets.core.datasets import Dataset
from acidburn_assets.core.documents import Document

def peak():
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

dataset = Dataset(
    name="books", source="text", path="x", licence="x", may_redistribute_text=True, tier="none"
)
tokenizer = load_tokenizer(sys.argv[1])
prose = chr(10).join(topics.values())
text = prose * (int(sys.argv[2]) // len(prose))
tally, before = Tally(), peak()
for batch in chunk_documents(
    [Document(0, "a", "", text)], dataset=dataset, revision="r", tokenizer=tokenizer,
    sizes=Sizes(2048, 200), tally=tally,
):
    pass
print(tally.n_bytes, tally.n_chunks, tally.n_over_limit, peak() - before)
"""


def test_a_long_document_takes_no_more_memory_than_a_bounded_amount_beside_its_text(
    tmp_path: Path,
) -> None:
    """Of 30 MB as of 50: a batch of rows, the one before, and a slice that is tokenised."""
    folder = tiny_model.write(tmp_path / "xlmr", sentencepiece=True)
    answer = subprocess.run(
        [sys.executable, "-c", _LONG_DOCUMENT, str(folder), "30_000_000"],
        capture_output=True,
        text=True,
        check=True,
    )
    n_bytes, n_chunks, n_over, growth = map(int, answer.stdout.split())
    assert n_bytes > 29_000_000
    assert n_chunks > n_bytes / 8000
    assert n_over == 0
    assert growth < 128 * 2**20


@pytest.mark.parametrize(
    "text",
    [
        "x" * 1_000_000,
        "dGhlIHF1aWNrIGJyb3duIGZveA0K" * 40_000,
        "天" * 1_000_000,
        "聚" * 1_000_000,
        "😀" * 250_000,
        "a" + " " * 1_000_000 + "b",
        "a" + " \n" * 500_000 + "b",
        "*" * 500_000 + "=" * 500_000,
    ],
    ids=["letter", "base64", "unknown", "known", "emoji", "blanks", "blank lines", "signs"],
)
def test_a_million_characters_without_a_border_are_cut_exactly(
    tokenizer: ModelTokenizer, text: str
) -> None:
    sizes = Sizes(512, 50)
    started = time.process_time()
    spans = cut(text, tokenizer, sizes)
    assert time.process_time() - started < 30
    counts = tokenizer.count([text[span.start : span.end] for span in spans])
    assert counts.tolist() == [span.n_tokens for span in spans]
    assert max(span.n_tokens for span in spans) <= sizes.target_tokens
    assert text[: spans[0].start].strip() == text[spans[-1].end :].strip() == ""
    for before, after in pairwise(spans):
        assert text[before.end : after.start].strip() == ""
        assert before.start < after.start
        assert before.end < after.end
