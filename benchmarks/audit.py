"""Asks which shards fed a cluster and where a shard went, of a corpus of 48 million chunks.

The records are made up at full size (`corpora`), kept in a folder, in Dagster's own SQLite and in a
Postgres of its own; every question is asked of a fresh auditor, as a command asks it. Beside ours
stands what a lineage without an order costs: the whole table is read for one cluster.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest.mock import patch

import click
import dagster as dg
import psycopg
from pydantic import SecretStr

from acidburn_assets import settings
from acidburn_assets.adapters import embedded_postgres
from acidburn_assets.adapters.object_store import ObjectStore, read_table
from acidburn_assets.adapters.postgres import PoolFacts, Postgres, migrate, replace_lineage
from acidburn_assets.commands.auditor import Auditor
from acidburn_assets.commands.instance import open_instance
from acidburn_assets.commands.moments import find_standing
from acidburn_assets.core.lineage import shards_of
from acidburn_assets.runtime import backends
from acidburn_assets.settings import Settings
from benchmarks import corpora, report, timing

CLUSTER_BY_SQL = """
select dataset, shard, revision, first_row, s.n_rows, l.n_chunks, l.n_noise, embeddings_sha256,
       assignments_sha256, s.model_name, embeddings_run_id, assignments_run_id
from acidburn.lineage l
join acidburn.lineage_shards s using (pool_id, shard_no)
join acidburn.pools p using (pool_id)
where p.name = %s and cluster_id = %s order by l.n_chunks desc
"""

SHARD_BY_SQL = """
select cluster_id, l.n_chunks, l.n_noise
from acidburn.lineage l
join acidburn.lineage_shards s using (pool_id, shard_no)
join acidburn.pools p using (pool_id)
where p.name = %s and dataset = %s and shard = %s order by l.n_chunks desc
"""


@click.command()
@click.option("--shards", "n_shards", default=960, show_default=True, type=click.IntRange(1))
@click.option("--chunks", "n_chunks", default=50_000, show_default=True, type=click.IntRange(1))
@click.option("--clusters", "n_clusters", default=20_000, show_default=True)
@click.option("--touched", "n_touched", default=3_000, show_default=True)
@click.option("--rounds", "n_rounds", default=5, show_default=True, type=click.IntRange(1))
@click.option("--json", "is_json", is_flag=True, help="End with one JSON object.")
def command(
    n_shards: int, n_chunks: int, n_clusters: int, n_touched: int, n_rounds: int, is_json: bool
) -> None:
    """Time answers of an audit, in seconds; recording the corpus takes a minute or two first."""
    size = corpora.Size(n_shards, n_chunks, n_clusters, min(n_touched, n_clusters))
    with _world() as configured, open_instance(configured) as instance, _server() as dsn:
        store = backends.open_store(configured)
        corpus = corpora.record(instance, store, size)
        began = time.perf_counter()
        n_loaded = _load(dsn, corpus)
        load_seconds = time.perf_counter() - began
        laps = timing.time_rounds(
            _questions(configured, instance, store, dsn, size), n_rounds=n_rounds
        )
        facts = {
            "shards": n_shards,
            "chunks": n_shards * n_chunks,
            "clusters": n_clusters,
            "clusters a shard draws from": size.n_touched,
            "lineage rows": len(corpus.lineage),
            "lineage bytes": corpus.lineage_bytes,
            "loaded rows per second": round(n_loaded / load_seconds),
            "bytes in Postgres": _postgres_bytes(dsn),
            "rounds": n_rounds,
            "dagster": dg.__version__,
        }
    rows = [
        {
            "question": name,
            "seconds": timing.spread([lap.wall for lap in of]),
            "CPU seconds": timing.spread([lap.cpu for lap in of]),
        }
        for name, of in laps.items()
    ]
    report.show("audit", rows, facts=facts, is_json=is_json)


def _questions(
    configured: Settings,
    instance: dg.DagsterInstance,
    store: ObjectStore,
    dsn: str,
    size: corpora.Size,
) -> dict[str, Callable[[], object]]:
    cluster = size.n_clusters // 2
    shard = f"{size.n_shards // 2:06d}"
    event = Auditor(configured, instance).cluster(str(cluster), None).moment.lineage_event_id
    return {
        "cluster": lambda: Auditor(configured, instance).cluster(str(cluster), None),
        "cluster, earlier": lambda: Auditor(configured, instance).cluster(
            str(cluster), None, str(event)
        ),
        "shard": lambda: Auditor(configured, instance).shard(f"{corpora.DATASET}/{shard}"),
        "its rows alone: cluster": lambda: _rows_of(configured, instance, cluster),
        "its rows alone: cluster, whole table read": lambda: shards_of(
            read_table(store, f"{corpora.POOL}/lineage.parquet"), cluster
        ),
        "its rows alone: cluster, by SQL": partial(
            _ask, dsn, CLUSTER_BY_SQL, [corpora.POOL, cluster]
        ),
        "its rows alone: shard, by SQL": partial(
            _ask, dsn, SHARD_BY_SQL, [corpora.POOL, corpora.DATASET, shard]
        ),
    }


def _rows_of(configured: Settings, instance: dg.DagsterInstance, cluster: int) -> object:
    store = backends.open_store(configured)
    return find_standing(instance, store, corpora.POOL, None).table.shards_of(cluster)


def _ask(dsn: str, query: str, arguments: list[object]) -> object:
    with psycopg.connect(dsn) as connection:
        return connection.execute(query.encode(), arguments).fetchall()


def _load(dsn: str, corpus: corpora.Corpus) -> int:
    postgres = Postgres(SecretStr(dsn))
    migrate(postgres)
    return replace_lineage(
        postgres,
        PoolFacts(corpora.POOL, "knowledge", "bench", "bench", 1_024),
        lineage=corpus.lineage.to_batches(),
        sources=corpus.sources,
        source_sha256=corpus.lineage_sha256,
        run_id="bench",
    ).n_rows


def _postgres_bytes(dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        found = connection.execute(
            "select pg_total_relation_size('acidburn.lineage')"
            " + pg_total_relation_size('acidburn.lineage_shards')"
        ).fetchone()
    assert found is not None, "a function of Postgres has a value"
    return int(found[0])


@contextmanager
def _world() -> Iterator[Settings]:
    """Settings of a home that lives as long as the block."""
    with tempfile.TemporaryDirectory(prefix="acidburn-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        variables = {
            "ACIDBURN_HOME": str(folder / "home"),
            "ACIDBURN_DATASETS": str(corpora.write_registry(folder)),
            "ACIDBURN_STORE": (folder / "objects").as_uri(),
        }
        with patch.dict(os.environ, variables):
            yield settings.load()


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
