"""Stores vectors of 1,024 values as we do and as Parquet can otherwise: size, speed, fidelity.

Vectors. MiniLM makes 384 values, a corpus of ours 1,024. A row is put together from MiniLM's
vectors of three different passages, the last one cut to its first 256 values, and made to unit
length: values of a real model in their real distribution, of the size that they have in a unit
vector of 1,024, which is what size and speed depend on. Their order is such that a passage comes
again only after more rows than a page of the file has, so no compressor meets the same values
twice. Each passage comes 40 times beside others, so a row has near neighbours: the tenth and the
eleventh are as far from each other as among MiniLM's own vectors of as many passages (both gaps are
told), and rounding has as much occasion to exchange them.

Speed is rows by seconds of this process's CPU, with the files in a folder. Layouts are compared by
what Arrow takes to write them, ours with the checksums of its pages. All that a shard costs on top
of that is in a row of its own: rounding, the check of every vector's length, sha256, the copy into
the store.

Recall@10 asks for the ten nearest of every row among all others, by stored values against the
float32 ones, with cosines in float64. A row counts whose float32 cosine is less than the tenth's by
no more than what float32 arithmetic errs by, which is measured in the same run: no search in
float32 can tell such rows apart. The table has the recall without that allowance too.
"""

import hashlib
import importlib.util
import json
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from acidburn_assets.adapters.encoder import load_encoder
from acidburn_assets.adapters.object_store import FileStore, read_table, write_parquet
from acidburn_assets.adapters.object_store.parquet import default_row_group_rows
from acidburn_assets.adapters.tokenizer import load_tokenizer
from acidburn_assets.core import embeddings, schemas
from benchmarks import evaluation, report, timing

DIM = 1_024
K = 10
N_PLACES = 3  # passages in a row
N_PASSAGES = 512  # for each place: more than the 256 rows of a page of 1 MiB
_CANDIDATES = 3 * K
"""Nearest by float32, among which the nearest by float64 are: it errs by less than a thousandth of
what lies between the tenth and the thirtieth."""

_BLOCK_QUERIES = 256
_FLOAT64_ERROR = 1e-12  # the same sum in another order
BATCH_ROWS = 512
"""Rows that reach the writer at once, as the windows of an encoder do: 32 texts of 2,048 tokens to
10,000 of few. Chosen, not measured."""

PASSAGE_TOKENS = 48
"""Short passages, so that making them is not most of the run."""


class Layout(NamedTuple):
    """One way to write the same rows."""

    name: str
    write: Callable[[Path], object]  # into a folder
    file: str  # within it


@click.command()
@click.option("--vectors", "n_rows", default=20_480, show_default=True, type=click.IntRange(2_048))
@click.option("--rounds", "n_rounds", default=3, show_default=True, type=click.IntRange(1))
@click.option("--json", "is_json", is_flag=True, help="End with one JSON object.")
def command(n_rows: int, n_rounds: int, is_json: bool) -> None:
    """Compare layouts of vectors: bytes, rows a second, recall@10, who can read them."""
    passages = embed_passages()
    vectors = combine(passages, n_rows)
    ids = pa.array([row.to_bytes(16, "big") for row in range(n_rows)], schemas.CHUNK_ID)
    queries = np.arange(n_rows)
    exact = nearest(vectors, queries)
    tolerance = float(exact.errors.max())
    of_passages = np.concatenate(passages)
    own = nearest(of_passages, np.arange(len(of_passages)))
    recalls: dict[bytes, tuple[float, float]] = {}  # by the values' digest: many layouts keep them
    duckdb = reader_of_duckdb()
    rows = []
    with tempfile.TemporaryDirectory(prefix="benchmark-store-") as folder:
        layouts = make_layouts(ids, vectors)
        places = {layout.name: Path(folder, str(n)) for n, layout in enumerate(layouts)}
        for place in places.values():
            place.mkdir()
        written = timing.time_rounds(
            {one.name: partial(one.write, places[one.name]) for one in layouts}, n_rounds=n_rounds
        )
        read = timing.time_rounds(
            {one.name: partial(_read, one, places[one.name]) for one in layouts}, n_rounds=n_rounds
        )
        for layout in layouts:
            path = places[layout.name] / layout.file
            stored = _read(layout, places[layout.name])
            digest = hashlib.sha256(stored.astype(np.float32)).digest()
            if digest not in recalls:
                found = cosines(vectors, queries, nearest(stored, queries).rows)
                recalls[digest] = (
                    recall(found, exact.cosines, tolerance=tolerance),
                    recall(found, exact.cosines, tolerance=_FLOAT64_ERROR),
                )
            rows.append(
                {
                    "layout": layout.name,
                    "bytes per vector": path.stat().st_size / n_rows,
                    "rows per CPU-second, written": timing.rate(
                        written[layout.name], n_rows, clock="cpu"
                    ),
                    "rows per CPU-second, read": timing.rate(
                        read[layout.name], n_rows, clock="cpu"
                    ),
                    "recall@10": f"{recalls[digest][0]:.6f}",
                    "recall@10, no ties": f"{recalls[digest][1]:.6f}",
                    "DuckDB": duckdb(path, stored),
                }
            )
    facts = {
        "vectors": n_rows,
        "dim": DIM,
        "passages": N_PLACES * N_PASSAGES,
        "queries": len(queries),
        "float32 cosines err by": tolerance,
        "10th to 11th": exact.median_gap,
        "10th to 11th of passages": own.median_gap,
        "pyarrow": pa.__version__,
        "rounds": n_rounds,
    }
    report.show("store", rows, facts=facts, is_json=False)
    if is_json:
        ours = rows[0]
        said = {
            "bytes_per_vector": ours["bytes per vector"],
            "vectors_per_s_core": ours["rows per CPU-second, written"].median,
            "recall_at_10": float(ours["recall@10"]),
        }
        print(json.dumps(said))


def embed_passages() -> list[np.ndarray]:
    """MiniLM's vectors of different passages of the Python documentation, for each place.

    Returns:
        N_PLACES times (N_PASSAGES, 384) float32, unit length.
    """
    tokenizer = load_tokenizer("minilm")
    n_passages = N_PLACES * N_PASSAGES
    table = evaluation.chunks(tokenizer, n_passages, target_tokens=PASSAGE_TOKENS)
    made = load_encoder("minilm").encode(table["text"].to_pylist(), "document").vectors
    return np.split(made, N_PLACES)


def combine(places: list[np.ndarray], n_rows: int) -> np.ndarray:
    """Puts one vector of each place together for every row.

    Args:
        places: vectors for each place, equally many, (n, dim) float32.
        n_rows: at most n**2; a vector comes again after n rows, each time beside others.

    Returns:
        (n_rows, DIM) float32, unit length.
    """
    n = len(places[0])
    row = np.arange(n_rows)
    # in each cycle of n rows the later places are shifted further, by steps that share no factor
    chosen = [(row + shift * (row // n)) % n for shift in (0, 1, 3)]
    joined = np.concatenate([made[rows] for made, rows in zip(places, chosen, strict=True)], axis=1)
    cut = joined[:, :DIM]
    return np.asarray(cut / np.linalg.norm(cut, axis=1, keepdims=True), dtype=np.float32)


def make_layouts(ids: pa.Array, vectors: np.ndarray) -> list[Layout]:
    """What is compared; ours are the first two."""
    floats = pa.FixedSizeListArray.from_arrays(
        pa.array(vectors.reshape(-1)), type=schemas.vector_type(DIM)
    )
    halves = pa.FixedSizeListArray.from_arrays(
        pa.array(vectors.astype(np.float16).reshape(-1)),
        type=pa.list_(pa.field("element", pa.float16(), nullable=False), DIM),
    )
    plain = pa.table({"chunk_id": ids, "embedding": floats})
    half = pa.table({"chunk_id": ids, "embedding": halves})
    split = {
        "use_dictionary": False,
        "compression": "zstd",
        "compression_level": 1,
        "column_encoding": embeddings.COLUMN_ENCODING,
    }

    def write(table: pa.Table, options: dict[str, object], folder: Path) -> None:
        pq.write_table(table, folder / "table.parquet", **options)

    def arrow(name: str, table: pa.Table, **options: object) -> Layout:
        return Layout(name, partial(write, table, options), "table.parquet")

    rounded = pa.table({"chunk_id": ids, "embedding": embeddings.to_storage(vectors)})
    ours = {
        "row_group_size": default_row_group_rows(schemas.embeddings(DIM)),
        "write_statistics": ["chunk_id"],
        "write_page_checksum": True,
    }
    return [
        arrow("ours: float32 rounded to fp16, split, zstd", rounded, **split, **ours),
        Layout("ours, as a shard is stored", partial(_write_ours, ids, vectors), _OBJECT),
        arrow("float32, pyarrow's defaults", plain),
        arrow("float32, split, zstd", plain, **split),
        arrow("float16, plain", half, use_dictionary=False, compression="none"),
        arrow("float16, plain, zstd", half, use_dictionary=False, compression="zstd"),
        arrow("float16, split, zstd", half, **split),
    ]


_OBJECT = "shard.parquet"


def _write_ours(ids: pa.Array, vectors: np.ndarray, folder: Path) -> None:
    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, len(vectors), BATCH_ROWS):
            part = vectors[start : start + BATCH_ROWS]
            yield embeddings.record_batch(ids.slice(start, len(part)), part)

    write_parquet(
        FileStore(folder),
        _OBJECT,
        schemas.embeddings(DIM),
        batches(),
        column_encoding=embeddings.COLUMN_ENCODING,
    )


def _read(layout: Layout, folder: Path) -> np.ndarray:
    """Vectors of a file, (n, DIM)."""
    if layout.file == _OBJECT:
        return embeddings.matrix(read_table(FileStore(folder), layout.file)["embedding"])
    column = pq.read_table(folder / layout.file)["embedding"].combine_chunks()
    values: np.ndarray = column.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(-1, DIM)


class Nearest(NamedTuple):
    """The K + 1 nearest others of some rows, nearest first."""

    rows: np.ndarray  # (m, K + 1) int64
    cosines: np.ndarray  # (m, K + 1) float64
    errors: np.ndarray  # (m, _CANDIDATES) float64, of the cosines that float32 arithmetic made

    @property
    def median_gap(self) -> float:
        """Between the cosines of the K-th and the next."""
        return float(np.median(self.cosines[:, K - 1] - self.cosines[:, K]))


def nearest(vectors: np.ndarray, queries: np.ndarray) -> Nearest:
    """The nearest others by cosines in float64.

    Args:
        vectors: (n, dim), nearly of unit length; their lengths are divided by.
        queries: (m,) int, rows.
    """
    single = vectors.astype(np.float32)
    single /= np.linalg.norm(single, axis=1, keepdims=True)
    parts = []
    for start in range(0, len(queries), _BLOCK_QUERIES):
        block = queries[start : start + _BLOCK_QUERIES]
        near = single[block] @ single.T
        near[np.arange(len(block)), block] = -2  # a row itself
        candidates = np.argpartition(-near, _CANDIDATES, axis=1)[:, :_CANDIDATES]
        right = cosines(vectors, block, candidates)
        errors = np.abs(np.take_along_axis(near, candidates, axis=1) - right)
        order = np.argsort(-right, axis=1, kind="stable")[:, : K + 1]
        rows, best = (np.take_along_axis(each, order, axis=1) for each in (candidates, right))
        parts.append(Nearest(rows, best, errors))
    return Nearest(*(np.concatenate(each) for each in zip(*parts, strict=True)))


def cosines(vectors: np.ndarray, queries: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Of some rows with some others of their own, in float64.

    Args:
        vectors: (n, dim).
        queries: (m,) int, rows.
        others: (m, k) int, rows.

    Returns:
        (m, k) float64.
    """
    made = np.empty(others.shape)
    for index, (row, own) in enumerate(zip(queries, others, strict=True)):
        query, found = vectors[row].astype(np.float64), vectors[own].astype(np.float64)
        lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(query)  # (k,)
        made[index] = found @ query / lengths
    return made


def recall(found: np.ndarray, exact: np.ndarray, *, tolerance: float) -> float:
    """Share of the K that were found that are as near as the K nearest.

    Args:
        found: (m, K or more) right cosines of what was found, nearest first by what found it.
        exact: (m, K or more) right cosines of the nearest, nearest first.
        tolerance: how much less than the K-th a cosine may be and count.
    """
    return float((found[:, :K] >= exact[:, K - 1 : K] - tolerance).mean())


def reader_of_duckdb() -> Callable[[Path, np.ndarray], str]:
    """Says of a file whether DuckDB reads the vectors that Arrow reads."""
    if importlib.util.find_spec("duckdb") is None:
        return lambda _path, _vectors: "not installed"
    import duckdb

    def read(path: Path, vectors: np.ndarray) -> str:
        query = f"select embedding from read_parquet('{path}') order by chunk_id limit 100"  # noqa: S608 - a file of this run
        try:
            found = duckdb.sql(query).fetchall()
        except duckdb.Error as error:
            return f"no: {str(error).splitlines()[0][:60]}"
        is_same = (np.array([row[0] for row in found], vectors.dtype) == vectors[:100]).all()
        return f"{duckdb.__version__}: yes" if is_same else "other values"

    return read


if __name__ == "__main__":
    command()
