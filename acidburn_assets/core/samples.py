"""Bounded, repeatable samples of each cluster's members, chosen while shards stream past.

A chunk id is a hash, so the members with the smallest ids are a uniform sample that depends on
nothing but the members: not on the order of shards, not on a seed.
"""

import heapq
from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import NamedTuple

import numpy as np


class Place(NamedTuple):
    """Where a chunk lies."""

    chunk_id: bytes
    shard: str  # `dataset/shard`
    row: int  # in the shard


class MemberSample:
    """Keeps the `n_members` smallest ids of each cluster, and the places of wanted chunks."""

    def __init__(self, *, n_members: int, wanted: Iterable[bytes] = ()) -> None:
        self._n_members = n_members
        self._wanted = frozenset(wanted)
        # a heap of the largest of the smallest: ids inverted, so that heapq drops the largest
        self._heaps: dict[int, list[tuple[bytes, Place]]] = defaultdict(list)
        self.found: dict[bytes, Place] = {}

    def add(
        self, shard: str, chunk_ids: list[bytes], cluster_ids: np.ndarray, is_noise: np.ndarray
    ) -> None:
        """Looks at one shard.

        Args:
            shard: `dataset/shard`.
            chunk_ids: (n,) of its rows.
            cluster_ids: (n,) int32.
            is_noise: (n,) bool; noise is no member.
        """
        for row, chunk_id in enumerate(chunk_ids):
            place = Place(chunk_id, shard, row)
            if chunk_id in self._wanted:
                self.found[chunk_id] = place
            if is_noise[row]:
                continue
            heap = self._heaps[int(cluster_ids[row])]
            entry = (_inverted(chunk_id), place)
            if len(heap) < self._n_members:
                heapq.heappush(heap, entry)
            elif entry[0] > heap[0][0]:
                heapq.heapreplace(heap, entry)

    def members(self) -> dict[int, list[Place]]:
        """The sample of each cluster that has members, smallest id first."""
        return {
            cluster: [place for _, place in sorted(heap, reverse=True)]
            for cluster, heap in sorted(self._heaps.items())
        }


def rows_by_shard(places: Collection[Place]) -> dict[str, np.ndarray]:
    """`dataset/shard` to the rows of these chunks, (m,) int64, rising, each once."""
    rows: dict[str, set[int]] = defaultdict(set)
    for place in places:
        rows[place.shard].add(place.row)
    return {shard: np.array(sorted(chosen), dtype=np.int64) for shard, chosen in rows.items()}


def _inverted(chunk_id: bytes) -> bytes:
    return bytes(255 - value for value in chunk_id)
