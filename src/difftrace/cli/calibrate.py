"""`difftrace calibrate`: how much of a difference is noise, measured and written into the baseline."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import click

from difftrace.cli.model_options import ModelChoice, Models, model_options
from difftrace.core.baseline import load, save
from difftrace.core.calibration import MARGIN, QUANTITIES, Calibration, with_budget
from difftrace.core.errors import CalibrationError, DiffTraceError
from difftrace.core.recording import Baseline
from difftrace.core.text import printable


def _finite(_context: click.Context, _option: click.Parameter, margin: float) -> float:
    if not math.isfinite(margin):
        raise click.BadParameter(f"{margin} is no finite number.")
    return margin


@click.command("calibrate")
@click.argument("baselines", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@model_options
@click.option(
    "--margin",
    type=click.FloatRange(min=1.0),
    default=MARGIN,
    callback=_finite,
    show_default=True,
    help="How many times the largest measured difference the budget allows.",
)
@click.option("--dry-run", is_flag=True, help="Measure and print, and write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of lines.")
def command(baselines: tuple[Path, ...], choice: ModelChoice, margin: float, dry_run: bool, as_json: bool) -> None:
    """Measure how far trusted runs are apart, and write it into BASELINES as their budget.

    Every baseline is run again: twice alike, in a doubled batch, each sequence alone, with other backends of attention,
    and computed in float32 where the model's dtype is narrower. The budget is the largest difference times the margin;
    verification takes what stays within it for noise. Decisions are not touched. A baseline whose decisions the model
    does not reproduce is refused and the others are calibrated; nothing is run unless all can be read.

    \b
    Examples:
      difftrace calibrate tests/__difftrace__/test_sum/*.json
      difftrace calibrate BASELINE --model ./LLaDA-8B-Instruct --dry-run

    Exit status: 0 calibrated, 1 the model decides otherwise or does not repeat itself, 2 could not run.
    """
    from difftrace.verification.calibrate import calibrate

    models = Models(choice)
    results, refused = {}, {}
    status = 0
    for path, baseline in [(path, load(path)) for path in baselines]:
        try:
            found = calibrate(models.of(baseline), baseline, margin)
            if not dry_run:
                save(path, with_budget(baseline, found))
        except DiffTraceError as error:
            refused[str(path)] = str(error)
            status = max(status, 1 if isinstance(error, CalibrationError) else 2)
            click.echo(f"difftrace: {printable(f'{path}: {error}')}", err=True)
            continue
        results[str(path)] = found
        if not as_json:
            click.echo("\n".join(_lines(path, baseline, found, dry_run)))
    if as_json:
        document = {
            "written": not dry_run,
            "calibrated": {path: found.to_json() for path, found in results.items()},
            "refused": refused,
        }
        click.echo(json.dumps(document, sort_keys=True, allow_nan=False))
    raise SystemExit(status)


def _lines(path: Path, baseline: Baseline, found: Calibration, dry_run: bool) -> Iterator[str]:
    yield printable(str(path))
    for pair in found.pairs:
        measured = {one.quantity: one.epsilon for one in pair.measured}
        values = ", ".join(f"{name} {measured[name]:.2g}" for name in QUANTITIES if name in measured)
        told = f"{values or 'nothing could be compared'} ({pair.steps} steps)"
        yield printable(f"  {pair.name:<20} {told if pair.not_run is None else f'not run: {pair.not_run}'}")
    before = "" if baseline.budget is None else f"; before: {_budget(baseline)}"
    yield f"  budget: {_budget(with_budget(baseline, found))}{before}{', not written' if dry_run else ''}"


def _budget(baseline: Baseline) -> str:
    return ", ".join(f"{name} {getattr(baseline.budget, name):.2g}" for name in QUANTITIES)
