"""The `difftrace` command: a group whose commands are imported when they are run."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from importlib import import_module
from io import TextIOWrapper
from typing import Any

import click

from difftrace import __version__
from difftrace.core.errors import DiffTraceError
from difftrace.core.text import printable

_COMMANDS = {
    "accept": "difftrace.cli.accept",
    "bisect": "difftrace.cli.bisect",
    "calibrate": "difftrace.cli.calibrate",
    "diff": "difftrace.cli.diff",
    "doctor": "difftrace.cli.doctor",
    "html": "difftrace.cli.html",
    "info": "difftrace.cli.info",
    "layers": "difftrace.cli.layers",
    "merge": "difftrace.cli.merge",
    "prune": "difftrace.cli.prune",
    "record": "difftrace.cli.record",
    "replay": "difftrace.cli.replay",
    "scan": "difftrace.cli.scan",
    "show": "difftrace.cli.show",
    "upgrade": "difftrace.cli.upgrade",
    "validate": "difftrace.cli.validate",
    "verify": "difftrace.cli.verify",
}

# 0 same or valid, 1 diverged or invalid, 2 could not run.
COULD_NOT_RUN = 2


class ReaderGoneError(Exception):
    """Whatever read the output has closed it."""


@contextlib.contextmanager
def _reader_may_go() -> Iterator[None]:
    # click ends a program whose pipe is closed with 1, which here means that something differs.
    try:
        yield
    except BrokenPipeError as error:
        raise ReaderGoneError from error


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

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Read the command line; help and version are printed here."""
        with _reader_may_go():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with _reader_may_go():
            return super().invoke(ctx)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="difftrace")
def group() -> None:
    """Golden trajectories of diffusion language models.

    Recording is done by pytest, `pytest --difftrace-record`, and so is verifying, `pytest --difftrace-verify`;
    `difftrace record` and `difftrace verify` do both without tests.

    \b
    Completion, in ~/.bashrc, ~/.zshrc or config.fish:
      eval "$(_DIFFTRACE_COMPLETE=bash_source difftrace)"
      eval "$(_DIFFTRACE_COMPLETE=zsh_source difftrace)"
      _DIFFTRACE_COMPLETE=fish_source difftrace | source

    \b
    Examples:
      difftrace show tests/__difftrace__/test_sum/test_sum.json
      difftrace validate tests/
      difftrace verify tests/
      difftrace doctor

    Exit status: 0 same or valid, 1 diverged or invalid, 2 could not run.
    """


def _show(error: click.ClickException) -> None:
    """Print a usage error; its message may hold what was typed, or be the help of a command."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    lines = [printable(line) for line in error.format_message().splitlines()]
    if context is not None and error.message != context.get_help():
        lines = [context.get_usage(), f"Try '{context.command_path} --help' for help.", "", *lines]
        lines[3] = f"Error: {lines[3]}"
    click.echo("\n".join(lines), err=True)


def _drop_output() -> None:
    # What is still buffered must not fail once more at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> None:
    """Run the command line; whatever goes wrong unexpectedly exits with 2 and one line."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal or pipe that cannot show a character shows its escape instead of nothing at all.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        status = group.main(prog_name="difftrace", standalone_mode=False)
        with _reader_may_go():
            sys.stdout.flush()
    except click.ClickException as error:
        _show(error)
    except click.Abort:
        click.echo("difftrace: interrupted", err=True)
    except ReaderGoneError:
        # It has seen enough, so nothing is said.
        _drop_output()
    except DiffTraceError as error:
        click.echo(f"difftrace: {printable(str(error))}", err=True)
    except OSError as error:
        click.echo(f"difftrace: could not read or write: {printable(str(error))}", err=True)
        try:
            sys.stdout.flush()
        except OSError:
            _drop_output()
    except Exception as error:
        click.echo(f"difftrace: unexpected {type(error).__name__}: {printable(str(error))}", err=True)
    else:
        # Help and version end with a status of their own, a command that returns has done what it was to do.
        sys.exit(status if isinstance(status, int) else 0)
    sys.exit(COULD_NOT_RUN)
