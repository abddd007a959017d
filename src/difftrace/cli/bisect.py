"""`difftrace bisect`: the first module at which a run differs."""

from __future__ import annotations

import json
from pathlib import Path

import click

from difftrace.cli.model_options import ModelChoice, load_for, model_options, sequence_option
from difftrace.core.baseline import load
from difftrace.core.bisection import Bisection
from difftrace.core.file_format import naming
from difftrace.core.layers_file import load_layers
from difftrace.core.recording import Baseline
from difftrace.core.text import printable
from difftrace.reports.bisection import bisection_lines


@click.command("bisect")
@click.argument("baseline", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--step", type=click.IntRange(min=0), help="Run the canvas before this step, 0-based.")
@sequence_option
@click.option(
    "--against",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Compare with this file, which `difftrace layers` made where the baseline was recorded.",
)
@click.option("--against-model", metavar="MODEL", help="Compare with this model here: a folder or hub id.")
@click.option("--against-revision", metavar="COMMIT", help="Its full commit hash on the hub.")
@click.option("--against-dtype", metavar="DTYPE", help="Compare with the same (or that) model in this dtype.")
@click.option("--against-device", metavar="DEVICE", help="Compare with the same (or that) model on this device.")
@model_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of lines.")
def command(
    baseline: Path,
    step: int | None,
    sequence: int | None,
    against: Path | None,
    against_model: str | None,
    against_revision: str | None,
    against_dtype: str | None,
    against_device: str | None,
    choice: ModelChoice,
    as_json: bool,
) -> None:
    """Find the first module at which a run differs from BASELINE's.

    The model is run twice on the golden canvas of one step, and what every module is given and returns is compared:
    of one run with the other, which shows what does not repeat itself, and with the golden side. In the golden's
    environment the first module that is given the same and returns something else is the culprit; elsewhere every
    result differs a little, and the culprit is where the error grows most. Where the model returns NaN or infinite
    values, the module is named that makes them of finite ones, with or without a golden side.

    Without --step the baseline is run again, and the step is the first at which the model leaves it. The golden side
    is the baseline's probe of that step, or of the nearest step that has one, whose canvas is then run; see
    `difftrace layers --into-baseline`. A file of `difftrace layers` is of one step, which is taken.

    \b
    Examples:
      difftrace bisect tests/__difftrace__/test_sum/test_sum.json
      difftrace bisect BASELINE --against layers.json
      difftrace bisect BASELINE --model ./changed --against-model ./trusted
      difftrace bisect BASELINE --against-dtype float32

    Exit status: 0 nothing differs, 1 something does, 2 could not run.
    """
    other = ModelChoice(against_model, against_revision, against_dtype, against_device)
    compares_models = any(value is not None for value in vars(other).values())
    if compares_models and against is not None:
        raise click.UsageError("--against compares with a file, the other --against-… with a model: choose one")
    recorded = load(baseline)
    if compares_models:
        found = _with_model(recorded, choice, _golden_choice(choice, other), step, sequence)
    else:
        found = _with_file_or_probe(baseline, recorded, choice, against, step, sequence)
    if as_json:
        click.echo(json.dumps(found.to_json(), sort_keys=True, allow_nan=False))
    else:
        click.echo("\n".join(bisection_lines(found, str(baseline))))
    raise SystemExit(1 if found.differs else 0)


def _golden_choice(choice: ModelChoice, other: ModelChoice) -> ModelChoice:
    """Return the golden model: what is not said of it is as of the one that is looked at."""
    revision = other.revision or (choice.revision if other.model is None else None)
    return ModelChoice(
        other.model or choice.model, revision, other.dtype or choice.dtype, other.device or choice.device
    )


def _with_file_or_probe(
    path: Path,
    baseline: Baseline,
    choice: ModelChoice,
    against: Path | None,
    step: int | None,
    sequence: int | None,
) -> Bisection:
    golden = None if against is None else load_layers(against)
    loaded = load_for(baseline, choice)
    from difftrace.verification.bisect import bisect

    file = None if against is None else str(against)
    with naming(printable(str(path))):
        return bisect(loaded, baseline, step=step, sequence=sequence, golden=golden, file=file)


def _with_model(
    baseline: Baseline, choice: ModelChoice, golden: ModelChoice, step: int | None, sequence: int | None
) -> Bisection:
    from difftrace.verification.bisect import bisect_models

    return bisect_models(
        lambda: load_for(baseline, choice), lambda: load_for(baseline, golden), baseline, step=step, sequence=sequence
    )
