"""The pools that a service answers from, each kept open and followed.

A long-running service follows its pools without a restart: every few seconds `follow` compares
each pool's version, which is cheap to ask for (the versions of the objects that an engine reads,
and what the database holds of the pool), with the one that was opened. Where they differ a new
answerer is opened beside the old one, which goes on answering; then the two are swapped, and the
old one is closed when its last question is answered. The encoder is one for all and stays loaded.
A pool that cannot be opened, say in the midst of a materialization, keeps its old answerer and is
tried again, at first at the next look and then ever more seldom.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

import pyarrow as pa

from acidburn_assets.adapters.object_store import ObjectStore, read_table
from acidburn_assets.adapters.postgres import Postgres, pool_state
from acidburn_assets.core import keys, map_page, schemas
from acidburn_assets.core.answers import Answer
from acidburn_assets.core.cluster_map import ClusterMap
from acidburn_assets.core.errors import AcidburnError, NotMaterialized, ObjectMissing

ROWS_SECONDS = 300.0
"""Between two openings of a pool of which only rows in the database changed: while it is loaded,
shard after shard, an answer's passages are of now anyway, and only what it says of the pool's size
is of then. Chosen."""

MOST_PATIENCE_SECONDS = 300.0
"""Between two tries to open a version of a pool that could not be opened. Chosen."""

READ = (
    *("cluster_map.json", "centroids.parquet", "lexicon.parquet", "cell_terms.parquet"),
    "projection.parquet",
)
"""Objects of a pool whose change makes its answerer old."""

log = logging.getLogger("acidburn.serve")


class Answerer(Protocol):
    """Answers questions from one pool; may be asked by several threads."""

    @property
    def cluster_map(self) -> ClusterMap:
        """The map that routes."""

    @property
    def writer(self) -> str | None:
        """The paid model that writes answers; None: nothing is paid."""

    def ask(
        self,
        question: str,
        *,
        n_scanned: int | None = None,
        n_passages: int = 10,
        widens: bool = True,
        advises: bool = True,
    ) -> Answer:
        """Passages, verdict, trail, and with a model's help an answer; see `search.Engine.ask`.

        Raises:
            QuestionError: it cannot be asked as it is.
            AcidburnError: it could not be answered.
        """

    def close(self) -> None:
        """Lets go of connections."""


class Version(NamedTuple):
    """What an answerer is made of."""

    objects: str
    rows: str = ""
    """What the database holds."""


class Home(Protocol):
    """Where answerers of a pool come from."""

    name: str
    tier: Literal["knowledge", "verification"]

    def version(self) -> Version:
        """What an answerer opened now would be made of; cheap."""

    def open(self) -> Answerer:
        """A new answerer.

        Raises:
            AcidburnError: something is missing, or does not fit together.
        """

    def points(self) -> pa.Table | None:
        """The pool's 2-d map, rows of `schemas.PROJECTION`; None where none was made."""


@dataclass(eq=False)
class Opened:
    """One generation of a pool: an answerer, and what the page shows beside its answers."""

    version: Version
    answerer: Answerer
    outline: bytes
    """JSON of `core.map_page.outline`: clusters and points."""
    n_asking: int = 0
    is_retired: bool = False
    opened_at: float = 0.0


@dataclass(eq=False)
class _Followed:
    home: Home
    opened: Opened | None = None
    trouble: AcidburnError | None = None
    refused: Version | None = None  # the version that could not be opened
    patience_seconds: float = 0.0
    retry_at: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)


class State(NamedTuple):
    """How a pool is."""

    name: str
    tier: str
    opened: Opened | None
    trouble: AcidburnError | None


class Pools:
    """Answerers by pool; leased by many threads while one follows."""

    def __init__(
        self,
        homes: Sequence[Home],
        *,
        look_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Opens nothing yet: see `follow`.

        Args:
            homes: the pools, in the order in which they are offered.
            look_seconds: between two looks; after a failure it is doubled with each.
            clock: of the patience.
        """
        self._pools = {home.name: _Followed(home) for home in homes}
        self._look_seconds = look_seconds
        self._clock = clock

    @property
    def names(self) -> list[str]:
        """Of all pools, in order."""
        return list(self._pools)

    def states(self) -> list[State]:
        """How each pool is, in order."""
        return [
            State(name, one.home.tier, one.opened, one.trouble) for name, one in self._pools.items()
        ]

    @contextmanager
    def lease(self, name: str) -> Iterator[Opened]:
        """The pool's present generation, open at least until the lease ends.

        Args:
            name: one of `names`.

        Raises:
            AcidburnError: why there is none.
        """
        one = self._pools[name]
        with one.lock:
            opened = one.opened
            if opened is None:
                raise one.trouble or NotMaterialized(f"the pool {name!r} is not open yet")
            opened.n_asking += 1
        try:
            yield opened
        finally:
            with one.lock:
                opened.n_asking -= 1
                is_last = opened.is_retired and not opened.n_asking
            if is_last:
                opened.answerer.close()

    def follow(self) -> None:
        """Looks at every pool once, and opens anew what changed."""
        for name, one in self._pools.items():
            try:
                self._follow(name, one)
            except AcidburnError as error:
                if str(error) != str(one.trouble):
                    log.warning("pool %s: %s", name, error)
                one.trouble = error

    def close(self) -> None:
        """Closes what nobody is asking; the rest closes with its last question."""
        for one in self._pools.values():
            self._swap(one, None)

    def _follow(self, name: str, one: _Followed) -> None:
        version = one.home.version()
        if one.opened is not None and one.opened.version == version:
            one.trouble = one.refused = None
            return
        if version == one.refused and self._clock() < one.retry_at:
            return
        if (
            one.opened is not None
            and one.opened.version.objects == version.objects
            and self._clock() < one.opened.opened_at + ROWS_SECONDS
        ):
            one.trouble = one.refused = None
            return
        try:
            opened = _open(one.home, version)
        except AcidburnError:
            is_again = version == one.refused
            one.refused = version
            one.patience_seconds = (
                min(2 * one.patience_seconds, MOST_PATIENCE_SECONDS)
                if is_again
                else self._look_seconds
            )
            # a little less than so many looks: none is missed by a hair
            one.retry_at = self._clock() + 0.9 * one.patience_seconds
            raise
        if one.opened is not None:
            log.info("pool %s was made anew and is followed", name)
        opened.opened_at = self._clock()
        self._swap(one, opened)
        one.trouble = one.refused = None

    @staticmethod
    def _swap(one: _Followed, opened: Opened | None) -> None:
        with one.lock:
            old, one.opened = one.opened, opened
            is_free = old is not None and not old.n_asking
            if old is not None:
                old.is_retired = True
        if old is not None and is_free:
            old.answerer.close()


def _open(home: Home, version: Version) -> Opened:
    answerer = home.open()
    try:
        outline = map_page.outline(home.points(), answerer.cluster_map)
    except AcidburnError:
        answerer.close()
        raise
    return Opened(version, answerer, outline)


class EngineHome:
    """A pool in an object store and a Postgres."""

    def __init__(
        self,
        *,
        store: ObjectStore,
        postgres: Postgres,
        name: str,
        tier: Literal["knowledge", "verification"],
        beside: Sequence[str],
        make: Callable[[], Answerer],
    ) -> None:
        """Reads nothing yet.

        Args:
            store: where the pools' objects are.
            postgres: where their passages are.
            name: of the pool.
            tier: of the pool.
            beside: pools that an engine of it asks too.
            make: opens an engine of it.
        """
        self.name = name
        self.tier = tier
        self._read = [name, *(other for other in beside if other != name)]
        self._store = store
        self._postgres = postgres
        self._make = make

    def version(self) -> Version:
        """Versions of the objects, and what the ledger says: a head of each, and a query each."""
        found = [self._store.head(f"{pool}/{one}") for pool in self._read for one in READ]
        states = [pool_state(self._postgres, pool) for pool in self._read]
        return Version(str([one.etag if one else None for one in found]), str(states))

    def open(self) -> Answerer:
        """A new engine."""
        return self._make()

    def points(self) -> pa.Table | None:
        """The table of P/projection."""
        key = keys.object_key(self.name, "projection", suffix=".parquet")
        try:
            table = read_table(self._store, key)
        except ObjectMissing:
            return None  # it is made last; a pool is asked before
        schemas.check(table, schemas.PROJECTION, key=key)
        return table
