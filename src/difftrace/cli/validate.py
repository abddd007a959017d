"""`difftrace validate`: are these baselines what they claim to be."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import click

from difftrace.cli.baseline_files import baseline_files
from difftrace.core.baseline import load, problems_of
from difftrace.core.errors import FormatError
from difftrace.core.file_format import naming
from difftrace.core.logits_reference import LogitsReference
from difftrace.core.probe_steps import golden_at
from difftrace.core.recording import Baseline, ProbeStep
from difftrace.core.side_logits import open_beside
from difftrace.core.text import printable

_FORMAT: Final = {"format": "difftrace-validation", "version": "0.1"}


@click.command("validate")
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of lines.")
def command(paths: tuple[Path, ...], as_json: bool) -> None:
    """Check baselines; every problem is listed. Needs no torch and no model.

    PATHS are baseline files, or folders, in which every file below a `__difftrace__` folder is checked, and what
    `difftrace record` has written there: its format,
    its schema, ranges and digests, and whether all of it can be decoded. A file of logits that a baseline refers to
    is read as a whole; where it is not there, nothing is amiss.

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
        if found := _problems(file):
            problems[str(file)] = found
            if not as_json:
                click.echo("\n".join(found))
    if as_json:
        click.echo(json.dumps({**_FORMAT, "checked": len(files), "problems": problems}, sort_keys=True))
    else:
        click.echo(f"{len(files)} checked, {len(problems)} invalid")
    raise SystemExit(1 if problems else 0)


def _problems(file: Path) -> list[str]:
    """Return what is wrong with a baseline and with what reading it leaves alone: the content of probes and logits."""
    try:
        baseline = load(file)
    except FormatError:
        return problems_of(file)
    checks: list[Callable[[], object]] = [partial(_check_probe, file, baseline, probe) for probe in baseline.probes]
    if baseline.logits is not None:
        checks.append(partial(_check_logits, file, baseline.logits))
    return [problem for check in checks if (problem := _problem(check)) is not None]


def _check_probe(file: Path, baseline: Baseline, probe: ProbeStep) -> None:
    with naming(printable(str(file))):
        golden_at(baseline, probe)


def _check_logits(file: Path, reference: LogitsReference) -> None:
    logits = open_beside(file, reference)
    if logits is not None:
        logits.check()


def _problem(check: Callable[[], object]) -> str | None:
    try:
        check()
    except FormatError as error:
        return str(error)
    return None
