"""`acidburn ask "question"`: passages from the cells that the question belongs to."""

from collections.abc import Mapping

import click
from rich.console import Console
from rich.markup import escape

from acidburn_assets import settings
from acidburn_assets.commands.presentation import format_seconds
from acidburn_assets.core.answers import Answer, Verdict
from acidburn_assets.runtime import engines

MAX_NAMED = 5
"""Clusters that are named at the end. Chosen."""

_VERDICTS: Mapping[Verdict, str] = {
    "accepted": "[green]found[/green]: these passages answer",
    "ambiguous": "[yellow]perhaps[/yellow]: these may answer; read them before you rely on it",
    "not_found": "[red]not found[/red]: nothing in the pool seems to answer; the nearest are",
}


@click.command()
@click.argument("question")
@click.option("--pool", help="Where to look; may be left out where there is one knowledge pool.")
@click.option(
    "--scan",
    "n_scanned",
    type=click.IntRange(1),
    help="Passages to compare with at first.  [default: a tenth of the pool, 5,000 at most]",
)
@click.option("--passages", "n_passages", default=5, show_default=True, type=click.IntRange(1, 200))
@click.option(
    "--widen/--no-widen", "widens", default=True, help="Look further where that is not enough."
)
@click.option(
    "--advise/--no-advise",
    "advises",
    default=True,
    help="Ask the verification pools and, where there is a key, a paid model.",
)
@click.option("--json", "is_json", is_flag=True, help="Print the answer and its trail as JSON.")
def command(
    question: str,
    pool: str | None,
    n_scanned: int | None,
    n_passages: int,
    widens: bool,
    advises: bool,
    is_json: bool,
) -> None:
    """Search the cells that QUESTION belongs to; show passages and where each is from."""
    configured = settings.load()
    engine = engines.open_engine(configured, pool)
    try:
        answer = engine.ask(
            question,
            n_scanned=n_scanned,
            n_passages=n_passages,
            widens=widens,
            advises=advises,
        )
    finally:
        engine.close()
    if is_json:
        click.echo(answer.model_dump_json(indent=2))
    else:
        show(answer, Console(highlight=False))


def show(answer: Answer, console: Console) -> None:
    """Prints an answer for a person: verdict and text, passages, then what was searched.

    Args:
        answer: with its trail.
        console: where.
    """
    console.print(_VERDICTS[answer.gate.verdict])
    if answer.verification.status != "not_needed":
        by = f" ({answer.verification.by})" if answer.verification.by else ""
        console.print(f"[dim]{answer.verification.status}{escape(by)}[/dim]")
    if answer.text is not None:
        console.print(
            "", escape(answer.text), f"[dim]written by {answer.written_by}[/dim]", sep="\n"
        )
    console.print()
    for passage in answer.passages:
        place = f"{passage.dataset}/{passage.shard}"
        console.print(
            f"[bold]{passage.rank}. {escape(passage.title or passage.doc_id)}[/bold] "
            f"[dim]{passage.score:.3f}: cosine {passage.cosine:.3f}, "
            f"words {passage.lexical:.3f}[/dim]"
        )
        console.print(
            f"[dim]{escape(passage.doc_id)} characters {passage.char_start}-{passage.char_end}, "
            f"cluster {passage.cluster_id} “{escape(passage.cluster_title)}”, shard {place}, "
            f"chunk {passage.chunk_id}[/dim]"
        )
        if passage.duplicates:
            others = ", ".join(f"{one.dataset}: {one.doc_id}" for one in passage.duplicates)
            console.print(f"[dim]the same text in {escape(others)}[/dim]")
        console.print(escape(_shorten(passage.text)), "")
    trail = answer.trail
    if trail.n_shards_behind:
        console.print(
            f"[yellow]{trail.n_shards_behind} shards are loaded from an earlier clustering: "
            f"acidburn materialize {answer.pool}[/yellow]"
        )
    shown = trail.clusters_searched[:MAX_NAMED]
    searched = ", ".join(f"{cluster.cluster_id} “{cluster.title}”" for cluster in shown)
    n_more = len(trail.clusters_searched) - len(shown)
    more = f" and {n_more} more clusters" if n_more else ""
    looks = f" in {len(trail.rounds)} looks" if len(trail.rounds) > 1 else ""
    console.print(
        f"[dim]searched {trail.n_cells_searched} cells of {escape(searched)}{more}: "
        f"{trail.n_rows_scanned:,} passages{looks}, "
        f"{trail.share_scanned:.1%} of {answer.pool}, in "
        f"{format_seconds(sum(trail.seconds.values()))}, ${trail.usd:.2f}[/dim]"
    )


def _shorten(text: str, max_chars: int = 600) -> str:
    text = text.strip()
    return text if len(text) <= max_chars else text[:max_chars].rsplit(None, 1)[0] + " …"
