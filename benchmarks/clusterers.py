"""Clusterers behind one interface, ours and others where they are installed.

Each runs in a process of its own that has clustered something small before, so that memory, CPU
seconds and compiled code are its own. What is measured is `cluster`'s matter.
"""

import importlib
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from acidburn_assets.adapters import clusterer
from acidburn_assets.core.datasets import PoolSettings

OURS = "ours: graph_hdbscan"
PLAYBOOK = "hdbscan, as the playbook ran it"
SKLEARN = "scikit-learn's HDBSCAN"
UMAP, UMAP_WIDE = "UMAP (15, 5-d) + hdbscan", "UMAP (30, 10-d) + hdbscan"
EVOC = "EVoC"
KMEANS = "k-means, told how many"

PEERS = {UMAP: "umap", UMAP_WIDE: "umap"}
"""Engines that need a package which the project does without, and its module."""

INSTALL = "pip install -c constraints.txt umap-learn"

N_WARM = 2_000
"""Vectors that an engine clusters before it is measured: more reach all that EVoC compiles."""


class Task(NamedTuple):
    """What an engine is to do."""

    engine: str
    min_cluster_size: int
    min_samples: int
    n_clusters: int  # for k-means alone
    seed: int


class Run(NamedTuple):
    """What it did."""

    labels: np.ndarray  # (n,), -1 is noise
    cpu: float  # seconds, of all threads
    wall: float  # seconds
    peak_mb: float  # of the whole process, its libraries and vectors included


def absent() -> list[str]:
    """Engines whose package is not installed."""
    return [name for name, module in PEERS.items() if find_spec(module) is None]


def run(task: Task, vectors: Path, *, folder: Path) -> Run:
    """Clusters in a process of its own.

    Args:
        task: what to do.
        vectors: an .npy of (n, dim) float32, unit length.
        folder: where the process may leave its labels.

    Raises:
        RuntimeError: the process failed; its last words are in the error.
    """
    labels = folder / "labels.npy"
    said = in_process(run_here, json.dumps(task._asdict()), str(vectors), str(labels))
    return Run(np.load(labels, allow_pickle=False), said["cpu"], said["wall"], said["peak_mb"])


def in_process(function: Callable[..., None], *arguments: str) -> dict[str, float]:
    """Calls a function in a new process, and returns what it prints as JSON.

    Args:
        function: of a module that can be imported by its name.
        arguments: for it.

    Raises:
        RuntimeError: the process failed; its last words are in the error.
    """
    name, module = function.__name__, function.__module__
    script = f"import sys; from {module} import {name}; {name}(*sys.argv[1:])"
    finished = subprocess.run(  # noqa: S603
        [sys.executable, "-W", "ignore", "-c", script, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode:
        raise RuntimeError(f"{name} {arguments[0]} failed: {finished.stderr[-2_000:]}")
    said: dict[str, float] = json.loads(finished.stdout.splitlines()[-1])
    return said


def run_here(task: str, vectors: str, labels: str) -> None:
    """What `run` calls in the other process."""
    wanted = Task(**json.loads(task))
    cluster = _engine(wanted)
    loaded = np.load(vectors, allow_pickle=False)
    cluster(loaded[:N_WARM])
    clock = Clock()
    found = cluster(loaded)
    measured = clock.read()
    np.save(labels, found, allow_pickle=False)
    print(json.dumps(measured))


class Clock:
    """Seconds since it was made, and the most memory that the process ever had."""

    def __init__(self) -> None:
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def read(self) -> dict[str, float]:
        """CPU and wall seconds, peak memory in MB."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {
            "cpu": time.process_time() - self._cpu,
            "wall": time.perf_counter() - self._wall,
            # kilobytes on Linux, bytes on macOS
            "peak_mb": peak / (2**20 if sys.platform == "darwin" else 2**10),
        }


def _engine(task: Task) -> Callable[[np.ndarray], np.ndarray]:
    sizes = {"min_cluster_size": task.min_cluster_size, "min_samples": task.min_samples}
    if task.engine in (OURS, KMEANS):
        name = "graph_hdbscan" if task.engine == OURS else "kmeans"
        settings = PoolSettings(engine=name, n_clusters=task.n_clusters, seed=task.seed, **sizes)
        # one cell for each cluster: no other engine makes cells
        return lambda vectors: (
            clusterer.fit(vectors, settings.model_copy(update={"cell_chunks": len(vectors)})).labels
        )
    if task.engine == PLAYBOOK:
        return lambda vectors: _hdbscan(vectors, sizes)
    if task.engine == SKLEARN:
        from sklearn.cluster import HDBSCAN

        return lambda vectors: HDBSCAN(copy=True, **sizes).fit_predict(vectors)
    if task.engine == EVOC:
        from evoc import EVoC

        return lambda vectors: EVoC(
            base_min_cluster_size=task.min_cluster_size,
            min_samples=task.min_samples,
            random_state=task.seed,
        ).fit_predict(vectors)
    if task.engine in PEERS:
        n_neighbors, n_components = {UMAP: (15, 5), UMAP_WIDE: (30, 10)}[task.engine]
        reducer: Any = importlib.import_module("umap").UMAP(
            n_neighbors=n_neighbors,
            n_components=n_components,
            min_dist=0.0,
            metric="cosine",
            random_state=task.seed,
        )
        return lambda vectors: _hdbscan(reducer.fit_transform(vectors), sizes)
    raise ValueError(f"no engine {task.engine!r}")


def _hdbscan(vectors: np.ndarray, sizes: dict[str, int]) -> np.ndarray:
    import hdbscan

    labels: np.ndarray = hdbscan.HDBSCAN(core_dist_n_jobs=1, **sizes).fit_predict(vectors)
    return labels
