"""Reads everything that was reported, and discards what is not what was written.

A listing shows what was deleted or replaced, not what has rotted where it lies. What is discarded
counts as gone, and is made again; a bucket keeps the deleted version for a while.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple

import dagster as dg

from acidburn_assets.adapters.object_store import ObjectStore
from acidburn_assets.core.errors import AcidburnError
from acidburn_assets.core.keys import PARTS_FOLDER
from acidburn_assets.io_managers import versions
from acidburn_assets.io_managers.base import Managers

Verdict = Literal["intact", "damaged", "unreadable"]


class Place(NamedTuple):
    """One reported partition."""

    key: dg.AssetKey
    partition: str | None
    n_bytes: int  # 0 where it is no object

    def name(self) -> str:
        """`gutenberg/embeddings/000012`."""
        return self.key.to_user_string() + (f"/{self.partition}" if self.partition else "")


def places(
    instance: dg.DagsterInstance,
    graph: versions.AssetGraph,
    keys: Iterable[dg.AssetKey],
    managers: Managers,
) -> tuple[list[Place], dict[str, str]]:
    """Everything that was reported, with the size that is listed now.

    Args:
        instance: what was reported.
        graph: the assets as they are now.
        keys: of those that are looked at.
        managers: of the assets.

    Returns:
        What there is, and assets whose back end cannot say, each with its error.
    """
    found: list[Place] = []
    unreadable: dict[str, str] = {}
    for key in sorted(keys):
        node = graph.get(key)
        try:
            sizes = managers.of(graph, key).sizes(key)
        except AcidburnError as error:
            unreadable[key.to_user_string()] = str(error)
            continue
        found += [
            Place(key, partition, sizes[partition])
            for partition in versions.latest_events(instance, key, node.is_partitioned)
            if partition in sizes
        ]
    return found, unreadable


KEPT_DAYS = 7
"""Parts that are older belong to a shard that was finished elsewhere or planned away; a bucket's
own lifecycle rule removes them after as long."""


def sweep_parts(objects: ObjectStore) -> int:
    """Removes parts of shards that nobody has gone on with.

    Args:
        objects: the bucket.

    Returns:
        How many there were.
    """
    oldest = datetime.now(UTC) - timedelta(days=KEPT_DAYS)
    abandoned = [listed.key for listed in objects.list(PARTS_FOLDER) if listed.modified < oldest]
    for key in abandoned:
        objects.delete(key)
    return len(abandoned)


def choose(every: Sequence[Place], *, limit_bytes: int, seed: str) -> list[Place]:
    """All of it, or a random share where it is more than may be read at once.

    Args:
        every: what there is.
        limit_bytes: most that may be read.
        seed: a different share for each.
    """
    chosen = []
    left = limit_bytes
    for place in random.Random(seed).sample(list(every), len(every)):  # noqa: S311 - no secret
        if place.n_bytes <= left:
            chosen.append(place)
            left -= place.n_bytes
    return sorted(chosen)


def scrub(
    chosen: Sequence[Place], graph: versions.AssetGraph, managers: Managers
) -> Iterator[tuple[Place, Verdict, str]]:
    """Reads one after the other.

    Args:
        chosen: what to read.
        graph: the assets as they are now.
        managers: of the assets.

    Yields:
        Each place, how it is, and the error of one that cannot be read; a damaged one has been
        discarded.
    """
    for place in chosen:
        manager = managers.of(graph, place.key)
        try:
            is_damaged = manager.discard_if_damaged(place.key, place.partition)
        except AcidburnError as error:  # a bad sector, or a back end that went away: the next one
            yield place, "unreadable", str(error)
            continue
        yield place, "damaged" if is_damaged else "intact", ""
