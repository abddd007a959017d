"""`difftrace prune`: baselines that no test uses any more."""

from __future__ import annotations

import json
from pathlib import Path

import click

from difftrace.core.orphans import find_orphans, remove
from difftrace.core.report_files import find_rootdir, open_report
from difftrace.core.text import printable


@click.command("prune")
@click.argument("report", type=click.Path(exists=True, path_type=Path))
@click.option("--delete", is_flag=True, help="Delete what is listed.")
@click.option(
    "--rootdir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Root folder of the tests; without it where the report says, else the current folder.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of lines.")
def command(report: Path, delete: bool, rootdir: Path | None, as_json: bool) -> None:
    """List baselines that no check of the run in REPORT used; --delete deletes them.

    REPORT is a report file of pytest, or a results folder. Its run has to have selected every test of the files and
    folders that it was started on, and come to its end; others are refused. Only the baselines of those files and
    folders are looked at. Baselines stay whose test was skipped or failed before its check, whose module was not
    collected, that were written after the report, or that cannot be read. What interrupted writes left behind goes as
    well.

    \b
    Examples:
      pytest --difftrace-verify --difftrace-report=report.json
      difftrace prune report.json
      difftrace prune report.json --delete

    Exit status: 0 nothing is unused, or it was deleted; 1 something is; 2 the run cannot tell, or could not run.
    """
    files = open_report(report)
    root = find_rootdir(files, rootdir, (test.module for test in files.report.tests))
    found = find_orphans(files, root)
    if delete:
        remove(found, root)
    unused = len(found.orphans) + len(found.temporary)
    if as_json:
        document = {
            "deleted": delete,
            "orphans": {one.path: one.reason for one in found.orphans},
            "kept": {one.path: one.reason for one in found.kept},
            "temporary": list(found.temporary),
            "used": found.used,
        }
        click.echo(json.dumps(document, sort_keys=True))
    else:
        verb = "deleted" if delete else "unused"
        for one in found.orphans:
            click.echo(printable(f"{verb}  {one.path}: {one.reason}"))
        for path in found.temporary:
            click.echo(printable(f"{verb}  {path}: left behind by an interrupted write"))
        for one in found.kept:
            click.echo(printable(f"kept    {one.path}: {one.reason}"))
        click.echo(f"{found.used} in use, {unused} {verb}, {len(found.kept)} kept")
    raise SystemExit(1 if unused and not delete else 0)
