"""Loads the same shard into a Postgres of its own by our loader, by psql, and row by row.

Rows a second are by the clock on the wall: the server's work counts too. Each way does the whole
transaction (`loaders`); ours reads its shard from Parquet in a bucket, checks and encodes it, psql
has a file that was encoded before. Ways that take long are given fewer rows, and their seconds are
made up to all of them. Where texts stay in the bucket, what is compared is how vectors and term
weights travel; where they go along, the server spends most of the time on compressing them, whoever
sends them.

The shard is of the size that shards have. There are fewer texts, so they come again under other
ids. Every way has a shard of its own, and deletes as many rows as it writes. What is called our
transaction is the second part of our load: in the first, vectors are read and nothing is locked.

A shard that is there already, a new clustering of it, and a reader that looks at it all the time
while it is loaded are measured after that, with the vectors that the last line is about.
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click
import psycopg
from pydantic import SecretStr

from acidburn_assets.adapters import embedded_postgres
from acidburn_assets.adapters.object_store import open_store
from acidburn_assets.adapters.postgres import Postgres, migrate
from acidburn_assets.adapters.postgres.rows import StoreText
from acidburn_assets.adapters.tokenizer import load_tokenizer
from acidburn_assets.core import cost
from benchmarks import evaluation, loaders, report, timing
from benchmarks.loaders import Shard
from benchmarks.probe import Probe, Seen
from benchmarks.timing import Lap, Spread

SHARDS: tuple[tuple[int, StoreText], ...] = (
    (1024, "bucket"),
    (1024, "postgres"),
    (384, "bucket"),
    (384, "postgres"),
)
"""bge-m3's and MiniLM's dimensions, with texts left in the bucket and with texts; the last line is
about the first."""

OURS, TRANSACTION, PSQL = "ours", "ours, its transaction", "psql, prepared file"

N_SLOW = 2_000
"""Rows of the ways that take long. Chosen."""

N_CHUNKS = 48_000_000
"""Of the corpus that is projected: every shard of a large public text corpus."""

DISK_MB_PER_SECOND = {
    "Micro": 87 / 8,
    "Small": 174 / 8,
    "Medium": 347 / 8,
    "Large": 630 / 8,
    "XL": 125.0,
}
"""What a plan's disk takes, XL and larger with the disk that comes along.
Source: Supabase's guide to compute and disk, November 2026: megabits a second, 125 MB/s of gp3."""


@click.command()
@click.option("--rows", "n_rows", default=50_000, show_default=True, type=click.IntRange(10))
@click.option("--rounds", "n_rounds", default=5, show_default=True, type=click.IntRange(1))
@click.option("--json", "is_json", is_flag=True, help="End with one JSON object.")
def command(n_rows: int, n_rounds: int, is_json: bool) -> None:
    """Compare loaders: rows a second into tables with their indexes, committed to disk."""
    chunks = loaders.repeat(evaluation.chunks(load_tokenizer("minilm"), n_rows), n_rows)
    weights = evaluation.term_weights(chunks)
    facts = {
        "rows": len(chunks),
        "characters per row": sum(map(len, chunks["text"].to_pylist())) // len(chunks),
        "rounds": n_rounds,
        "psycopg": psycopg.__version__,
    }
    figures: dict[str, Any] = {}
    projected: list[dict[str, Any]] = []
    with _bench() as bench:
        for dim, store_text in SHARDS:
            bucket = open_store((bench.folder / "bucket").as_uri())
            shard = loaders.make_shard(chunks, weights, dim, store_text=store_text, bucket=bucket)
            loaders.load(bench.postgres, shard)
            laps = _compare(bench, shard, n_rounds)
            name = f"{dim}-d" + (", with texts" if store_text == "postgres" else "")
            report.show(f"load: {name}", _rows(laps, len(chunks)), facts=facts, is_json=False)
            sizes = _sizes(bench, shard)
            projected += _project(name, laps[OURS], sizes, len(chunks))
            if not figures:
                figures = _headline(laps) | {"bytes_per_row": round(sizes.embedding_bytes)}
                figures |= _again(bench, shard, n_rounds, facts)
            figures.setdefault("ways", {})[name] = _headline(laps) | {
                "rows_per_s": round(timing.rate(laps[OURS], len(chunks), clock="wall").median),
                "bytes_per_row": round(sizes.embedding_bytes + sizes.text_bytes),
                "wal_per_row": round(sizes.wal_bytes),
            }
    report.show("load: 48 million chunks", projected, facts={}, is_json=False)
    if is_json:
        print(json.dumps(figures))


class _Bench(NamedTuple):
    """A Postgres of our own and a folder beside it."""

    dsn: str
    postgres: Postgres
    folder: Path


@contextmanager
def _bench() -> Iterator[_Bench]:
    with (
        tempfile.TemporaryDirectory(prefix="acidburn-bench-", ignore_cleanup_errors=True) as folder,
        embedded_postgres.start(Path(folder) / "postgres") as server,
    ):
        postgres = Postgres(SecretStr(server.dsn))
        migrate(postgres)
        yield _Bench(server.dsn, postgres, Path(folder))


def _compare(bench: _Bench, shard: Shard, n_rounds: int) -> dict[str, list[Lap]]:
    """Laps of every way, as long as they would take for all rows."""
    by_psql = shard.renamed("000001")
    slow = shard.head(N_SLOW).renamed("000002")
    for one in (by_psql, slow):
        loaders.load(bench.postgres, shard.renamed(one.facts.shard))
    with psycopg.connect(bench.dsn, autocommit=True) as connection:
        loaders.keep(connection, slow)
    factor = max(1.0, len(shard.chunks) / N_SLOW)
    transactions: list[Lap] = []

    def load() -> None:
        result = loaders.load(bench.postgres, shard)
        transactions.append(Lap(result.transaction_seconds, cpu=0))

    fast: dict[str, Callable[[], object]] = {
        OURS: load,
        PSQL: loaders.Psql(bench.dsn, by_psql, bench.folder),
    }
    ways: dict[str, loaders.Way] = {
        "executemany": "executemany",
        "write_row of lists": "copy",
        "row by row": "execute",
    }
    variants = fast | {
        name: partial(loaders.insert, bench.dsn, slow, way) for name, way in ways.items()
    }
    # what was deleted is taken away before the clock runs, for whoever comes next
    cleaned = {name: _Cleaned(bench.dsn, work) for name, work in variants.items()}
    for work in cleaned.values():
        work()
    laps: dict[str, list[Lap]] = {name: [] for name in cleaned}
    for index in range(n_rounds):
        names = list(cleaned)
        for name in [*names[index % len(names) :], *names[: index % len(names)]]:
            lap = cleaned[name]()
            if name in ways:
                lap = Lap(lap.wall * factor, lap.cpu * factor)
            laps[name].append(lap)
    return {OURS: laps[OURS], TRANSACTION: transactions[-n_rounds:], **laps}


def _vacuum(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for table in loaders.TABLES:
            connection.execute(f"vacuum (analyze) acidburn.{table}".encode())
        connection.execute("checkpoint")


class _Cleaned(NamedTuple):
    """Work that begins with nothing to vacuum."""

    dsn: str
    work: Callable[[], object]

    def __call__(self) -> Lap:
        _vacuum(self.dsn)
        cpu, wall = time.process_time(), time.perf_counter()
        self.work()
        return Lap(time.perf_counter() - wall, time.process_time() - cpu)


def _rows(laps: Mapping[str, list[Lap]], n_rows: int) -> list[dict[str, Any]]:
    ours = laps[OURS]
    return [
        {
            "loader": name,
            "rows per second": timing.rate(one, n_rows, clock="wall"),
            "ours to it": timing.ratio(ours, one, clock="wall"),
            "client's CPU µs per row": None
            if name == TRANSACTION
            else timing.spread([1e6 * lap.cpu / n_rows for lap in one]),
        }
        for name, one in laps.items()
    ]


def _headline(laps: Mapping[str, list[Lap]]) -> dict[str, float]:
    def vs(name: str, ours: str = OURS) -> float:
        return round(timing.ratio(laps[ours], laps[name], clock="wall").median, 3)

    return {
        "vs_psql": vs(PSQL, TRANSACTION),
        "vs_psql_with_reading": vs(PSQL),
        "vs_naive": vs("row by row"),
        "vs_write_row": vs("write_row of lists"),
        "vs_executemany": vs("executemany"),
    }


class _Sizes(NamedTuple):
    """Bytes for each row."""

    embedding_bytes: float  # with its indexes
    text_bytes: float
    wal_bytes: float  # of a load


def _sizes(bench: _Bench, shard: Shard) -> _Sizes:
    """Of this shard alone, in tables that hold nothing else and nothing dead."""
    n_rows = len(shard.chunks)
    with psycopg.connect(bench.dsn, autocommit=True) as connection:
        for table in loaders.TABLES:
            connection.execute(f"truncate acidburn.{table}".encode())
        (before,) = _one(connection, "select pg_current_wal_lsn()")
        loaders.load(bench.postgres, shard)
        (wal,) = _one(connection, f"select pg_wal_lsn_diff(pg_current_wal_lsn(), '{before}')")
        embedding, text = (
            _one(connection, f"select pg_total_relation_size('acidburn.{table}')")[0]
            for table in loaders.TABLES
        )
    return _Sizes(embedding / n_rows, text / n_rows, float(wal) / n_rows)


def _one(connection: psycopg.Connection[Any], query: str) -> tuple[Any, ...]:
    row = connection.execute(query.encode()).fetchone()
    assert row is not None, query
    return tuple(row)


def _again(
    bench: _Bench, shard: Shard, n_rounds: int, facts: Mapping[str, Any]
) -> dict[str, float]:
    """A shard that is there already, clustered anew, and read all the time."""
    loaders.load(bench.postgres, shard, clustering="0")
    laps: dict[str, list[Lap]] = {}
    for index in range(n_rounds):
        work: dict[str, Callable[[], object]] = {
            "whole": partial(loaders.load, bench.postgres, shard, clustering="0"),
            "unchanged": partial(
                loaders.load, bench.postgres, shard, clustering="0", is_forced=False
            ),
            **{
                f"{share:.0%} in other cells": partial(
                    loaders.load,
                    bench.postgres,
                    shard.moved(share),
                    clustering=f"{share} {index}",
                    is_forced=False,
                )
                for share in (0.01, 1.0)
            },
        }
        for name, one in work.items():
            if name != "whole":
                loaders.load(bench.postgres, shard, clustering="0")
            laps.setdefault(name, []).append(_Cleaned(bench.dsn, one)())
    rows = [
        {
            "load": name,
            "seconds": timing.spread([lap.wall for lap in one]),
            "times as fast as the whole": timing.ratio(one, laps["whole"], clock="wall"),
        }
        for name, one in laps.items()
    ]
    report.show("load: once more", rows, facts=facts, is_json=False)
    idle, busy = _read_while_loaded(bench, shard, n_loads=2 * n_rounds)
    looks = [
        {"a cell is read": name, **seen._asdict()}
        for name, seen in (("nothing is loaded", idle), ("the shard is loaded", busy))
    ]
    report.show("load: readers", looks, facts=facts, is_json=False)
    assert busy.n_generations == 2, "the reader saw both generations"
    return {
        "reload_speedup": round(
            timing.ratio(laps["unchanged"], laps["whole"], clock="wall").median, 1
        ),
        "half_shard_reads": busy.n_half,
        "blocked_reads": busy.n_blocked,
        "max_reader_stall_ms": round(busy.max_ms, 1),
        "p99_reader_ms": round(busy.p99_ms, 1),
        "max_reader_idle_ms": round(idle.max_ms, 1),
    }


def _read_while_loaded(bench: _Bench, shard: Shard, *, n_loads: int) -> tuple[Seen, Seen]:
    """What a reader sees while nothing happens, and while two generations replace each other,
    whole and by moves in turns."""
    generations = [shard, shard.moved(1.0, by=loaders.NEXT)]
    loaders.load(bench.postgres, generations[0], clustering="generation 0")
    with psycopg.connect(bench.dsn) as connection:
        shard_id, _ = loaders.ids(connection, shard)
    _vacuum(bench.dsn)
    with Probe(bench.dsn, shard_id, len(shard.chunks)) as probe:
        time.sleep(10)
        idle = probe.seen()
    with Probe(bench.dsn, shard_id, len(shard.chunks)) as probe:
        for number in range(1, n_loads + 1):
            loaders.load(
                bench.postgres,
                generations[number % 2],
                clustering=f"generation {number}",
                is_forced=number % 4 < 2,
            )
        busy = probe.seen()
    return idle, busy


def _project(name: str, ours: list[Lap], sizes: _Sizes, n_rows: int) -> list[dict[str, Any]]:
    """The corpus of the future by Supabase's plans: does it fit, and how long does a load take.

    Hours are those of the disk, which writes a row's log and the row, or those of one loader as
    fast as here, whichever are more.
    """
    row_bytes = sizes.embedding_bytes + sizes.text_bytes
    total = row_bytes * N_CHUNKS
    here: Spread = timing.rate(ours, n_rows, clock="wall")
    rows = []
    for plan in cost.POSTGRES_PLANS:
        speed = DISK_MB_PER_SECOND.get(plan.name)
        if speed is None and plan.max_bytes < total:
            continue
        speed = DISK_MB_PER_SECOND["XL"] if speed is None else speed
        by_disk = speed * 1e6 / (sizes.wal_bytes + row_bytes)
        rows.append(
            {
                "rows": name,
                "plan": plan.name,
                "GB": round(total / 1e9),
                "fits": "yes" if total <= plan.max_bytes else "no",
                "hours": N_CHUNKS / min(by_disk, here.median) / 3600,
                "waits for": "disk" if by_disk < here.median else "server",
            }
        )
        if total <= plan.max_bytes:
            break
    return rows


if __name__ == "__main__":
    command()
