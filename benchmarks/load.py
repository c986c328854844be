"""Loads the same shard into a Postgres of its own by our COPY, by `executemany`, and row by row.

Each of the three replaces the shard's vectors and texts in one transaction, as a load does, so they
differ in how rows travel only. psycopg sends what `executemany` is given in a pipeline, and
vectors of both go as pgvector's own adapter sends them. Rows a second are by the clock on the wall:
the server's work counts too.
"""

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import psycopg
import pyarrow as pa
from pydantic import SecretStr

from acidburn_assets.adapters import embedded_postgres
from acidburn_assets.adapters.postgres import (
    Load,
    PoolFacts,
    Postgres,
    ShardFacts,
    migrate,
    replace_chunk_embeddings,
)
from acidburn_assets.adapters.postgres.rows import EMBEDDING_COLUMNS, TEXT_COLUMNS
from acidburn_assets.adapters.tokenizer import load_tokenizer
from acidburn_assets.core import embeddings, schemas
from benchmarks import evaluation, report, timing

N_CLUSTERS = 50

DIMS = (384, 1024)
"""MiniLM's and bge-m3's."""


class Shard(NamedTuple):
    """What is loaded: the tables that the stages before would have made."""

    facts: ShardFacts
    chunks: pa.Table
    embeddings: pa.Table
    assignments: pa.Table


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
            shard = make_shard(chunks, dim)
            variants = {
                "COPY BINARY (ours)": partial(_copy, postgres, shard),
                "executemany": partial(_insert, dsn, shard, is_many=True),
                "row by row": partial(_insert, dsn, shard, is_many=False),
            }
            laps = timing.time_rounds(variants, n_rounds=n_rounds)
            ours = laps["COPY BINARY (ours)"]
            rows += [
                {
                    "loader": f"{dim}-d: {name}",
                    "rows per second": timing.rate(laps[name], len(chunks), clock="wall"),
                    "ours to it": timing.ratio(ours, laps[name], clock="wall"),
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


def make_shard(chunks: pa.Table, dim: int) -> Shard:
    """The chunks with unit vectors and clusters made up for them."""
    rng = np.random.default_rng(0)
    n_rows = len(chunks)
    vectors = rng.standard_normal((n_rows, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = chunks["chunk_id"].combine_chunks()
    assignments = pa.table(
        [
            ids,
            pa.array(rng.integers(0, N_CLUSTERS, n_rows), pa.int32()),
            *(pa.array(rng.random(n_rows), pa.float32()) for _ in ("strength", "distance")),
            pa.array(rng.random(n_rows) < 0.2),
        ],
        schema=schemas.ASSIGNMENTS,
    )
    return Shard(
        facts=ShardFacts(
            pool=PoolFacts(f"bench_{dim}", "knowledge", f"random {dim}", "random", dim),
            dataset=f"{evaluation.DATASET.name}_{dim}",
            shard="000000",
            first_row=0,
            n_rows=n_rows,
            revision="",
            licence=evaluation.DATASET.licence,
            may_redistribute_text=True,
        ),
        chunks=chunks,
        embeddings=pa.Table.from_batches([embeddings.record_batch(ids, vectors)]),
        assignments=assignments,
    )


@contextmanager
def _server() -> Iterator[str]:
    """DSN of a Postgres that lives as long as the block."""
    with (
        tempfile.TemporaryDirectory(prefix="acidburn-bench-", ignore_cleanup_errors=True) as folder,
        embedded_postgres.start(Path(folder)) as server,
    ):
        yield server.dsn


def _copy(postgres: Postgres, shard: Shard) -> None:
    replace_chunk_embeddings(
        postgres,
        shard.facts,
        Load("bench", *(hashlib.sha256(b"").hexdigest() for _ in range(3)), "bench"),
        chunks=shard.chunks.to_batches(),
        embeddings=shard.embeddings.to_batches(),
        assignments=shard.assignments.to_batches(),
        store_text="postgres",
        is_forced=True,
    )


def _insert(dsn: str, shard: Shard, *, is_many: bool) -> None:
    from pgvector.psycopg import register_vector

    with psycopg.connect(dsn, options="-c search_path=acidburn,extensions") as connection:
        register_vector(connection)
        ...


if __name__ == "__main__":
    command()
