"""Maps that were made up: any number of points in clusters and groups, for tests and benchmarks."""

import numpy as np
import pyarrow as pa

from acidburn_assets.core import map_page, schemas
from acidburn_assets.core.cluster_map import (
    ClusterFacts,
    ClusterMap,
    DatasetTerms,
    Group,
    Medoid,
    build_cluster_map,
)
from acidburn_assets.core.labels import Heuristic
from acidburn_assets_tests.core.cluster_samples import id_array, random_ids

TERMS = (
    DatasetTerms(dataset="open", licence="CC-BY-4.0", may_redistribute_text=True),
    DatasetTerms(dataset="shut", licence="private", may_redistribute_text=False),
)

WORDS = (
    *("matrix", "array", "window", "thread", "socket", "parser"),
    *("kernel", "branch", "vector", "signal", "filter", "record"),
)


def table(n: int, *, n_clusters: int = 60, seed: int = 0) -> pa.Table:
    """(n,) rows of `schemas.PROJECTION`: clusters around centres that lie in a few regions."""
    random = np.random.default_rng(seed)
    regions = random.uniform(-0.8, 0.8, size=(-(-n_clusters // 10), 2))
    centres = regions[np.arange(n_clusters) // 10] + 0.13 * random.normal(size=(n_clusters, 2))
    clusters = np.sort(random.integers(0, n_clusters, size=n)).astype(np.int32)
    is_noise = random.random(n) < 0.2
    spread = np.where(is_noise, 0.09, 0.022)[:, None]
    points = centres[clusters] + spread * random.normal(size=(n, 2))
    columns = {
        "chunk_id": id_array(random_ids(n)),
        "dataset": [TERMS[i % 5 == 0].dataset for i in range(n)],
        "shard": ["000000"] * n,
        "cluster_id": clusters,
        "is_noise": is_noise,
        "x": points[:, 0].astype(np.float32),
        "y": points[:, 1].astype(np.float32),
    }
    return pa.table(columns, schema=schemas.PROJECTION)


def name_of(point: int) -> str:
    """The word that stands in its passage only."""
    return f"Passage-{point:06d}"


def chunks(points: pa.Table) -> pa.Table:
    """The chunks of these points: each says its name and a few words, three to a document."""
    random = np.random.default_rng(1)
    words = random.choice(WORDS, size=(points.num_rows, 24))
    columns = {
        "chunk_id": points["chunk_id"],
        "doc_id": [f"documents/{i // 3}.txt" for i in range(points.num_rows)],
        "title": ["" if i % 2 else f"Document {i // 3}" for i in range(points.num_rows)],
        "text": [f"{name_of(i)} tells of {' '.join(line)}." for i, line in enumerate(words)],
    }
    return pa.table(columns, schema=pa.schema([schemas.CHUNKS.field(n) for n in map_page.COLUMNS]))


def cluster_map(n_clusters: int = 60) -> ClusterMap:
    """Ten clusters to a group, three groups to a group above; the last cluster is in none."""
    n_groups = -(-(n_clusters - 1) // 10)
    above = range(n_groups, n_groups + -(-n_groups // 3))
    members = {g: [c for c in range(n_clusters - 1) if c // 10 == g] for g in range(n_groups)}
    members |= {g: [c for c in range(n_clusters - 1) if c // 30 == g - n_groups] for g in above}
    return build_cluster_map(
        pool="science",
        datasets=TERMS,
        model="encoder-1",
        cluster_model_sha256="a" * 64,
        generation=0,
        centroids_key="science/centroids.parquet",
        centroids_sha256="b" * 64,
        facts=[
            ClusterFacts(
                cluster_id=c,
                parent=c // 10 if c < n_clusters - 1 else None,
                size=1000 + n_clusters - c,
                n_noise=100,
                medoids=(Medoid(chunk_id=f"{c:032x}", dataset="open", text=""),),
            )
            for c in range(n_clusters)
        ],
        heuristics={
            c: Heuristic(
                title=f"Topic {c}: {WORDS[c % 12]} {WORDS[(c * 5 + 3) % 12]}",
                keywords=(f"keyword{c}", WORDS[c % 12]),
                summary="",
                summary_chunk_id=f"{c:032x}",
            )
            for c in range(n_clusters)
        },
        groups=[
            Group(
                group_id=g,
                parent=n_groups + g // 3 if g < n_groups else None,
                title=f"Group {g}" if g < n_groups else f"Region {g - n_groups}",
                keywords=(f"groupword{g}",),
                clusters=tuple(inside),
            )
            for g, inside in members.items()
        ],
    )


def content(n: int, *, n_clusters: int = 60) -> bytes:
    """What the page of such a map holds."""
    points = table(n, n_clusters=n_clusters)
    return map_page.describe(
        points,
        chunks(points),
        cluster_map(n_clusters),
        TERMS,
        n_chunks=10 * n,
        n_laid_out=min(n, 5_000),
    )
