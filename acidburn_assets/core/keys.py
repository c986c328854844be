"""Names of things: chunk ids and object keys. The layout of the bucket mirrors asset keys."""

import hashlib
import re

NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
"""Dataset and pool names: they become asset keys, Dagster groups, object keys and SQL values.

Dagster groups allow letters, digits and underscores only; a comma in a partition key makes it
impossible to backfill from the UI (dagster issue 32183).
"""


def chunk_id(
    *, dataset: str, revision: str, doc_id: str, start: int, end: int, chunker: str
) -> bytes:
    """Content address of a chunk: the same text chunked again has the same id.

    Args:
        dataset: name in the registry.
        revision: pinned revision of the dataset.
        doc_id: the document's id in the dataset.
        start: first character of the span.
        end: one past its last character.
        chunker: fingerprint of the chunker: code version, tokenizer, sizes.

    Returns:
        16 bytes.
    """
    fields = (dataset, revision, doc_id, str(start), str(end), chunker)
    # NUL separates: it cannot occur in a kept document's id (`documents.screen` refuses it)
    return hashlib.sha256("\0".join(fields).encode()).digest()[:16]


def shard_key(index: int) -> str:
    """Partition key of the index-th shard: `000012`."""
    return f"{index:06d}"


def object_key(owner: str, asset: str, partition: str | None = None, *, suffix: str) -> str:
    """Where an asset is stored: `D/chunks/000012.parquet`, `P/cluster_map.json`.

    Args:
        owner: dataset or pool.
        asset: name of the asset.
        partition: shard key, or None for an unpartitioned asset.
        suffix: file type with its dot.
    """
    middle = f"/{partition}" if partition is not None else ""
    return f"{owner}/{asset}{middle}{suffix}"


PARTS_FOLDER = "_parts/"
"""Finished work of shards that are not finished; no dataset's name begins with `_`."""


ANSWERS_FOLDER = "_answers/"
"""Answers of a paid model, by content address; no dataset's name begins with `_`."""


FAILURES_FOLDER = "_failures/"
"""What failed and why, since it was last made."""


def failures_key(owner: str, asset: str, partition: str | None = None) -> str:
    """Where the failures of an asset partition are kept; no dataset's name begins with `_`.

    Args:
        owner: dataset or pool.
        asset: name of the asset.
        partition: shard key, or None for an unpartitioned asset.
    """
    return FAILURES_FOLDER + object_key(owner, asset, partition, suffix=".json")
