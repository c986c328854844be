"""Asks known-item questions of a pool that was made: routed, by centroid alone, and of everything.

The retrieval report's own questions and lines, asked anew of the store and the database that the
settings name; ACIDBURN_HOME says where `acidburn demo` made its own. By centroid is what an
inverted file (IVF) does; everything is the best that any choice of cells can do.
"""

import sys

import click
import pyarrow as pa

from acidburn_assets import settings
from acidburn_assets.adapters.object_store import ObjectStore, read_table
from acidburn_assets.core import keys, retrieval_report
from acidburn_assets.core.datasets import Pool
from acidburn_assets.core.retrieval_report import Line, Question
from acidburn_assets.runtime import backends
from acidburn_assets.runtime.search import Engine
from benchmarks import report

N_SHARDS = 4
"""Of each dataset that questions are made from, as in the retrieval report."""


@click.command()
@click.option("--pool", "name", default="knowledge", show_default=True)
@click.option("--questions", "n_questions", default=200, show_default=True, type=click.IntRange(1))
@click.option("--json", "is_json", is_flag=True, help="End with one JSON object.")
def command(name: str, n_questions: int, is_json: bool) -> None:
    """Compare ways to choose cells: nDCG, recall, rows that are compared."""
    configured = settings.load()
    pool = configured.registry.pool(name)
    store = backends.open_store(configured)
    # before an embedded server is started where there is nothing to ask
    if store.head(keys.object_key(name, "cluster_map", suffix=".json")) is None:
        sys.stderr.write(
            f"no pool {name!r} in {store.url}; run `acidburn demo`, or set ACIDBURN_HOME to where "
            "it ran\n"
        )
        raise SystemExit(2)
    engine = Engine(
        store=store,
        postgres=backends.connect_postgres(configured),
        encoder=backends.load_encoder(configured),
        pool=name,
    )
    try:
        measured = engine.measure(
            choose_questions(store, pool, n_questions), seed=pool.settings.seed
        )
    finally:
        engine.close()
    rows = [as_row(line) for line in measured.lines]
    facts = measured.model_dump(exclude={"lines", "schema_version"})
    report.show("route", rows, facts=facts, is_json=is_json)


def choose_questions(store: ObjectStore, pool: Pool, limit: int) -> list[Question]:
    """So many titles and so many sentences at most, as the retrieval report chooses them.

    Args:
        store: where the chunks are.
        pool: whose.
        limit: of each kind, over all datasets.
    """
    questions: list[Question] = []
    for dataset in pool.datasets:
        shards = [found.key for found in store.list(f"{dataset}/chunks/")]
        picked = shards[:: max(1, len(shards) // N_SHARDS)][:N_SHARDS]
        # a document is never cut between shards
        chunks = pa.concat_tables([read_table(store, key) for key in picked])
        questions += retrieval_report.choose_questions(
            chunks,
            dataset=dataset,
            seed=pool.settings.seed,
            limit=max(1, limit // len(pool.datasets)),
        )
    return questions


def as_row(line: Line) -> dict[str, object]:
    """A line of the report; ranges are its 95 % intervals."""
    return {
        "search": f"{line.kind}: {line.choice}",
        "may scan": line.share,
        "questions": line.n_questions,
        "nDCG@10": line.ndcg_at_10,
        "nDCG to all": line.ndcg_to_all,
        "recall@10": line.recall_at_10,
        "scanned": line.share_scanned,
        "ms": 1000 * line.seconds_p50,
    }


if __name__ == "__main__":
    command()
