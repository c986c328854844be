"""`acidburn doctor`: is every configured back end usable, and if not, why and how to mend it."""

import json
import shutil
from collections.abc import Callable
from typing import NamedTuple

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from acidburn_assets import settings
from acidburn_assets.adapters import object_store
from acidburn_assets.adapters import postgres as database
from acidburn_assets.commands.presentation import format_bytes, format_seconds
from acidburn_assets.core.errors import AcidburnError, PermanentError
from acidburn_assets.runtime import backends
from acidburn_assets.settings import Settings

LOW_DISK_BYTES = 5 * 10**9
"""Less than this free is worth a word: the demo takes 0.4 GB, its packages 3 GB. Chosen."""


class Finding(NamedTuple):
    """What one check found."""

    name: str
    is_usable: bool
    remark: str


@click.command()
@click.option("--json", "is_json", is_flag=True, help="Print the findings as JSON lines.")
def command(is_json: bool) -> None:
    """Check each configured back end; exit code 1 if any is unusable."""
    configured = settings.load()
    findings = examine(configured)
    if is_json:
        for finding in findings:
            click.echo(json.dumps(finding._asdict()))
    else:
        show(findings, Console(highlight=False))
    unusable = [finding.name for finding in findings if not finding.is_usable]
    if unusable:
        raise click.ClickException(f"unusable: {', '.join(unusable)}")


def examine(configured: Settings) -> list[Finding]:
    """Tries everything that the settings name; each check stands by itself.

    Args:
        configured: what to try.
    """
    checks: dict[str, Callable[[Settings], str]] = {
        "registry": _registry,
        "state folder": _state_folder,
        "object store": _store,
        "Postgres": _postgres,
        "model": _model,
        "device": _device,
        "labels": _labels,
        "answers": _answers,
    }
    return [_try(name, check, configured) for name, check in checks.items()]


def _try(name: str, check: Callable[[Settings], str], configured: Settings) -> Finding:
    try:
        return Finding(name, True, check(configured))
    except AcidburnError as error:
        advice = "" if isinstance(error, PermanentError) else " (it may pass: try again)"
        return Finding(name, False, f"{error}{advice}")
    except OSError as error:
        return Finding(name, False, f"{error}; check the path and its permissions")
    except Exception as error:  # noqa: BLE001 - the other checks still say what they find
        return Finding(name, False, f"unexpected {type(error).__name__}: {error}")


def _registry(configured: Settings) -> str:
    registry = configured.registry
    pools = ", ".join(
        f"{pool.name} ({pool.tier}: {', '.join(pool.datasets)})" for pool in registry.pools.values()
    )
    return f"{len(registry.datasets)} datasets; pools {pools or 'none'}"


def _state_folder(configured: Settings) -> str:
    configured.home.mkdir(parents=True, exist_ok=True)
    probe = configured.home / ".probe"
    probe.write_bytes(b"")
    probe.unlink()
    free = shutil.disk_usage(configured.home).free
    warning = "; that is little" if free < LOW_DISK_BYTES else ""
    return f"{configured.home}, {format_bytes(free)} free{warning}"


def _store(configured: Settings) -> str:
    found = object_store.probe(backends.open_store(configured, patience_seconds=20))
    return (
        f"{found.url}: write {format_seconds(found.write_seconds)}, "
        f"read {format_seconds(found.read_seconds)}" + (f"; {found.remark}" if found.remark else "")
    )


def _postgres(configured: Settings) -> str:
    found = database.inspect(backends.connect_postgres(configured))
    pending = f"; will apply {', '.join(found.pending)}" if found.pending else ""
    return (
        f"{configured.postgres_target}: Postgres {found.version}, pgvector "
        f"{found.pgvector_version or 'not created yet, but available'}, answers in "
        f"{format_seconds(found.seconds)}{pending}"
    )


def _model(configured: Settings) -> str:
    card = backends.describe_model(configured)
    revision = f" at {card.revision[:12]}" if card.revision else ""
    return (
        f"{card.name}{revision}, {card.dim}-d, {card.pooling} pooling, reads {card.max_tokens} "
        f"tokens, fingerprint {card.fingerprint}"
    )


def _device(configured: Settings) -> str:
    return backends.describe_device(configured)


def _labels(configured: Settings) -> str:
    if not configured.xai_api_key.get_secret_value():
        return "keyless (no XAI_API_KEY): keywords and quoted sentences, free"
    labeler = backends.make_labeler(configured, backends.open_store(configured), "doctor")
    if labeler is not None:
        labeler.check_model()
    return (
        f"{configured.acidburn_label_model} at {configured.acidburn_label_base_url}, at most "
        f"${configured.acidburn_label_budget_usd:.2f} a run"
    )


def _answers(configured: Settings) -> str:
    if not configured.xai_api_key.get_secret_value():
        return "keyless (no XAI_API_KEY): passages and how sure they are, free"
    advisor = backends.open_advisor(configured)
    if advisor is None:
        return "keyless (ACIDBURN_ASK_BUDGET_USD is 0): passages and how sure they are, free"
    advisor.check_model()
    spent_usd = backends.open_spending(configured).spent_usd()
    return (
        f"{advisor.model} at {configured.acidburn_label_base_url}, at most "
        f"${configured.acidburn_ask_usd_per_question:.2f} a question and "
        f"${configured.acidburn_ask_budget_usd:.2f} a day, of which ${spent_usd:.4f} are spent"
    )


def show(findings: list[Finding], console: Console) -> None:
    """Prints findings for a person."""
    table = Table("", "back end", "finding", show_lines=False)
    for finding in findings:
        mark = "[green]ok[/green]" if finding.is_usable else "[red]no[/red]"
        table.add_row(mark, finding.name, escape(finding.remark))
    console.print(table)
