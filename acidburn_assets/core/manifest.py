"""The sealed list of a dataset's embedding shards: what a cluster model was fitted on.

Dagster's own record of a fan-in stops at 100 upstream partitions (its provenance then names only
the newest shard), so the manifest is what an audit stands on.
Source: Dagster 1.13.27, `SKIP_PARTITION_DATA_VERSION_DEPENDENCY_THRESHOLD`.
"""

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

from acidburn_assets.core.errors import ModelError
from acidburn_assets.core.records import Record

_SHOWN_SHARDS = 5


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


class MadeBy(NamedTuple):
    """Which model a shard's vectors are of, as its record says."""

    model: str  # fingerprint
    dim: int


def check_models(shards: Mapping[str, MadeBy], encoder: MadeBy, *, dataset: str) -> None:
    """Refuses shards whose vectors are not of the encoder in use: two models share no space.

    Args:
        shards: by key, all that would be sealed.
        encoder: in use.
        dataset: whose shards they are.

    Raises:
        ModelError: names the shards, by the model that made them.
    """
    others: dict[MadeBy, list[str]] = {}
    for key, made in shards.items():
        if made != encoder:
            others.setdefault(made, []).append(key)
    if not others:
        return
    told = "; ".join(
        f"{made.model} ({made.dim}-d) made {len(keys)}: {', '.join(keys[:_SHOWN_SHARDS])}"
        + (", …" if len(keys) > _SHOWN_SHARDS else "")
        for made, keys in others.items()
    )
    raise ModelError(
        f"{sum(map(len, others.values()))} of {len(shards)} shards of {dataset!r} were embedded by "
        f"another model than the encoder in use, {encoder.model} ({encoder.dim}-d): {told}. "
        f"Materialize {dataset}/embeddings of these shards again, or set ACIDBURN_MODEL and "
        "ACIDBURN_MODEL_REVISION back"
    )
