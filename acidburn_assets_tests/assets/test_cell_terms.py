"""Terms from the chunks through the lexicon to cells and Postgres, counted again by hand."""

from collections import Counter, defaultdict

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq

from acidburn_assets.adapters.stemmer import stem
from acidburn_assets.core.lexicon import ALL_CHUNKS
from acidburn_assets.core.term_weights import question_terms
from acidburn_assets_tests.worlds import World

POOL, DATASETS = "library", ("notes", "articles")


def table(world: World, asset: str) -> pa.Table:
    """One asset of both datasets, in one order."""
    return pa.concat_tables(
        [
            pq.read_table(path)
            for dataset in DATASETS
            for path in sorted(world.home.glob(f"objects/{dataset}/{asset}/*.parquet"))
        ]
    )


def test_every_chunk_has_the_terms_of_its_text(world: World) -> None:
    chunks, weighed = table(world, "chunks"), table(world, "term_weights")
    assert weighed["chunk_id"].equals(chunks["chunk_id"])
    for text, terms in zip(chunks["text"].to_pylist(), weighed["terms"].to_pylist(), strict=True):
        assert set(terms) == question_terms(text, stem).keys()


def test_the_lexicon_counts_the_chunks_of_the_whole_pool(world: World) -> None:
    weighed = table(world, "term_weights")
    counts = Counter(term for terms in weighed["terms"].to_pylist() for term in terms)
    expected = {term: count for term, count in counts.items() if count > 1}
    lexicon = pq.read_table(world.home / f"objects/{POOL}/lexicon.parquet")
    found = dict(zip(lexicon["term"].to_pylist(), lexicon["n_chunks"].to_pylist(), strict=True))
    assert found.pop(ALL_CHUNKS) == len(weighed)
    assert found == expected


def test_a_cell_has_the_most_of_its_chunks(world: World) -> None:
    expected: defaultdict[tuple[int, int], float] = defaultdict(float)
    weighed, placed = table(world, "term_weights"), table(world, "assignments")
    for row, cell in zip(weighed.to_pylist(), placed["cell_id"].to_pylist(), strict=True):
        for term, weight in zip(row["terms"], row["weights"], strict=True):
            expected[term, cell] = max(expected[term, cell], weight)
    cells = pq.read_table(world.home / f"objects/{POOL}/cell_terms.parquet")
    columns = (cells[name].to_pylist() for name in ("term", "cell_id", "weight"))
    found = {(term, cell): weight for term, cell, weight in zip(*columns, strict=True)}
    assert found == {at: weight for at, weight in expected.items() if weight}
    assert list(found) == sorted(found)


def test_postgres_has_what_the_bucket_has(world: World) -> None:
    expected = {
        row["chunk_id"].hex(): {
            term + 1: weight
            for term, weight in zip(row["terms"], row["weights"], strict=True)
            if weight
        }
        for row in table(world, "term_weights").to_pylist()
    }
    with psycopg.connect(world.variables["ACIDBURN_POSTGRES"]) as connection:
        rows = connection.execute(
            "select replace(chunk_id::text, '-', ''), terms::text from acidburn.chunk_embeddings"
            " join acidburn.shards using (shard_id) where dataset = any(%s)",
            [list(DATASETS)],
        ).fetchall()
    found = {}
    for chunk_id, terms in rows:
        entries = [one.split(":") for one in terms[1 : terms.index("}")].split(",")]
        found[chunk_id] = {int(term): float(np.float16(weight)) for term, weight in entries}
    assert found == expected
