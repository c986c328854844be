"""`D/plan`: what a dataset holds and costs, cut into shards; and `D/source`, where it comes from.

The plan registers the shard partitions before it is reported, so that nothing downstream ever
sees a plan without its partitions.
"""

import dagster as dg

from acidburn_assets.assets import encoder as encoders
from acidburn_assets.assets import specs
from acidburn_assets.core import chunks as chunking
from acidburn_assets.core import plan as planning
from acidburn_assets.core.datasets import Dataset
from acidburn_assets.core.plan import Plan
from acidburn_assets.io_managers import versions
from acidburn_assets.io_managers.base import Made, Work, work
from acidburn_assets.io_managers.objects import load_record
from acidburn_assets.partitions import register_shards
from acidburn_assets.resources import EncoderResource, SourcesResource, StoreResource
from acidburn_assets.settings import Settings


def source(dataset: Dataset) -> dg.SourceAsset:
    """The dataset where it is published; observing it says at which revision it is now.

    It is observed whenever the dataset is planned, once a day, and by hand in the UI. What changed
    shows as a plan that is out of date; what follows from that is the dataset's policy.
    """

    @dg.observable_source_asset(
        key=specs.key(dataset.name, "source"),
        group_name=dataset.name,
        tags={f"dagster/kind/{dataset.source}": ""},
        automation_condition=(
            None if dataset.automation == "manual" else dg.AutomationCondition.on_cron("0 6 * * *")
        ),
        description=(
            f"{dataset.path or dataset.source}, licence {dataset.licence}, "
            f"{'may' if dataset.may_redistribute_text else 'may not'} be redistributed."
        ),
    )
    def observe(sources: SourcesResource) -> dg.DataVersion:
        return dg.DataVersion(sources.create(dataset).revision())

    return observe


def build(dataset: Dataset, settings: Settings) -> dg.AssetsDefinition:
    """The node of one dataset."""
    plan_key = specs.key(dataset.name, "plan")

    @dg.asset(
        key=plan_key,
        deps=[specs.key(dataset.name, "source"), encoders.KEY],
        io_manager_key="records",
        code_version=specs.version(
            "plan-1",
            specs.reading_facts(dataset),
            dataset.chunk.model_dump(),
            dataset.chunks_per_shard,
            settings.acidburn_model,
            settings.acidburn_model_revision,
            chunking.CHUNKER_VERSION,
        ),
        group_name=dataset.name,
        kinds={"json"},
        description="Documents, tokens, chunks, shards and cost, before any money is spent.",
    )
    def plan(
        context: dg.AssetExecutionContext,
        store: StoreResource,
        sources: SourcesResource,
        encoder: EncoderResource,
    ) -> dg.Output[Work]:
        encoders.observe_in_run(context.instance, encoder)
        reader = sources.create(dataset)
        versions.observe_revision(
            context.instance, specs.key(dataset.name, "source"), reader.revision()
        )

        def make(_: str | None) -> Made:
            made = planning.plan_dataset(
                dataset, reader, tokenizer=encoder.tokenizer(), card=encoder.card()
            )
            return Made(made, _figures(made))

        def register() -> None:
            """Also where the plan was made by another machine, whose partitions are not here."""
            stored: Plan = load_record(store.create(), plan_key)
            register_shards(context.instance, dataset.name, [shard.key for shard in stored.shards])

        return work(make, before_event=register)

    return plan


def _figures(plan: Plan) -> dict[str, object]:
    estimate = plan.estimate
    return {
        "revision": plan.revision,
        "documents": plan.n_documents,
        "shards": len(plan.shards),
        "estimated_tokens": estimate.n_tokens,
        "estimated_chunks": estimate.n_chunks,
        "estimated_usd": estimate.gpus[0].usd,
        "bucket_bytes": estimate.bucket_bytes,
        "postgres_bytes": estimate.postgres_bytes,
        "postgres_plan": estimate.postgres_plan,
        "gpus": specs.table([gpu.model_dump() for gpu in estimate.gpus]),
        "sample_skipped": plan.sample.skipped,
        **specs.COST_FREE,
    }
