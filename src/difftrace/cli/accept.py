"""`difftrace accept`: runs of failed checks become the baselines of their tests."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from difftrace.core.acceptance import Plan, plan, promote
from difftrace.core.checked import Checked
from difftrace.core.classes import CANNOT_TELL
from difftrace.core.errors import ReportError
from difftrace.core.policies import divergence_classes
from difftrace.core.report import Report
from difftrace.core.report_files import find_rootdir, open_report
from difftrace.core.text import printable
from difftrace.reports.acceptance import acceptance_lines


def _classes(_context: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> frozenset[str]:
    names = {name for value in given for name in value.split(",")}
    untold = {name for name in names if name.strip().upper().replace("-", " ").replace("_", " ") == CANNOT_TELL}
    try:
        return divergence_classes(names - untold) | ({CANNOT_TELL} if untold else set())
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command("accept")
@click.argument("results", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--only",
    multiple=True,
    metavar="TESTID",
    help="Only this test, or the tests of this function, class, file or folder; repeatable.",
)
@click.option(
    "--class",
    "classes",
    multiple=True,
    callback=_classes,
    metavar="CLASS",
    help="Only divergences of these classes, such as NEAR_TIE, or cannot-tell for those without; repeatable, or"
    " separated by commas.",
)
@click.option("--new", is_flag=True, help="Also runs of checks that have no baseline yet; see above.")
@click.option(
    "--rootdir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Root folder of the tests; without it where the report says, else the current folder.",
)
@click.option("--dry-run", is_flag=True, help="Check and show everything, and write nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object instead of lines; to write, give --yes too."
)
def command(
    results: Path,
    only: tuple[str, ...],
    classes: frozenset[str],
    new: bool,
    rootdir: Path | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Promote the runs in RESULTS, a results folder of pytest or a report file, to baselines.

    Every file is checked before any is written: it has to be the one that the run wrote, belong to a test that was
    collected, and the baseline has to be the one still that it was compared with. If one fails, none is written. Where
    a file goes follows from its test, never from the received file. What changes is shown by class and by what changed
    in the environment. What was accepted before is left, so that a report can be accepted in parts.

    A run without baseline was held against nothing: `pytest --difftrace-record` would run its test twice and refuse
    what does not reproduce. Such runs are promoted with --new alone.

    \b
    Examples:
      difftrace accept .difftrace
      difftrace accept .difftrace --only "tests/test_sum.py::test_sum[long]"
      difftrace accept results-from-ci --class NEAR_TIE --yes
      difftrace accept results-from-gpu --new

    Exit status: 0 accepted, or nothing to accept; 1 a file was refused, so that nothing was written; 2 could not run.
    """
    if as_json and not (yes or dry_run):
        raise click.UsageError("with --json nobody is asked: give --yes to write, or --dry-run")
    files = open_report(results)
    if files.results is None:
        raise ReportError(
            f"{printable(str(results))}: does not say where its results folder is; give the folder itself"
        )
    _check_known(files.report, only)

    def wanted(check: Checked) -> bool:
        named = not only or any(_names(one, check) for one in only)
        title = CANNOT_TELL if check.status == "diverged" and check.divergence_class is None else check.divergence_class
        return named and (not classes or title in classes)

    modules = [check.module for check in files.report.checks if check.received is not None and wanted(check)]
    root = find_rootdir(files, rootdir, modules)
    found = plan(files.report, files.results, root, wanted, new=new)
    if not as_json:
        click.echo("\n".join(acceptance_lines(found)))
    write = bool(found.proposals) and not found.refusals and not dry_run
    if write and not yes:
        write = _confirmed(len(found.proposals))
    if write:
        promote(found.proposals)
    if as_json:
        click.echo(json.dumps(_document(found, root, write), sort_keys=True))
    elif write:
        count = len(found.proposals)
        click.echo(f"{count} baseline{'' if count == 1 else 's'} written")
    elif found.proposals:
        click.echo("nothing written")
    raise SystemExit(1 if found.refusals else 0)


def _check_known(report: Report, only: tuple[str, ...]) -> None:
    for one in only:
        if not any(_names(one, check) for check in report.checks):
            raise ReportError(f"--only {printable(one)}: the report has no check of it")


def _names(given: str, check: Checked) -> bool:
    """Return whether `given` names the test of `check`, or what it belongs to, as it would on pytest's command line."""
    return check.nodeid == given or check.nodeid.startswith((f"{given}::", f"{given}[", f"{given.rstrip('/')}/"))


def _confirmed(count: int) -> bool:
    if not sys.stdin.isatty():
        raise ReportError("nothing written: nobody can be asked here, so give --yes or --dry-run")
    return click.confirm(f"Write {'this baseline' if count == 1 else f'these {count} baselines'}?")


def _document(found: Plan, rootdir: Path, written: bool) -> dict[str, Any]:
    return {
        "written": written,
        "accepted": [
            {**_named(one.check), "target": one.target.relative_to(rootdir).as_posix()} for one in found.proposals
        ],
        "refused": [{**_named(one.check), "reason": one.reason} for one in found.refusals],
        "left": [{**_named(one.check), "reason": one.reason} for one in found.left],
    }


def _named(check: Checked) -> dict[str, Any]:
    return {"nodeid": check.nodeid, "name": check.name, "class": check.divergence_class}
