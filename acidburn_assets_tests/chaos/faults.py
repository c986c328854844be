"""How each fault is done at a moment when it hurts, and when it has healed.

Moments are seen from outside: the proxy sees every object that is stored, Postgres shows every
COPY. A fault that needs a worker waits for one; when nothing is at work, some objects are deleted
to make work, which is told and heals like any fault.
"""

import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import psycopg
from psycopg import sql

from acidburn_assets_tests.adapters.faulty_s3 import ALWAYS
from acidburn_assets_tests.adapters.faulty_s3 import Fault as Answer
from acidburn_assets_tests.chaos.records import IN_POSTGRES, SHARDED, Place, Worker
from acidburn_assets_tests.chaos.schedule import Fault, Kind
from acidburn_assets_tests.chaos.stack import kill
from acidburn_assets_tests.chaos.world import Tell, World

_PATIENCE_SECONDS = 25
"""How long a moment is waited for; then another fault comes first."""

_BAITED_PATIENCE_SECONDS = 120
"""The same after work was made for it."""

_LOOKED_SECONDS = 20
"""After which the healing has surely looked at the graph: it does so every 5."""

_N_BAIT = 3
"""Neighbouring partitions that are destroyed to make work."""

_GET_SECONDS = 0.5
"""By which each read is delayed while a load is to be hit: a COPY waits for the bucket too."""


@dataclass
class Inflicted:
    """A fault that was done."""

    kind: str
    detail: str
    at: float  # seconds since the epoch, of its beginning
    wounds: dict[Place, int]  # what must be sound again, reported after this event
    needs_service: bool = False  # the stack itself was hit
    healed_at: float | None = None

    @property
    def seconds_to_heal(self) -> float | None:
        """From its beginning."""
        return None if self.healed_at is None else self.healed_at - self.at


@dataclass
class Injector:
    """Does faults to a world, and watches them heal."""

    world: World
    tell: Tell
    rng: random.Random
    inflicted: list[Inflicted] = field(default_factory=list)
    baits: list[Inflicted] = field(default_factory=list)
    destroyed: Counter[Place] = field(default_factory=Counter)
    killed: dict[str, float] = field(default_factory=dict)  # run -> when
    safe: dict[Place, list[float]] = field(default_factory=dict)  # something of it stored when
    read: dict[str, list[float]] = field(default_factory=dict)  # object key -> looked at when

    def __post_init__(self) -> None:
        self.world.proxy.watchers.append(self._watch)

    def _watch(self, operation: str, path: str) -> None:
        if operation in ("PutObject", "CreateMultipartUpload"):
            place = _place_of(path)
            if place is not None:
                self.safe.setdefault(place, []).append(time.time())
        elif operation == "HeadObject":
            key = path.strip("/").partition("/")[2]
            self.read.setdefault(key, []).append(time.time())

    # ---- healing ----------------------------------------------------------------------------

    def open(self) -> list[Inflicted]:
        """Faults that have not healed."""
        return [one for one in (*self.inflicted, *self.baits) if one.healed_at is None]

    def look(self) -> None:
        """Notes what has healed."""
        for one in self.open():
            if self._is_healed(one):
                one.healed_at = time.time()
                self.tell(f"healed after {one.seconds_to_heal:.0f} s: {one.kind}, {one.detail}")

    def _is_healed(self, one: Inflicted) -> bool:
        if one.needs_service and not (
            self.world.records.heard_of_daemon() > one.at and self.world.service.is_up()
        ):
            return False
        return all(self._is_whole(place, event, one.at) for place, event in one.wounds.items())

    def _is_whole(self, place: Place, event: int, at: float) -> bool:
        records = self.world.records
        if records.is_sound(place, after=event):
            return True
        # a run that only looked at it, or put back what was reported before, owes no event; but
        # the graph has been looked at since, and nobody is at work on it
        is_left = time.time() - at > _LOOKED_SECONDS and not records.n_unfinished(place.key)
        return is_left and records.is_sound(place)

    # ---- faults -----------------------------------------------------------------------------

    def inflict(self, fault: Fault) -> bool:
        """Does one fault; returns when it is done, not when it has healed. False: no moment came
        for it."""
        done = _HOW[fault.kind](self, fault)
        if done is None:
            self.tell(f"no moment came for {fault.kind}")
            return False
        self.inflicted.append(done)
        self.tell(f"fault {len(self.inflicted)}: {done.kind}, {done.detail}")
        return True

    def _kill(self, kind: Kind, workers: Sequence[Worker], *, at: float | None = None) -> Inflicted:
        at = time.time() if at is None else at
        for worker in workers:
            kill(worker.pid)
            self.killed[worker.run_id] = time.time()
        return self._hit(kind, workers, at=at)

    def _hit(
        self, kind: Kind, workers: Sequence[Worker], *, at: float, needs_service: bool = False
    ) -> Inflicted:
        """What these had in their hands must be made by somebody."""
        wounds: dict[Place, int] = {}
        for worker in workers:
            place = self.world.records.in_hand(worker.run_id, worker.places)
            if place is not None and (place.owner, place.shard) != self.world.poisoned:
                wounds[place] = self.world.records.newest(place).event
        detail = ", ".join(map(str, wounds)) or "nothing in hand"
        return Inflicted(kind, detail, at, wounds, needs_service)

    def _kill_in_part(self, fault: Fault) -> Inflicted | None:
        seen = threading.Event()

        def watch(operation: str, path: str) -> None:
            if operation == "PutObject" and "/_parts/" in path:
                seen.set()

        def at_work() -> list[Worker]:
            return [one for one in self._workers() if one.asset == "embeddings"]

        with self._watching(watch):
            for _ in self._moments("embeddings"):
                if seen.wait(0.2):
                    time.sleep(fault.draw * 0.8)
                    workers = at_work()
                    if workers:
                        return self._kill("kill_in_part", workers[:1])
                    seen.clear()
        return None

    def _kill_before_event(self, fault: Fault) -> Inflicted | None:  # noqa: ARG002
        put: set[str] = set()
        caught: list[Inflicted] = []
        lock = threading.Lock()

        def watch(operation: str, path: str) -> None:
            place = _place_of(path)
            if place is None or "/_parts/" in path or place.asset not in SHARDED:
                return
            if operation == "PutObject":
                put.add(path)
            # the writer looks whether it is there, and only then reports
            elif operation == "HeadObject" and path in put:
                with lock:
                    if caught:
                        return
                    for worker in self._workers():
                        if place in worker.places:
                            caught.append(self._kill("kill_before_event", [worker]))
                            return

        with self._watching(watch):
            for _ in self._moments(self.rng.choice(("chunks", "embeddings"))):
                if caught:
                    return caught[0]
        return caught[0] if caught else None

    def _kill_in_load(self, fault: Fault) -> Inflicted | None:
        for workers in self._loads():
            time.sleep(fault.draw * _GET_SECONDS)
            if self._copying() is not None:
                return self._kill("kill_in_load", workers[:1])
        return None

    def _kill_anywhere(self, fault: Fault) -> Inflicted | None:
        for _ in self._moments("embeddings"):
            if self._workers():
                time.sleep(fault.draw * 5)
                workers = self._workers()
                if workers:
                    return self._kill("kill_anywhere", [self.rng.choice(workers)])
        return None

    def _kill_daemon(self, fault: Fault) -> Inflicted | None:
        for _ in self._moments("chunk_embeddings"):
            workers = self._workers()
            if workers:
                time.sleep(fault.draw)
                at = time.time()
                for process in self.world.service.named("dagster._daemon"):
                    kill(process.pid)
                return self._hit("kill_daemon", workers, at=at, needs_service=True)
        return None

    def _kill_stack(self, fault: Fault) -> Inflicted | None:
        for _ in self._moments("embeddings"):
            if not self._workers():
                continue
            time.sleep(fault.draw * 3)
            workers = self._workers()
            at = time.time()
            self.world.service.kill_all()
            self.killed |= {worker.run_id: time.time() for worker in workers}
            return self._hit("kill_stack", workers, at=at, needs_service=True)
        return None

    def _damage(self, fault: Fault) -> Inflicted | None:
        places = self._targets(fault.draw)
        return self._destroy(fault.kind, places[:1]) if places else None

    def _unload(self, fault: Fault) -> Inflicted | None:
        places = [place for place in self._sound() if place.asset in IN_POSTGRES and place.shard]
        if not places:
            return None
        return self._destroy("unload", [places[int(fault.draw * len(places))]])

    def _burst_503(self, fault: Fault) -> Inflicted | None:
        for _ in self._moments("embeddings"):
            workers = self._workers()
            if not workers:
                continue
            seconds = 4 + 6 * fault.draw
            done = self._hit("burst_503", workers, at=time.time())
            answer = Answer("", "status", ALWAYS, probability=0.8, status=503)
            self.world.proxy.faults.append(answer)
            time.sleep(seconds)
            self.world.proxy.faults.remove(answer)
            done.detail = f"{seconds:.0f} s; {done.detail}"
            return done
        return None

    def _restart_postgres(self, fault: Fault) -> Inflicted | None:  # noqa: ARG002
        for workers in self._loads():
            done = self._hit("restart_postgres", workers, at=time.time())
            self.world.database.restart()
            return done
        return None

    def _disk_full(self, fault: Fault) -> Inflicted | None:
        for _ in self._moments("embeddings"):
            workers = [one for one in self._workers() if one.asset in ("chunks", "embeddings")]
            if not workers:
                continue
            seconds = 4 + 6 * fault.draw
            done = self._hit("disk_full", workers, at=time.time())
            ballast = self.world.work_folder.fill()
            time.sleep(seconds)
            ballast.unlink()
            done.detail = f"{seconds:.0f} s; {done.detail}"
            return done
        return None

    def _loads(self) -> Iterator[list[Worker]]:
        """Workers that load a table, while a COPY into it is under way."""

        def watch(operation: str, path: str) -> None:
            if operation == "GetObject" and re.search(r"/(embeddings|chunks|assignments)/", path):
                time.sleep(_GET_SECONDS)

        with self._watching(watch):
            for _ in self._moments("chunk_embeddings"):
                table = self._copying()
                if table is None:
                    continue
                asset = "chunk_embeddings" if table == "chunk_texts" else table
                workers = [one for one in self._workers() if one.asset == asset]
                if workers:
                    yield workers

    # ---- targets ----------------------------------------------------------------------------

    def _workers(self) -> list[Worker]:
        return self.world.records.workers()

    def _sound(self) -> list[Place]:
        """Places that may be destroyed now: made, and no other fault's business."""
        records = self.world.records
        busy = {place for one in self.open() for place in one.wounds}
        at_work = {place for worker in self._workers() for place in worker.places}
        every = records.places(self.world.left_out)
        unsound = set(records.unsound(every))
        return [place for place in every if place not in (busy | at_work | unsound)]

    def _targets(self, draw: float) -> list[Place]:
        """Stored objects, in an order that the draw decides; those of shards come up more often."""
        poisoned, _ = self.world.poisoned
        places = [
            place
            for place in self._sound()
            # planned again, the poisoned dataset would be sound: it was changed after its plan
            if place.asset not in IN_POSTGRES and place != Place(poisoned, "plan", None)
        ]
        rng = random.Random(draw)  # noqa: S311 - no secret
        return rng.sample(places, len(places))

    def _destroy(self, kind: str, places: Sequence[Place]) -> Inflicted:
        at = time.time()
        for place in places:
            if place.asset in IN_POSTGRES:
                self._forget_rows(place)
            elif kind in ("truncate", "flip_bit"):
                content, metadata = self.world.bucket.read(place.object_key)
                damaged = _truncated(content) if kind == "truncate" else self._flipped(content)
                self.world.bucket.replace(place.object_key, damaged, metadata)
            else:
                self.world.bucket.delete(place.object_key)
            self.destroyed[place] += 1
        return Inflicted(kind, ", ".join(map(str, places)), at, dict.fromkeys(places, 0))

    def _flipped(self, content: bytes) -> bytes:
        where = self.rng.randrange(len(content))
        flipped = content[where] ^ (1 << self.rng.randrange(8))
        return content[:where] + bytes([flipped]) + content[where + 1 :]

    def _forget_rows(self, place: Place) -> None:
        """Deletes a shard's rows, and what the ledger says of them."""
        tables = [place.asset] + ["chunk_texts"] * (place.asset == "chunk_embeddings")
        with psycopg.connect(self.world.dsn) as connection:
            (shard_id,) = connection.execute(
                "select shard_id from acidburn.shards where dataset = %s and shard = %s",
                [place.owner, place.shard],
            ).fetchone() or (None,)
            for table in tables:
                connection.execute(
                    sql.SQL("delete from acidburn.{} where shard_id = %s").format(
                        sql.Identifier(table)
                    ),
                    [shard_id],
                )
            connection.execute(
                "delete from acidburn.loads where shard_id = %s and table_name = %s",
                [shard_id, place.asset],
            )

    def _copying(self) -> str | None:
        """The table of a COPY that is under way in the world's database."""
        with suppress(psycopg.OperationalError):
            connection = psycopg.connect(self.world.dsn, autocommit=True, connect_timeout=5)
            with connection:
                found = connection.execute(
                    "select query from pg_stat_activity where datname = current_database()"
                    " and state = 'active' and query ilike 'copy%' and pid <> pg_backend_pid()"
                ).fetchone()
            if found:
                table = re.search(r'acidburn"?\."?(\w+)', found[0])
                return table[1] if table else None
        return None

    # ---- moments ----------------------------------------------------------------------------

    def _moments(self, asset: str) -> Iterator[None]:
        """Again and again, as long as it is worth waiting.

        Args:
            asset: of which some shards are destroyed to make work when nothing is at work.
        """
        until = time.monotonic() + _PATIENCE_SECONDS
        has_baited = False
        looked = 0.0
        while time.monotonic() < until:
            yield
            time.sleep(0.05)
            if time.monotonic() - looked < 2:
                continue
            looked = time.monotonic()
            self.look()
            is_idle = not self.open() and not self.world.records.n_unfinished()
            if is_idle and not has_baited and self._bait(asset):
                has_baited = True
                until = time.monotonic() + _BAITED_PATIENCE_SECONDS

    def _bait(self, asset: str) -> bool:
        sound = [place for place in self._sound() if place.asset == asset]
        runs = [
            sound[start : start + _N_BAIT]
            for start in range(len(sound) - _N_BAIT + 1)
            if len({place.owner for place in sound[start : start + _N_BAIT]}) == 1
        ]
        if not runs:
            return False
        bait = self._destroy("bait", self.rng.choice(runs))
        self.baits.append(bait)
        self.tell(f"made work by deleting {bait.detail}")
        return True

    @contextmanager
    def _watching(self, watch: Callable[[str, str], None]) -> Iterator[None]:
        self.world.proxy.watchers.append(watch)
        try:
            yield
        finally:
            self.world.proxy.watchers.remove(watch)


def _place_of(path: str) -> Place | None:
    """The place that an object belongs to: `/bucket/D/chunks/000001.parquet`, or a part of it."""
    parts = path.strip("/").split("/")[1:]
    if parts and parts[0] == "_parts":
        parts = parts[1:4]
    if len(parts) == 3 and parts[0] != "_failures":
        return Place(parts[0], parts[1], parts[2].partition(".")[0])
    return None


def _truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


_HOW: dict[Kind, Callable[[Injector, Fault], Inflicted | None]] = {
    "kill_in_part": Injector._kill_in_part,
    "kill_before_event": Injector._kill_before_event,
    "kill_in_load": Injector._kill_in_load,
    "kill_anywhere": Injector._kill_anywhere,
    "kill_daemon": Injector._kill_daemon,
    "kill_stack": Injector._kill_stack,
    "delete": Injector._damage,
    "truncate": Injector._damage,
    "flip_bit": Injector._damage,
    "unload": Injector._unload,
    "burst_503": Injector._burst_503,
    "restart_postgres": Injector._restart_postgres,
    "disk_full": Injector._disk_full,
}
