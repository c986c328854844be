import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidburn_assets.core import embeddings, schemas
from acidburn_assets.core.embeddings import Encoded, ModelCard, Tally
from acidburn_assets.core.errors import ModelError, SchemaError

CARD = ModelCard(
    name="owner/model",
    revision="abc",
    dim=384,
    max_tokens=254,
    pooling="mean",
    weights_sha256="1" * 64,
    tokenizer_sha256="2" * 64,
)


def unit_vectors(n_rows: int, dim: int, *, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((n_rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def ids(n_rows: int) -> pa.Array:
    return pa.array([row.to_bytes(16) for row in range(n_rows)], type=schemas.CHUNK_ID)


@pytest.mark.parametrize(
    "change",
    [
        {"dim": 385},
        {"max_tokens": 255},
        {"pooling": "cls"},
        {"weights_sha256": "3" * 64},
        {"tokenizer_sha256": "3" * 64},
        {"query_prompt": "query: "},
        {"document_prompt": "passage: "},
        {"encoder_version": embeddings.ENCODER_VERSION + 1},
    ],
    ids=str,
)
def test_whatever_moves_vectors_changes_the_fingerprint(change: dict[str, object]) -> None:
    assert CARD.model_copy(update=change).fingerprint != CARD.fingerprint


def test_a_model_under_another_name_is_the_same_model() -> None:
    renamed = CARD.model_copy(update={"name": "folder", "revision": ""})
    assert renamed.fingerprint == CARD.fingerprint


def test_a_prompt_for_queries_is_not_one_for_documents() -> None:
    of_queries = CARD.model_copy(update={"query_prompt": "x"})
    of_documents = CARD.model_copy(update={"document_prompt": "x"})
    assert of_queries.fingerprint != of_documents.fingerprint


def test_a_card_keeps_its_fingerprint_when_written_and_read() -> None:
    read = ModelCard.from_bytes(CARD.to_bytes(), key="card")
    assert read == CARD
    # pinned: another value would make every stored corpus look like another model's
    assert read.fingerprint == CARD.fingerprint == "edd065ea2f743fd2"


def test_tally_adds_up_what_was_encoded() -> None:
    tally = Tally()
    assert (tally.rows_per_second, tally.tokens_per_second) == (0, 0)
    tally.add(Encoded(unit_vectors(3, 4), n_tokens=30, n_truncated=0, seconds=0.5))
    tally.add(Encoded(unit_vectors(1, 4), n_tokens=10, n_truncated=0, seconds=1.5))
    assert tally == Tally(n_rows=4, n_tokens=40, n_truncated=0, seconds=2.0)
    assert (tally.rows_per_second, tally.tokens_per_second) == (2, 20)


@pytest.mark.parametrize(
    ("n_tokens", "batch_tokens", "is_padded", "batches"),
    [
        ([], 10, True, []),
        ([], 10, False, []),
        ([5], 10, True, [[0]]),
        ([5, 5], 10, True, [[0, 1]]),
        ([5, 5, 5], 10, True, [[0, 1], [2]]),
        ([3, 9, 3, 3], 10, True, [[1], [0, 2, 3]]),
        ([3, 6, 1, 3], 10, True, [[1], [0, 3, 2]]),
        ([3, 6, 1, 3], 10, False, [[1, 0], [3, 2]]),  # nothing is made longer than it is
        ([25, 4, 4], 10, True, [[0], [1, 2]]),  # longer than a batch may be: alone
        ([25, 4, 4], 10, False, [[0], [1, 2]]),
        ([0, 0, 0], 2, True, [[0, 1], [2]]),  # an empty text still costs a row
        ([0, 0, 0], 2, False, [[0, 1], [2]]),
    ],
)
def test_batches_hold_texts_of_like_length_within_the_budget(
    n_tokens: list[int], batch_tokens: int, is_padded: bool, batches: list[list[int]]
) -> None:
    planned = embeddings.plan_batches(
        np.array(n_tokens, dtype=np.int64), batch_tokens=batch_tokens, is_padded=is_padded
    )
    assert [batch.tolist() for batch in planned] == batches


@given(st.lists(st.integers(0, 300), max_size=80), st.integers(1, 1000), st.booleans())
def test_every_text_is_in_one_batch_that_fits(
    n_tokens: list[int], batch_tokens: int, is_padded: bool
) -> None:
    lengths = np.array(n_tokens, dtype=np.int64)
    batches = embeddings.plan_batches(lengths, batch_tokens=batch_tokens, is_padded=is_padded)
    assert sorted(row for batch in batches for row in batch) == list(range(len(n_tokens)))
    costs = [
        len(batch) * lengths[batch].max() if is_padded else lengths[batch].sum()
        for batch in batches
    ]
    assert all(
        len(batch) == 1 or cost <= batch_tokens for batch, cost in zip(batches, costs, strict=True)
    )
    in_order = [lengths[row] for batch in batches for row in batch]
    assert in_order == sorted(in_order, reverse=True)


def test_progress_tells_rate_time_to_go_and_cost() -> None:
    tally = embeddings.Tally()
    assert tally.progress(5_000, usd_per_hour=3.6) == "0 of 5,000 chunks, $0.00 so far"
    tally.resume(n_rows=1_000, n_tokens=9, n_truncated=0)
    assert tally.progress(5_000) == "1,000 of 5,000 chunks"
    tally.add(Encoded(np.zeros((2_000, 4)), n_tokens=9, n_truncated=0, seconds=20.0))
    told = "3,000 of 5,000 chunks, 100 a second, 20 s to go, $0.02 so far"
    assert tally.progress(5_000, usd_per_hour=3.6) == told
    assert tally.progress(903_000).endswith("100 a second, 150 min to go")


def test_what_was_encoded_earlier_counts_but_not_as_speed() -> None:
    tally = Tally()
    tally.resume(n_rows=100, n_tokens=1000, n_truncated=2)
    assert (tally.rows_per_second, tally.tokens_per_second) == (0, 0)
    tally.add(Encoded(unit_vectors(4, 4), n_tokens=40, n_truncated=1, seconds=2.0))
    assert (tally.n_rows, tally.n_tokens, tally.n_truncated) == (104, 1040, 3)
    assert (tally.n_resumed_rows, tally.n_resumed_tokens) == (100, 1000)
    assert (tally.rows_per_second, tally.tokens_per_second) == (2, 20)


@pytest.mark.parametrize(
    ("n_tokens", "window_tokens", "window_rows", "windows"),
    [
        ([], 10, 5, []),
        ([5], 10, 5, [(0, 1)]),
        ([5, 5], 10, 5, [(0, 2)]),
        ([5, 5, 1], 10, 5, [(0, 2), (2, 3)]),
        ([5, 6, 4], 10, 5, [(0, 1), (1, 3)]),
        ([25, 4, 4], 10, 5, [(0, 1), (1, 3)]),  # longer than a window: alone
        ([4, 25, 4], 10, 5, [(0, 1), (1, 2), (2, 3)]),
        ([1, 1, 1, 1, 1], 10, 2, [(0, 2), (2, 4), (4, 5)]),
        ([0, 0, 0], 2, 5, [(0, 2), (2, 3)]),  # an empty text still takes time
    ],
)
def test_windows_are_consecutive_rows_within_the_budget(
    n_tokens: list[int], window_tokens: int, window_rows: int, windows: list[tuple[int, int]]
) -> None:
    planned = embeddings.plan_windows(
        np.array(n_tokens, dtype=np.int32), window_tokens=window_tokens, window_rows=window_rows
    )
    assert planned == [range(start, end) for start, end in windows]


@given(st.lists(st.integers(0, 300), max_size=80), st.integers(1, 1000), st.integers(1, 20))
def test_every_row_is_in_one_window_in_order(
    n_tokens: list[int], window_tokens: int, window_rows: int
) -> None:
    lengths = np.array(n_tokens, dtype=np.int32)
    windows = embeddings.plan_windows(lengths, window_tokens=window_tokens, window_rows=window_rows)
    assert [row for window in windows for row in window] == list(range(len(n_tokens)))
    costs = np.maximum(lengths, 1)
    for window in windows:
        assert 1 <= len(window) <= window_rows
        assert len(window) == 1 or costs[window.start : window.stop].sum() <= window_tokens
    # none is shorter than it must be
    for window in windows[:-1]:
        is_full = len(window) == window_rows
        assert is_full or costs[window.start : window.stop + 1].sum() > window_tokens


@given(st.lists(st.integers(1, 300), min_size=1, max_size=80), st.integers(1, 500), st.data())
def test_windows_from_a_border_on_are_those_of_the_whole(
    n_tokens: list[int], window_tokens: int, data: st.DataObject
) -> None:
    lengths = np.array(n_tokens, dtype=np.int32)
    windows = embeddings.plan_windows(lengths, window_tokens=window_tokens)
    start = data.draw(st.sampled_from(windows)).start
    rest = embeddings.plan_windows(lengths[start:], window_tokens=window_tokens)
    shifted = [range(start + window.start, start + window.stop) for window in rest]
    assert shifted == [window for window in windows if window.start >= start]


def test_windows_of_more_tokens_than_32_bits_hold_are_cut_all_the_same() -> None:
    lengths = np.full(5, 2**30, dtype=np.int32)
    windows = embeddings.plan_windows(lengths, window_tokens=2**31)
    assert windows == [range(2), range(2, 4), range(4, 5)]


def test_stored_values_are_those_of_fp16() -> None:
    vectors = unit_vectors(50, 384)
    stored = embeddings.to_storage(vectors)
    assert stored.type == schemas.vector_type(384)
    values = embeddings.matrix(stored)
    assert (values == values.astype(np.float16)).all()
    assert np.abs(values - vectors).max() < 2.0**-11 * np.abs(vectors).max() * 1.001
    cosines = (values * vectors).sum(axis=1) / np.linalg.norm(values, axis=1)
    assert np.abs(cosines - 1).max() < 1e-6


@given(st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_every_unit_vector_can_be_stored(dim: int, seed: int) -> None:
    assert len(embeddings.to_storage(unit_vectors(3, dim, seed=seed))) == 3


def test_values_are_rounded_as_fp16_does_it() -> None:
    rng = np.random.default_rng(0)
    scales = np.float32(2.0) ** rng.integers(-30, 16, 200_000)
    values = (rng.standard_normal(200_000) * scales).astype(np.float32)
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    halves = np.sort(halves[np.isfinite(halves)]).astype(np.float32)
    ties = (halves[1:] + halves[:-1]) / 2
    edges = [values[np.abs(values) < 65_504], halves, ties]
    for given_values in edges:
        found = np.empty_like(given_values)
        embeddings._round_to_fp16(given_values[:, None], out=found)
        expected = given_values.astype(np.float16).astype(np.float32)
        assert (found == expected).all()
        assert (np.signbit(found) == np.signbit(expected)).all()
    nans = np.array([[0x7FC00000, 0x7FFFFFFF, 0xFFFFFFFF]], np.uint32).view(np.float32)
    found = np.empty_like(nans)
    embeddings._round_to_fp16(nans, out=found)
    assert np.isnan(found).all()


def test_stored_twice_is_stored_once() -> None:
    once = embeddings.to_storage(unit_vectors(5, 8))
    assert embeddings.to_storage(embeddings.matrix(once)) == once


@pytest.mark.parametrize(
    ("value", "length"), [(np.nan, "nan"), (np.inf, "inf"), (70000.0, r"7\d{4}"), (0.9, r"1\.3")]
)
def test_a_vector_that_is_not_of_unit_length_is_refused_by_row(value: float, length: str) -> None:
    vectors = np.eye(4, dtype=np.float32)
    vectors[2, 0] = value
    with pytest.raises(ModelError, match=f"1 of 4 vectors .* row 2 has length {length}"):
        embeddings.to_storage(vectors)


def test_a_zero_vector_is_refused() -> None:
    with pytest.raises(ModelError, match=r"row 1 has length 0\.0000"):
        embeddings.to_storage(np.array([[1, 0], [0, 0]], dtype=np.float32))


def test_a_batch_of_rows_has_the_table_s_schema() -> None:
    batch = embeddings.record_batch(ids(3), unit_vectors(3, 8))
    assert batch.schema == schemas.embeddings(8)
    assert embeddings.record_batch(ids(0), unit_vectors(0, 8)).num_rows == 0


def test_a_table_survives_parquet_in_its_canonical_encoding() -> None:
    batch = embeddings.record_batch(ids(100), unit_vectors(100, 16))
    sink = io.BytesIO()
    pq.write_table(
        pa.Table.from_batches([batch]),
        sink,
        compression="zstd",
        use_dictionary=False,
        column_encoding=embeddings.COLUMN_ENCODING,
    )
    file = pq.ParquetFile(sink)
    vectors = file.metadata.row_group(0).column(1)
    assert vectors.path_in_schema == "embedding.list.element"
    assert "BYTE_STREAM_SPLIT" in vectors.encodings
    read = file.read()
    assert read.schema == schemas.embeddings(16)
    assert (embeddings.matrix(read["embedding"]) == embeddings.matrix(batch["embedding"])).all()
    assert (embeddings.id_matrix(read["chunk_id"])[:, 15] == np.arange(100)).all()


def test_a_matrix_is_a_view_of_the_column() -> None:
    column = embeddings.to_storage(unit_vectors(6, 8))
    whole = embeddings.matrix(column)
    part = embeddings.matrix(column.slice(2, 3))
    assert part.shape == (3, 8)
    assert (part == whole[2:5]).all()
    assert np.shares_memory(part, whole)


def test_a_matrix_of_several_pieces_is_put_together() -> None:
    column = embeddings.to_storage(unit_vectors(6, 8))
    pieces = pa.chunked_array([column.slice(4, 2), column.slice(0, 3)])
    expected = embeddings.matrix(column)[[4, 5, 0, 1, 2]]
    assert (embeddings.matrix(pieces) == expected).all()
    one = embeddings.matrix(pa.chunked_array([column]))
    assert np.shares_memory(one, embeddings.matrix(column))


def test_an_empty_column_is_an_empty_matrix() -> None:
    no_vector = embeddings.to_storage(unit_vectors(0, 8))
    assert embeddings.matrix(no_vector).shape == (0, 8)
    assert embeddings.matrix(pa.chunked_array([], type=no_vector.type)).shape == (0, 8)
    assert embeddings.id_matrix(ids(0)).shape == (0, 16)
    assert embeddings.id_matrix(pa.chunked_array([], type=schemas.CHUNK_ID)).shape == (0, 16)


def test_ids_of_a_slice_are_its_own() -> None:
    part = embeddings.id_matrix(ids(6).slice(2, 3))
    assert [bytes(row) for row in part] == [row.to_bytes(16) for row in (2, 3, 4)]


@pytest.mark.parametrize(
    ("column", "match"),
    [
        (pa.array([[1.0]], type=pa.list_(pa.float64(), 1)), "of float32, not"),
        (pa.array([[1.0]], type=pa.list_(pa.float32())), "fixed-size lists"),
        (pa.array([[1.0], None], type=pa.list_(pa.float32(), 1)), "1 nulls"),
        (pa.array([[1.0], [None]], type=pa.list_(pa.float32(), 1)), "1 nulls"),
    ],
)
def test_what_is_no_column_of_vectors_is_refused(column: pa.Array, match: str) -> None:
    with pytest.raises(SchemaError, match=match):
        embeddings.matrix(column)


def test_what_is_no_column_of_ids_is_refused() -> None:
    with pytest.raises(SchemaError, match="must be fixed_size_binary"):
        embeddings.id_matrix(pa.array(["a"]))
    with pytest.raises(SchemaError, match="1 nulls"):
        embeddings.id_matrix(pa.array([None], type=schemas.CHUNK_ID))
