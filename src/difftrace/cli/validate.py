"""`difftrace validate`: are these baselines what they claim to be."""

from __future__ import annotations

import json
from pathlib import Path

import click

from difftrace.cli.baseline_files import baseline_files
from difftrace.core.baseline import load
from difftrace.core.errors import FormatError
from difftrace.core.file_format import naming
from difftrace.core.probe_steps import check_probes
from difftrace.core.side_logits import open_beside
from difftrace.core.text import printable


@click.command("validate")
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of lines.")
def command(paths: tuple[Path, ...], as_json: bool) -> None:
    """Check baselines; every problem is listed. Needs no torch and no model.

    PATHS are baseline files, or folders, in which every file below a `__difftrace__` folder is checked. A file of
    logits that a baseline refers to is read as a whole; where it is not there, nothing is amiss.

    \b
    Examples:
      difftrace validate tests/
      difftrace validate tests/__difftrace__/test_sum/test_sum.json
    """
    files = baseline_files(paths, "validate")
    problems = {str(file): problem for file in files if (problem := _problem(file)) is not None}
    if as_json:
        click.echo(json.dumps({"checked": len(files), "problems": problems}, sort_keys=True))
    else:
        for problem in problems.values():
            click.echo(printable(problem))
        click.echo(f"{len(files)} checked, {len(problems)} invalid")
    raise SystemExit(1 if problems else 0)


def _problem(file: Path) -> str | None:
    try:
        baseline = load(file)
        with naming(printable(str(file))):
            check_probes(baseline)
        logits = None if baseline.logits is None else open_beside(file, baseline.logits)
        if logits is not None:
            logits.check()
    except FormatError as error:
        return str(error)
    return None
