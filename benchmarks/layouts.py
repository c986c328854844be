"""What a search of a large pool costs Postgres: our layout beside pgvector's default one.

The pool. Vectors of 1,024 values are put together from MiniLM's of three passages, as `store` does,
one for each cluster. A cluster has as many cells as the product would make, each with noise of its
own, and a member is its cell's vector with noise of its own. Members come in random order over
shards of 50,000. Clusters differ in size as a logarithm of a bell curve does; the middle one has
550 members, so that four of them are 2,200 rows. Texts are passages of 1,300 words of PEPs and
Rust RFCs, each of which comes many times; their terms are those that the product would search.

The layouts. Ours is as `load` writes it, with the terms of every passage, asked by vectors and by
both scores. The other is a table as pgvector's manual makes it: vectors stored as Postgres does by
itself, rows in the order in which they came, an index on the cluster; no terms. It is asked by
vectors, in the manual's words for nearest rows with their similarity, and in ours. As the product
does, our words leave Postgres a bitmap scan, and no index scan. Each time it is the ten best of
four clusters whose size is the middle one. Ours is asked through `PassageSearch` and `Engine.ask`
too, which add what an answer carries. CPU is of the server's process; blocks are those that a query
looks at, wherever they lie. All is asked once before it is measured, and each question then of one
layout after the other.

Encoding is MiniLM's of the same question, though its vector is not used: it has 384 values.
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc

from acidburn_assets.adapters.encoder import load_encoder
from acidburn_assets.adapters.object_store import ObjectStore, open_store, write_parquet
from acidburn_assets.adapters.postgres import (
    Load,
    PoolFacts,
    Postgres,
    ShardFacts,
    replace_chunk_embeddings,
)
from acidburn_assets.core import cluster_map as mapping
from acidburn_assets.core import embeddings, keys, schemas
from acidburn_assets.core.answers import Trail
from acidburn_assets.core.cells import cells_wanted, share_out
from acidburn_assets.core.embeddings import Encoded, InputType, ModelCard
from acidburn_assets.core.labels import Heuristic
from acidburn_assets.core.ranking import Query
from acidburn_assets.core.term_weights import N_IDS
from acidburn_assets.runtime.pools import SearchedPool
from acidburn_assets.runtime.search import MAX_SCANNED, WIDENINGS, Engine
from benchmarks import evaluation, growth, judged, served, store

DIM = store.DIM
POOL = "large"
SHARD_ROWS = 50_000
BATCH_ROWS = 2_000
CLUSTERING = "0" * 64

MEDIAN_CLUSTER = 550
SPREAD = 0.5
"""Of the logarithm of a cluster's size. Chosen: the largest tenth is then three times as large as
the smallest."""

N_CLUSTERS = 4
N_QUESTIONS = 200
N_EXPLAINED = 40
"""Questions whose blocks are counted."""

PASSAGE_WORDS = 1_300
"""2,048 tokens."""

QUESTION_WORDS = 8

BYTES_PER_ROW = 16_000
"""Of disk: texts, both layouts, and the log of writing them."""

_VECTORS = "1 - (embedding <=> %(vector)s::halfvec)"
_WORDS = "coalesce((terms <#> %(terms)s::sparsevec) / -%(bound)s::float8, 0)"
_BOTH = f"(1 - %(share)s::float8) * ({_VECTORS}) + %(share)s::float8 * {_WORDS}"
_OURS = (
    "acidburn.chunk_embeddings where cell_id = any(%(cells)s::int[])"
    " and pool_id = (select pool_id from acidburn.pools)"
)
_DEFAULT = "bench.default_layout where cluster_id = any(%(clusters)s::int[])"
_BEST = (
    "with scored as materialized (select shard_id, chunk_id, {score} as score from {rows})"
    " select * from scored order by score desc, shard_id, chunk_id limit 10"
)
OURS = f"{N_CLUSTERS} clusters, vectors: ours"
DEFAULT = f"{N_CLUSTERS} clusters, vectors: pgvector's default"
STATEMENTS = {
    OURS: _BEST.format(score=_VECTORS, rows=_OURS),
    f"{N_CLUSTERS} clusters, both: ours": _BEST.format(score=_BOTH, rows=_OURS),
    DEFAULT: (
        f"select shard_id, chunk_id, {_VECTORS} as score from {_DEFAULT}"  # noqa: S608
        " order by embedding <=> %(vector)s::halfvec limit 10"
    ),
    f"{DEFAULT}, asked in our words": _BEST.format(score=_VECTORS, rows=_DEFAULT),
}
ASK = "ask, as it is"


class Costs(NamedTuple):
    """What was measured of one pool."""

    n_rows: int
    rows: list[dict[str, Any]]
    facts: dict[str, Any]


class Corpus(NamedTuple):
    """What a pool is made of; cells are numbered cluster by cluster."""

    sizes: np.ndarray  # (c,) int64, of each cell
    owners: np.ndarray  # (c,) int64, its cluster, each of which has one at least
    centres: np.ndarray  # (c, DIM) float32, unit length
    texts: pa.Array  # (m,) of string
    term_weights: pa.Table  # (m,) of `schemas.TERM_WEIGHTS`

    @property
    def cluster_sizes(self) -> np.ndarray:
        """(k,) int64, of each cluster."""
        return np.bincount(self.owners, self.sizes).astype(np.int64)

    def cells_of(self, clusters: Sequence[int]) -> list[int]:
        """Their cells, rising."""
        return np.flatnonzero(np.isin(self.owners, clusters)).tolist()


class Asked(NamedTuple):
    """Questions of a pool, each made from one of its passages."""

    texts: list[str]
    vectors: np.ndarray  # (q, DIM) float32, unit length
    clusters: list[list[int]]  # that are searched for each
    cells: list[list[int]]  # of these clusters


def measure(n_rows: int) -> Costs:
    """Loads a pool in both layouts and asks it.

    Args:
        n_rows: of the pool, some thousands.

    Raises:
        SystemExit: the disk has no room for it.
    """
    with tempfile.TemporaryDirectory(prefix="acidburn-bench-", ignore_cleanup_errors=True) as made:
        free, wanted = shutil.disk_usage(made).free, n_rows * BYTES_PER_ROW
        if free < wanted:
            raise SystemExit(
                f"{n_rows:,} passages take {wanted / 1e9:.0f} GB in {made!r}, which has "
                f"{free / 1e9:.0f} GB left; set TMPDIR to a folder with more room"
            )
        corpus = make_corpus(n_rows)
        bucket = open_store(Path(made, "bucket").as_uri())
        with served.server(Path(made, "postgres")) as (postgres, dsn):
            began = time.perf_counter()
            asked = load(postgres, bucket, corpus)
            loaded = time.perf_counter() - began
            n_bytes = make_default_layout(dsn, n_shards=-(-n_rows // SHARD_ROWS))
            rows = compare_layouts(postgres, dsn, bucket, asked)
            rows += ask(postgres, dsn, bucket, asked)
    searched = [np.count_nonzero(one) for one in corpus.term_weights["weights"].to_pylist()]
    facts = {
        "clusters": len(corpus.cluster_sizes),
        "cells": len(corpus.sizes),
        "questions": len(asked.texts),
        "terms of a passage": float(np.mean(searched)),
        "rows loaded per second": n_rows / loaded,
        **n_bytes,
    }
    return Costs(n_rows, rows, facts)


def summary(costs: Sequence[Costs]) -> dict[str, float | None]:
    """The largest pool in a few figures; p95 of a million passages, null where there is no such."""
    rows = {row["search"]: row for row in costs[-1].rows}
    ours, theirs = rows[OURS], rows[DEFAULT]
    has_million = costs[-1].n_rows == 1_000_000
    return {
        "cpu_vs_default_layout": round(theirs["CPU ms"] / ours["CPU ms"], 2),
        "blocks_vs_default_layout": round(theirs["blocks"] / ours["blocks"], 2),
        "p95_ms_1m": round(rows[ASK]["p95 ms"], 1) if has_million else None,
    }


# ---- the pool -------------------------------------------------------------------------------


def make_corpus(n_rows: int) -> Corpus:
    """Clusters, cells and texts for a pool.

    Args:
        n_rows: of the pool.
    """
    random = np.random.default_rng(0)
    mean_size = MEDIAN_CLUSTER * np.exp(SPREAD**2 / 2)
    sizes = np.exp(SPREAD * random.standard_normal(max(2 * N_CLUSTERS, round(n_rows / mean_size))))
    sizes = np.floor(sizes / sizes.sum() * n_rows).astype(np.int64)
    sizes[np.argmax(sizes)] += n_rows - sizes.sum()
    n_cells = share_out(cells_wanted(n_rows, n_rows), sizes, at_most=sizes)
    owners = np.repeat(np.arange(len(sizes)), n_cells)
    passages = judged.read("vaswani").vectors
    third = len(passages) // 3
    places = [passages[at * third : (at + 1) * third] for at in range(3)]
    texts = list(long_passages())
    chunks = served.passages(texts, chunk_ids(np.arange(len(texts))), 0)
    return Corpus(
        np.concatenate([parts(*each) for each in zip(sizes, n_cells, strict=True)]),
        owners,
        near(store.combine(places, len(sizes))[owners], random),
        pa.array(texts, pa.string()),
        evaluation.term_weights(chunks).combine_chunks(),
    )


def parts(n: int, n_parts: int) -> np.ndarray:
    """n in so many parts of like size, (n_parts,) int64."""
    return np.diff(np.arange(n_parts + 1) * n // n_parts)


def long_passages() -> Iterator[str]:
    """Passages of PEPs and Rust RFCs; what is left at the end of a long text is left out."""
    for text in evaluation.stored_texts("techdocs"):
        words = text.split()
        for start in range(0, len(words), PASSAGE_WORDS):
            if start == 0 or len(words) - start > PASSAGE_WORDS // 3:
                yield " ".join(words[start : start + PASSAGE_WORDS])


def load(postgres: Postgres, bucket: ObjectStore, corpus: Corpus) -> Asked:
    """Loads the pool as its assets would, and makes questions of it.

    Args:
        postgres: where, migrated.
        bucket: for map, centroids and lexicon.
        corpus: what it is made of.
    """
    random = np.random.default_rng(1)
    n_rows = int(corpus.sizes.sum())
    cell_of = random.permutation(np.repeat(np.arange(len(corpus.sizes)), corpus.sizes))
    text_of = random.integers(0, len(corpus.texts), n_rows)
    asked = np.sort(random.permutation(n_rows)[:N_QUESTIONS])
    facts = PoolFacts(POOL, "knowledge", card().fingerprint, card().name, DIM)
    shards = [
        np.arange(start, min(start + SHARD_ROWS, n_rows)) for start in range(0, n_rows, SHARD_ROWS)
    ]
    vectors = []
    for rows in shards:
        members = near(corpus.centres[cell_of[rows]], random)
        vectors.append(near(members[asked[np.isin(asked, rows)] - rows[0]], random))
        load_shard(postgres, facts, corpus, rows, members, cell_of[rows], text_of[rows])
    put_map(bucket, facts, corpus)
    served.put_terms(
        bucket,
        POOL,
        lambda: (
            (cell_of[rows].astype(np.int32), terms_of(corpus, text_of[rows])) for rows in shards
        ),
        n_cells=len(corpus.sizes),
    )
    sizes = corpus.cluster_sizes
    typical = np.argsort(np.abs(sizes - np.median(sizes)))
    typical = typical[: max(2 * N_CLUSTERS, len(typical) // 5)]
    searched = [random.permutation(typical)[:N_CLUSTERS].tolist() for _ in asked]
    return Asked(
        [question_of(corpus.texts[text_of[row]].as_py(), random) for row in asked],
        np.concatenate(vectors),
        searched,
        [corpus.cells_of(clusters) for clusters in searched],
    )


def load_shard(
    postgres: Postgres,
    facts: PoolFacts,
    corpus: Corpus,
    rows: np.ndarray,
    vectors: np.ndarray,
    cells: np.ndarray,
    text_of: np.ndarray,
) -> None:
    """Loads one shard as `D/chunk_embeddings` does.

    Args:
        postgres: where, migrated.
        facts: the pool.
        corpus: whose texts.
        rows: of the pool  # (n,)
        vectors: of the same  # (n, DIM) float32
        cells: of the same  # (n,)
        text_of: row of the corpus's texts  # (n,)
    """
    ids = chunk_ids(rows)
    placed = pa.table(
        [
            ids,
            pa.array(corpus.owners[cells], pa.int32()),
            pa.array(cells, pa.int32()),
            pa.array(np.ones(len(rows)), pa.float32()),
            pa.array(np.zeros(len(rows)), pa.float32()),
            pa.array(np.zeros(len(rows), bool)),
        ],
        schema=schemas.ASSIGNMENTS,
    )

    def chunks() -> Iterator[pa.RecordBatch]:
        for start in range(0, len(rows), BATCH_ROWS):
            own = rows[start : start + BATCH_ROWS]
            texts = corpus.texts.take(pa.array(text_of[start : start + BATCH_ROWS]))
            zeros = np.zeros(len(own), np.int64)
            yield pa.record_batch(
                [
                    ids.slice(start, len(own)),
                    pc.cast(pa.array(own), pa.string()),
                    pa.array(own),
                    pa.array([""] * len(own)),
                    pa.array(zeros, pa.int32()),
                    pa.array(zeros),
                    pc.cast(pc.utf8_length(texts), pa.int64()),
                    pa.array(zeros, pa.int32()),
                    texts,
                ],
                schema=schemas.CHUNKS,
            )

    shard = keys.shard_key(int(rows[0]) // SHARD_ROWS)
    replace_chunk_embeddings(
        postgres,
        ShardFacts(facts, POOL, shard, int(rows[0]), len(rows), "", "CC0-1.0", True),
        Load("bench", shard, shard, shard, CLUSTERING),
        chunks=chunks(),
        embeddings=[embeddings.record_batch(ids, vectors)],
        assignments=placed.to_batches(),
        term_weights=terms_of(corpus, text_of)
        .set_column(0, schemas.TERM_WEIGHTS[0], ids)
        .to_batches(),
        store_text="postgres",
    )


def terms_of(corpus: Corpus, text_of: np.ndarray) -> pa.Table:
    """Of `schemas.TERM_WEIGHTS`, with the ids of the texts.

    Args:
        corpus: whose texts.
        text_of: row of the corpus's texts  # (n,)
    """
    return corpus.term_weights.take(pa.array(text_of))


def put_map(bucket: ObjectStore, facts: PoolFacts, corpus: Corpus) -> None:
    """Centroids and map of the pool. A cluster's centroid and its medoid are that of its first
    cell: nobody asks for them."""
    sizes = corpus.cluster_sizes
    n_clusters, n_cells = len(sizes), len(corpus.sizes)
    first = np.searchsorted(corpus.owners, np.arange(n_clusters + 1)).astype(np.int32)
    each = pa.array(np.arange(n_clusters + 1), pa.int32())
    flat = pa.array(corpus.centres.reshape(-1))
    centres = pa.FixedSizeListArray.from_arrays(flat, type=schemas.vector_type(DIM))
    own = centres.take(pa.array(first[:-1]))
    bounds = pa.array(first)
    table = pa.table(
        [
            pa.array(range(n_clusters), pa.int32()),
            pa.array(sizes),
            pa.array(np.zeros(n_clusters), pa.int64()),
            pa.array(np.full(n_clusters, 0.5), pa.float32()),
            own,
            pa.ListArray.from_arrays(each, chunk_ids(np.arange(n_clusters))),
            pa.ListArray.from_arrays(each, own),
            pa.ListArray.from_arrays(bounds, pa.array(range(n_cells), pa.int32())),
            pa.ListArray.from_arrays(bounds, pa.array(corpus.sizes, pa.int64())),
            pa.ListArray.from_arrays(bounds, centres),
        ],
        schema=schemas.centroids(DIM),
    )
    key = keys.object_key(POOL, "centroids", suffix=".parquet")
    stored, _ = write_parquet(bucket, key, table.schema, table.to_batches())
    made = mapping.build_cluster_map(
        pool=POOL,
        datasets=[
            mapping.DatasetTerms(dataset=POOL, licence="CC0-1.0", may_redistribute_text=True)
        ],
        model=facts.model,
        cluster_model_sha256=CLUSTERING,
        generation=0,
        centroids_key=key,
        centroids_sha256=stored.sha256,
        facts=[
            mapping.ClusterFacts(cluster, None, int(size), 0, ())
            for cluster, size in enumerate(sizes)
        ],
        heuristics={
            cluster: Heuristic(f"Cluster {cluster}", (), "", None) for cluster in range(n_clusters)
        },
        basis="made up",
    )
    bucket.put_bytes(keys.object_key(POOL, "cluster_map", suffix=".json"), made.to_bytes())


def make_default_layout(dsn: str, *, n_shards: int) -> dict[str, float]:
    """Copies what is loaded into a table of pgvector's default layout; both are then vacuumed.

    Args:
        dsn: where.
        n_shards: that were loaded.

    Returns:
        Bytes of a row in each layout, by what they are called.
    """
    with psycopg.connect(dsn, autocommit=True, options=_SEARCH_PATH) as connection:
        connection.execute("create schema bench")
        connection.execute(
            "create table bench.default_layout (shard_id int, chunk_id uuid, cluster_id int,"
            f" embedding halfvec({DIM}), primary key (shard_id, chunk_id))"
        )
        connection.execute("set work_mem = '512MB'")
        for number in range(n_shards):
            connection.execute(
                "insert into bench.default_layout select shard_id, chunk_id, cluster_id, embedding"
                " from acidburn.chunk_embeddings join acidburn.shards using (shard_id)"
                " where shard = %s order by chunk_id",
                [keys.shard_key(number)],
            )
        connection.execute("create index on bench.default_layout (cluster_id)")
        found = {}
        for name, table in (
            ("ours", "acidburn.chunk_embeddings"),
            ("default", "bench.default_layout"),
        ):
            connection.execute(f"vacuum (analyze) {table}")
            row = connection.execute(
                f"select pg_total_relation_size('{table}')::float8 / count(*) from {table}"  # noqa: S608
            ).fetchone()
            assert row is not None
            found[f"bytes per row, {name}"] = row[0]
        connection.execute("checkpoint")
    return found


_SEARCH_PATH = "-c search_path=extensions,pg_catalog"


# ---- asking ---------------------------------------------------------------------------------


def compare_layouts(
    postgres: Postgres, dsn: str, bucket: ObjectStore, asked: Asked
) -> list[dict[str, Any]]:
    """The ten best of four clusters, of each layout."""
    searched = SearchedPool(bucket, postgres, card(), POOL)
    arguments = [
        {"clusters": clusters, "cells": cells, **as_parameters(searched.query(text, vector))}
        for text, vector, clusters, cells in zip(*asked, strict=True)
    ]
    searched.close()
    statements = {name: text.encode() for name, text in STATEMENTS.items()}
    with ExitStack() as stack:
        connections = {
            name: stack.enter_context(
                psycopg.connect(dsn, autocommit=True, prepare_threshold=None, options=_SEARCH_PATH)
            )
            for name in statements
        }
        for name, connection in connections.items():
            connection.execute(f"set enable_indexscan = {'on' if name == DEFAULT else 'off'}")
            for each in arguments:  # warms
                connection.execute(statements[name], each).fetchall()
        servers = {name: one.info.backend_pid for name, one in connections.items()}
        before = {name: served.cpu_seconds(pid) for name, pid in servers.items()}
        seconds: dict[str, list[float]] = {name: [] for name in statements}
        # one after the other: how fast the machine is changes from minute to minute
        for each in arguments:
            for name, connection in connections.items():
                began = time.perf_counter()
                connection.execute(statements[name], each).fetchall()
                seconds[name].append(time.perf_counter() - began)
        return [
            spread(name, seconds[name])
            | {"CPU ms": 1000 * (served.cpu_seconds(pid) - before[name]) / len(arguments)}
            | blocks_and_rows(connections[name], statements[name], arguments[:N_EXPLAINED])
            for name, pid in servers.items()
        ]


def ask(postgres: Postgres, dsn: str, bucket: ObjectStore, asked: Asked) -> list[dict[str, Any]]:
    """Through the product: passages of four clusters, and whole answers."""
    searched = SearchedPool(bucket, postgres, card(), POOL)
    queries = [
        searched.query(text, vector)
        for text, vector in zip(asked.texts, asked.vectors, strict=True)
    ]
    n_scanned: list[int] = []

    def inside(at: int) -> None:
        found = searched.search.inside(queries[at], asked.cells[at], limit=20)
        n_scanned.append(found.n_rows_scanned)

    rows = [timed(f"{N_CLUSTERS} clusters, both: PassageSearch", inside, len(queries), dsn)]
    rows[-1] |= {"rows": float(np.mean(n_scanned)), "blocks": None}
    searched.close()
    engine = Engine(store=bucket, postgres=postgres, encoder=Stretched(asked), pool=POOL)
    four, most = N_CLUSTERS * MEDIAN_CLUSTER, WIDENINGS[-1] * MAX_SCANNED
    for name, limit in (
        (f"ask, {four:,} rows at most", four),
        (ASK, None),
        (f"ask, {most:,} rows at most, as far as it widens", most),
    ):
        rows += answers(engine, asked, name, limit, dsn)
    engine.close()
    return rows


def answers(
    engine: Engine, asked: Asked, name: str, limit: int | None, dsn: str
) -> Iterator[dict[str, Any]]:
    """Whole answers, and one row for each stage of them.

    Args:
        engine: of the pool.
        asked: the questions.
        name: of the rows.
        limit: rows that are scanned at most; None: as many as the product does.
        dsn: of the server whose CPU is measured.
    """
    trails: list[Trail] = []
    yield timed(
        name,
        lambda at: trails.append(engine.ask(asked.texts[at], n_scanned=limit).trail),
        len(asked.texts),
        dsn,
    ) | {"rows": float(np.mean([trail.n_rows_scanned for trail in trails])), "blocks": None}
    measured = trails[len(asked.texts) :]  # the first round warms
    for stage in measured[0].seconds:
        seconds = [trail.seconds.get(stage, 0.0) for trail in measured]
        yield spread(f"{name}: {stage}", seconds) | dict.fromkeys(("CPU ms", "rows", "blocks"))


def timed(name: str, search: Callable[[int], None], n_questions: int, dsn: str) -> dict[str, Any]:
    """Asks every question once, then again with the time that each takes.

    Args:
        name: of the row.
        search: asks the question of that number.
        n_questions: how many there are.
        dsn: of the server whose CPU is measured.
    """
    for at in range(n_questions):
        search(at)
    backends = served.Backends(dsn)
    before = backends.cpu_seconds()
    seconds = []
    for at in range(n_questions):
        began = time.perf_counter()
        search(at)
        seconds.append(time.perf_counter() - began)
    spent = backends.cpu_seconds() - before
    return spread(name, seconds) | {"CPU ms": 1000 * spent / n_questions}


def spread(name: str, seconds: Sequence[float]) -> dict[str, Any]:
    """A row with the middle time and the one that 95 of 100 stay below."""
    p50, p95 = np.quantile(seconds, [0.5, 0.95]) * 1000
    return {"search": name, "p50 ms": float(p50), "p95 ms": float(p95)}


def blocks_and_rows(
    connection: psycopg.Connection[Any], statement: bytes, arguments: Sequence[dict[str, Any]]
) -> dict[str, float]:
    """Blocks that a question looks at, and rows that it compares; means."""
    blocks, rows = [], []
    for each in arguments:
        found = connection.execute(
            b"explain (analyze, buffers, timing off, format json) " + statement, each
        ).fetchone()
        assert found is not None
        plan = found[0][0]["Plan"]
        blocks.append(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])
        rows.append(max(node["Actual Rows"] for node in nodes(plan)))
    return {"rows": float(np.mean(rows)), "blocks": float(np.mean(blocks))}


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A plan and all that is below it."""
    yield plan
    for below in plan.get("Plans", []):
        yield from nodes(below)


def as_parameters(query: Query) -> dict[str, Any]:
    """A query as the statements here take it."""
    values = ",".join(map(repr, query.vector.astype(np.float16).tolist()))
    entries = ",".join(f"{term + 1}:{weight!r}" for term, weight in sorted(query.terms.items()))
    return {
        "vector": f"[{values}]",
        "terms": f"{{{entries}}}/{N_IDS}",
        "bound": query.bound,
        "share": query.lexical_share,
    }


class Stretched:
    """MiniLM, asked for the same question, whose vector is then replaced by one of `DIM` values."""

    device, dtype, batch_tokens = "cpu", "float32", 1

    def __init__(self, asked: Asked) -> None:
        """Loads the model.

        Args:
            asked: the questions and their vectors.
        """
        self.card = card()
        self._model = load_encoder("minilm", device="cpu")
        self._vectors = dict(zip(asked.texts, asked.vectors, strict=True))

    def encode(self, texts: Sequence[str], input_type: InputType) -> Encoded:
        """See `Encoder`; a text that is not known is a KeyError."""
        made = self._model.encode(texts, input_type)
        return made._replace(vectors=np.stack([self._vectors[text] for text in texts]))

    def embed_iter(
        self, windows: Iterable[Sequence[str]], input_type: InputType
    ) -> Iterator[Encoded]:
        """See `Encoder`."""
        return (self.encode(texts, input_type) for texts in windows)


def card() -> ModelCard:
    """Of a model like MiniLM that makes `DIM` values."""
    return served.minilm_card().model_copy(update={"name": f"MiniLM, {DIM}-d", "dim": DIM})


def near(vectors: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Each vector with noise of its own, as `growth` adds it; float32, unit length."""
    noise = random.standard_normal(vectors.shape, dtype=np.float32)
    moved = vectors + noise * (growth.JITTER / vectors.shape[1] ** 0.5)
    made: np.ndarray = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    return made


def question_of(text: str, random: np.random.Generator) -> str:
    """Some words of a passage, in its order."""
    words = [word for word in text.split() if word.isalpha() and len(word) > 3]
    chosen = np.sort(random.permutation(len(words))[:QUESTION_WORDS])
    return " ".join(words[at] for at in chosen)


def chunk_ids(rows: np.ndarray) -> pa.Array:
    """Of `schemas.CHUNK_ID`, rising with the rows."""
    return pa.array([row.to_bytes(16, "big") for row in rows.tolist()], schemas.CHUNK_ID)
