"""What a dataset holds and what it will cost, found before any money is spent.

Which rows are planned, which of them are read as a sample, what the sample says of the rest, and
the plan made of it. Reading is the sources' work (`adapters.sources`), cutting texts `chunks`',
prices `cost`'s.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, takewhile
from typing import NamedTuple, Protocol

import numpy as np

from acidburn_assets.core import cost
from acidburn_assets.core.chunks import (
    Sizes,
    Tally,
    Tokenizer,
    chunk_documents,
    chunker_fingerprint,
    resolve_sizes,
)
from acidburn_assets.core.datasets import Dataset
from acidburn_assets.core.documents import Document
from acidburn_assets.core.embeddings import ModelCard
from acidburn_assets.core.errors import BudgetError, SourceError
from acidburn_assets.core.records import Record
from acidburn_assets.core.shards import Shard, Unit, cut_shards

SAMPLE_DOCUMENTS = 400
SAMPLE_BYTES = 8 * 2**20
SAMPLE_UNITS = 40
"""A sample reads at most so much. Chosen: some seconds of tokenizing, 40 small reads from a hub,
and a ratio that is known within a few percent."""

WHOLE_DOCUMENTS = 10_000
"""A dataset of at most so many documents and SAMPLE_BYTES is counted whole. Chosen."""

_FITTED_UNITS = 10  # sampled, from which two coefficients are fitted. Chosen, not measured
_ID_BLOCK = 2**18
_N_NAMED = 5  # duplicates or rows that a message names


class Sample(Record):
    """What the sampled documents said."""

    n_documents: int
    n_chars: int
    n_tokens: int
    n_chunks: int
    skipped: dict[str, int]  # reason -> documents that the rules would skip


class GpuEstimate(Record):
    """Embedding the dataset on one kind of rented GPU."""

    gpu: str
    chunks_per_second: float
    usd_per_hour: float
    hours: float
    usd: float


class Estimate(Record):
    """What the whole dataset will come to."""

    n_tokens: int
    n_chunks: int
    gpus: tuple[GpuEstimate, ...]  # cheapest first
    bucket_bytes: int
    bucket_usd_per_month: float
    postgres_bytes: int
    postgres_plan: str  # smallest Supabase plan that holds it


class Plan(Record):
    """`D/plan.json`: the dataset at one revision, cut into shards."""

    schema_version: int = 1
    dataset: str
    revision: str
    model: str  # whose tokenizer counted
    target_tokens: int
    overlap_tokens: int
    chunker: str  # fingerprint: code version, tokenizer, sizes
    dim: int
    n_documents: int
    n_bytes: int
    n_missing_ids: int = 0  # documents whose id is null or empty: they are skipped as `bad_id`
    sample: Sample
    estimate: Estimate
    shards: tuple[Shard, ...]

    def shard(self, key: str) -> Shard:
        """The shard of that key; KeyError where the plan has none."""
        return {shard.key: shard for shard in self.shards}[key]


class Measured(NamedTuple):
    """What a sampled unit held."""

    unit: Unit  # as it was read: where it was cut short, its first rows only
    tally: Tally


class Source(Protocol):
    """What planning asks of a source of documents; see `adapters.sources`."""

    def revision(self) -> str:
        """The pinned state of the content."""

    def units(self) -> list[Unit]:
        """All pieces in order, rows contiguous from 0."""

    def read(self, units: Sequence[Unit]) -> Iterator[Document]:
        """The documents of those units; of one whose `n_rows` was lowered, its first rows."""

    def ids(self) -> Iterator[tuple[int, str]] | None:
        """(row, id) of every document in order; None where ids cannot repeat."""


class _Run(NamedTuple):
    """Ids seen so far, as digests in ascending order; equal ones in order of their rows."""

    digests: np.ndarray  # (n,) S16
    rows: np.ndarray  # (n,) int64


class IdCheck(NamedTuple):
    """What `check_ids` saw of ids that are all different."""

    n_ids: int
    n_missing: int  # null or empty: these documents are skipped as `bad_id`
    missing_rows: tuple[int, ...]  # the first few


def plan_dataset(
    dataset: Dataset, source: Source, *, tokenizer: Tokenizer, card: ModelCard
) -> Plan:
    """Plans a dataset: counts and checks it, reads a sample, cuts shards and prices them.

    Args:
        dataset: as declared.
        source: where its documents are.
        tokenizer: of the model.
        card: of the model.

    Raises:
        ConfigError: chunk sizes that the model cannot read.
        SourceError: no row, nothing that can be chunked, or ids that repeat.
    """
    sizes = resolve_sizes(dataset.chunk, max_tokens=tokenizer.max_tokens)
    revision = source.revision()
    units = select_units(source.units(), dataset)
    n_rows = sum(unit.n_rows for unit in units)
    ids = takewhile(lambda entry: entry[0] < n_rows, source.ids() or ())
    n_missing_ids = check_ids(ids, dataset=dataset.name).n_missing
    measured = []
    for unit in choose_sample(units):
        tally = Tally()
        for _ in chunk_documents(
            source.read([unit]),
            dataset=dataset,
            revision=revision,
            tokenizer=tokenizer,
            sizes=sizes,
            tally=tally,
        ):
            pass  # only the tally is wanted
        measured.append(Measured(unit, tally))
    return make_plan(
        dataset=dataset,
        revision=revision,
        units=units,
        measured=measured,
        model=card.name,
        dim=card.dim,
        sizes=sizes,
        chunker=chunker_fingerprint(tokenizer.fingerprint, sizes),
        n_missing_ids=n_missing_ids,
    )


def select_units(units: Sequence[Unit], dataset: Dataset) -> tuple[Unit, ...]:
    """The units that are planned: all, or as many as hold the first `max_documents` rows.

    Args:
        units: of the whole dataset, in order.
        dataset: whose filters apply.

    Raises:
        SourceError: there is no row.
    """
    selected: list[Unit] = []
    rest = dataset.filters.max_documents
    for unit in units:
        if rest is not None and unit.n_rows > rest:
            unit = _first_rows(unit, rest)
        if unit.n_rows > 0:
            selected.append(unit)
        if rest is not None:
            rest -= unit.n_rows
    if not selected:
        raise SourceError(
            f"dataset {dataset.name!r} has no row: {dataset.source} {dataset.path!r}, "
            f"config {dataset.config!r}, split {dataset.split!r}; mend these in datasets.yaml"
        )
    return tuple(selected)


def choose_sample(units: Sequence[Unit]) -> tuple[Unit, ...]:
    """The units to read as a sample, spread evenly over the dataset, cut short to stay bounded.

    The same units give the same sample. A dataset that is small enough is its own sample.

    Args:
        units: to be planned, in order, each with at least one row.
    """
    n_rows = sum(unit.n_rows for unit in units)
    n_bytes = sum(unit.n_bytes for unit in units)
    if n_bytes <= SAMPLE_BYTES and n_rows <= WHOLE_DOCUMENTS:
        return tuple(units)
    n_affordable = int(SAMPLE_BYTES * n_rows / max(n_bytes, 1))
    n_documents = max(1, min(SAMPLE_DOCUMENTS, n_affordable))
    n_units = min(SAMPLE_UNITS, n_documents, len(units))
    sample: list[Unit] = []
    for number in range(n_units):
        unit = units[(2 * number + 1) * len(units) // (2 * n_units)]
        n_affordable = int(SAMPLE_BYTES / n_units * unit.n_rows / max(unit.n_bytes, 1))
        n_wanted = min(math.ceil(n_documents / n_units), max(1, n_affordable))
        sample.append(_first_rows(unit, n_wanted) if n_wanted < unit.n_rows else unit)
    return tuple(sample)


def estimate_chunks(units: Sequence[Unit], measured: Sequence[Measured]) -> list[float]:
    """Chunks of each unit: counted where the unit was read whole, else from its rows and bytes.

    A document makes about so many chunks whatever its length, and so many more for each byte: short
    ones make one each, long ones one for each stretch of the target. The rows and bytes of every
    unit are known; how much each counts is what fits the sampled units best. Since the shortest
    document is a chunk too, no unit is taken for fewer than its rows times the share of sampled
    documents that were kept.

    Args:
        units: to be planned.
        measured: the sampled ones, with at least one chunk among them.

    Returns:
        One estimate per unit.
    """
    counted = {
        (sample.unit.first_row, sample.unit.n_rows): sample.tally.n_chunks for sample in measured
    }
    total = _total(measured)
    kept_share = total.n_kept / total.n_documents
    text_share = _text_share(measured)
    per_document, per_byte = _fit_chunks(measured)
    return [
        float(
            counted.get(
                (unit.first_row, unit.n_rows),
                max(
                    unit.n_rows * kept_share * per_document + unit.n_bytes * text_share * per_byte,
                    unit.n_rows * kept_share,
                ),
            )
        )
        for unit in units
    ]


def make_plan(
    *,
    dataset: Dataset,
    revision: str,
    units: Sequence[Unit],
    measured: Sequence[Measured],
    model: str,
    dim: int,
    sizes: Sizes,
    chunker: str,
    n_missing_ids: int = 0,
) -> Plan:
    """Cuts a dataset into shards and prices it.

    Args:
        dataset: as declared.
        revision: pinned revision.
        units: from `select_units`.
        measured: what the units of `choose_sample` held.
        model: whose tokenizer counted.
        dim: of its vectors.
        sizes: of the chunks.
        chunker: from `chunks.chunker_fingerprint`.
        n_missing_ids: from `check_ids`.

    Raises:
        SourceError: no sampled document can be chunked.
    """
    total = _total(measured)
    if total.n_chunks == 0:
        raise SourceError(
            f"dataset {dataset.name!r}: none of {total.n_documents} documents read as a sample can "
            f"be chunked, skipped are {dict(total.skipped)}; check text_column "
            f"{dataset.text_column!r}, id_column {dataset.id_column!r} and the filters"
        )
    estimated = estimate_chunks(units, measured)
    n_chunks = round(sum(estimated))
    n_chunk_bytes = round(n_chunks * total.n_chunk_bytes / total.n_chunks)
    bucket_bytes = cost.bucket_bytes(n_chunks=n_chunks, n_chunk_bytes=n_chunk_bytes, dim=dim)
    postgres_bytes = cost.postgres_bytes(
        n_chunks=n_chunks,
        n_chunk_bytes=n_chunk_bytes,
        dim=dim,
        stores_text=dataset.store_text == "postgres",
    )
    tokens_per_chunk = total.n_tokens / total.n_chunks
    architecture = cost.architecture_of(model, dim=dim)
    return Plan(
        dataset=dataset.name,
        revision=revision,
        model=model,
        target_tokens=sizes.target_tokens,
        overlap_tokens=sizes.overlap_tokens,
        chunker=chunker,
        dim=dim,
        n_documents=sum(unit.n_rows for unit in units),
        n_bytes=sum(unit.n_bytes for unit in units),
        n_missing_ids=n_missing_ids,
        sample=Sample(
            n_documents=total.n_documents,
            n_chars=total.n_chars,
            n_tokens=total.n_tokens,
            n_chunks=total.n_chunks,
            skipped=dict(total.skipped),
        ),
        estimate=Estimate(
            n_tokens=round(n_chunks * tokens_per_chunk),
            n_chunks=n_chunks,
            gpus=_price_gpus(n_chunks, architecture, tokens_per_chunk),
            bucket_bytes=bucket_bytes,
            bucket_usd_per_month=cost.bucket_usd_per_month(bucket_bytes),
            postgres_bytes=postgres_bytes,
            postgres_plan=cost.postgres_plan(postgres_bytes),
        ),
        shards=cut_shards(units, estimated, chunks_per_shard=dataset.chunks_per_shard),
    )


def check_budget(plan: Plan, budget_usd: float) -> None:
    """Refuses a plan whose cheapest way to embed costs more than a person allowed.

    Args:
        plan: of the dataset.
        budget_usd: `Dataset.budget_usd`.

    Raises:
        BudgetError: with the figures, and both ways to mend it.
    """
    cheapest = plan.estimate.gpus[0]
    if cheapest.usd <= budget_usd:
        return
    n_affordable = int(plan.n_documents * budget_usd / cheapest.usd)
    raise BudgetError(
        f"dataset {plan.dataset!r} is about {plan.estimate.n_chunks:,} chunks; embedding them "
        f"costs about ${cheapest.usd:,.2f} on {cheapest.gpu} ({cheapest.hours:,.1f} h at "
        f"${cheapest.usd_per_hour:,.2f}/h), more than its budget_usd of ${budget_usd:,.2f}. Raise "
        f"budget_usd to {math.ceil(cheapest.usd)} in datasets.yaml, or set filters.max_documents "
        f"to about {n_affordable:,} of its {plan.n_documents:,} documents"
    )


def check_ids(ids: Iterable[tuple[int, str | None]], *, dataset: str) -> IdCheck:
    """Refuses a dataset that has one id twice.

    Exact over any number of ids in one pass and 24 bytes per id: digests and rows are kept in
    sorted arrays that are merged as they grow.

    Args:
        ids: (row, id) of every document; the id None or empty where there is none.
        dataset: name, for the error.

    Raises:
        SourceError: names the first few duplicate ids with their rows.
    """
    n_ids = n_missing = n_duplicates = 0
    missing_rows: list[int] = []
    named: list[str] = []
    runs: list[_Run] = []  # longest first
    remaining = iter(ids)
    while block := list(islice(remaining, _ID_BLOCK)):
        present = [(row, doc_id) for row, doc_id in block if doc_id]
        missing = [row for row, doc_id in block if not doc_id]
        n_ids += len(present)
        n_missing += len(missing)
        missing_rows += missing[: _N_NAMED - len(missing_rows)]
        run = _sort_run(present)
        seen_in = _seen_in_run(run)
        for earlier in runs:
            seen_in |= _seen_in_earlier(run, earlier)
        n_duplicates += len(seen_in)
        id_of_row = dict(present)
        for row, first_row in sorted(seen_in.items())[: _N_NAMED - len(named)]:
            named.append(f"{id_of_row[row]!r} in rows {first_row} and {row}")
        if present:
            runs.append(run)
        while len(runs) > 1 and len(runs[-2].rows) <= len(runs[-1].rows):
            runs[-2:] = [_merge(runs[-2], runs[-1])]
    if n_duplicates:
        raise SourceError(
            f"dataset {dataset!r} repeats ids {n_duplicates:,} times: {'; '.join(named)}. Name a "
            "column of unique values as `id_column`, or leave it out so that a document's row is "
            "its id"
        )
    return IdCheck(n_ids, n_missing, tuple(missing_rows))


def _first_rows(unit: Unit, n_rows: int) -> Unit:
    n_bytes = unit.n_bytes * n_rows // unit.n_rows
    return unit.model_copy(update={"n_rows": n_rows, "n_bytes": n_bytes})


def _total(measured: Sequence[Measured]) -> Tally:
    total = Tally()
    for _, tally in measured:
        total.add(tally)
    return total


def _fit_chunks(measured: Sequence[Measured]) -> tuple[float, float]:
    """Chunks per kept document and per byte of its text, neither below 0: by least squares.

    From few units only the ratio to bytes is taken, which varies less from document to document
    than that to documents.

    Source: Cochran, Sampling Techniques, 3rd ed., sections 7.1 and 7.8. Measured with 400 of 19,035
    news items of about 800 bytes, a chunk each: 4 to 10 % over by the ratio to bytes, 0 by both; of
    PEPs and RFCs of 15 KB both are within 2 %.
    """
    total = _total(measured)
    by_bytes = (0.0, total.n_chunks / total.n_bytes)
    if len(measured) < _FITTED_UNITS:
        return by_bytes
    known = np.array(
        [(sample.tally.n_kept, sample.tally.n_bytes) for sample in measured], dtype=np.float64
    )  # (n, 2)
    chunks = np.array([sample.tally.n_chunks for sample in measured], dtype=np.float64)  # (n,)
    (per_document, per_byte), *_ = np.linalg.lstsq(known, chunks)
    if per_document < 0:
        return by_bytes
    if per_byte < 0:
        return total.n_chunks / total.n_kept, 0.0
    return float(per_document), float(per_byte)


def _text_share(measured: Sequence[Measured]) -> float:
    """Bytes of kept text per byte that the units claim.

    It is 1 where units know the size of their text, and less where lines of JSON hold more than
    the text. Of a unit that was cut short only its mean bytes per row are known, so that a few
    long documents would pass for a share; a share is believed only where it differs from 1 by
    more than two standard errors of a ratio estimator.

    Source: Cochran, Sampling Techniques, 3rd ed., section 6.4.
    """
    claimed = np.array([sample.unit.n_bytes for sample in measured], dtype=np.float64)  # (n,)
    kept = np.array([sample.tally.n_bytes for sample in measured], dtype=np.float64)  # (n,)
    share = float(kept.sum() / claimed.sum())
    n = len(measured)
    if n < 2:
        return share
    variance = float(((kept - share * claimed) ** 2).sum()) * n / (n - 1)
    standard_error = math.sqrt(variance) / float(claimed.sum())
    return share if abs(share - 1) > 2 * standard_error else 1.0


def _price_gpus(
    n_chunks: int, architecture: cost.Architecture, tokens_per_chunk: float
) -> tuple[GpuEstimate, ...]:
    estimates = []
    for gpu in cost.GPUS:
        rate = cost.chunks_per_second(gpu, architecture, tokens_per_chunk=tokens_per_chunk)
        hours = n_chunks / rate / 3600
        estimates.append(
            GpuEstimate(
                gpu=gpu.name,
                chunks_per_second=rate,
                usd_per_hour=gpu.usd_per_hour,
                hours=hours,
                usd=hours * gpu.usd_per_hour,
            )
        )
    return tuple(sorted(estimates, key=lambda estimate: (estimate.usd, estimate.hours)))


def _sort_run(ids: Sequence[tuple[int, str]]) -> _Run:
    digests = np.array([_digest(doc_id) for _, doc_id in ids], dtype="S16")
    rows = np.array([row for row, _ in ids], dtype=np.int64)
    order = np.argsort(digests, kind="stable")
    return _Run(digests[order], rows[order])


def _digest(doc_id: str) -> bytes:
    # a lone surrogate is an id that `documents.screen` refuses later, not a reason to stop here
    return hashlib.sha256(doc_id.encode(errors="surrogatepass")).digest()[:16]


def _seen_in_run(run: _Run) -> dict[int, int]:
    """Row of each id that stands in the run before -> the row before it."""
    repeats = np.flatnonzero(run.digests[1:] == run.digests[:-1])
    return {int(run.rows[index + 1]): int(run.rows[index]) for index in repeats}


def _seen_in_earlier(run: _Run, earlier: _Run) -> dict[int, int]:
    """Row of each id of the run that an earlier run has -> its first row there."""
    places = np.searchsorted(earlier.digests, run.digests)
    places[places == len(earlier.digests)] = 0
    hits = np.flatnonzero(earlier.digests[places] == run.digests)
    return {int(run.rows[index]): int(earlier.rows[places[index]]) for index in hits}


def _merge(first: _Run, second: _Run) -> _Run:
    digests = np.concatenate([first.digests, second.digests])
    # a stable sort merges two sorted runs in linear time
    order = np.argsort(digests, kind="stable")
    return _Run(digests[order], np.concatenate([first.rows, second.rows])[order])
