"""`difftrace show`: what a baseline holds, as text."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import click

from difftrace.cli.sequences import chosen_sequences, sequence_choice
from difftrace.cli.terminal import columns, paint, print_lines
from difftrace.core.baseline import load
from difftrace.core.recording import Baseline
from difftrace.reports.show import show_document, show_lines
from difftrace.reports.steps import Span


def _range(_context: click.Context, _option: click.Parameter, given: str | None) -> tuple[int, int | None] | None:
    """Return the first step and the one after the last; None for the end of the run."""
    if given is None:
        return None
    matched = re.fullmatch(r"([0-9]{0,7}):([0-9]{0,7})", given)
    if matched is None:
        raise click.BadParameter(f"{given!r} is not A:B, say 8:16, :4 or 60:")
    first, last = int(matched[1] or 0), int(matched[2]) if matched[2] else None
    if last is not None and last <= first:
        raise click.BadParameter(f"{given!r} holds no step: B is not shown itself, so it must be larger than A")
    return first, last


@click.command("show")
@click.argument("baseline", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--step", type=click.IntRange(min=0), metavar="N", help="Show this step alone, 0-based, and why.")
@click.option("--range", "steps", callback=_range, metavar="A:B", help="Show the steps from A up to, not including, B.")
@sequence_choice
@click.option("--width", type=click.IntRange(min=40), metavar="W", help="Columns of a line.  [default: the terminal's]")
@click.option("--textconv", is_flag=True, help="Print the form that git compares; see above.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with the decisions decoded.")
def command(
    baseline: Path,
    step: int | None,
    steps: tuple[int, int | None] | None,
    sequence: int | None,
    width: int | None,
    textconv: bool,
    as_json: bool,
) -> None:
    """Show what BASELINE holds: what ran, where, and the canvas over its steps.

    Every row is the canvas after a step; what the step committed stands in brackets. Positions that do not fit beside
    each other follow below. Steps that change none of the positions above each other, and positions that no step
    changes, are left out, and a line says so. The texts of tokens are in the file: neither model nor tokenizer is
    needed.

    With --textconv git shows trajectories as words, in `git diff` and `git log -p`; it prints a plain text that
    depends on the file alone, and files that cannot be read as they are. Two lines set that up:

    \b
      echo '**/__difftrace__/**/*.json diff=difftrace' >> .gitattributes
      git config diff.difftrace.textconv 'difftrace show --textconv'

    \b
    Examples:
      difftrace show tests/__difftrace__/test_sum/test_sum.json
      difftrace show BASELINE --step 5
      difftrace show BASELINE --range 8:16 --sequence 1 --width 160
      difftrace show BASELINE --json | jq .sequences[0].commits

    Exit status: 0 shown, 2 could not run.
    """
    if textconv:
        others = {"--step": step, "--range": steps, "--sequence": sequence, "--width": width, "--json": as_json or None}
        if given := [name for name, value in others.items() if value is not None]:
            raise click.UsageError(f"--textconv prints the whole file for git: leave {', '.join(given)} away")
        _print_for_git(baseline)
        return
    if step is not None and steps is not None:
        raise click.UsageError("--step shows one step and --range several: choose one")
    recorded = load(baseline)
    chosen = chosen_sequences(recorded, sequence)
    span = _span(recorded, chosen, (step, step + 1) if step is not None else steps)
    if as_json:
        document: dict[str, Any] = show_document(recorded, str(baseline), sequences=chosen, span=span)
        click.echo(json.dumps(document, sort_keys=True, allow_nan=False))
        return
    lines = show_lines(recorded, str(baseline), sequences=chosen, span=span, columns=width or columns(), paint=paint())
    print_lines(list(lines))


def _span(baseline: Baseline, sequences: range, asked: tuple[int, int | None] | None) -> Span | None:
    if asked is None:
        return None
    longest = max(baseline.sequences[index].trajectory.num_steps for index in sequences)
    if asked[0] >= longest:
        has = f"the steps 0 to {longest - 1}" if longest else "no steps"
        raise click.UsageError(f"there is no step {asked[0]}: the run has {has}")
    return Span(asked[0], longest if asked[1] is None else asked[1])


def _print_for_git(path: Path) -> None:
    # Only git waits for this module.
    from difftrace.core.file_format import read_file
    from difftrace.core.limits import MAX_BASELINE_BYTES
    from difftrace.reports.textconv import textconv_lines

    data, _ = read_file(path, MAX_BASELINE_BYTES)
    # The same bytes in every locale.
    text = "".join(f"{line}\n" for line in textconv_lines(data))
    sys.stdout.buffer.write(text.encode("utf-8"))
