"""Shard partitions: one dynamic definition per dataset, its keys registered by `D/plan`.

Why not `MultiPartitionsDefinition{dataset × shard}`: it makes partitions that do not exist for
the shorter datasets (a backfill made 21 where 13 exist). Why not a custom `PartitionMapping` over
flat keys: the daemon and the web server drop it silently. Source: measured, Dagster 1.13.27.
"""

from collections.abc import Collection, Iterable, Sequence
from itertools import groupby

import dagster as dg


def shard_partitions(dataset: str) -> dg.DynamicPartitionsDefinition:
    """The shards of one dataset.

    Args:
        dataset: name in the registry.
    """
    return dg.DynamicPartitionsDefinition(name=f"{dataset}_shards")


def shard_keys(instance: dg.DagsterInstance, dataset: str) -> list[str]:
    """The shards that the dataset's plan registered, in order.

    Args:
        instance: where the keys are kept.
        dataset: name in the registry.
    """
    return sorted(instance.get_dynamic_partitions(f"{dataset}_shards"))


def register_shards(instance: dg.DagsterInstance, dataset: str, keys: Iterable[str]) -> None:
    """Makes the dataset's partitions exactly these, before its plan is reported.

    Args:
        instance: where the keys are kept.
        dataset: name in the registry.
        keys: of every shard in the plan.
    """
    name = f"{dataset}_shards"
    planned = set(keys)
    known = set(shard_keys(instance, dataset))
    for key in sorted(known - planned):
        instance.delete_dynamic_partition(name, key)
    instance.add_dynamic_partitions(name, sorted(planned - known))


RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"
"""Tags of a run that makes a range of partitions, both ends included."""


def neighbours(ordered: Sequence[str], chosen: Collection[str]) -> list[list[str]]:
    """Cuts a choice of partitions into ranges without a gap.

    Args:
        ordered: all there are.
        chosen: some of them.
    """
    ranked = [(place, one) for place, one in enumerate(ordered) if one in chosen]
    # neighbours share the difference between their place and their rank
    grouped = groupby(enumerate(ranked), key=lambda pair: pair[1][0] - pair[0])
    return [[one for _, (_, one) in group] for _, group in grouped]
