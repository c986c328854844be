"""How much work was done twice, as a share of the work that was needed: arithmetic only.

Work is rows, each priced with the seconds that a row of that asset took in the undisturbed run (the
median over its shards), so that a row that is encoded weighs more than one that is copied. An asset
without shards is priced as a whole.

Needed: everything once, and once more whatever a fault destroyed.

Redone, never less than it was:

- a partition that was made more often than was needed, its rows without those that it took over
  from parts;
- of a run that was killed or failed, what it had in its hands: the seconds from the last moment at
  which something of it was safe (an event, a part, the stored object, or its beginning) to its
  end; at most the price of that partition, because no more of it can be lost. Whether anything
  was being done in these seconds is not known, so all of them count.

Not counted: starting processes and loading models. A shard that is refused for its own sake costs
nothing: the run refuses it at its first document.
"""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from acidburn_assets_tests.chaos.records import Place


class Making(NamedTuple):
    """One materialization."""

    place: Place
    event: int  # storage id: the order of events
    n_rows: int
    n_resumed_rows: int
    seconds: float
    is_reused: bool


class Loss(NamedTuple):
    """A run that ended with something in its hands."""

    place: Place
    seconds: float  # since something of it was last safe


class Prices(NamedTuple):
    """Seconds of work."""

    per_row: Mapping[str, float]  # of assets with shards
    per_making: Mapping[str, float]  # of the others

    def of(self, place: Place, n_rows: int) -> float:
        """So many rows of a place."""
        if place.shard is None:
            return self.per_making.get(place.asset, 0.0)
        return self.per_row.get(place.asset, 0.0) * n_rows


class Work(NamedTuple):
    """Seconds, at the undisturbed run's prices."""

    needed: float
    redone: float
    redone_by_asset: Mapping[str, float]

    @property
    def share(self) -> float:
        """Redone over needed."""
        return self.redone / self.needed if self.needed else 0.0


def price(makings: Iterable[Making]) -> Prices:
    """What a row, or a whole, took where nothing disturbed it."""
    rows: dict[str, list[float]] = defaultdict(list)
    whole: dict[str, list[float]] = defaultdict(list)
    for making in makings:
        if making.is_reused:
            continue
        if making.place.shard is None:
            whole[making.place.asset].append(making.seconds)
        elif making.n_rows:
            rows[making.place.asset].append(making.seconds / making.n_rows)
    return Prices(
        {asset: statistics.median(found) for asset, found in rows.items()},
        {asset: statistics.median(found) for asset, found in whole.items()},
    )


def account(
    makings: Iterable[Making],
    losses: Iterable[Loss],
    destroyed: Mapping[Place, int],
    prices: Prices,
) -> Work:
    """Adds up the work of a run.

    Args:
        makings: every materialization.
        losses: of every run that was killed or failed.
        destroyed: how often a fault destroyed what was stored of a place.
        prices: of the undisturbed run.
    """
    n_rows: dict[Place, int] = {}
    made: dict[Place, list[Making]] = defaultdict(list)
    for making in sorted(makings, key=lambda one: one.event):
        n_rows[making.place] = making.n_rows
        if not making.is_reused:
            made[making.place].append(making)
    needed = sum(
        prices.of(place, rows) * (1 + destroyed.get(place, 0)) for place, rows in n_rows.items()
    )
    redone: dict[str, float] = defaultdict(float)
    for place, of_place in made.items():
        for extra in of_place[1 + destroyed.get(place, 0) :]:
            redone[place.asset] += prices.of(place, extra.n_rows - extra.n_resumed_rows)
    for loss in losses:
        whole = prices.of(loss.place, n_rows.get(loss.place, 0))
        redone[loss.place.asset] += min(whole, max(0.0, loss.seconds))
    return Work(needed, sum(redone.values()), dict(redone))
