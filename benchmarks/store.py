"""Stores vectors of 1,024 values as we do and as Parquet can otherwise: size, speed, fidelity.

Vectors. MiniLM makes 384 values, a corpus of ours 1,024. A row is put together from MiniLM's
vectors of three different passages, the last one cut to its first 256 values, and made to unit
length: values of a real model in their real distribution, of the size that they have in a unit
vector of 1,024, which is what size and speed depend on. Their order is such that a passage comes
again only after more rows than a page of the file has, so no compressor meets the same values
twice. Neighbours are those that rows have by three passages at once, 40 to each passage: many, at
small distances from one another, so the ten nearest are harder to keep than a corpus's.

Speed is rows by seconds of this process's CPU, with the temporary files in a folder. What is ours
has all that a shard costs, on top of what is written by Arrow alone: rounding, the check of every
vector's length, checksums of pages, sha256, the copy into the store.

Recall@10 asks for the ten nearest of 1,000 rows among all others, by stored values against the
float32 ones, with cosines in float64. Where the tenth and the eleventh are nearer to each other
than arithmetic in float32 can tell, any of them counts: how far cosines in float32 are from those
in float64 is measured in the same run. The table has the recall without that allowance too, and
what float32 arithmetic alone makes of the float32 values.
"""

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
from acidburn_assets.adapters.tokenizer import load_tokenizer
from acidburn_assets.core import embeddings, schemas
from benchmarks import evaluation, report, timing

DIM = 1_024
K = 10
N_PLACES = 3  # passages in a row
N_PASSAGES = 512  # for each place: more than the 256 rows of a page of 1 MiB
N_QUERIES = 1_000
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
    is_ours: bool = False


@click.command()
@click.option("--vectors", "n_rows", default=20_480, show_default=True, type=click.IntRange(2_048))
@click.option("--rounds", "n_rounds", default=3, show_default=True, type=click.IntRange(1))
@click.option("--json", "is_json", is_flag=True, help="End with one JSON object.")
def command(n_rows: int, n_rounds: int, is_json: bool) -> None:
    """Compare layouts of vectors: bytes, rows a second, recall@10, who can read them."""
    vectors = make_vectors(n_rows)
    ids = pa.array([row.to_bytes(16, "big") for row in range(n_rows)], schemas.CHUNK_ID)
    queries = np.random.default_rng(1).permutation(n_rows)[:N_QUERIES]
    exact = cosines(vectors, queries, np.float64)
    single = cosines(vectors, queries, np.float32)
    tolerance = float(np.abs(single - exact).max())
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
            near = cosines(stored, queries, np.float64)
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
                    "recall@10": recall(near, exact, tolerance=tolerance),
                    "recall@10, no ties": recall(near, exact, tolerance=0.0),
                    "DuckDB": duckdb(path, stored),
                }
            )
    facts = {
        "vectors": n_rows,
        "dim": DIM,
        "passages": N_PLACES * N_PASSAGES,
        "queries": N_QUERIES,
        "float32 cosines err by": tolerance,
        "their recall@10, no ties": recall(single, exact, tolerance=0.0),
        "pyarrow": pa.__version__,
        "rounds": n_rounds,
    }
    report.show("store", rows, facts=facts, is_json=False)
    if is_json:
        ours = rows[0]
        said = {
            "bytes_per_vector": ours["bytes per vector"],
            "vectors_per_s_core": ours["rows per CPU-second, written"].median,
            "recall_at_10": ours["recall@10"],
        }
        print(json.dumps(said))


def make_vectors(n_rows: int) -> np.ndarray:
    """Rows of three real vectors each, see above.

    Returns:
        (n_rows, DIM) float32, unit length; no two are alike.
    """
    n_passages = N_PLACES * N_PASSAGES
    tokenizer = load_tokenizer("minilm")
    table = evaluation.chunks(tokenizer, n_passages, target_tokens=PASSAGE_TOKENS)
    texts = table["text"].to_pylist()
    made = load_encoder("minilm").encode(texts, "document").vectors
    return combine(np.split(made, N_PLACES), n_rows)


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
    """What is compared; ours is the first."""
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

    return [
        Layout(
            "ours: float32 rounded to fp16, split, zstd",
            partial(_write_ours, ids, vectors),
            _OBJECT,
            is_ours=True,
        ),
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
    if layout.is_ours:
        return embeddings.matrix(read_table(FileStore(folder), layout.file)["embedding"])
    column = pq.read_table(folder / layout.file)["embedding"].combine_chunks()
    values: np.ndarray = column.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(-1, DIM)


def cosines(vectors: np.ndarray, queries: np.ndarray, dtype: type[np.floating]) -> np.ndarray:
    """Of some rows with all, a row with itself left out.

    Args:
        vectors: (n, DIM), nearly of unit length; their lengths are divided by.
        queries: (m,) int, rows.
        dtype: of the arithmetic.

    Returns:
        (m, n) of that type; -2, less than any, for a row with itself.
    """
    exact = vectors.astype(dtype)
    lengths = np.linalg.norm(exact, axis=1)  # (n,)
    near = (exact[queries] @ exact.T) / (lengths[queries, None] * lengths[None, :])
    near[np.arange(len(queries)), queries] = -2
    return np.asarray(near)


def recall(near: np.ndarray, exact: np.ndarray, *, tolerance: float) -> float:
    """Share of the K nearest by `near` that are among the K nearest by `exact`.

    Args:
        near: (m, n) cosines.
        exact: (m, n) cosines that are right.
        tolerance: how much less than the K-th a cosine may be and count.
    """
    found = np.argpartition(-near, K, axis=1)[:, :K]  # (m, K)
    kth = -np.partition(-exact, K - 1, axis=1)[:, K - 1]  # (m,)
    return float((np.take_along_axis(exact, found, axis=1) >= kth[:, None] - tolerance).mean())


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
