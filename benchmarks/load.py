"""Loads the same shard into a Postgres of its own by our COPY, by `executemany`, and row by row.

Rows a second are by the clock on the wall: the server's work counts too. What is done is in
`loaders`.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import click
import psycopg
from pydantic import SecretStr

from acidburn_assets.adapters import embedded_postgres
from acidburn_assets.adapters.postgres import Postgres, migrate
from acidburn_assets.adapters.tokenizer import load_tokenizer
from benchmarks import evaluation, loaders, report, timing

DIMS = (384, 1024)
"""MiniLM's and bge-m3's."""


@click.command()
@click.option("--rows", "n_rows", default=2_000, show_default=True, type=click.IntRange(10))
@click.option("--rounds", "n_rounds", default=5, show_default=True, type=click.IntRange(1))
@click.option("--json", "is_json", is_flag=True, help="End with one JSON object.")
def command(n_rows: int, n_rounds: int, is_json: bool) -> None:
    """Compare loaders: rows a second into tables with their indexes, committed to disk."""
    chunks = evaluation.chunks(load_tokenizer("minilm"), n_rows)
    rows = []
    with _server() as dsn:
        postgres = Postgres(SecretStr(dsn))
        migrate(postgres)
        for dim in DIMS:
            shard = loaders.make_shard(chunks, dim)
            variants = {
                "COPY BINARY (ours)": partial(loaders.copy, postgres, shard),
                "executemany": partial(loaders.insert, dsn, shard, is_many=True),
                "row by row": partial(loaders.insert, dsn, shard, is_many=False),
            }
            laps = timing.time_rounds(variants, n_rounds=n_rounds)
            ours = laps["COPY BINARY (ours)"]
            rows += [
                {
                    "loader": f"{dim}-d: {name}",
                    "rows per second": timing.rate(laps[name], len(chunks), clock="wall"),
                    "speed to ours": timing.ratio(laps[name], ours, clock="wall"),
                    "client's CPU µs per row": timing.spread(
                        [1e6 * lap.cpu / len(chunks) for lap in laps[name]]
                    ),
                }
                for name in variants
            ]
    n_chars = sum(map(len, chunks["text"].to_pylist()))
    facts = {
        "rows": len(chunks),
        "characters per row": n_chars // len(chunks),
        "rounds": n_rounds,
        "psycopg": psycopg.__version__,
    }
    report.show("load", rows, facts=facts, is_json=is_json)


@contextmanager
def _server() -> Iterator[str]:
    """DSN of a Postgres that lives as long as the block."""
    with (
        tempfile.TemporaryDirectory(prefix="acidburn-bench-", ignore_cleanup_errors=True) as folder,
        embedded_postgres.start(Path(folder)) as server,
    ):
        yield server.dsn


if __name__ == "__main__":
    command()
