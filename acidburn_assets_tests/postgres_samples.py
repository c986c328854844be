"""Small shards of a made-up corpus, as the stages before Postgres would hand them over."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from acidburn_assets.adapters import stemmer
from acidburn_assets.adapters.postgres import Load, PoolFacts, Postgres, ShardFacts
from acidburn_assets.adapters.postgres.load import (
    LoadResult,
    replace_chunk_clusters,
    replace_chunk_embeddings,
)
from acidburn_assets.core import schemas
from acidburn_assets.core.term_weights import count_terms, weigh_terms

POOL = PoolFacts("library", "knowledge", "f00d", "a-model", 8)


@dataclass(frozen=True)
class Sample:
    """One shard's four tables."""

    facts: ShardFacts
    load: Load
    chunks: pa.Table
    embeddings: pa.Table
    assignments: pa.Table
    term_weights: pa.Table

    @property
    def chunk_ids(self) -> list[bytes]:
        ids: list[bytes] = self.chunks["chunk_id"].to_pylist()
        return ids

    @property
    def halves(self) -> np.ndarray:
        """What Postgres holds  # (n, dim) float32 with fp16 values."""
        dim = self.facts.pool.dim
        vectors = self.embeddings["embedding"].combine_chunks().flatten().to_numpy()
        return vectors.reshape(-1, dim).astype(np.float16).astype(np.float32)

    @property
    def clusters(self) -> np.ndarray:
        return self.assignments["cluster_id"].to_numpy()

    @property
    def cells(self) -> np.ndarray:
        return self.assignments["cell_id"].to_numpy()

    def batches(self) -> dict[str, Iterator[pa.RecordBatch]]:
        """Of different sizes, as three files may have."""
        return {
            "chunks": iter(self.chunks.to_batches(max_chunksize=7)),
            "embeddings": iter(self.embeddings.to_batches(max_chunksize=5)),
            "assignments": iter(self.assignments.to_batches(max_chunksize=11)),
            "term_weights": iter(self.term_weights.to_batches(max_chunksize=6)),
        }

    def with_load(self, **changes: Any) -> "Sample":
        return replace(self, load=self.load._replace(**changes))


def make(
    n_chunks: int = 20,
    *,
    dataset: str = "books",
    shard: str = "000000",
    pool: PoolFacts = POOL,
    n_clusters: int = 3,
    seed: int = 0,
    text_chars: int = 40,
) -> Sample:
    """A shard of random unit vectors; two chunks to a document."""
    rng = np.random.default_rng([seed, *map(ord, dataset + shard)])
    vectors = rng.standard_normal((n_chunks, pool.dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = vectors.astype(np.float16).astype(np.float32)
    ids = [
        hashlib.sha256(f"{dataset} {shard} {seed} {row}".encode()).digest()[:16]
        for row in range(n_chunks)
    ]
    rows = np.arange(n_chunks)
    texts = [f"é text {row} of {dataset}/{shard} ".ljust(text_chars, "x") for row in rows]
    chunk_id = pa.array(ids, schemas.CHUNK_ID)
    chunks = pa.table(
        [
            chunk_id,
            pa.array([f"doc {row // 2}" for row in rows]),
            pa.array(rows // 2, pa.int64()),
            pa.array([f"Title {row // 2}" if row % 4 else "" for row in rows]),
            pa.array(rows % 2, pa.int32()),
            pa.array((rows % 2) * 30, pa.int64()),
            pa.array((rows % 2) * 30 + text_chars, pa.int64()),
            pa.array(np.full(n_chunks, 9), pa.int32()),
            pa.array(texts),
        ],
        schema=schemas.CHUNKS,
    )
    values = pa.array(vectors.reshape(-1), pa.float32())
    embeddings = pa.table(
        [chunk_id, pa.FixedSizeListArray.from_arrays(values, type=schemas.vector_type(pool.dim))],
        schema=schemas.embeddings(pool.dim),
    )
    clusters = rng.integers(0, n_clusters, n_chunks)
    assignments = pa.table(
        [
            chunk_id,
            pa.array(clusters, pa.int32()),
            pa.array(2 * clusters + rows % 2, pa.int32()),  # two cells each
            pa.array(rng.random(n_chunks), pa.float32()),
            pa.array(rng.random(n_chunks), pa.float32()),
            pa.array(rng.random(n_chunks) < 0.3),
        ],
        schema=schemas.ASSIGNMENTS,
    )
    facts = ShardFacts(
        pool=pool,
        dataset=dataset,
        shard=shard,
        first_row=0,
        n_rows=n_chunks // 2,
        revision="r1",
        licence="MIT",
        may_redistribute_text=True,
    )
    load = Load(
        run_id="run-1",
        chunks_sha256=f"chunks {seed}",
        embeddings_sha256=f"embeddings {seed}",
        assignments_sha256=f"assignments {seed}",
        clustering="clustering 1",
        made_from="code 1",
        term_weights_sha256=f"term weights {seed}",
    )
    return Sample(facts, load, chunks, embeddings, assignments, weigh(chunks))


def weigh(chunks: pa.Table) -> pa.Table:
    """Their terms, as the graph makes them."""
    counted = [count_terms(batch["text"], stemmer.stem) for batch in chunks.to_batches()]
    ids = [batch["chunk_id"] for batch in chunks.to_batches()]
    return pa.Table.from_batches(weigh_terms(counted, ids), schemas.TERM_WEIGHTS)


def load(postgres: Postgres, sample: Sample, **options: Any) -> LoadResult:
    """Loads the sample's vectors and texts."""
    return replace_chunk_embeddings(
        postgres,
        sample.facts,
        sample.load,
        **sample.batches(),
        **{"store_text": "postgres", **options},
    )


def load_clusters(postgres: Postgres, sample: Sample, **options: Any) -> LoadResult:
    """Loads the sample's assignments."""
    assignments = sample.batches()["assignments"]
    return replace_chunk_clusters(
        postgres, sample.facts, sample.load, assignments=assignments, **options
    )
