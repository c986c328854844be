"""What the nodes share: keys, versions of their code, and how figures become UI metadata."""

import base64
import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import dagster as dg

from acidburn_assets.adapters.postgres import PoolFacts, ShardFacts
from acidburn_assets.core.cluster_map import DatasetTerms
from acidburn_assets.core.datasets import Dataset, Pool
from acidburn_assets.core.embeddings import ModelCard
from acidburn_assets.core.plan import Plan
from acidburn_assets.core.shards import Shard
from acidburn_assets.io_managers import versions

# both are beta in Dagster 1.13, which is known here: ranged backfills, and observing a source
warnings.filterwarnings("ignore", "Parameter `backfill_policy`", dg.BetaWarning)
warnings.filterwarnings("ignore", "Function `observable_source_asset`", dg.BetaWarning)

COST_FREE = {"cost_usd": 0.0}
"""Figures of work that spends nothing: the column is there for every asset, so it can be summed."""


def key(owner: str, asset: str) -> dg.AssetKey:
    """`D/chunks`, `P/cluster_map`.

    Args:
        owner: dataset or pool.
        asset: name of the node.
    """
    return dg.AssetKey([owner, asset])


def version(name: str, *facts: Any) -> str:
    """Code version of a node: its own version and a hash of the settings that it depends on.

    A changed setting must make exactly the assets stale that depend on it.

    Args:
        name: of the node's code, with its number: `chunks-1`.
        facts: JSON-ready settings.
    """
    content = json.dumps(facts, sort_keys=True, default=str)
    return f"{name}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"


def reading_facts(dataset: Dataset) -> dict[str, Any]:
    """The part of a registry entry that decides which documents are read, and as what."""
    return dataset.model_dump(
        mode="json",
        include={
            "name",
            "source",
            "path",
            "config",
            "split",
            "revision",
            "text_column",
            "id_column",
            "title_column",
            "filters",
        },
    )


def terms(dataset: Dataset) -> list[Any]:
    """Under which terms the dataset may be shown: what is stored with it must follow."""
    return [dataset.licence, dataset.may_redistribute_text]


def dataset_terms(dataset: Dataset) -> DatasetTerms:
    """The same as a record beside what is shown."""
    return DatasetTerms(
        dataset=dataset.name,
        licence=dataset.licence,
        may_redistribute_text=dataset.may_redistribute_text,
    )


def picture(png: bytes, alt: str) -> dg.MarkdownMetadataValue:
    """A PNG that the UI shows inline.

    Args:
        png: the file's bytes.
        alt: what it shows.
    """
    encoded = base64.b64encode(png).decode()
    return dg.MetadataValue.md(f"![{alt}](data:image/png;base64,{encoded})")


def table(rows: Sequence[Mapping[str, Any]]) -> dg.TableMetadataValue:
    """Rows that the UI shows as a table; an empty list gives an empty table with no columns."""
    columns = [dg.TableColumn(name) for name in (rows[0] if rows else {})]
    return dg.MetadataValue.table(
        [dg.TableRecord(dict(row)) for row in rows], schema=dg.TableSchema(columns)
    )


def require(partition: str | None) -> str:
    """The partition of an asset that has partitions; a type's promise, not a run-time choice."""
    if partition is None:
        raise TypeError("this asset is partitioned by shard")
    return partition


class SliceSources(TypedDict):
    """Content hashes of what a Postgres slice of one shard is made from."""

    chunks_sha256: str
    embeddings_sha256: str
    assignments_sha256: str
    clustering: str


def slice_sources(
    instance: dg.DagsterInstance, dataset: str, pool: str, shard: str
) -> SliceSources:
    """The recorded versions of a shard's tables.

    Raises:
        NotMaterialized: one of them was never made.
    """

    assigned = _recorded(instance, dataset, "assignments", shard)
    return SliceSources(
        chunks_sha256=recorded_version(instance, dataset, "chunks", shard),
        embeddings_sha256=recorded_version(instance, dataset, "embeddings", shard),
        assignments_sha256=versions.data_version(assigned),
        clustering=versions.input_version(assigned, key(pool, "cluster_model")),
    )


def recorded_version(instance: dg.DagsterInstance, dataset: str, asset: str, shard: str) -> str:
    """The recorded content hash of one shard of an asset.

    Raises:
        NotMaterialized: it was never made.
    """
    return versions.data_version(_recorded(instance, dataset, asset, shard))


def _recorded(
    instance: dg.DagsterInstance, dataset: str, asset: str, shard: str
) -> Mapping[str, str]:
    record = versions.require_materialization(instance, key(dataset, asset), shard)
    return versions.tags_of(record)


def pool_facts(pool: Pool, card: ModelCard) -> PoolFacts:
    """A pool as Postgres knows it."""
    return PoolFacts(
        name=pool.name,
        tier=pool.tier,
        model=card.fingerprint,
        model_name=card.name,
        dim=card.dim,
    )


def shard_facts(dataset: Dataset, pool: PoolFacts, plan: Plan, shard: Shard) -> ShardFacts:
    """A shard as Postgres knows it."""
    return ShardFacts(
        pool=pool,
        dataset=dataset.name,
        shard=shard.key,
        first_row=shard.first_row,
        n_rows=shard.n_rows,
        revision=plan.revision,
        licence=dataset.licence,
        may_redistribute_text=dataset.may_redistribute_text,
    )
