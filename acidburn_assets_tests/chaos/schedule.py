"""Which faults, in which order: drawn from a seed, nothing else."""

import random
from typing import Literal, NamedTuple, get_args

Kind = Literal[
    "kill_in_part",
    "kill_before_event",
    "kill_in_load",
    "kill_anywhere",
    "kill_daemon",
    "kill_stack",
    "delete",
    "truncate",
    "flip_bit",
    "unload",
    "burst_503",
    "restart_postgres",
    "disk_full",
]
"""What is done:

- `kill_in_part`: kill -9 of a worker while it encodes, some parts of its shard stored
- `kill_before_event`: of a worker whose shard was just stored and is not reported yet
- `kill_in_load`: of a worker in the middle of a COPY
- `kill_anywhere`: of any worker, at any moment
- `kill_daemon`, `kill_stack`: of Dagster's daemon; of every process of the stack at once
- `delete`, `truncate`, `flip_bit`: of a stored object
- `unload`: a shard's rows, and what the ledger says of them, are deleted from Postgres
- `burst_503`: the bucket is overloaded for some seconds
- `restart_postgres`: fast, whoever is connected
- `disk_full`: the work folder takes no byte for some seconds
"""

KINDS: tuple[Kind, ...] = get_args(Kind)

_WEIGHTS: dict[Kind, int] = {
    "kill_in_part": 6,
    "kill_before_event": 5,
    "kill_in_load": 5,
    "kill_anywhere": 4,
    "kill_daemon": 2,
    "kill_stack": 2,
    "delete": 4,
    "truncate": 2,
    "flip_bit": 3,
    "unload": 1,
    "burst_503": 2,
    "restart_postgres": 2,
    "disk_full": 2,
}
"""Of forty. Chosen: half of them kill a worker where it hurts."""

_FIRST: tuple[Kind, ...] = (
    "kill_in_part",
    "kill_before_event",
    "kill_in_load",
    "kill_stack",
    "delete",
    "flip_bit",
    "burst_503",
    "restart_postgres",
)
"""Of fewer than there are kinds, these before others."""


class Fault(NamedTuple):
    """One fault to come."""

    kind: Kind
    draw: float  # in [0, 1): decides between targets, moments and lengths


def plan_faults(
    n_faults: int, *, seed: int, impossible: frozenset[Kind] = frozenset()
) -> list[Fault]:
    """So many faults, each kind about as often as its weight says and none forgotten.

    Args:
        n_faults: how many.
        seed: the same gives the same.
        impossible: kinds that cannot be done here; others take their place.
    """
    rng = random.Random(seed)  # noqa: S311 - no secret
    possible = [kind for kind in KINDS if kind not in impossible]
    first = [kind for kind in _FIRST if kind not in impossible]
    rest = [kind for kind in possible if kind not in first]
    # one of each, then by weight: whichever lags behind its share most comes next
    kinds = [*first, *rest][:n_faults]
    while len(kinds) < n_faults:
        kinds.append(max(possible, key=lambda kind: _WEIGHTS[kind] / (kinds.count(kind) + 0.5)))
    rng.shuffle(kinds)
    return [Fault(kind, rng.random()) for kind in kinds]
