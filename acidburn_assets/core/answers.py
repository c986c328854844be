"""An answer and everything it rests on: passages, the gate's verdict, and the trail of what was
searched, how long it took and what it cost.

Made by `runtime.search`, shown by `commands.ask` and the search page, passed on as JSON by the
HTTP service. How passages are ranked is `core.ranking` and `core.routing`, what the gate decides
`core.gate`.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

from acidburn_assets.core.records import Record

Verdict = Literal["accepted", "ambiguous", "not_found"]
"""accepted: passages that answer are among those found, as sure as `GateReport.false_accepts` says.
ambiguous: they may be; shown with a warning. not_found: nothing in the pool answers, as far as the
search went."""

Corroboration = Literal["corroborated", "contradicted", "unverified", "not_needed"]


class Place(Record):
    """Where a passage lies, and what it was made by."""

    chunk_id: str  # hex
    dataset: str
    shard: str
    doc_id: str
    title: str
    char_start: int  # document[char_start:char_end] == text
    char_end: int
    cluster_id: int
    cluster_title: str
    revision: str  # of the dataset
    embeddings_sha256: str
    source_sha256: str  # of the slice in Postgres
    run_id: str  # that loaded it


class Passage(Place):
    """One passage of an answer."""

    rank: int  # from 1, which citations name
    score: float  # that the order is by, 0 to 1
    cosine: float
    lexical: float  # BM25 as a share of what is possible
    text: str
    matches: tuple[tuple[int, int], ...]
    """Spans of `text` that hold words of the question, in order: `text[start:end]`."""
    duplicates: tuple[Place, ...] = ()
    """Other places with the same text."""
    is_support: bool | None = None
    """Whether a reviewing model says that it supports the answer; None: nobody was asked."""


class RoutedCluster(Record):
    """A cluster and why it stands where it stands."""

    cluster_id: int
    title: str
    score: float
    cell: float
    lexical: float
    reason: Literal["near", "picked", "hedge"] = "near"
    """picked by the router's model; a hedge: near, though the model left it out."""


class Round(Record):
    """One widening of the search."""

    n_cells: int  # searched by now
    n_rows_scanned: int  # by now
    probability: float | None  # that the pool's answer is among the passages; None: no calibration
    verdict: Verdict


class ModelCall(Record):
    """One request to a paid model."""

    purpose: Literal["pick", "review"]
    model: str
    outcome: str  # "answered", or why there is no answer
    usd: float
    is_billed: bool  # False: no bill came, `usd` is the worst case
    is_cached: bool  # an answer that was paid before
    seconds: float


class Trail(Record):
    """What was looked at for an answer, and what that took."""

    clusters_considered: tuple[RoutedCluster, ...]  # best first
    clusters_searched: tuple[RoutedCluster, ...]  # those whose cells were looked into
    n_cells_searched: int
    n_cells_total: int
    n_rows_scanned: int
    n_rows_total: int
    share_scanned: float
    n_shards_behind: int
    """Loaded shards that follow another clustering than the map that routed; their passages may
    be missed until chunk_embeddings is materialized."""
    rounds: tuple[Round, ...]
    calls: tuple[ModelCall, ...]
    seconds: dict[str, float]  # by stage
    usd: float


class GateReport(Record):
    """What the gate found, and where its numbers are from."""

    verdict: Verdict
    probability: float | None
    threshold: float | None
    features: dict[str, float]
    false_accepts: float | None
    """Share of unanswerable questions that were accepted when the gate was calibrated."""
    provenance: str
    """On what it was calibrated, or why it could not be used."""


class Verification(Record):
    """What the verification pools say of an answer that the gate is not sure of."""

    status: Corroboration
    by: str  # "", the pool and the way: keyless agreement, or a model's name
    passages: tuple[Passage, ...] = ()


class Answer(Record):
    """Passages for a question, nearest first, and what is said from them."""

    question: str
    pool: str
    model: str  # fingerprint of the encoder
    text: str | None
    """Written from the passages, citing them as [1]; None where no model was asked or nothing
    supports an answer."""
    written_by: str | None  # the model that wrote `text`
    gate: GateReport
    verification: Verification
    passages: tuple[Passage, ...]
    trail: Trail


# ---- a model that advises -------------------------------------------------------------------


class Card(NamedTuple):
    """A cluster as the router's model is shown it."""

    cluster_id: int
    title: str
    summary: str
    keywords: Sequence[str]


class Picked(NamedTuple):
    """Clusters that the model would search, best first; empty where it gave no answer."""

    cluster_ids: tuple[int, ...]
    calls: tuple[ModelCall, ...]


class Quoted(NamedTuple):
    """A passage as the reviewing model is shown it."""

    number: int  # that its citation names
    title: str
    text: str


class Reviewed(NamedTuple):
    """What the model made of the passages."""

    is_answered: bool
    """False too where the model gave no answer; then `calls` says why."""
    supports: tuple[int, ...]  # numbers of the passages that support the answer
    contradicts: tuple[int, ...]
    """Of the passages of the verification pool, those that speak against it."""
    corroborates: tuple[int, ...]
    text: str | None  # with citations of passages that support it, as [1]
    calls: tuple[ModelCall, ...]


class Advisor(Protocol):
    """A paid model that picks clusters and reviews passages; never beyond a cap."""

    model: str

    def pick(self, question: str, cards: Sequence[Card], *, cap_usd: float) -> Picked:
        """Which clusters to search; no failure of the service is raised, it is in `calls`."""

    def review(
        self,
        question: str,
        passages: Sequence[Quoted],
        verification: Sequence[Quoted],
        *,
        cap_usd: float,
    ) -> Reviewed:
        """An answer from the passages; no failure of the service is raised, it is in `calls`."""

    def close(self) -> None:
        """Ends what it keeps open."""
