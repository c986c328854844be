"""The console script `acidburn`, one module per subcommand, imported when it is asked for.

An expected error is one line on stderr and exit code 1 (2 for wrong usage); `--debug` shows the
traceback. Results go to stdout, progress and errors to stderr, so that `--json` can be piped.
"""

import importlib
import logging
import os
import sys

import click

from acidburn_assets import __version__
from acidburn_assets.core.errors import AcidburnError

SUBCOMMANDS = (
    *("doctor", "bucket", "plan", "materialize", "ask", "audit", "release", "export", "unload"),
    *("db", "serve", "ui", "demo"),
)


class _Commands(click.Group):
    """Finds a subcommand in the module of its name."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in SUBCOMMANDS:
            return None
        module = importlib.import_module(f"{__name__}.{cmd_name}")
        command: click.Command = module.command
        return command


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="acidburn")
@click.option("--debug", is_flag=True, help="Show the traceback of an error, and more of the log.")
def cli(debug: bool) -> None:
    """A public text corpus made into clusters that one person owns and can query."""
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.WARNING, stream=sys.stderr, format="%(message)s"
    )
    logging.getLogger("alembic").setLevel(logging.WARNING)  # sixty lines for each new home


def main() -> None:
    """Runs the command line; ends the process."""
    # a pool of tokenizer threads survives no fork, and the library warns about it at length
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    is_debug = "--debug" in sys.argv
    try:
        # wherever it stands: who sees an error adds it at the end of the line
        cli(
            ["--debug", *arguments] if is_debug else arguments,
            prog_name="acidburn",
            standalone_mode=False,
        )
    except click.exceptions.Exit as ended:
        sys.exit(ended.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted: what was finished is kept, run the same command again", err=True)
        sys.exit(130)
    except AcidburnError as error:
        if is_debug:
            raise
        click.echo(f"acidburn: {error}", err=True)
        sys.exit(1)
    except Exception as error:
        if is_debug:
            raise
        click.echo(
            f"acidburn: unexpected {type(error).__name__}: {error} "
            "(acidburn --debug … shows where; please report it)",
            err=True,
        )
        sys.exit(1)
