"""`difftrace html`: trajectories to look at in a browser."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from difftrace.cli.baseline_files import baseline_files
from difftrace.core import strict_json
from difftrace.core.atomic import write_atomically
from difftrace.core.errors import DiffTraceError, FormatError
from difftrace.core.file_format import read_file
from difftrace.core.limits import MAX_REPORT_BYTES
from difftrace.core.report import Report
from difftrace.core.report import load as load_report
from difftrace.core.report_files import REPORT, has_module
from difftrace.core.report_json import FORMAT
from difftrace.core.text import printable
from difftrace.reports.explorer import Entry, explorer_page, is_explorer_page
from difftrace.reports.explorer.sources import baseline_entry, report_entries, report_facts, unreadable_entry


@click.command("html")
@click.argument("paths", metavar="PATHS...", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The page to write; an earlier page is replaced, any other file is not.",
)
@click.option("--title", help="What the page is called.")
@click.option(
    "--rootdir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Root folder of the tests; without it where the report says, else the current folder.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a line.")
def command(paths: tuple[Path, ...], output: Path, title: str | None, rootdir: Path | None, as_json: bool) -> None:
    """Write an HTML page of checks and their trajectories. Needs no torch and no model.

    PATHS are report files (`pytest --difftrace-report`), results folders with one, baselines, received runs, or folders
    of baselines. Of a report the page shows every check, with golden and observed run side by side where both files are
    there. It is one file that loads nothing and can be opened from disk, mailed, or kept by a CI job. Past 5 MB it
    leaves the decisions of checks out, of those that did not fail first, and says so.

    \b
    Examples:
      difftrace html .difftrace -o difftrace.html
      difftrace html report.json -o difftrace.html
      difftrace html tests/__difftrace__ -o baselines.html

    Exit status: 0 written, 2 could not be.
    """
    if any(path.is_file() and output.exists() and path.samefile(output) for path in paths):
        raise click.UsageError(f"{output} is one of the files to show; write the page to another")
    _check_replaceable(output)
    reports, files = _sorted_out(paths)
    facts = [fact for _, report in reports for fact in report_facts(report)]
    entries = [*_entries(reports, rootdir), *(_baseline(file, named=file in paths) for file in files)]
    page = explorer_page(title or _title(reports, entries), facts, entries).encode()
    write_atomically(output, page)
    if as_json:
        click.echo(json.dumps({"written": str(output), "checks": len(entries), "bytes": len(page)}, sort_keys=True))
    else:
        count = f"{len(entries)} check{'' if len(entries) == 1 else 's'}"
        click.echo(f"{printable(str(output))}: {count}, {len(page) / 1e6:.1f} MB")


def _check_replaceable(output: Path) -> None:
    """Refuse a file that is neither empty nor a page: it is more likely a slip than meant to be lost."""
    try:
        if not output.is_file() or output.stat().st_size == 0 or is_explorer_page(output):
            return
    except OSError as error:
        raise DiffTraceError(
            f"{printable(str(output))}: cannot be read to see whether it is a page: {error.strerror}"
        ) from error
    raise click.UsageError(
        f"{printable(str(output))} is there and no page of difftrace html: delete it, or write the page to another file"
    )


def _sorted_out(paths: Sequence[Path]) -> tuple[list[tuple[Path, Report]], list[Path]]:
    """Return the reports among `paths`, each with its file, and the baselines."""
    reports: list[tuple[Path, Report]] = []
    files: list[Path] = []
    for path in paths:
        file = path / REPORT if path.is_dir() else path
        if file.is_file() and _is_report(file):
            reports.append((file, load_report(file)))
        elif path.is_file():
            files.append(path)
        else:
            files += baseline_files([path], "show")
    return reports, files


def _is_report(file: Path) -> bool:
    try:
        document = strict_json.loads(read_file(file, MAX_REPORT_BYTES)[0])
    except FormatError:
        # Whoever reads it as a baseline says what is wrong with it.
        return False
    return isinstance(document, dict) and document.get("format") == FORMAT


def _entries(reports: Sequence[tuple[Path, Report]], rootdir: Path | None) -> Iterator[Entry]:
    for file, report in reports:
        results = None if report.results is None else file.parent / report.results
        yield from report_entries(report, rootdir or _rootdir(file, report), results)


def _rootdir(file: Path, report: Report) -> Path | None:
    """Return the root folder that the report names, unless its tests are not there but in the current folder."""
    named = None if report.rootdir is None else file.parent / report.rootdir
    modules = {check.module for check in report.checks}
    folders = [folder for folder in (named, Path()) if folder is not None]
    return next((folder for folder in folders if all(has_module(folder, one) for one in modules)), named)


def _baseline(file: Path, *, named: bool) -> Entry:
    """Return what to show of a baseline; one that was found in a folder may be unreadable, a named one may not."""
    try:
        return baseline_entry(file)
    except FormatError as error:
        if named:
            raise DiffTraceError(str(error)) from error
        return unreadable_entry(file, error)


def _title(reports: Sequence[tuple[Path, Report]], entries: Sequence[Entry]) -> str:
    if reports:
        return "DiffTrace report"
    return "DiffTrace baseline" if len(entries) == 1 else "DiffTrace baselines"
