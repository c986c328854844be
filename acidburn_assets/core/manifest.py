"""The sealed list of a dataset's embedding shards: what a cluster model was fitted on.

Dagster's own record of a fan-in stops at 100 upstream partitions (its provenance then names only
the newest shard), so the manifest is what an audit stands on.
Source: Dagster 1.13.27, `SKIP_PARTITION_DATA_VERSION_DEPENDENCY_THRESHOLD`.
"""

import hashlib

from acidburn_assets.core.records import Record


class ManifestEntry(Record):
    """One shard as it was when the manifest was sealed."""

    shard: str
    first_row: int  # of the dataset
    n_rows: int  # of the dataset
    n_chunks: int
    sha256: str  # of the embeddings object
    chunks_sha256: str  # of the chunks object they were made from
    event_id: int  # storage id of the materialization event
    run_id: str
    code_version: str


class LeftOut(Record):
    """A planned shard that was sealed without: it is quarantined, and the rest goes on."""

    shard: str
    asset: str  # that could not be made
    reason: str


class Manifest(Record):
    """`D/manifest.json`."""

    schema_version: int = 1
    dataset: str
    revision: str
    model: str  # fingerprint of the encoder, the same for every shard
    dim: int
    entries: tuple[ManifestEntry, ...]  # ordered by shard
    left_out: tuple[LeftOut, ...] = ()  # ordered by shard; their chunks are in no cluster

    @property
    def n_chunks(self) -> int:
        """Chunks of all shards."""
        return sum(entry.n_chunks for entry in self.entries)

    def content_version(self) -> str:
        """sha256 over the shards' content, hex.

        Events and runs are left out: a shard that was lost and made again with the same bytes
        must not cause a new clustering.
        """
        lines = "".join(f"{entry.shard} {entry.sha256}\n" for entry in self.entries)
        head = f"{self.dataset} {self.revision} {self.model} {self.dim}\n"
        return hashlib.sha256((head + lines).encode()).hexdigest()
