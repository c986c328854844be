"""Clusterers behind one interface, ours and others where they are installed.

Each runs in a process of its own that has clustered something small before, so that memory, CPU
seconds and compiled code are its own. What is measured is `cluster`'s matter.
"""

import importlib
import json
import re
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
from acidburn_assets.settings import PROJECT_ROOT

OURS = "ours: graph_hdbscan"
PLAYBOOK = "hdbscan, as the playbook ran it"
SKLEARN = "scikit-learn's HDBSCAN"
UMAP = "UMAP + hdbscan"
EVOC = "EVoC"
KMEANS = "k-means, told how many"

PEERS = {UMAP: "umap"}
"""Engines that need a package which the project does without, and its module."""

COMPILED = (PLAYBOOK, SKLEARN, KMEANS)

INSTALL = "pip install -c constraints.txt umap-learn"

N_WARM, N_WARM_COMPILED = 5_000, 500
"""Vectors that an engine clusters before it is measured: above 4,096 UMAP looks for neighbours by
descent, which compiles for half a minute; what was compiled when it was installed needs few."""


class Task(NamedTuple):
    """What an engine is to do."""

    engine: str
    min_cluster_size: int
    min_samples: int
    n_clusters: int  # for k-means alone


class Run(NamedTuple):
    """What it did with one seed."""

    labels: np.ndarray  # (n,), -1 is noise
    cpu: float  # seconds, of all threads
    wall: float  # seconds
    peak_mb: float  # of the whole process, its libraries and vectors included


def absent() -> list[str]:
    """Engines whose package is not installed."""
    return [name for name, module in PEERS.items() if find_spec(module) is None]


def run(task: Task, vectors: Path, *, n_seeds: int, folder: Path) -> list[Run]:
    """Clusters in a process of its own, once for each of the seeds 0, 1, …

    Args:
        task: what to do.
        vectors: an .npy of (n, dim) float32, unit length.
        n_seeds: 1 or more.
        folder: where the process may leave its labels.

    Raises:
        RuntimeError: the process failed; its last words are in the error.
    """
    labels = folder / "labels.npy"
    said = in_process(run_here, json.dumps(task._asdict()), str(n_seeds), str(vectors), str(labels))
    found = np.load(labels, allow_pickle=False)
    return [Run(own, **each) for own, each in zip(found, said["runs"], strict=True)]


def in_process(function: Callable[..., None], *arguments: str) -> dict[str, Any]:
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
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode:
        raise RuntimeError(f"{name} {arguments[0]} failed: {finished.stderr[-2_000:]}")
    said: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return said


def run_here(task: str, n_seeds: str, vectors: str, labels: str) -> None:
    """What `run` calls in the other process."""
    wanted = Task(**json.loads(task))
    loaded = np.load(vectors, allow_pickle=False)
    _cluster(wanted, loaded[: N_WARM_COMPILED if wanted.engine in COMPILED else N_WARM], seed=0)
    found, runs = [], []
    for seed in range(int(n_seeds)):
        clock = Clock()
        found.append(_cluster(wanted, loaded, seed=seed))
        runs.append(clock.read())
    np.save(labels, np.stack(found), allow_pickle=False)
    print(json.dumps({"runs": runs}))


class Clock:
    """Seconds since it was made, and the most memory that the process ever had."""

    def __init__(self) -> None:
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def read(self) -> dict[str, float]:
        """CPU and wall seconds, peak memory in MB."""
        return {
            "cpu": time.process_time() - self._cpu,
            "wall": time.perf_counter() - self._wall,
            "peak_mb": peak_mb(),
        }


def peak_mb() -> float:
    """The most memory that this process ever had."""
    status = Path("/proc/self/status")
    if status.is_file():
        # not getrusage: what it says begins with the memory of the process that started this one
        kilobytes = re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(), re.MULTILINE)
        assert kilobytes is not None
        return int(kilobytes[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes, on macOS


def _cluster(task: Task, vectors: np.ndarray, *, seed: int) -> np.ndarray:
    sizes = {"min_cluster_size": task.min_cluster_size, "min_samples": task.min_samples}
    if task.engine in (OURS, KMEANS):
        settings = PoolSettings(
            engine="graph_hdbscan" if task.engine == OURS else "kmeans",
            n_clusters=task.n_clusters,
            seed=seed,
            cell_chunks=len(vectors),  # one cell for each cluster: no other engine makes cells
            **sizes,
        )
        return clusterer.fit(vectors, settings).labels
    if task.engine == PLAYBOOK:
        return _hdbscan(vectors, sizes)
    if task.engine == SKLEARN:
        from sklearn.cluster import HDBSCAN

        return np.asarray(HDBSCAN(copy=True, **sizes).fit_predict(vectors))
    if task.engine == EVOC:
        from evoc import EVoC

        evoc = EVoC(
            base_min_cluster_size=task.min_cluster_size,
            min_samples=task.min_samples,
            random_state=seed,
        )
        return np.asarray(evoc.fit_predict(vectors))
    if task.engine == UMAP:
        reducer: Any = importlib.import_module("umap").UMAP(
            n_neighbors=15, n_components=5, min_dist=0.0, metric="cosine", random_state=seed
        )
        return _hdbscan(reducer.fit_transform(vectors), sizes)
    raise ValueError(f"no engine {task.engine!r}")


def _hdbscan(vectors: np.ndarray, sizes: dict[str, int]) -> np.ndarray:
    import hdbscan

    labels: np.ndarray = hdbscan.HDBSCAN(core_dist_n_jobs=1, **sizes).fit_predict(vectors)
    return labels
