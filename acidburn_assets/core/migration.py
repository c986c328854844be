"""What became of a pool's clusters when it was fitted anew: who is who, and what to name again.

Clusters of two generations are compared by their members: the sampled chunks, each with the cluster
that it had before. Where a chunk was in the sample of then, that fit says so; where it was not, the
model of then assigns it to the cell that is nearest to it. So generations can be compared that
share no chunk, as when a dataset has a new revision.

Noise decides nothing. A chunk that is noise before or after counts in the shares that are told, and
is left out where clusters are compared: the border of a density cluster is its least steady part.
"""

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from acidburn_assets.core import schemas
from acidburn_assets.core.assignments import place
from acidburn_assets.core.cluster_model import (
    KINDS,
    MIGRATION,
    NOISE,
    RADIUS_FLOOR,
    ClusterModel,
    Descent,
    row_cosines,
    unit_centroids,
)

SAME_SHARE = 1 / 3
"""Least share of members in common, of those of either, that makes two clusters the same one.

Chosen: what two clusters of one size have that share half of their members.
"""

STEADY_SHARE = 0.5
"""Least share of members in common of a cluster that keeps its label, too.

Chosen: what two clusters of one size have that share two thirds of their members.
"""

PART_SHARE = 1 / 3
"""Least share of a cluster that counts as a part of it.

Source: measured, a tenth more of the same topics: with a quarter .13 to .25 of 16 clusters count as
changed, with a third .13 to .19.
"""

MOVED_RADII = 0.5
"""How far a centroid may move, in radii of its cluster, and be called by the same words. Chosen."""

_KIND = {name: number for number, name in enumerate(KINDS)}


class Matched(NamedTuple):
    """Clusters of two generations, by row."""

    goes_on: np.ndarray  # (n_new,) int64: the old cluster that each new one continues, or NOISE
    relations: np.ndarray  # (m,) of MIGRATION with rows instead of ids, without cosines


def descend(
    labels: np.ndarray, vectors: np.ndarray, places: np.ndarray, previous: ClusterModel
) -> Descent:
    """Gives the clusters of a fit their ids.

    A cluster that goes on keeps its id; others get new ones in the order of the fit, above all
    that the pool ever had.

    Args:
        labels: (n,) int32 of the fit, NOISE or 0 … k-1.
        vectors: (n, dim) float32, unit length, the sample that was fitted.
        places: (n,) row of each one's cluster before, or NOISE, from `places_before`.
        previous: the generation before, of the same encoder.
    """
    centroids = unit_centroids(vectors, labels)
    found = match(places, labels, n_old=len(previous.centroids), n_new=len(centroids))
    is_new = found.goes_on == NOISE
    next_id = previous.meta.next_id + int(is_new.sum())
    ids = previous.cluster_ids[found.goes_on]  # any id where it is new, which is overwritten
    ids[is_new] = np.arange(previous.meta.next_id, next_id)
    rows = _with_cosines(found.relations, centroids, previous)
    for name, ids_of in (("old", previous.cluster_ids), ("new", ids)):
        rows[name] = np.where(rows[name] == NOISE, NOISE, ids_of[rows[name]])
    # by the cluster of now; what is gone last
    order = np.lexsort((rows["old"], rows["new"], rows["new"] == NOISE))
    return Descent(
        generation=previous.meta.generation + 1,
        previous=previous.content_version(),
        cluster_ids=ids,
        next_id=next_id,
        migration=rows[order],
    )


def places_before(
    vectors: np.ndarray, sample_ids: np.ndarray, previous: ClusterModel
) -> np.ndarray:
    """The cluster that each chunk had in the generation before, (n,) int64 row or NOISE.

    Args:
        vectors: (n, dim) float32, unit length.
        sample_ids: (n, 16) uint8, their chunk ids.
        previous: that generation.

    Raises:
        ModelError: the vectors are not of the model's dimension.
    """
    found = place(vectors, previous)
    places = np.where(found.is_noise, NOISE, found.clusters.astype(np.int64))
    _, at, was_at = np.intersect1d(
        _as_bytes(sample_ids), _as_bytes(previous.sample_ids), return_indices=True
    )
    places[at] = previous.sample_labels[was_at]
    return places


def match(old: np.ndarray, new: np.ndarray, *, n_old: int, n_new: int) -> Matched:
    """Compares two clusterings of the same chunks.

    Two clusters are the same where they have `SAME_SHARE` of their members in common, the pairs
    with the largest share first. What two clusters have in common is a part of one where it is
    `PART_SHARE` of it.

    - kept: the same, with `STEADY_SHARE` of their members in common, whatever else they gave away
      or took in.
    - split: an old cluster and one of the new ones that its members lie in now, of which one may go
      on as it.
    - merged: a new cluster and one of the old ones that it has parts of; it may go on as one.
    - moved: the same, with few members in common and no such relation to another.
    - new: a cluster without such a relation to one before.
    - gone: a cluster without such a relation to one of now.

    Args:
        old: (n,) row of each chunk's cluster before, or NOISE.
        new: (n,) row of its cluster now, or NOISE.
        n_old: clusters before.
        n_new: clusters now.
    """
    pairs = _Pairs(old, new, n_old, n_new)
    goes_on = _best_pairs(pairs, n_old, n_new)
    is_same = goes_on[pairs.new] == pairs.old
    is_part_of_old = is_same | (pairs.of_old >= PART_SHARE)
    is_part_of_new = is_same | (pairs.of_new >= PART_SHARE)
    n_parts = np.bincount(pairs.old[is_part_of_old], minlength=n_old)[pairs.old]
    n_sources = np.bincount(pairs.new[is_part_of_new], minlength=n_new)[pairs.new]
    kinds = np.select(
        [
            is_same & (pairs.of_both >= STEADY_SHARE),
            is_part_of_new & (n_sources > 1),
            is_part_of_old & (n_parts > 1),
            is_same,
            is_part_of_old,  # all that is left of it is in a cluster that goes on as another
            is_part_of_new,  # made of an old cluster that goes on with nearly all of its members
        ],
        [_KIND[kind] for kind in ("kept", "merged", "split", "moved", "merged", "split")],
        default=len(KINDS),
    )
    told = kinds < len(KINDS)
    fresh = np.setdiff1d(np.arange(n_new), pairs.new[told])
    gone = np.setdiff1d(np.arange(n_old), pairs.old[told])
    none = np.full(len(fresh) + len(gone), NOISE)
    relations = np.zeros(int(told.sum()) + len(none), dtype=MIGRATION)
    relations["kind"] = [
        *kinds[told],
        *np.full(len(fresh), _KIND["new"]),
        *np.full(len(gone), _KIND["gone"]),
    ]
    relations["old"] = [*pairs.old[told], *none[: len(fresh)], *gone]
    relations["new"] = [*pairs.new[told], *fresh, *none[: len(gone)]]
    relations["n_shared"] = [*pairs.n_shared[told], *np.zeros_like(none)]
    for name, share in (("share_of_old", pairs.of_old), ("share_of_new", pairs.of_new)):
        relations[name] = [*share[told], *np.full(len(none), np.nan)]
    relations["cosine"] = np.nan
    return Matched(goes_on, relations)


def steady_ids(model: ClusterModel) -> set[int]:
    """Clusters that are what they were in the generation before: their labels still hold."""
    is_kept = model.migration["kind"] == _KIND["kept"]
    return set(model.migration["new"][is_kept].tolist())


def counts(model: ClusterModel) -> dict[str, int]:
    """How many clusters of each kind: those of before for what is gone, those of now for others,
    each once, as kept before all else."""
    found: dict[str, int] = {}
    told: set[int] = set()
    for kind, number in _KIND.items():
        rows = model.migration[model.migration["kind"] == number]
        clusters = set(rows["old" if kind == "gone" else "new"].tolist())
        found[kind] = len(clusters if kind == "gone" else clusters - told)
        told |= clusters
    return found


def table(model: ClusterModel) -> pa.Table:
    """The migration of a model as (m,) rows of `schemas.MIGRATION`."""
    rows = model.migration
    columns: dict[str, Any] = {
        "kind": pa.array([KINDS[kind] for kind in rows["kind"]], pa.string()),
        "old_cluster_id": pa.array(rows["old"], mask=rows["old"] == NOISE),
        "new_cluster_id": pa.array(rows["new"], mask=rows["new"] == NOISE),
        "n_shared": pa.array(rows["n_shared"]),
    }
    for name in ("share_of_old", "share_of_new", "cosine"):
        columns[name] = pa.array(rows[name], mask=np.isnan(rows[name]))
    return pa.table(columns, schema=schemas.MIGRATION)


class _Pairs:
    """Pairs of clusters that have chunks in common, ordered by old and new row."""

    def __init__(self, old: np.ndarray, new: np.ndarray, n_old: int, n_new: int) -> None:
        is_both = (old >= 0) & (new >= 0)
        codes, self.n_shared = np.unique(
            old[is_both].astype(np.int64) * n_new + new[is_both], return_counts=True
        )
        self.old, self.new = np.divmod(codes, max(1, n_new))
        members_old = np.bincount(old[old >= 0], minlength=n_old)[self.old]
        members_new = np.bincount(new[new >= 0], minlength=n_new)[self.new]
        self.of_old = self.n_shared / members_old  # (p,) noise of now counted
        self.of_new = self.n_shared / members_new  # (p,) noise of then counted
        either = (
            np.bincount(old[is_both], minlength=n_old)[self.old]
            + np.bincount(new[is_both], minlength=n_new)[self.new]
            - self.n_shared
        )
        self.of_both = self.n_shared / either  # (p,) Jaccard, without noise


def _best_pairs(pairs: _Pairs, n_old: int, n_new: int) -> np.ndarray:
    """(n_new,) int64: the old cluster that each new one continues, one to one, or NOISE.

    Taken greedily: 20,000 clusters have few pairs, but 400 million places in a matrix.
    """
    goes_on = np.full(n_new, NOISE, dtype=np.int64)
    is_taken = np.zeros(n_old, dtype=bool)
    # where noise took nearly all of a cluster, what is left of it is not it
    is_same = (pairs.of_both >= SAME_SHARE) & (np.maximum(pairs.of_old, pairs.of_new) >= PART_SHARE)
    order = np.lexsort((pairs.new, pairs.old, -pairs.n_shared, -pairs.of_both))
    for at in order[is_same[order]]:
        old, new = pairs.old[at], pairs.new[at]
        if not is_taken[old] and goes_on[new] == NOISE:
            is_taken[old] = True
            goes_on[new] = old
    return goes_on


def _with_cosines(
    relations: np.ndarray, centroids: np.ndarray, previous: ClusterModel
) -> np.ndarray:
    """The relations, with cosines; a cluster that was kept, but is elsewhere now, has moved."""
    rows = relations.copy()
    is_pair = (rows["old"] != NOISE) & (rows["new"] != NOISE)
    old, new = rows["old"][is_pair], rows["new"][is_pair]
    cosines = row_cosines(centroids[new], previous.centroids[old])
    reach = np.maximum(MOVED_RADII * previous.radii[old], RADIUS_FLOOR)
    rows["cosine"][is_pair] = cosines
    is_elsewhere = np.zeros(len(rows), dtype=bool)
    is_elsewhere[is_pair] = 1.0 - cosines > reach
    rows["kind"][is_elsewhere & (rows["kind"] == _KIND["kept"])] = _KIND["moved"]
    return rows


def _as_bytes(ids: np.ndarray) -> np.ndarray:
    """(n, 16) uint8 as (n,) bytes. All are of one length, so that numpy drops zeros at the end of
    some makes no two of them equal."""
    return np.ascontiguousarray(ids).view("S16").reshape(len(ids))
