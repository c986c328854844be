"""A reader in a process of its own that looks at a shard all the time, while it is loaded.

Two looks take turns. The short one reads a cell, as a search does, and is timed. The whole one
counts the shard's rows by generation: a shard that is not whole, or is of two generations at once,
is a half one.
"""

import json
import select
import subprocess
import sys
import time
from types import TracebackType
from typing import NamedTuple

import numpy as np
import psycopg

from benchmarks.loaders import NEXT

BLOCKED_MS = 50
"""A look that waits so long for a lock is given up and counted: half of what a reader may wait, and
no busy machine makes it. Chosen."""


class Seen(NamedTuple):
    """What the reader saw."""

    n_looks: int
    n_blocked: int  # looks that waited for a lock
    n_half: int  # looks at a shard that was not whole
    n_generations: int  # that were seen
    median_ms: float  # of the short look
    p99_ms: float
    max_ms: float


class Probe:
    """The reader's process, as long as the block."""

    def __init__(self, dsn: str, shard_id: int, n_rows: int) -> None:
        self._arguments = [dsn, str(shard_id), str(n_rows)]

    def __enter__(self) -> "Probe":
        self._process = subprocess.Popen(  # noqa: S603 - this module
            [sys.executable, "-m", "benchmarks.probe", *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "looking\n"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self._process.kill()

    def seen(self) -> Seen:
        """Ends it."""
        out, _ = self._process.communicate("\n")
        return Seen(**json.loads(out))


def main(dsn: str, shard_id: int, n_rows: int) -> None:
    """Looks until a line comes in, then prints what was seen."""
    seconds, n_half, n_blocked, generations = [], 0, 0, set()
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"set lock_timeout = {BLOCKED_MS}".encode())
        cells = [
            cell
            for (cell,) in connection.execute(
                "select distinct cell_id from acidburn.chunk_embeddings where shard_id = %s"
                " limit 64",
                [shard_id],
            ).fetchall()
        ]
        print("looking", flush=True)
        number = 0
        while not select.select([sys.stdin], [], [], 0)[0]:
            wanted = cells[number % len(cells)] % NEXT
            number += 1
            began = time.perf_counter()
            try:
                connection.execute(
                    "select count(*) from acidburn.chunk_embeddings where cell_id = any(%s)"
                    " and pool_id = (select pool_id from acidburn.shards where shard_id = %s)",
                    [[wanted, wanted + NEXT], shard_id],
                ).fetchone()
                seconds.append(time.perf_counter() - began)
                if number % 5:
                    continue
                found = connection.execute(
                    "select cell_id >= %s, count(*) from acidburn.chunk_embeddings"
                    " where shard_id = %s group by 1",
                    [NEXT, shard_id],
                ).fetchall()
            except psycopg.errors.LockNotAvailable:
                n_blocked += 1
                continue
            n_half += len(found) != 1 or found[0][1] != n_rows
            generations |= {one for one, _ in found}
    times = 1000 * np.array(seconds)
    seen = Seen(
        n_looks=number,
        n_blocked=n_blocked,
        n_half=n_half,
        n_generations=len(generations),
        median_ms=float(np.median(times)),
        p99_ms=float(np.percentile(times, 99)),
        max_ms=float(times.max()),
    )
    print(json.dumps(seen._asdict()))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
