"""`acidburn bucket`: what a bucket needs before it is worked in, and a key for a rented machine."""

import json
from typing import TYPE_CHECKING

import click

from acidburn_assets import settings
from acidburn_assets.runtime import backends

if TYPE_CHECKING:
    # boto3 takes a third of a second, which who works on a disk need not wait for
    from acidburn_assets.adapters.object_store.lifecycle import BucketReport


@click.group()
def command() -> None:
    """Look after the bucket that the store is in."""


@command.command()
@click.option(
    "--keep-versions-days",
    type=click.IntRange(min=1),
    default=7,
    show_default=True,
    help="How long a replaced or hidden version can be brought back.",
)
@click.option("--dry-run", "is_dry_run", is_flag=True, help="Only show what would be set.")
@click.option("--json", "is_json", is_flag=True, help="Print the outcome as JSON.")
def init(keep_versions_days: int, is_dry_run: bool, is_json: bool) -> None:
    """Make the bucket if there is none, and set its lifecycle rules.

    Rules that others set are kept, and a second run changes nothing. Exit code 1 where the
    service or the key refuses; then the line for B2's own tool is shown.
    """
    configured = settings.load()
    if configured.store_url.startswith("file:"):
        remark = "a folder has no versions and no unfinished uploads: there is nothing to set"
        folder = {"url": configured.store_url, "remark": remark}
        click.echo(json.dumps(folder) if is_json else f"{configured.store_url}: {remark}")
        return
    from acidburn_assets.adapters.object_store import lifecycle

    report = lifecycle.prepare_bucket(
        backends.open_store(configured, patience_seconds=backends.TERMINAL_PATIENCE_SECONDS),
        keep_versions_days=keep_versions_days,
        is_dry_run=is_dry_run,
    )
    box_key = lifecycle.box_key_command(report.bucket, report.prefix)
    if is_json:
        outcome = {"url": configured.store_url, **report._asdict(), "box_key_command": box_key}
        click.echo(json.dumps(outcome))
    else:
        click.echo(in_words(report, is_dry_run))
        click.echo("")
        click.echo(
            about_box_key(report.prefix, box_key, lifecycle.BOX_KEY_SECONDS, keep_versions_days)
        )
    if report.refusals:
        raise click.ClickException(f"the bucket {report.bucket!r} is not as it should be")


def in_words(report: "BucketReport", is_dry_run: bool) -> str:
    """What was done, or would be."""
    would = "would be " if is_dry_run else ""
    made = f"{would}made" if report.is_created else "is there"
    changed = f"{would}set" if report.is_changed else "nothing to change"
    lines = [f"bucket {report.bucket}: {made}", f"lifecycle rules: {changed}"]
    lines += [f"  {rule}" for rule in report.rules]
    for refusal in report.refusals:
        lines += ["", refusal]
    if report.refusals:
        lines += [
            "",
            "With B2's own tool and a key that may (it replaces all rules of the bucket):",
        ]
        lines += [f"  {report.b2_command}"]
    return "\n".join(lines)


def about_box_key(prefix: str, line: str, key_seconds: int, keep_versions_days: int) -> str:
    """How a rented machine gets a key, and what such a key cannot do."""
    where = (
        f"below {prefix!r}" if prefix else "in the whole bucket (a store with a prefix has less)"
    )
    return (
        f"A key for a rented machine, good for {key_seconds // 3600} hours:\n"
        f"  {line}\n"
        f"It can read, write and hide objects {where}.\n"
        "It cannot delete a version, look elsewhere, change the bucket or its rules, make keys:\n"
        f"what it replaces or hides can be brought back for {keep_versions_days} days."
    )
