"""The 2-d map of a pool: which chunks are on it, its table, its hues, and where its labels stand.

Where the points lie is computed by `adapters.projector`; the picture is drawn by
`adapters.pictures`, and what the interactive page holds is said in `map_page`.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from acidburn_assets.core import schemas
from acidburn_assets.core.cluster_model import sample_rows
from acidburn_assets.core.errors import SchemaError

MAP_POINTS = 20_000
"""Chunks on a map at most. Chosen for the page: so many of a documentation make a file of 1.8 MB
and are drawn 25 to 34 times a second by two busy cores without a graphics card
(`python -m benchmarks.map`); `adapters.projector` has the cost of placing them."""

MAP_SEED_OFFSET = 1
"""Added to the pool's seed, so the map is not drawn from the very rows the model was fitted on."""


def choose_points(
    n_chunks_by_shard: Mapping[str, int], *, seed: int, limit: int = MAP_POINTS
) -> dict[str, np.ndarray]:
    """Rows of each shard that go on the map; see `cluster_model.sample_rows`.

    Args:
        n_chunks_by_shard: `dataset/000001` to its number of chunks.
        seed: of the pool.
        limit: points on the map.
    """
    return sample_rows(n_chunks_by_shard, limit=limit, seed=seed + MAP_SEED_OFFSET)


def make_table(
    points: np.ndarray, assignments: pa.Table, chosen: Mapping[str, np.ndarray]
) -> pa.Table:
    """The map's table, shard after shard.

    Args:
        points: (n, 2) float32, where the chosen chunks lie.
        assignments: (n,) their rows of `schemas.ASSIGNMENTS`.
        chosen: what `choose_points` gave; points and assignments are in its order.

    Returns:
        (n,) rows of `schemas.PROJECTION`.

    Raises:
        SchemaError: the three differ in number.
    """
    n_chosen = sum(map(len, chosen.values()))
    if not n_chosen == len(points) == assignments.num_rows:
        raise SchemaError(
            f"{n_chosen} rows were chosen, but there are {len(points)} points and "
            f"{assignments.num_rows} assignments; take all three from the same shards"
        )
    owners = [name.split("/") for name, rows in chosen.items() for _ in rows]
    columns = {
        "chunk_id": assignments["chunk_id"],
        "dataset": [dataset for dataset, _ in owners],
        "shard": [shard for _, shard in owners],
        "cluster_id": assignments["cluster_id"],
        "is_noise": assignments["is_noise"],
        "x": points[:, 0],
        "y": points[:, 1],
    }
    return pa.table(columns, schema=schemas.PROJECTION)


def anchors(
    points: np.ndarray, cluster_ids: np.ndarray, is_noise: np.ndarray
) -> dict[int, tuple[float, float]]:
    """Where each cluster's label belongs: its own point nearest to the median of its points.

    The median alone may lie in a gap between two halves of a cluster, where others are.

    Args:
        points: (n, 2) float32.
        cluster_ids: (n,) int32.
        is_noise: (n,) bool.

    Returns:
        Cluster id to (x, y), largest cluster on the map first, ties by id.
    """
    places = {}
    members = np.flatnonzero(~is_noise)
    ids, counts = np.unique(cluster_ids[members], return_counts=True)
    for cluster in ids[np.lexsort((ids, -counts))]:
        own = points[members[cluster_ids[members] == cluster]].astype(np.float64)
        away = ((own - np.median(own, axis=0)) ** 2).sum(axis=1)
        x, y = own[np.argmin(away)]
        places[int(cluster)] = (float(x), float(y))
    return places


HUES = (
    *("#4c78a8", "#c8733a", "#5a9367", "#b3525c", "#7b6ca8", "#94724f", "#b9759f", "#4f9c9c"),
    *("#a39a3f", "#7f8fa6", "#88a550", "#d29a4a", "#66499e", "#3c7a5c", "#d07f7a", "#55819f"),
)
"""Of clusters, on white; muted, so that names stand out. Chosen by eye."""


def far_apart_hues(places: Mapping[int, tuple[float, float]]) -> dict[int, int]:
    """Cluster id to its place in `HUES`, so that clusters of one hue lie far from one another.

    Args:
        places: cluster id to (x, y); the first ones choose first.
    """
    points = np.array(list(places.values()), dtype=np.float64).reshape(-1, 2)  # (k, 2)
    room = np.full((len(HUES), len(points)), np.inf)  # squared, to the nearest of that hue
    hues = {}
    for row, cluster in enumerate(places):
        hue = int(room[:, row].argmax())
        np.minimum(room[hue], ((points - points[row]) ** 2).sum(axis=1), out=room[hue])
        hues[cluster] = hue
    return hues


class Box(NamedTuple):
    """A rectangle: its centre and its size, in one unit."""

    x: float
    y: float
    width: float
    height: float

    def overlaps(self, other: "Box") -> bool:
        """Whether they share more than an edge."""
        return (
            abs(self.x - other.x) * 2 < self.width + other.width
            and abs(self.y - other.y) * 2 < self.height + other.height
        )

    def is_inside(self, width: float, height: float) -> bool:
        """Whether it lies within (0, 0) … (width, height)."""
        return (
            self.width <= self.x * 2 <= 2 * width - self.width
            and self.height <= self.y * 2 <= 2 * height - self.height
        )


LABEL_STEPS = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1))
"""Where a label may stand, in steps of its height up and half its width aside, best first."""

LABEL_RINGS = 3
"""How many steps away from its anchor a label still belongs to it. Chosen by eye."""


def place_labels(
    wanted: Mapping[int, Box], *, width: float, height: float, limit: int
) -> dict[int, Box]:
    """Places labels so that none overlaps another or the border, in the order given.

    A label whose every place is taken is left out; the next one gets its chance.

    Args:
        wanted: cluster id to the box of its label, centred on its anchor; most important first.
        width: of the map, in the boxes' unit.
        height: of the map.
        limit: labels at most.

    Returns:
        Cluster id to the box where its label stands.
    """
    placed: dict[int, Box] = {}
    for cluster, box in wanted.items():
        if len(placed) == limit:
            break
        for free in _places(box):
            if free.is_inside(width, height) and not any(map(free.overlaps, placed.values())):
                placed[cluster] = free
                break
    return placed


def _places(box: Box) -> list[Box]:
    rings = [(0, 0)] + [
        (right * ring, up * ring)
        for ring in range(1, LABEL_RINGS + 1)
        for right, up in LABEL_STEPS[1:]
    ]
    return [
        box._replace(x=box.x + right * box.width / 2, y=box.y + up * box.height)
        for right, up in rings
    ]
