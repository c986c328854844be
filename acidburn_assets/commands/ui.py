"""`acidburn ui`: the Dagster UI over the project's own home."""

import os
import signal
import sys

import click

from acidburn_assets import settings
from acidburn_assets.commands.instance import open_instance
from acidburn_assets.settings import PROJECT_ROOT


@click.command()
@click.option("--port", default=3000, show_default=True, type=click.IntRange(1, 65535))
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="The UI has no password: beyond this machine put one in front of it.",
)
def command(port: int, host: str) -> None:
    """Start the Dagster UI and its daemon; Ctrl-C stops both."""
    configured = settings.load()
    with open_instance(configured):
        pass  # makes the home and its tables once, before several processes open it
    arguments = ["dev", "--workspace", str(PROJECT_ROOT / "workspace.yaml")]
    arguments += ["--host", host, "--port", str(port)]
    # the state folder and the registry may be relative to here, and dagster's children are
    # started elsewhere
    os.environ["ACIDBURN_HOME"] = str(configured.home)
    os.environ["ACIDBURN_DATASETS"] = str(configured.acidburn_datasets.resolve())
    click.echo(f"http://{host}:{port}", err=True)
    # started in the background, a shell has INT ignored, which would be handed on past the exec
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    command_line = [sys.executable, "-m", "dagster", *arguments]
    # replaces this process: Ctrl-C then reaches Dagster, which stops its children
    os.execv(sys.executable, command_line)  # noqa: S606 - no shell is wanted
