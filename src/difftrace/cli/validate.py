"""`difftrace validate`: are these baselines what they claim to be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import click

from difftrace.cli.baseline_files import baseline_files
from difftrace.core.baseline import problems_of

_FORMAT: Final = {"format": "difftrace-validation", "version": "0.1"}


@click.command("validate")
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of lines.")
def command(paths: tuple[Path, ...], as_json: bool) -> None:
    """Check baselines; every problem is listed. Needs no torch and no model.

    PATHS are baseline files, or folders, in which every file below a `__difftrace__` folder is checked: its format,
    its schema, ranges and digests, and whether all of it can be decoded.

    \b
    Examples:
      difftrace validate tests/
      difftrace validate tests/__difftrace__/test_sum/test_sum.json
      difftrace validate --json tests/ | jq .problems

    Exit status: 0 all valid, 1 one is not, 2 could not run.
    """
    files = baseline_files(paths, "validate")
    problems: dict[str, list[str]] = {}
    for file in files:
        if found := problems_of(file):
            problems[str(file)] = found
            if not as_json:
                click.echo("\n".join(found))
    if as_json:
        click.echo(json.dumps({**_FORMAT, "checked": len(files), "problems": problems}, sort_keys=True))
    else:
        click.echo(f"{len(files)} checked, {len(problems)} invalid")
    raise SystemExit(1 if problems else 0)
