"""Times variants of the same work in one process, round by round.

In a round every variant runs once, so that a busy moment of the machine hits all of them; each
round begins with another variant. Variants are compared by ratios within rounds, not by ratios of
their medians.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Literal, NamedTuple

Clock = Literal["wall", "cpu"]


class Lap(NamedTuple):
    """One run of one variant."""

    wall: float  # seconds
    cpu: float  # seconds, of all threads of this process


class Spread(NamedTuple):
    """A figure over all rounds."""

    median: float
    low: float  # least
    high: float  # greatest

    def __str__(self) -> str:
        median, low, high = (f"{one:,.0f}" if one >= 100 else f"{one:.3g}" for one in self)
        return f"{median} ({low}\N{EN DASH}{high})"


def time_rounds(
    variants: Mapping[str, Callable[[], object]], *, n_rounds: int, is_warmed: bool = False
) -> dict[str, list[Lap]]:
    """Runs every variant once to warm up, then once in each round.

    Args:
        variants: work by name; what it returns is dropped.
        n_rounds: 1 or more.
        is_warmed: whether each has run already, so that no round goes uncounted.

    Returns:
        By name one lap for each round, in the rounds' order.
    """
    if not is_warmed:
        for work in variants.values():
            work()
    names = list(variants)
    laps: dict[str, list[Lap]] = {name: [] for name in names}
    for index in range(n_rounds):
        first = index % len(names)
        for name in [*names[first:], *names[:first]]:
            laps[name].append(_time(variants[name]))
    return laps


def spread(values: Sequence[float]) -> Spread:
    """Median, least and greatest of at least one value."""
    return Spread(median(values), min(values), max(values))


def rate(laps: Sequence[Lap], amount: float, *, clock: Clock) -> Spread:
    """Amount of work per second.

    Args:
        laps: of one variant.
        amount: of work in each lap.
        clock: whose seconds.
    """
    return spread([amount / getattr(lap, clock) for lap in laps])


def ratio(laps: Sequence[Lap], base: Sequence[Lap], *, clock: Clock) -> Spread:
    """How many times as fast as `base`, round by round; above 1 is faster.

    Args:
        laps: of one variant.
        base: of the other, in the same rounds.
        clock: whose seconds.
    """
    return spread([getattr(b, clock) / getattr(a, clock) for a, b in zip(laps, base, strict=True)])


def _time(work: Callable[[], object]) -> Lap:
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return Lap(time.perf_counter() - wall, time.process_time() - cpu)
