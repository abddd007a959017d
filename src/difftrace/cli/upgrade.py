"""`difftrace upgrade`: baselines of older versions rewritten as the current one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import click

from difftrace.cli.baseline_files import baseline_files
from difftrace.core.atomic import write_atomically
from difftrace.core.baseline_json import VERSION
from difftrace.core.errors import FormatError
from difftrace.core.file_format import read_file
from difftrace.core.limits import MAX_BASELINE_BYTES
from difftrace.core.text import printable
from difftrace.core.upgrade import upgraded

_FORMAT: Final = {"format": "difftrace-upgrade", "version": "0.1"}
_CURRENT: Final = ".".join(map(str, VERSION))


@click.command("upgrade")
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 if a baseline is of an older version.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of lines.")
def command(paths: tuple[Path, ...], check: bool, as_json: bool) -> None:
    """Rewrite baselines of older format versions as the current one. Needs no torch and no model.

    PATHS are baseline files, or folders, in which every file below a `__difftrace__` folder is meant, and what
    `difftrace record` has written there. Decisions, evidence and every other field stay as they are; a file of the
    current version stays the same byte by byte. Each file is replaced as a whole or not at all.

    \b
    Examples:
      difftrace upgrade tests/
      difftrace upgrade --check tests/

    Exit status: 0 all are of the current version (now), 1 one is invalid or, with --check, older, 2 could not run.
    """
    files = baseline_files(paths, "upgrade")
    older: list[str] = []
    problems: dict[str, str] = {}
    for file in files:
        try:
            data, source = read_file(file, MAX_BASELINE_BYTES)
            new = upgraded(data, source)
        except FormatError as error:
            problems[str(file)] = str(error)
            _say(str(error), as_json)
            continue
        if new == data:
            continue
        if not check:
            # A link stays one.
            write_atomically(file.resolve(), new)
        older.append(str(file))
        _say(f"{file}: {'older' if check else 'upgraded'}", as_json)
    if as_json:
        document: dict[str, Any] = {"current": _CURRENT, "written": not check, "checked": len(files)}
        click.echo(json.dumps({**_FORMAT, **document, "older": older, "problems": problems}, sort_keys=True))
    else:
        what = "of an older version" if check else f"upgraded to {_CURRENT}"
        click.echo(f"{len(files)} checked, {len(older)} {what}, {len(problems)} invalid")
    raise SystemExit(1 if problems or (check and older) else 0)


def _say(line: str, as_json: bool) -> None:
    if not as_json:
        click.echo(printable(line))
