"""`acidburn plan DATASET`: what a dataset holds and what it will cost, before money is spent."""

import click
import dagster as dg
from rich.console import Console
from rich.table import Table

from acidburn_assets import settings
from acidburn_assets.commands.materialize import materialize
from acidburn_assets.commands.presentation import format_bytes, format_seconds, format_usd
from acidburn_assets.core.plan import Plan
from acidburn_assets.io_managers.objects import load_record
from acidburn_assets.runtime import backends


@click.command()
@click.argument("dataset")
@click.option("--json", "is_json", is_flag=True, help="Print the plan as JSON.")
def command(dataset: str, is_json: bool) -> None:
    """Count, cut and price DATASET: shards, hours and dollars by GPU, sizes.

    Reads footers and a sample, embeds nothing.
    """
    configured = settings.load()
    configured.registry.dataset(dataset)
    outcome = materialize(dataset, only={"plan"})
    if outcome.failures:
        raise click.ClickException("the plan could not be made")
    store = backends.open_store(configured, patience_seconds=backends.TERMINAL_PATIENCE_SECONDS)
    plan: Plan = load_record(store, dg.AssetKey([dataset, "plan"]))
    if is_json:
        click.echo(plan.model_dump_json(indent=2))
    else:
        show(plan, budget_usd=configured.registry.dataset(dataset).budget_usd)


def show(plan: Plan, *, budget_usd: float) -> None:
    """Prints a plan for a person."""
    console = Console(highlight=False)
    estimate = plan.estimate
    facts = Table(show_header=False, title=f"{plan.dataset} at {plan.revision[:12]}")
    facts.add_row("documents", f"{plan.n_documents:,}")
    facts.add_row("text", format_bytes(plan.n_bytes))
    facts.add_row("tokens", f"{estimate.n_tokens:,} (estimated by {plan.model})")
    facts.add_row(
        "chunks",
        f"{estimate.n_chunks:,} of {plan.target_tokens} tokens, {plan.overlap_tokens} overlap",
    )
    facts.add_row("shards", f"{len(plan.shards):,}")
    facts.add_row("sampled", f"{plan.sample.n_documents:,} documents")
    for reason, count in sorted(plan.sample.skipped.items()):
        facts.add_row(f"skipped in the sample: {reason}", f"{count:,}")
    facts.add_row(
        "bucket",
        f"{format_bytes(estimate.bucket_bytes)}, "
        f"{format_usd(estimate.bucket_usd_per_month)} a month",
    )
    facts.add_row(
        "Postgres", f"{format_bytes(estimate.postgres_bytes)}, fits {estimate.postgres_plan}"
    )
    facts.add_row("budget", format_usd(budget_usd))
    console.print(facts)
    gpus = Table("GPU", "chunks/s", "$/h", "time", "dollars", title="embedding")
    for gpu in estimate.gpus:
        gpus.add_row(
            gpu.gpu,
            f"{gpu.chunks_per_second:,.0f}",
            f"{gpu.usd_per_hour:.2f}",
            format_seconds(gpu.hours * 3600),
            format_usd(gpu.usd),
        )
    console.print(gpus)
