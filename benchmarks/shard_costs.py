"""The same vectors written bare, and through Dagster and the I/O manager: what these two cost.

An asset in the place of the embeddings, with their inputs, their encoding and the instance's
thousands of other shards, hands over vectors that are made already; a bare write puts the same
batches into the same kind of store. Each is done for a few shards in turn, round by round. Writes
differ from one another by more than what is added to them, so that is what a run takes besides its
writes; the difference to the bare ones stands beside it.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import numpy as np
import pyarrow as pa

from acidburn_assets.adapters.object_store import ObjectInfo, ObjectStore, open_store, write_parquet
from acidburn_assets.core import embeddings as embedding
from acidburn_assets.core import schemas
from acidburn_assets.io_managers.base import FORCE_TAG, Made, Work, work
from acidburn_assets.io_managers.objects import Batches, Metadata, ParquetIOManager
from acidburn_assets.partitions import RANGE_END_TAG, RANGE_START_TAG, shard_partitions
from benchmarks import timing
from benchmarks.corpora import DATASET
from benchmarks.timing import Spread

DIM = 1_024
"""bge-m3's."""

N_SHARDS = 4

BATCH_ROWS = 512

KEY = dg.AssetKey([DATASET, "embeddings"])


class Costs(NamedTuple):
    """Seconds, over the rounds."""

    bare_seconds: Spread  # of a shard
    overhead_seconds: Spread  # of a shard: its run without its start and its writes
    difference_seconds: Spread  # of a shard: its run without its start, less the bare write
    start_seconds: Spread  # of a run, until its first shard is asked for


def measure(instance: dg.DagsterInstance, folder: Path, *, n_rows: int, n_rounds: int) -> Costs:
    """Writes the shards both ways.

    Args:
        instance: where the runs are recorded.
        folder: for the two stores.
        n_rows: vectors of a shard.
        n_rounds: 1 or more; a first one goes uncounted.
    """
    batches = list(make_batches(n_rows))
    bare = open_store((folder / "bare").as_uri())
    manager = _TimedManager(open_store((folder / "managed").as_uri()))
    asked_at: list[float] = []
    job = _job(batches, manager, asked_at)
    parts: list[tuple[float, float]] = []

    def through_dagster() -> None:
        parts.append((_run(job, instance, asked_at), manager.take_seconds()))

    laps = timing.time_rounds(
        {"bare": lambda: _write_bare(bare, batches), "dagster": through_dagster},
        n_rounds=n_rounds,
    )
    rounds = list(zip(laps["bare"], laps["dagster"], parts[1:], strict=True))
    return Costs(
        timing.spread([lap.wall / N_SHARDS for lap in laps["bare"]]),
        timing.spread([(of.wall - start - writes) / N_SHARDS for _, of, (start, writes) in rounds]),
        timing.spread([(of.wall - start - lap.wall) / N_SHARDS for lap, of, (start, _) in rounds]),
        timing.spread([start for start, _ in parts[1:]]),
    )


class _TimedManager(ParquetIOManager):
    """The I/O manager, which knows how long its writes took."""

    _seconds = 0.0

    def write(self, object_key: str, value: Any, metadata: Metadata) -> ObjectInfo:
        began = time.perf_counter()
        info = super().write(object_key, value, metadata)
        self._seconds += time.perf_counter() - began
        return info

    def take_seconds(self) -> float:
        """Of all writes since it was asked last."""
        taken, self._seconds = self._seconds, 0.0
        return taken


def make_batches(n_rows: int) -> Iterator[pa.RecordBatch]:
    """Unit vectors, rounded to fp16 as the encoder's are, in an encoder's batches.

    Args:
        n_rows: of all batches together.
    """
    rng = np.random.default_rng(0)
    schema = schemas.embeddings(DIM)
    for start in range(0, n_rows, BATCH_ROWS):
        n = min(BATCH_ROWS, n_rows - start)
        vectors = rng.standard_normal((n, DIM), np.float32)  # (n, dim) float32
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        rounded = vectors.astype(np.float16).astype(np.float32)
        yield pa.RecordBatch.from_arrays(
            [
                pa.array([rng.bytes(16) for _ in range(n)], schemas.CHUNK_ID),
                pa.FixedSizeListArray.from_arrays(pa.array(rounded.ravel()), DIM).cast(
                    schema.field("embedding").type
                ),
            ],
            schema=schema,
        )


def _write_bare(store: ObjectStore, batches: list[pa.RecordBatch]) -> None:
    for index in range(N_SHARDS):
        write_parquet(
            store,
            f"{index:06d}.parquet",
            schemas.embeddings(DIM),
            batches,
            column_encoding=embedding.COLUMN_ENCODING,
        )


def _job(
    batches: list[pa.RecordBatch], manager: ParquetIOManager, asked_at: list[float]
) -> dg.JobDefinition:
    shards = shard_partitions(DATASET)

    @dg.asset(
        key=KEY,
        deps=[dg.AssetKey([DATASET, "chunks"]), dg.AssetKey(["encoder", "model"])],
        partitions_def=shards,
        backfill_policy=dg.BackfillPolicy.multi_run(32),
        io_manager_key="tables",
        code_version="bench",
    )
    def embeddings() -> dg.Output[Work]:
        def make(_: str | None) -> Made:
            asked_at.append(time.perf_counter())
            return Made(Batches(schemas.embeddings(DIM), iter(batches), embedding.COLUMN_ENCODING))

        return work(make)

    return dg.Definitions(
        assets=[
            embeddings,
            dg.AssetSpec(dg.AssetKey([DATASET, "chunks"]), partitions_def=shards),
            dg.AssetSpec(dg.AssetKey(["encoder", "model"])),
        ],
        resources={"tables": manager},
        executor=dg.in_process_executor,
    ).resolve_implicit_global_asset_job_def()


def _run(job: dg.JobDefinition, instance: dg.DagsterInstance, asked_at: list[float]) -> float:
    """Runs it once; returns the seconds until the first shard was asked for."""
    asked_at.clear()
    began = time.perf_counter()
    ended = job.execute_in_process(
        instance=instance,
        asset_selection=[KEY],
        run_config={"loggers": {"console": {"config": {"log_level": "ERROR"}}}},
        tags={
            FORCE_TAG: "true",
            RANGE_START_TAG: f"{0:06d}",
            RANGE_END_TAG: f"{N_SHARDS - 1:06d}",
        },
    )
    assert ended.success, "it only writes"
    return asked_at[0] - began
