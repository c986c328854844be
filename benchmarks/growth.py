"""Fits and assigns ever larger pools of real vectors, each in a process of its own.

A pool is read shard by shard, as the assets read it: the sample, then everything once more. Where
there are fewer vectors than a pool is to have, all of them come again with noise of their own. CPU
seconds of fits are fitted by a power law, and what follows is told for 48 million vectors of
dimension 1,024.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa

from acidburn_assets.adapters import clusterer
from acidburn_assets.core import schemas
from acidburn_assets.core.assignments import assign
from acidburn_assets.core.cells import cells_wanted
from acidburn_assets.core.centroids import CentroidAccumulator
from acidburn_assets.core.cluster_model import ClusterModel, FittedOn, sample_rows, summarize
from acidburn_assets.core.datasets import PoolSettings
from benchmarks import clusterers

SHARD_ROWS = 50_000

JITTER = 0.6
"""Length of the noise that is added to a vector of length 1 that comes again. Chosen: a vector and
its copy then have a cosine of about .85, as neighbours have in these collections."""

GOAL_ROWS, GOAL_DIM = 48_000_000, 1_024

USD_PER_CORE_HOUR = 0.0513
"""Source: AWS EC2 on demand, c7a.medium in us-east-1, one core of Zen 4."""


def measure(real: np.ndarray, n: int, settings: PoolSettings, *, folder: Path) -> dict[str, Any]:
    """Fits a pool of n vectors and assigns all of them, in a process of its own.

    Args:
        real: (m, dim) float32, unit length; more than m are made of them.
        n: vectors.
        settings: of the fit.
        folder: for what is passed between processes; 0.8 GB for a million.
    """
    click.echo(f"a pool of {n:,}", err=True)
    path = folder / "pool.f16"
    dim = real.shape[1]
    with path.open("wb") as file:
        for block in pool_blocks(real, n):
            block.astype(np.float16).tofile(file)
    said = clusterers.in_process(measure_here, str(path), str(dim), settings.model_dump_json())
    return {
        "vectors": n,
        "real": min(n, len(real)),
        "sampled": round(said["n_sample"]),
        "clusters": round(said["n_clusters"]),
        "cells": round(said["n_cells"]),
        "noise": said["noise"],
        "fit, CPU s": said["fit_cpu"],
        "assign, CPU s": said["cpu"] - said["fit_cpu"],
        "wall s": said["wall"],
        "peak MB": round(said["peak_mb"]),
        "reachable": said["reachable"],
    }


def pool_blocks(real: np.ndarray, n: int) -> Iterator[np.ndarray]:
    """A pool in blocks: every vector in random order, then all again, each with noise of its own.

    Args:
        real: (m, dim) float32, unit length.
        n: vectors in all.

    Yields:
        (up to SHARD_ROWS, dim) float32, unit length.
    """
    random = np.random.default_rng(0)
    rows = np.concatenate([random.permutation(len(real)) for _ in range(-(-n // len(real)))])[:n]
    for start in range(0, n, SHARD_ROWS):
        block = real[rows[start : start + SHARD_ROWS]]
        is_again = np.arange(start, start + len(block)) >= len(real)
        noise = random.standard_normal(block.shape, dtype=np.float32)
        noise *= JITTER * is_again[:, None] / real.shape[1] ** 0.5
        block = block + noise
        yield block / np.linalg.norm(block, axis=1, keepdims=True)


def measure_here(path: str, width: str, settings_json: str) -> None:
    """What `measure` has done in the other process: reads the pool as shards are read."""
    dim, settings = int(width), PoolSettings.model_validate_json(settings_json)
    n = Path(path).stat().st_size // (2 * dim)
    shards = {
        f"pool/{start // SHARD_ROWS:06d}": min(SHARD_ROWS, n - start)
        for start in range(0, n, SHARD_ROWS)
    }

    def read(shard: str) -> np.ndarray:
        first = int(shard.removeprefix("pool/")) * SHARD_ROWS
        made = np.fromfile(path, np.float16, shards[shard] * dim, offset=2 * dim * first)
        return made.reshape(-1, dim).astype(np.float32)

    clusterer.warm()
    clock = clusterers.Clock()
    chosen = sample_rows(shards, limit=settings.sample_rows, seed=settings.seed)
    sample = np.concatenate([read(shard)[rows] for shard, rows in chosen.items()])
    model = fit(sample, settings, n_chunks=n)
    fitted = clock.read()
    n_noise = 0
    exact = CentroidAccumulator(model)
    for shard, n_rows in shards.items():
        vectors = read(shard)
        assigned = assign(vectors, model, chunk_ids(n_rows))
        is_noise = assigned["is_noise"].to_numpy(zero_copy_only=False)
        exact.add(vectors, assigned["cell_id"].to_numpy(), is_noise)
        n_noise += int(is_noise.sum())
    measured = {
        **clock.read(),
        "fit_cpu": fitted["cpu"],
        "n_sample": len(sample),
        "n_clusters": len(model.centroids),
        "n_cells": len(model.cell_centroids),
        "noise": n_noise / n,
        "reachable": float(exact.n_cell_chunks.sum() / n),
    }
    print(json.dumps(measured))


def power_law(amounts: Sequence[float], seconds: Sequence[float]) -> tuple[float, float]:
    """Factor and exponent of `seconds = factor * amount ** exponent`, by least squares of logs."""
    exponent, log_factor = np.polyfit(np.log(amounts), np.log(seconds), 1)
    return float(np.exp(log_factor)), float(exponent)


def project(grown: Sequence[Mapping[str, Any]], settings: PoolSettings) -> dict[str, Any]:
    """What the largest pools say of 48 million vectors of dimension 1,024.

    A fit grows with the sample, which is bounded, and with the dimension; an assignment with
    vectors, dimension and cells.

    Args:
        grown: rows of `measure`, at least two.
        settings: of the fit.
    """
    fits = [row for row in grown if row["sampled"] == row["vectors"]]
    factor, exponent = power_law(
        [row["sampled"] for row in fits], [row["fit, CPU s"] for row in fits]
    )
    last = grown[-1]
    n_sample = min(settings.sample_rows, GOAL_ROWS)
    n_cells = cells_wanted(GOAL_ROWS, n_sample, chunks_each=settings.cell_chunks)
    wider = GOAL_DIM / 384
    fit_seconds = factor * n_sample**exponent * wider
    assign_seconds = (
        last["assign, CPU s"] * GOAL_ROWS / last["vectors"] * wider * n_cells / last["cells"]
    )
    hours = (fit_seconds + assign_seconds) / 3_600
    return {
        "fit, CPU s": f"{factor:.3g} * n ** {exponent:.2f}",
        f"{GOAL_ROWS:,} of {GOAL_DIM:,}, cells": n_cells,
        "fit, CPU hours": fit_seconds / 3_600,
        "assign, CPU hours": assign_seconds / 3_600,
        "USD": hours * USD_PER_CORE_HOUR,
    }


def fit(vectors: np.ndarray, settings: PoolSettings, *, n_chunks: int) -> ClusterModel:
    """The model of a pool of n_chunks that the vectors are a sample of."""
    return summarize(
        clusterer.fit(vectors, settings, n_chunks=n_chunks),
        vectors,
        np.zeros((len(vectors), 16), dtype=np.uint8),
        pool="bench",
        fitted_on=FittedOn(
            manifests={},
            shards={},
            n_chunks=n_chunks,
            model="minilm",
            dim=vectors.shape[1],
            settings=settings.of_fit(),
            engine_version=clusterer.ENGINE_VERSION,
        ),
    )


def chunk_ids(n: int) -> pa.Array:
    """(n,) of `schemas.CHUNK_ID`, all different."""
    return pa.array([row.to_bytes(16, "big") for row in range(n)], schemas.CHUNK_ID)
