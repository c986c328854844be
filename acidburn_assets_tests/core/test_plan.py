"""A plan says what a dataset holds from a small sample, and refuses what a person must mend."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acidburn_assets.core import cost, plan
from acidburn_assets.core.chunks import Sizes, Tally, chunk_documents
from acidburn_assets.core.datasets import ChunkSizes, Dataset, Filters
from acidburn_assets.core.documents import Document
from acidburn_assets.core.embeddings import ModelCard
from acidburn_assets.core.errors import BudgetError, SourceError
from acidburn_assets.core.plan import Measured, Plan
from acidburn_assets.core.shards import Unit


def make_dataset(**fields: object) -> Dataset:
    return Dataset.model_validate(
        {
            "name": "books",
            "source": "parquet",
            "path": "books/*.parquet",
            "licence": "CC0",
            "may_redistribute_text": True,
            "tier": "none",
            **fields,
        }
    )


def make_units(*sizes: tuple[int, int]) -> list[Unit]:
    """Units of (n_rows, n_bytes)."""
    units: list[Unit] = []
    first_row = 0
    for index, (n_rows, n_bytes) in enumerate(sizes):
        units.append(
            Unit(path="a", index=index, first_row=first_row, n_rows=n_rows, n_bytes=n_bytes)
        )
        first_row += n_rows
    return units


def tally(n_documents: int, n_bytes: int, n_chunks: int, *, n_kept: int | None = None) -> Tally:
    n_kept = n_documents if n_kept is None else n_kept
    n_skipped = n_documents - n_kept
    return Tally(
        n_documents=n_documents,
        n_kept=n_kept,
        n_chars=n_bytes,
        n_bytes=n_bytes,
        n_chunks=n_chunks,
        n_tokens=n_chunks * 200,
        n_chunk_bytes=n_chunks * 1000,
        skipped=Counter({"empty": n_skipped} if n_skipped else {}),
    )


def make_plan(
    units: Sequence[Unit], measured: Sequence[Measured], dataset: Dataset | None = None
) -> Plan:
    return plan.make_plan(
        dataset=dataset or make_dataset(),
        revision="r1",
        units=units,
        measured=measured,
        model="minilm",
        dim=384,
        sizes=Sizes(254, 25),
        chunker="c0ffee",
    )


def test_all_units_are_planned_without_a_limit() -> None:
    units = make_units((3, 30), (0, 0), (2, 20))
    assert plan.select_units(units, make_dataset()) == (units[0], units[2])


@pytest.mark.parametrize(
    ("max_documents", "rows_and_bytes"),
    [
        (1, [(1, 10)]),
        (3, [(3, 30)]),
        (4, [(3, 30), (1, 10)]),
        (9, [(3, 30), (2, 20)]),
    ],
)
def test_max_documents_plans_the_first_rows_only(
    max_documents: int, rows_and_bytes: list[tuple[int, int]]
) -> None:
    dataset = make_dataset(filters=Filters(max_documents=max_documents))
    selected = plan.select_units(make_units((3, 30), (2, 20)), dataset)
    assert [(unit.n_rows, unit.n_bytes) for unit in selected] == rows_and_bytes


@pytest.mark.parametrize("units", [[], make_units((0, 0))])
def test_a_dataset_without_rows_is_refused(units: list[Unit]) -> None:
    with pytest.raises(SourceError, match=r"'books' has no row: parquet 'books/\*.parquet'"):
        plan.select_units(units, make_dataset())


def test_a_small_dataset_is_its_own_sample() -> None:
    units = make_units(*[(100, 80_000)] * 100)
    assert plan.choose_sample(units) == tuple(units)


def test_a_sample_is_spread_over_the_whole_dataset() -> None:
    units = make_units(*[(1000, 4_000_000)] * 400)
    sample = plan.choose_sample(units)
    assert [unit.index for unit in sample] == list(range(5, 400, 10))
    assert {unit.n_rows for unit in sample} == {10}
    assert {unit.n_bytes for unit in sample} == {40_000}
    assert sample == plan.choose_sample(units)


def test_a_sample_of_long_documents_reads_few_of_them() -> None:
    sample = plan.choose_sample(make_units(*[(500, 500 * 2**20)] * 50))
    assert [unit.n_rows for unit in sample] == [1] * 8


def test_a_sample_of_a_single_unit_reads_its_first_rows() -> None:
    (unit,) = plan.choose_sample(make_units((100_000, 100_000_000)))
    assert (unit.n_rows, unit.n_bytes) == (400, 400_000)


@given(st.lists(st.tuples(st.integers(1, 10**6), st.integers(0, 10**9)), min_size=1, max_size=100))
def test_a_sample_is_bounded(sizes: list[tuple[int, int]]) -> None:
    units = make_units(*sizes)
    sample = plan.choose_sample(units)
    assert len(sample) >= 1
    assert len({unit.first_row for unit in sample}) == len(sample)
    if sample != tuple(units):
        assert len(sample) <= plan.SAMPLE_UNITS
        assert sum(unit.n_rows for unit in sample) < 2 * plan.SAMPLE_DOCUMENTS
        # a single document may be larger than a whole sample should be
        for unit in sample:
            assert unit.n_rows == 1 or unit.n_bytes <= plan.SAMPLE_BYTES / len(sample)


def test_units_read_whole_count_exactly() -> None:
    units = make_units((10, 10_000), (10, 50_000))
    measured = [Measured(units[0], tally(10, 10_000, 17)), Measured(units[1], tally(10, 50_000, 4))]
    assert plan.estimate_chunks(units, measured) == [17, 4]


def test_other_units_are_estimated_by_their_bytes() -> None:
    units = make_units((10, 10_000), (10, 500_000), (10, 20_000))
    measured = [Measured(units[0], tally(10, 10_000, 20))]
    assert plan.estimate_chunks(units, measured) == [20, 1000, 40]


def test_short_documents_are_a_chunk_each_however_their_lengths_vary() -> None:
    units = make_units(*[(100, 80_000)] * 40)
    sample = [unit.model_copy(update={"n_rows": 10, "n_bytes": 8_000}) for unit in units[:20]]
    measured = [
        Measured(unit, tally(10, 6_000 + 200 * index, 10)) for index, unit in enumerate(sample)
    ]
    assert plan.estimate_chunks(units, measured) == [pytest.approx(100)] * 40


def test_chunks_grow_with_documents_and_with_bytes() -> None:
    units = make_units((100, 100_000), (100, 400_000), (1000, 1_000_000))
    measured = [
        Measured(unit, tally(10, n_bytes, 5 + n_bytes // 1000))
        for unit, n_bytes in zip(
            make_units(*[(10, n * 1000) for n in range(10, 30)]),
            range(10_000, 30_000, 1000),
            strict=True,
        )
    ]
    estimated = plan.estimate_chunks([*units], measured)
    assert estimated == [pytest.approx(150), pytest.approx(450), pytest.approx(1500)]


def test_no_unit_is_taken_for_fewer_chunks_than_kept_documents() -> None:
    units = make_units((10, 100_000), (1000, 1000))
    measured = [Measured(units[0], tally(10, 100_000, 200, n_kept=9))]
    assert plan.estimate_chunks(units, measured) == [200, 900]


def test_bytes_that_are_not_text_are_not_counted() -> None:
    """Lines of JSON: half of every unit is other fields."""
    units = make_units(*[(100, 1_000_000)] * 10)
    sample = [unit.model_copy(update={"n_rows": 10, "n_bytes": 100_000}) for unit in units[:5]]
    texts = [48_000, 50_000, 51_000, 49_000, 52_000]
    measured = [
        Measured(unit, tally(10, n_bytes, n_bytes // 1000))
        for unit, n_bytes in zip(sample, texts, strict=True)
    ]
    assert plan.estimate_chunks(units, measured)[9] == pytest.approx(500, rel=0.01)


def test_a_few_long_documents_in_the_sample_do_not_raise_the_estimate() -> None:
    units = make_units(*[(100, 1_000_000)] * 10)
    sample = [unit.model_copy(update={"n_rows": 1, "n_bytes": 10_000}) for unit in units[:5]]
    texts = [3_000, 60_000, 8_000, 1_000, 14_000]
    measured = [
        Measured(unit, tally(1, n_bytes, n_bytes // 1000))
        for unit, n_bytes in zip(sample, texts, strict=True)
    ]
    assert plan.estimate_chunks(units, measured)[9] == pytest.approx(1000, rel=0.01)


def test_the_estimate_of_a_skewed_corpus_is_near_its_true_count() -> None:
    """Sizes with the spread of web pages; 400 of 200,000 documents are read."""
    sizes = np.random.default_rng(7).lognormal(8, 1.2, size=(400, 500)).astype(int) + 1
    documents = sizes.tolist()
    units = make_units(*[(len(unit), sum(unit)) for unit in documents])
    measured = []
    for unit in plan.choose_sample(units):
        read = documents[unit.index][: unit.n_rows]
        measured.append(
            Measured(unit, tally(len(read), sum(read), sum(-(-size // 4000) for size in read)))
        )
    truth = sum(-(-size // 4000) for unit in documents for size in unit)
    assert sum(plan.estimate_chunks(units, measured)) == pytest.approx(truth, rel=0.1)


def test_a_plan_holds_every_row_once_and_adds_up() -> None:
    units = make_units(*[(100, 100_000)] * 30)
    measured = [Measured(unit, tally(100, 100_000, 125)) for unit in units[::3]]
    planned = make_plan(units, measured, make_dataset(chunks_per_shard=500))
    assert planned.n_documents == 3000
    assert planned.n_bytes == 3_000_000
    assert [unit for shard in planned.shards for unit in shard.units] == units
    assert {shard.estimated_chunks for shard in planned.shards[:-1]} == {500}
    assert planned.sample.n_documents == 1000
    assert planned.sample.n_chunks == 1250
    assert planned.estimate.n_chunks == 3750
    assert planned.estimate.n_tokens == 750_000
    assert planned.estimate.bucket_bytes == cost.bucket_bytes(
        n_chunks=3750, n_chunk_bytes=3_750_000, dim=384
    )
    assert planned.estimate.postgres_plan == "Free"
    assert planned.shard("000001") == planned.shards[1]
    assert Plan.from_bytes(planned.to_bytes(), key="books/plan.json") == planned


def test_gpus_are_priced_cheapest_first() -> None:
    units = make_units((100, 100_000))
    planned = make_plan(units, [Measured(units[0], tally(100, 100_000, 3_600_000))])
    prices = [gpu.usd for gpu in planned.estimate.gpus]
    assert prices == sorted(prices)
    for gpu in planned.estimate.gpus:
        assert gpu.hours == pytest.approx(1000 / gpu.chunks_per_second)
        assert gpu.usd == pytest.approx(gpu.hours * gpu.usd_per_hour)


def test_texts_that_stay_in_the_bucket_take_no_room_in_postgres() -> None:
    units = make_units((100, 100_000))
    measured = [Measured(units[0], tally(100, 100_000, 100))]
    there, here = (
        make_plan(units, measured, make_dataset(store_text=place)).estimate.postgres_bytes
        for place in ("postgres", "bucket")
    )
    assert there - here == 100 * 1000


def test_a_dataset_of_which_nothing_can_be_chunked_is_refused() -> None:
    units = make_units((12, 0))
    measured = [Measured(units[0], tally(12, 0, 0, n_kept=0))]
    with pytest.raises(
        SourceError, match=r"none of 12 documents .*'empty': 12.*text_column 'text'"
    ):
        make_plan(units, measured)


def test_a_plan_within_its_budget_passes_and_one_above_says_how_to_mend_it() -> None:
    units = make_units((1000, 4_000_000_000))
    planned = make_plan(units, [Measured(units[0], tally(1000, 4_000_000_000, 50_000_000))])
    cheapest = planned.estimate.gpus[0]
    plan.check_budget(planned, cheapest.usd)
    with pytest.raises(BudgetError) as raised:
        plan.check_budget(planned, cheapest.usd / 2)
    message = str(raised.value)
    assert "'books' is about 50,000,000 chunks" in message
    assert f"${cheapest.usd:,.2f} on {cheapest.gpu}" in message
    assert f"budget_usd to {int(cheapest.usd) + 1} " in message
    assert "about 500 of its 1,000 documents" in message


def test_different_ids_pass_and_missing_ones_are_reported() -> None:
    ids = [(0, "a"), (1, None), (2, ""), (3, "b"), (4, None)]
    assert plan.check_ids(ids, dataset="books") == (2, 3, (1, 2, 4))


def test_no_id_at_all_passes() -> None:
    assert plan.check_ids([], dataset="books") == (0, 0, ())


def test_ids_that_are_not_unicode_are_told_apart() -> None:
    assert plan.check_ids([(0, "\ud800"), (1, "\udfff")], dataset="books").n_ids == 2


def test_duplicate_ids_are_named_with_their_rows() -> None:
    ids = [(row, str(row % 990)) for row in range(1000)]
    with pytest.raises(SourceError) as raised:
        plan.check_ids(ids, dataset="books")
    message = str(raised.value)
    assert message.startswith("dataset 'books' repeats ids 10 times: '0' in rows 0 and 990; ")
    assert message.count(" in rows ") == 5
    assert "id_column" in message


@settings(deadline=None)
@given(st.lists(st.sampled_from("abcdefghijklmnopqrstuvwxyz0123456789"), max_size=40))
def test_a_repeated_id_is_found_wherever_it_stands(ids: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "_ID_BLOCK", 3)
        first_rows: dict[str, int] = {}
        repeats = [
            f"{doc_id!r} in rows {first_rows[doc_id]} and {row}"
            for row, doc_id in enumerate(ids)
            if first_rows.setdefault(doc_id, row) != row
        ]
        if not repeats:
            assert plan.check_ids(enumerate(ids), dataset="books").n_ids == len(ids)
            return
        with pytest.raises(SourceError) as raised:
            plan.check_ids(enumerate(ids), dataset="books")
        assert f"repeats ids {len(repeats)} times" in str(raised.value)


class LetterTokenizer:
    """One token for each character that is not blank."""

    name = "letters"
    fingerprint = "abc"
    max_tokens = 100

    def spans(self, text: str) -> np.ndarray:
        starts = np.array([i for i, char in enumerate(text) if not char.isspace()], dtype=np.int64)
        return np.column_stack([starts, starts + 1])

    def count(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([len("".join(text.split())) for text in texts], dtype=np.int64)


class ListSource:
    """Documents of a list, so many rows to a unit."""

    def __init__(
        self, texts: Sequence[str], *, rows_per_unit: int, ids: Sequence[str] | None = None
    ) -> None:
        self._documents = [
            Document(row, ids[row] if ids else str(row), "", text) for row, text in enumerate(texts)
        ]
        self._ids = ids
        blocks = [texts[row : row + rows_per_unit] for row in range(0, len(texts), rows_per_unit)]
        self._units = make_units(*[(len(block), len("".join(block))) for block in blocks])
        self.n_read = 0

    def revision(self) -> str:
        return "r7"

    def units(self) -> list[Unit]:
        return self._units

    def read(self, units: Sequence[Unit]) -> Iterator[Document]:
        for unit in units:
            self.n_read += unit.n_rows
            yield from self._documents[unit.first_row : unit.first_row + unit.n_rows]

    def ids(self) -> Iterator[tuple[int, str]] | None:
        return enumerate(self._ids) if self._ids else None


CARD = ModelCard(
    name="letters",
    revision="",
    dim=8,
    max_tokens=100,
    pooling="mean",
    weights_sha256="aa",
    tokenizer_sha256="bb",
)


def plan_of(source: ListSource, **fields: object) -> Plan:
    return plan.plan_dataset(make_dataset(**fields), source, tokenizer=LetterTokenizer(), card=CARD)


def test_a_small_dataset_is_planned_exactly() -> None:
    source = ListSource(["word " * 20, "", "word " * 60], rows_per_unit=2)
    planned = plan_of(source, chunk=ChunkSizes(overlap_tokens=0))
    assert (planned.revision, planned.model, planned.dim) == ("r7", "letters", 8)
    assert (planned.target_tokens, planned.overlap_tokens) == (100, 0)
    assert planned.n_documents == 3
    assert planned.sample.skipped == {"empty": 1}
    assert planned.sample.n_tokens == planned.estimate.n_tokens == 320
    assert planned.sample.n_chunks == planned.estimate.n_chunks == 4
    assert [shard.n_rows for shard in planned.shards] == [3]


def test_of_a_large_dataset_a_sample_is_read() -> None:
    source = ListSource(["word " * 60] * 20_000, rows_per_unit=100)
    planned = plan_of(source, chunk=ChunkSizes(overlap_tokens=0), chunks_per_shard=6000)
    assert source.n_read == planned.sample.n_documents == 400
    assert planned.estimate.n_chunks == 60_000
    assert [shard.n_rows for shard in planned.shards] == [2000] * 10


@pytest.mark.parametrize(
    ("median_words", "spread"),
    [(4, 0.7), (30, 1.0), (300, 0.8)],
    ids=["short ones of one chunk", "of all lengths", "long ones"],
)
def test_the_plan_foresees_within_five_percent_what_chunking_makes(
    monkeypatch: pytest.MonkeyPatch, median_words: int, spread: float
) -> None:
    """By bytes alone, short documents of one chunk each were taken for a tenth more of them."""
    monkeypatch.setattr(plan, "WHOLE_DOCUMENTS", 100)
    monkeypatch.setattr(plan, "SAMPLE_DOCUMENTS", 200)
    lengths = np.random.default_rng(3).lognormal(np.log(median_words), spread, size=3000)
    source = ListSource(["word " * (1 + int(n)) for n in lengths], rows_per_unit=30)
    planned = plan_of(source)
    assert source.n_read == 200
    made = Tally()
    for _ in chunk_documents(
        source.read(source.units()),
        dataset=make_dataset(),
        revision="r7",
        tokenizer=LetterTokenizer(),
        sizes=Sizes(planned.target_tokens, planned.overlap_tokens),
        tally=made,
    ):
        pass
    assert made.n_chunks >= 3000
    assert planned.estimate.n_chunks == pytest.approx(made.n_chunks, rel=0.05)


def test_ids_are_checked_as_far_as_rows_are_planned() -> None:
    source = ListSource(["words"] * 4, rows_per_unit=2, ids=["a", "", "b", "a"])
    planned = plan_of(source, filters=Filters(max_documents=3))
    assert planned.n_documents == 3
    assert planned.n_missing_ids == 1
    assert planned.sample.skipped == {"bad_id": 1}
    with pytest.raises(SourceError, match="'a' in rows 0 and 3"):
        plan_of(source)


def test_a_dataset_of_no_rows_is_refused_before_anything_is_read() -> None:
    source = ListSource([], rows_per_unit=2)
    with pytest.raises(SourceError, match="has no row"):
        plan_of(source)
    assert source.n_read == 0
