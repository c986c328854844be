"""`acidburn db migrate`, `acidburn db doctor`: the tables in Postgres and what surrounds them."""

import json

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from acidburn_assets import settings
from acidburn_assets.adapters import postgres as database
from acidburn_assets.adapters.postgres import Finding
from acidburn_assets.core.cost import POSTGRES_PLANS
from acidburn_assets.runtime import backends

_MARKS = {
    "ok": "[green]ok[/green]",
    "note": "[dim]note[/dim]",
    "warning": "[yellow]warning[/yellow]",
    "unusable": "[red]unusable[/red]",
}


@click.group(name="db")
def command() -> None:
    """Bring the tables in Postgres up to date, or examine the database."""


@command.command("migrate")
@click.option("--dry-run", is_flag=True, help="Only say which files would be applied.")
def migrate(dry_run: bool) -> None:
    """Apply the SQL files that the database lacks, all or none of them.

    They are in the form that `supabase db push` takes, too. Work that loads does this by itself,
    where its role may.
    """
    postgres = backends.connect_postgres(settings.load())
    files = database.migrate(postgres, dry_run=dry_run)
    for file in files:
        click.echo(f"{'would apply' if dry_run else 'applied'} {file}")
    if not files:
        click.echo(f"{postgres.where} is up to date")


@command.command("doctor")
@click.option(
    "--plan",
    "plan_name",
    type=click.Choice([plan.name for plan in POSTGRES_PLANS], case_sensitive=False),
    help="Supabase's compute size that you pay for.",
)
@click.option("--json", "is_json", is_flag=True, help="Print the findings as JSON lines.")
def doctor(plan_name: str | None, is_json: bool) -> None:
    """Examine the database: version, roles, exposure, way, TLS, size, timeouts and layout.

    Exit code 1 where it cannot be used, or is open to those whom it must be closed to.
    """
    plan = next((plan for plan in POSTGRES_PLANS if plan.name == plan_name), None)
    findings = database.examine(backends.connect_postgres(settings.load()), plan=plan)
    if is_json:
        for finding in findings:
            click.echo(json.dumps(finding._asdict()))
    else:
        _show(findings, Console(highlight=False))
    unusable = sorted({finding.name for finding in findings if finding.level == "unusable"})
    if unusable:
        raise click.ClickException(f"unusable: {', '.join(unusable)}")


def _show(findings: list[Finding], console: Console) -> None:
    """Prints findings for a person."""
    table = Table("", "about", "finding")
    for finding in findings:
        mend = f"\n→ {finding.mend}" if finding.mend else ""
        table.add_row(_MARKS[finding.level], finding.name, escape(finding.what + mend))
    console.print(table)
