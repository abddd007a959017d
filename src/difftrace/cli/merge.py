"""`difftrace merge`: the reports of shards as one."""

from __future__ import annotations

import json
from pathlib import Path

import click

from difftrace.core.report_files import open_report
from difftrace.core.report_merge import merge, write_merged
from difftrace.core.text import printable


@click.command("merge")
@click.argument("reports", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The merged report."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of lines.")
def command(reports: tuple[Path, ...], output: Path, as_json: bool) -> None:
    """Join REPORTS, report files or results folders of shards of one suite, into one report.

    The runs that failed checks received are copied to a folder `received` beside it, so that its folder can be given to
    `difftrace accept`. Checks that several reports have are named; one that failed counts. A test that one shard left
    out is covered if another ran it.

    \b
    Examples:
      difftrace merge shard-1 shard-2 shard-3 -o merged/report.json
      difftrace accept merged

    Exit status: 0 merged, 1 merged but received runs are missing or damaged, 2 could not run.
    """
    files = [open_report(path) for path in reports]
    if any(one.path.resolve() == output.resolve() for one in files):
        raise click.UsageError(f"{output} is one of the reports to merge; write the merged one to another file")
    merged = merge(files, output.parent)
    write_merged(merged, output)
    report = merged.report
    if as_json:
        document = {
            "checks": len(report.checks),
            "complete": report.complete,
            "full": report.full,
            "duplicates": list(merged.duplicates),
            "lost": list(merged.lost),
        }
        click.echo(json.dumps(document, sort_keys=True))
    else:
        for title in merged.duplicates:
            click.echo(f"in several reports: {title}")
        for problem in merged.lost:
            click.echo(f"received run lost: {problem}")
        counts = (_counted(len(reports), "report"), _counted(len(report.checks), "check"))
        click.echo(f"{counts[0]} merged: {counts[1]}, {printable(report.extent)}")
    raise SystemExit(1 if merged.lost else 0)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
