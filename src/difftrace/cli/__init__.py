"""The `difftrace` command: a group whose commands are imported when they are run."""

from __future__ import annotations

import sys
from importlib import import_module

import click

from difftrace import __version__
from difftrace.core.errors import DiffTraceError
from difftrace.core.text import printable

_COMMANDS = {
    "accept": "difftrace.cli.accept",
    "bisect": "difftrace.cli.bisect",
    "calibrate": "difftrace.cli.calibrate",
    "doctor": "difftrace.cli.doctor",
    "html": "difftrace.cli.html",
    "layers": "difftrace.cli.layers",
    "merge": "difftrace.cli.merge",
    "prune": "difftrace.cli.prune",
    "scan": "difftrace.cli.scan",
    "validate": "difftrace.cli.validate",
    "verify": "difftrace.cli.verify",
}

# 0 same or valid, 1 diverged or invalid, 2 could not run.
COULD_NOT_RUN = 2


class LazyGroup(click.Group):
    """A group that imports the module of a command only when that command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = import_module(_COMMANDS[cmd_name]).command
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="difftrace")
def group() -> None:
    """Golden trajectories of diffusion language models.

    Recording is done by pytest, `pytest --difftrace-record`; so is verifying, `pytest --difftrace-verify`, which
    `difftrace verify` does without running the tests.

    Exit status: 0 same or valid, 1 diverged or invalid, 2 could not run.
    """


def main() -> None:
    """Run the command line; whatever goes wrong unexpectedly exits with 2 and one line."""
    try:
        group.main(prog_name="difftrace")
    except DiffTraceError as error:
        click.echo(f"difftrace: {printable(str(error))}", err=True)
        sys.exit(COULD_NOT_RUN)
    except Exception as error:
        click.echo(f"difftrace: unexpected {type(error).__name__}: {printable(str(error))}", err=True)
        sys.exit(COULD_NOT_RUN)
