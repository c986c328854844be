"""Arrow batches made into blocks of rows for COPY; what does not belong together is refused.

Which transaction they go into is `load`; the bytes of a row are `copy_binary`.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from acidburn_assets.adapters.postgres import copy_binary
from acidburn_assets.core import schemas, term_weights
from acidburn_assets.core.errors import SchemaError
from acidburn_assets.core.lineage import Source

StoreText = Literal["postgres", "bucket"]

EMBEDDING_COLUMNS = (
    *("shard_id", "chunk_id", "pool_id", "cluster_id", "cell_id", "embedding", "terms"),
)
TEXT_COLUMNS = (
    *("shard_id", "chunk_id", "doc_id", "doc_row", "title", "chunk_index"),
    *("char_start", "char_end", "n_tokens", "body"),
)
CLUSTER_COLUMNS = (
    *("shard_id", "chunk_id", "pool_id", "cluster_id", "strength", "distance", "is_noise"),
)
PLACE_COLUMNS = ("chunk_id", "cluster_id", "cell_id", "place")
HEADER_COLUMNS = (
    *("pool_id", "cluster_id", "parent", "title", "summary", "keywords", "n_chunks", "n_noise"),
    *("radius", "centroid", "medoid_ids", "label_source"),
)
LINEAGE_COLUMNS = ("pool_id", "cluster_id", "shard_no", "n_chunks", "n_noise")
SOURCE_COLUMNS = ("pool_id", "shard_no", *Source.model_fields)

_BLOCK_BYTES = 4 * 2**20

_UNIT_TOLERANCE = 0.01
"""How far a vector's length may be from 1. Chosen: rounding to fp16 moves it by 0.001 at most."""

_TEXT_OID, _UUID_OID = 25, 2950  # the same in every Postgres


class Block(NamedTuple):
    """Rows in the form of COPY BINARY."""

    n_rows: int
    content: memoryview


class Target(NamedTuple):
    """A shard as the rows name it."""

    name: str  # `dataset/shard`, for messages
    shard_id: int
    pool_id: int
    dim: int


class ClusterHeader(NamedTuple):
    """One cluster of a pool."""

    cluster_id: int
    parent: int | None
    title: str
    summary: str
    keywords: Sequence[str]
    n_chunks: int  # members, noise not counted
    n_noise: int
    radius: float  # 1 - cosine
    medoid_ids: Sequence[bytes]
    label_source: str


class Members(NamedTuple):
    """Where each chunk lies, in the shard's order."""

    chunk_ids: np.ndarray  # (n, 16) uint8
    cluster_ids: np.ndarray  # (n,) int32
    cell_ids: np.ndarray  # (n,) int32


def read_members(assignments: Iterable[pa.RecordBatch], *, name: str) -> Members:
    """The part of an assignments table that every row of the shard needs.

    Raises:
        SchemaError: it is not an assignments table.
    """
    chunk_ids = [np.empty((0, 16), np.uint8)]
    cluster_ids, cell_ids = [np.empty(0, np.int32)], [np.empty(0, np.int32)]
    for batch in assignments:
        schemas.check(batch, schemas.ASSIGNMENTS, key=f"assignments of {name}")
        chunk_ids.append(_id_bytes(batch["chunk_id"]))
        cluster_ids.append(batch["cluster_id"].to_numpy())
        cell_ids.append(batch["cell_id"].to_numpy())
    return Members(np.concatenate(chunk_ids), np.concatenate(cluster_ids), np.concatenate(cell_ids))


class Terms(NamedTuple):
    """What lexical search compares of each chunk, in the shard's order."""

    starts: np.ndarray  # (n + 1,) int64, where each chunk's begin
    terms: np.ndarray  # (e,) int32, rising inside a chunk
    weights: np.ndarray  # (e,) float32, above 0

    def take(self, rows: np.ndarray) -> "Terms":
        """Of some chunks, in their order."""
        counts = np.diff(self.starts)[rows]
        starts = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(counts, out=starts[1:])
        entries = np.arange(starts[-1]) + np.repeat(self.starts[rows] - starts[:-1], counts)
        return Terms(starts, self.terms[entries], self.weights[entries])


def read_terms(weighed: Iterable[pa.RecordBatch], members: Members, *, name: str) -> Terms:
    """The terms of a shard that are searched.

    Raises:
        SchemaError: not the members' terms.
    """
    key = f"term weights of {name}"
    counts = [np.zeros(1, np.int64)]
    terms, weights = [np.empty(0, np.int32)], [np.empty(0, np.float32)]
    filled = 0
    for batch in weighed:
        schemas.check(batch, schemas.TERM_WEIGHTS, key=key)
        _check_ids(batch, members, filled, key=key)
        filled += len(batch)
        of_terms = batch["weights"].flatten().to_numpy()
        is_searched = of_terms > 0
        owners = pc.list_parent_indices(batch["terms"]).to_numpy()[is_searched]
        counts.append(np.bincount(owners, minlength=len(batch)))
        terms.append(batch["terms"].flatten().to_numpy()[is_searched])
        weights.append(of_terms[is_searched])
    _check_count(filled, members, key=key)
    return Terms(np.cumsum(np.concatenate(counts)), np.concatenate(terms), np.concatenate(weights))


def place_block(members: Members) -> Block:
    """Rows of the temporary table that `moves` compares: each chunk, where it belongs, and its
    place in the shard's order."""
    n_rows = len(members.chunk_ids)
    content = copy_binary.encode_rows(
        [
            members.chunk_ids,
            members.cluster_ids,
            members.cell_ids,
            np.arange(n_rows, dtype=np.int32),
        ]
    )
    return Block(n_rows, content)


class Vectors(NamedTuple):
    """A shard's vectors and terms, ready to be sent."""

    halves: np.ndarray  # (n, dim) float16, in the shard's order
    terms: Terms
    order: np.ndarray  # (n,) rows by cell


def read_vectors(
    embeddings: Iterable[pa.RecordBatch],
    weighed: Iterable[pa.RecordBatch],
    members: Members,
    *,
    name: str,
    dim: int,
) -> Vectors:
    """All vectors and terms of a shard, since rows are sent in the order of their cells.

    Raises:
        SchemaError: not the members' vectors or terms, or a vector that is not of unit length.
    """
    key = f"embeddings of {name}"
    halves = np.empty((len(members.chunk_ids), dim), np.float16)
    filled = 0
    for batch in embeddings:
        schemas.check(batch, schemas.embeddings(dim), key=key)
        _check_ids(batch, members, filled, key=key)
        vectors = batch["embedding"].flatten().to_numpy().reshape(-1, dim)
        _check_lengths(vectors, first_row=filled, key=key)
        halves[filled : filled + len(batch)] = vectors  # rounded in place
        filled += len(batch)
    _check_count(filled, members, key=key)
    terms = read_terms(weighed, members, name=name)
    return Vectors(halves, terms, np.argsort(members.cell_ids, kind="stable"))


def embedding_blocks(vectors: Vectors, members: Members, target: Target) -> Iterator[Block]:
    """Rows of `chunk_embeddings` in the order of their cells, so that a cell, and a cluster, is
    read from few pages."""
    step = max(1, _BLOCK_BYTES // (2 * target.dim))
    for start in range(0, len(vectors.order), step):
        rows = vectors.order[start : start + step]
        said = vectors.terms.take(rows)
        content = copy_binary.encode_rows(
            [
                np.full(len(rows), target.shard_id, np.int32),
                members.chunk_ids[rows],
                np.full(len(rows), target.pool_id, np.int16),
                members.cluster_ids[rows],
                members.cell_ids[rows],
                copy_binary.halfvec_field(vectors.halves[rows]),
                copy_binary.sparsevec_field(*said, dim=term_weights.N_IDS),
            ]
        )
        yield Block(len(rows), content)


def text_blocks(
    chunks: Iterable[pa.RecordBatch], members: Members, target: Target, *, store_text: StoreText
) -> Iterator[Block]:
    """Rows of `chunk_texts` in the shard's order.

    Raises:
        SchemaError: not the members' chunks, or a text with a NUL character.
    """
    key = f"chunks of {target.name}"
    filled = 0
    for batch in chunks:
        schemas.check(batch, schemas.CHUNKS, key=key)
        _check_ids(batch, members, filled, key=key)
        _refuse_nul(batch, key=key)
        filled += len(batch)
        step = max(1, _BLOCK_BYTES * len(batch) // max(1, batch.nbytes))
        for start in range(0, len(batch), step):
            rows = batch.slice(start, step)
            n_rows = len(rows)
            content = copy_binary.encode_rows(
                [
                    np.full(n_rows, target.shard_id, np.int32),
                    _id_bytes(rows["chunk_id"]),
                    rows["doc_id"],
                    rows["doc_row"].to_numpy(),
                    rows["title"],
                    rows["chunk_index"].to_numpy(),
                    rows["char_start"].to_numpy(),
                    rows["char_end"].to_numpy(),
                    rows["n_tokens"].to_numpy(),
                    rows["text"] if store_text == "postgres" else pa.nulls(n_rows, pa.string()),
                ]
            )
            yield Block(n_rows, content)
    _check_count(filled, members, key=key)


def cluster_blocks(assignments: Iterable[pa.RecordBatch], target: Target) -> Iterator[Block]:
    """Rows of `chunk_clusters` in the shard's order.

    Raises:
        SchemaError: it is not an assignments table.
    """
    for batch in assignments:
        schemas.check(batch, schemas.ASSIGNMENTS, key=f"assignments of {target.name}")
        content = copy_binary.encode_rows(
            [
                np.full(len(batch), target.shard_id, np.int32),
                _id_bytes(batch["chunk_id"]),
                np.full(len(batch), target.pool_id, np.int16),
                batch["cluster_id"].to_numpy(),
                batch["strength"].to_numpy(),
                batch["distance"].to_numpy(),
                batch["is_noise"].to_numpy(zero_copy_only=False),
            ]
        )
        yield Block(len(batch), content)


def header_block(
    headers: Sequence[ClusterHeader], centroids: np.ndarray, *, pool: str, pool_id: int, dim: int
) -> Block:
    """All rows of a pool in `cluster_headers`.

    Args:
        headers: its clusters.
        centroids: of the same clusters, float32  # (k, dim)
        pool: its name, for messages.
        pool_id: as the rows name it.
        dim: of the pool's model.

    Raises:
        SchemaError: the centroids do not fit, or a text holds a NUL character.
    """
    key = f"centroids of {pool}"
    if centroids.shape != (len(headers), dim):
        raise SchemaError(
            f"{key!r} are {centroids.shape}, not {(len(headers), dim)} like the cluster map's "
            "cards and the pool's model; materialize centroids and cluster_map again"
        )
    if any("\0" in text for one in headers for text in (one.title, one.summary, *one.keywords)):
        raise SchemaError(
            f"the cluster map of {pool!r} holds a NUL character, which Postgres cannot store; "
            "materialize cluster_map again"
        )
    _check_lengths(centroids, first_row=0, key=key)
    keywords = [
        copy_binary.array_value([word.encode() for word in header.keywords], oid=_TEXT_OID)
        for header in headers
    ]
    medoid_ids = [copy_binary.array_value(header.medoid_ids, oid=_UUID_OID) for header in headers]
    parents = [
        None if header.parent is None else header.parent.to_bytes(4, "big", signed=True)
        for header in headers
    ]
    content = copy_binary.encode_rows(
        [
            np.full(len(headers), pool_id, np.int16),
            np.array([header.cluster_id for header in headers], np.int32),
            pa.array(parents, pa.binary()),
            pa.array([header.title for header in headers], pa.string()),
            pa.array([header.summary for header in headers], pa.string()),
            pa.array(keywords, pa.binary()),
            np.array([header.n_chunks for header in headers], np.int64),
            np.array([header.n_noise for header in headers], np.int64),
            np.array([header.radius for header in headers], np.float32),
            copy_binary.halfvec_field(centroids.astype(np.float16)),
            pa.array(medoid_ids, pa.binary()),
            pa.array([header.label_source for header in headers], pa.string()),
        ]
    )
    return Block(len(headers), content)


def lineage_blocks(
    lineage: Iterable[pa.RecordBatch], sources: Sequence[Source], *, pool: str, pool_id: int
) -> Iterator[Block]:
    """Rows of `lineage` in the table's order.

    Args:
        lineage: batches of `schemas.LINEAGE`.
        sources: of its shards, in the order of their numbers.
        pool: its name, for messages.
        pool_id: as the rows name it.

    Raises:
        SchemaError: it is not a lineage table, or a shard of it has no source.
    """
    key = f"lineage of {pool}"
    names = pa.array([f"{source.dataset}/{source.shard}" for source in sources], pa.string())
    for batch in lineage:
        schemas.check(batch, schemas.LINEAGE, key=key)
        shards = pc.binary_join_element_wise(batch["dataset"], batch["shard"], "/")
        numbers = pc.index_in(shards, names)
        if numbers.null_count:
            unknown = shards.filter(pc.is_null(numbers))[0].as_py()
            raise SchemaError(f"{key!r} counts {unknown!r}, of which it does not say the source")
        content = copy_binary.encode_rows(
            [
                np.full(len(batch), pool_id, np.int16),
                batch["cluster_id"].to_numpy(),
                numbers.to_numpy(),
                # a shard has far fewer chunks than 2**31
                batch["n_chunks"].to_numpy().astype(np.int32),
                batch["n_noise"].to_numpy().astype(np.int32),
            ]
        )
        yield Block(len(batch), content)


def source_block(sources: Sequence[Source], *, pool_id: int) -> Block:
    """All rows of a pool in `lineage_shards`, numbered in their order."""
    fields: list[copy_binary.Field] = [
        np.full(len(sources), pool_id, np.int16),
        np.arange(len(sources), dtype=np.int32),
    ]
    for name, field in Source.model_fields.items():
        values = [getattr(source, name) for source in sources]
        is_number = field.annotation is int
        fields.append(np.array(values, np.int64) if is_number else pa.array(values, pa.string()))
    return Block(len(sources), copy_binary.encode_rows(fields))


def _check_lengths(vectors: np.ndarray, *, first_row: int, key: str) -> None:
    """Refuses vectors that are not unit vectors.

    Args:
        vectors: float32  # (n, dim)
        first_row: which row of the table the first is, for the error.
        key: whose, for the error.

    Raises:
        SchemaError: one is not of unit length; with a NaN or an infinity it is not.
    """
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    is_unit = np.abs(lengths - 1) <= _UNIT_TOLERANCE
    if not is_unit.all():
        row = int(np.flatnonzero(~is_unit)[0])
        raise SchemaError(
            f"{key!r}: the vector in row {first_row + row} has the length {lengths[row]}, not 1; "
            "materialize it again"
        )


def _check_ids(batch: pa.RecordBatch, members: Members, start: int, *, key: str) -> None:
    chunk_ids = _id_bytes(batch["chunk_id"])
    if not np.array_equal(chunk_ids, members.chunk_ids[start : start + len(chunk_ids)]):
        raise SchemaError(
            f"{key!r}: rows {start} to {start + len(chunk_ids) - 1} are other chunks than those "
            "of the assignments; materialize embeddings, then assignments again"
        )


def _check_count(n_rows: int, members: Members, *, key: str) -> None:
    if n_rows != len(members.chunk_ids):
        raise SchemaError(
            f"{key!r}: {n_rows} rows for {len(members.chunk_ids)} assignments; materialize "
            "embeddings, then assignments again"
        )


def _refuse_nul(batch: pa.RecordBatch, *, key: str) -> None:
    for column in ("doc_id", "title", "text"):
        has_nul = pc.match_substring(batch[column], "\0")
        if pc.any(has_nul).as_py():
            doc_id = batch["doc_id"][pc.index(has_nul, True).as_py()].as_py()
            raise SchemaError(
                f"{key!r}: {column!r} of the document {doc_id!r} holds a NUL character, which "
                "Postgres cannot store; chunk the dataset again"
            )


def _id_bytes(column: pa.Array) -> np.ndarray:
    """Chunk ids as bytes, without a copy  # (n, 16) uint8."""
    content = np.frombuffer(column.buffers()[1], np.uint8)
    return content[column.offset * 16 : (column.offset + len(column)) * 16].reshape(-1, 16)
