"""What an audit answers: where a cluster came from, and where a shard, document or passage went.

The records only; they are filled from Dagster's events, the sealed manifests and the tables in
the bucket by `commands.audit`.
"""

from acidburn_assets.core.records import Record


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

    dataset: str
    shard: str
    first_row: int  # rows of the dataset
    n_rows: int
    revision: str
    cluster_id: int
    cluster_title: str
    n_chunks: int
    n_noise: int
    embeddings_sha256: str
    assignments_sha256: str


class ClusterTrail(Record):
    """Which shards fed a cluster."""

    pool: str
    cluster_id: int
    title: str
    keywords: tuple[str, ...]
    n_chunks: int
    n_noise: int
    made: tuple[Made, ...]  # model, centroids, map
    fitted_on: dict[str, str]  # dataset -> content version of its manifest
    shards: tuple[ShardShare, ...]  # largest first


class ShardTrail(Record):
    """What became of a shard."""

    dataset: str
    shard: str
    first_row: int
    n_rows: int
    revision: str
    licence: str
    made: tuple[Made, ...]
    clusters: tuple[ShardShare, ...]  # largest first


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
    doc_id: str
    doc_row: int
    title: str
    shard: str
    chunks: tuple[ChunkTrail, ...]


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
