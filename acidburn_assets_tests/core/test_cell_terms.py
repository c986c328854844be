import tracemalloc
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

from acidburn_assets.core import cell_terms, schemas
from acidburn_assets.core.cell_terms import CellTerms, CellTermsAccumulator, terms_of_a_cell
from acidburn_assets.core.lexicon import Lexicon, LexiconAccumulator

Chunk = tuple[int, dict[int, float]]  # its cell, its terms with their weights

CHUNKS: list[Chunk] = [
    (0, {10: 1.0, 11: 0.5}),
    (1, {10: 2.0, 12: 0.0}),
    (0, {10: 1.5, 13: 0.25}),
    (1, {}),
]


def table_of(chunks: Sequence[Chunk]) -> pa.Table:
    return pa.table(
        [
            pa.array([bytes([row] * 16) for row in range(len(chunks))], schemas.CHUNK_ID),
            pa.array([sorted(terms) for _, terms in chunks], schemas.TERMS),
            pa.array(
                [[terms[one] for one in sorted(terms)] for _, terms in chunks], schemas.WEIGHTS
            ),
        ],
        schema=schemas.TERM_WEIGHTS,
    )


def lexicon_of(chunks: Sequence[Chunk]) -> Lexicon:
    counted = LexiconAccumulator()
    counted.add(np.array([term for _, terms in chunks for term in terms], np.int32), len(chunks))
    return Lexicon(counted.finish())


def collect(*shards: Sequence[Chunk], n_cells: int = 2) -> pa.Table:
    collected = CellTermsAccumulator(
        lexicon_of([one for shard in shards for one in shard]), n_cells
    )
    for shard in shards:
        collected.add(np.array([cell for cell, _ in shard], np.int32), table_of(shard))
    return collected.finish()


def entries(table: pa.Table) -> list[tuple[int, int, float]]:
    columns = (table[name].to_pylist() for name in ("term", "cell_id", "weight"))
    return list(zip(*columns, strict=True))


def test_a_cell_has_of_each_term_the_most_of_its_chunks() -> None:
    assert entries(collect(CHUNKS)) == [(10, 0, 1.5), (10, 1, 2.0), (11, 0, 0.5), (13, 0, 0.25)]


def test_shards_and_batches_change_nothing() -> None:
    whole = collect(CHUNKS)
    assert whole.equals(collect(CHUNKS[:1], CHUNKS[1:]))
    collected = CellTermsAccumulator(lexicon_of(CHUNKS), 2)
    cells = np.array([cell for cell, _ in CHUNKS], np.int32)
    pieces = pa.Table.from_batches(table_of(CHUNKS).to_batches(max_chunksize=1))
    collected.add(cells, pieces)
    assert whole.equals(collected.finish())


def test_merging_early_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    chunks: list[Chunk] = [
        (
            int(rng.integers(3)),
            {int(term): float(rng.random()) + 0.1 for term in rng.integers(0, 40, 9)},
        )
        for _ in range(60)
    ]
    whole = collect(chunks, n_cells=3)
    collected = CellTermsAccumulator(lexicon_of(chunks), 3)
    for start in range(0, 60, 10):
        piece = chunks[start : start + 10]
        collected.add(np.array([cell for cell, _ in piece], np.int32), table_of(piece))
        collected._merge(10**6)  # what a large pool does by itself
    assert whole.equals(collected.finish())


def test_of_too_many_terms_a_cell_keeps_the_rare_and_heavy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cell_terms, "MAX_TERMS", 2)
    monkeypatch.setattr(cell_terms, "MIN_TERMS", 2)
    chunks: list[Chunk] = [(0, {1: 1.0, 2: 1.0, 3: 1.0, 4: 0.1}), *[(1, {1: 1.0})] * 5]
    assert entries(collect(chunks)) == [(1, 1, 1.0), (2, 0, 1.0), (3, 0, 1.0)]


@pytest.mark.parametrize(
    ("n_cells", "expected"), [(1, 1_024), (10_000, 1_024), (25_000, 640), (10**6, 256)]
)
def test_many_cells_keep_fewer_terms_each(n_cells: int, expected: int) -> None:
    assert terms_of_a_cell(n_cells) == expected


def test_scores_are_sums_over_the_questions_terms() -> None:
    asked = CellTerms(collect(CHUNKS), np.array([1, 0]))
    assert asked.score({10: 2.0, 11: 1.0, 99: 5.0}).tolist() == pytest.approx([4.0, 3.5])
    assert asked.score({}).tolist() == [0, 0]


def test_asking_for_a_word_copies_no_column() -> None:
    n_entries = 1_000_000
    terms = np.repeat(np.arange(n_entries // 10, dtype=np.int32), 10)
    cells = np.tile(np.arange(10, dtype=np.int32), n_entries // 10)
    weights = np.ones(n_entries, np.float32)
    asked = CellTerms(pa.table([terms, cells, weights], schema=schemas.CELL_TERMS), np.arange(10))
    tracemalloc.start()
    try:
        scores = asked.score({5: 1.0, 99_999: 2.0})
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert scores.tolist() == [3.0] * 10
    assert most < 100_000


def test_a_pool_without_words_has_no_terms() -> None:
    table = collect([(0, {}), (1, {})])
    assert len(table) == 0
    assert CellTerms(table, np.array([0, 1])).score({1: 1.0}).tolist() == [0, 0]
