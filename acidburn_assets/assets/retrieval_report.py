"""`P/retrieval_report`: does routed search find what is known to be there, and what does it scan?

Questions are made from the pool's own documents (their titles, and whole sentences), so every user
has one; they go through the same engine as `acidburn ask`.
"""

import dagster as dg
import pyarrow as pa

from acidburn_assets.assets import specs
from acidburn_assets.core import retrieval_report as reporting
from acidburn_assets.core.datasets import Pool
from acidburn_assets.core.retrieval_report import Question, RetrievalReport
from acidburn_assets.io_managers.base import Made, Work, work
from acidburn_assets.io_managers.pools import PoolTables
from acidburn_assets.resources import EncoderResource, PostgresResource, StoreResource
from acidburn_assets.runtime.search import Engine

N_QUESTIONS = 200
"""Of each kind at most, over all datasets: the 95 % interval of a share is then ±.07 at worst."""

N_SHARDS = 4
"""Of each dataset that questions are made from, spread over it. Chosen."""


def build(pool: Pool) -> dg.AssetsDefinition:
    """The node of one pool."""
    loaded = [
        specs.key(dataset, asset)
        for dataset in pool.datasets
        for asset in ("chunk_embeddings", "chunk_clusters")
    ]

    @dg.asset(
        key=specs.key(pool.name, "retrieval_report"),
        deps=[specs.key(pool.name, "cluster_headers"), specs.key(pool.name, "cell_terms"), *loaded],
        io_manager_key="records",
        code_version=specs.version("retrieval_report-3", pool.settings.seed),
        group_name=pool.name,
        kinds={"json"},
        pool="supabase",
        description="Known-item questions: recall and nDCG of routed against full search.",
    )
    def retrieval_report(
        context: dg.AssetExecutionContext,
        store: StoreResource,
        postgres: PostgresResource,
        encoder: EncoderResource,
    ) -> dg.Output[Work]:
        objects = store.create()

        def make(_: str | None) -> Made:
            questions = _questions(PoolTables(objects, pool), pool)
            context.log.info(f"{len(questions)} questions")
            engine = Engine(
                store=objects,
                postgres=postgres.create(),
                encoder=encoder.create(),
                pool=pool.name,
            )
            try:
                report = engine.measure(questions, seed=pool.settings.seed)
            finally:
                engine.close()
            return Made(report, _figures(report))

        return work(make)

    return retrieval_report


def _questions(tables: PoolTables, pool: Pool) -> list[Question]:
    limit = max(1, N_QUESTIONS // len(pool.datasets))
    questions: list[Question] = []
    for dataset, manifest in tables.manifests().items():
        entries = manifest.entries
        # documents are never cut between shards, so a shard holds all chunks of its documents
        picked = entries[:: max(1, len(entries) // N_SHARDS)][:N_SHARDS]
        chunks = pa.concat_tables(
            [tables.table(dataset, "chunks").read(entry.shard) for entry in picked]
        )
        questions += reporting.choose_questions(
            chunks, dataset=dataset, seed=pool.settings.seed, limit=limit
        )
    return questions


def _figures(report: RetrievalReport) -> dict[str, object]:
    rows = [
        {
            "questions": line.kind,
            "search": line.choice,
            "may scan": line.share,
            "recall@10": round(line.recall_at_10.mean, 3),
            "MRR@10": round(line.mrr_at_10.mean, 3),
            "nDCG@10": round(line.ndcg_at_10.mean, 3),
            "nDCG to full": round(line.ndcg_to_all.mean, 3) if line.ndcg_to_all else None,
            "scanned": round(line.share_scanned, 4),
            "ms": round(1000 * line.seconds_p50, 1),
        }
        for line in report.lines
    ]
    routed = report.line("routed", 0.1)
    full = report.line("all")
    figures: dict[str, object] = {
        "title_questions": report.n_titles,
        "sentence_questions": report.n_sentences,
        "report": specs.table(rows),
        **specs.COST_FREE,
    }
    if routed is not None and full is not None:
        figures |= {
            "routed_recall_at_10": round(routed.recall_at_10.mean, 4),
            "full_recall_at_10": round(full.recall_at_10.mean, 4),
            "routed_share_scanned": round(routed.share_scanned, 4),
        }
    return figures
