"""`difftrace info`: what a bug report needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import click

from difftrace.core.ini_settings import ini_settings
from difftrace.core.installation import installation
from difftrace.core.redaction import redacted
from difftrace.core.text import printable
from difftrace.reports.installation import installation_lines

_FORMAT: Final = {"format": "difftrace-info", "version": "0.1"}


@click.command("info")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of lines.")
def command(as_json: bool) -> None:
    """Print what a bug report needs: versions, platform, threads, plugins, how torch was built, and settings.

    No device is started. There are neither paths nor names of users or hosts in it; variables and settings whose value
    may be one are only said to be set. --json also has the compiler flags that torch was built with.

    \b
    Examples:
      difftrace info
      difftrace info --json > info.json

    Exit status: 0 printed, 2 could not run.
    """
    settings = {"settings": ini_settings(Path.cwd())}
    document: dict[str, Any] = redacted({**_FORMAT, **installation(), **settings, "torch": _torch()})
    if as_json:
        click.echo(json.dumps(document, sort_keys=True, allow_nan=False))
    else:
        click.echo("\n".join(installation_lines(document)))


def _torch() -> dict[str, Any] | None:
    """Return how torch was built; None where it is not installed, why where it cannot be imported."""
    try:
        from difftrace.determinism.torch_build import torch_build
    except ModuleNotFoundError as error:
        return None if error.name == "torch" else {"error": printable(str(error))}
    # A torch whose libraries are missing fails in ways of its own; that is what such a report is for.
    except Exception as error:
        return {"error": printable(f"{type(error).__name__}: {error}")}
    return torch_build()
