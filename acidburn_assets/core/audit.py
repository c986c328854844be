"""What an audit answers: where things came from and went, what is stale, what is still there.

The records only; `commands.audit` fills them from Dagster's events, the sealed manifests and the
tables in the bucket.
"""

from typing import Literal

from pydantic import ConfigDict

from acidburn_assets.core.lineage import Source
from acidburn_assets.core.records import Record


class Title(Record):
    """What a cluster map calls a cluster; the rest of its card is not read."""

    model_config = ConfigDict(extra="ignore")

    cluster_id: int
    title: str
    keywords: tuple[str, ...]


class Titles(Record):
    """`P/cluster_map.json` as far as an audit reads it.

    To check all of 20,000 cards takes as long as everything else in an answer.
    Source: measured, 0.49 s of CPU against 0.16 s.
    """

    model_config = ConfigDict(extra="ignore")

    cards: tuple[Title, ...]


class Made(Record):
    """One materialization, as Dagster recorded it."""

    asset: str
    shard: str | None
    data_version: str
    code_version: str
    n_rows: int | None
    run_id: str
    event_id: int
    made_at: str  # ISO 8601, UTC
    stale_because: tuple[str, ...]  # inputs or code that have changed since; empty: up to date


class ShardShare(Record):
    """What one shard gave to one cluster."""

    n_chunks: int
    n_noise: int
    source: Source  # the shard, down to the runs that made it


class ClusterShare(Record):
    """What one cluster got of a shard."""

    cluster_id: int
    title: str  # empty: it has none yet
    n_chunks: int
    n_noise: int


class Moment(Record):
    """When a cluster stood as it is told."""

    asked_for: str | None  # event, run or time; None: as it stands
    lineage_event_id: int
    lineage_sha256: str  # of the table that answers
    map_event_id: int | None  # whose titles are told; None: no map of that cluster model is known
    made_at: str  # when the lineage was reported, ISO 8601, UTC


class ClusterTrail(Record):
    """Which shards fed a cluster."""

    pool: str
    cluster_id: int
    title: str
    keywords: tuple[str, ...]
    n_chunks: int
    n_noise: int
    moment: Moment
    made: tuple[Made, ...]  # model, centroids, map and what follows them
    fitted_on: dict[str, str]  # dataset -> content version of its manifest
    shards: tuple[ShardShare, ...]  # largest first


class Relation(Record):
    """What a cluster of one generation and one of the generation before have to do with each other;
    see `migration.match`."""

    kind: Literal["kept", "split", "merged", "moved", "new", "gone"]
    old_cluster_id: int | None  # None: it is new
    new_cluster_id: int | None  # None: it is gone
    n_shared: int  # sampled chunks that are in both
    share_of_old: float | None
    share_of_new: float | None
    cosine: float | None  # of the two centroids
    title: str  # of the new one, as it is called now; empty: it is not, or it is gone


class Migration(Record):
    """What became of a pool's clusters when they were found anew."""

    pool: str
    generation: int
    version: str  # of the cluster model
    previous: str | None  # version of the generation before; None: this is the first
    fitted_on: dict[str, str]  # dataset -> content version of its manifest
    counts: dict[str, int]  # clusters by kind
    relations: tuple[Relation, ...]  # ordered by cluster of now; what is gone last


class ShardTrail(Record):
    """What became of a shard."""

    dataset: str
    shard: str
    first_row: int
    n_rows: int
    revision: str
    licence: str
    made: tuple[Made, ...]
    source: Source | None  # as the pool's lineage counted it; None: it did not yet
    clusters: tuple[ClusterShare, ...]  # largest first


class ChunkTrail(Record):
    """What became of a chunk."""

    chunk_id: str  # hex
    chunk_index: int
    char_start: int
    char_end: int
    n_tokens: int
    cluster_id: int | None  # None: its pool has no model yet
    cluster_title: str | None
    strength: float | None
    is_noise: bool | None


class DocumentTrail(Record):
    """What became of a document."""

    dataset: str
    revision: str
    licence: str
    doc_id: str
    doc_row: int
    title: str
    shard: str
    chunks: tuple[ChunkTrail, ...]
    made: tuple[Made, ...]  # of its shard


class PassageTrail(Record):
    """Where a passage of an answer stands, down to the run that made its vector."""

    dataset: str
    revision: str
    licence: str
    doc_id: str
    doc_row: int
    title: str
    shard: str
    chunk: ChunkTrail
    made: tuple[Made, ...]
    text: str


class Event(Record):
    """One materialization, beside the one before it."""

    event_id: int  # what `audit cluster --at` takes
    asset: str
    shard: str | None
    made_at: str  # ISO 8601, UTC
    run_id: str
    data_version: str
    code_version: str
    n_rows: int | None
    is_reused: bool  # found as it was, and reported again
    changed: tuple[str, ...] | None  # `content`, `code`, names of inputs; None: it is the first


class History(Record):
    """The materializations of an asset, or of a pool's assets."""

    target: str
    events: tuple[Event, ...]  # newest first
    has_more: bool


class Change(Record):
    """Something that a partition was made from and that is another now."""

    what: str  # `code`, or the name of an input
    recorded: str | None  # None: it was no input then
    current: str | None  # None: it is none any more


class StalePartition(Record):
    """A partition that is not what a run would make now."""

    asset: str
    shard: str | None
    reason: Literal["missing", "changed"]  # never made; made from other code or inputs
    changes: tuple[Change, ...]
    event_id: int | None
    made_at: str | None


class Staleness(Record):
    """What is stale, and why."""

    target: str
    n_partitions: int  # that were looked at
    stale: tuple[StalePartition, ...]  # in the order of the graph


class Holding(Record):
    """Something recorded that is not there as it was recorded."""

    where: str  # key of the object, or `table owner/shard` in Postgres
    asset: str
    shard: str | None
    problem: Literal["missing", "differs", "corrupt", "rows"]
    recorded: str
    found: str


class LeftOver(Record):
    """Something that nothing recorded."""

    where: str
    n_bytes: int | None  # None: rows of Postgres
    n_rows: int | None  # None: an object


class Holdings(Record):
    """Whether the bucket and Postgres hold what was recorded."""

    target: str
    is_deep: bool  # every byte was read, every row counted
    n_objects: int  # recorded ones
    n_bytes: int  # of those that are there
    n_slices: int  # recorded in Postgres
    wrong: tuple[Holding, ...]
    left_over: tuple[LeftOver, ...]
    n_own_objects: int  # caches, pictures, parts and failures: neither recorded nor left over
    n_own_bytes: int
