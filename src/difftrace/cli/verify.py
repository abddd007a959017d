"""`difftrace verify`: baselines run again and judged, without running their tests."""

from __future__ import annotations

import json
from pathlib import Path

import click

from difftrace.cli.baseline_files import baseline_files
from difftrace.cli.model_options import ModelChoice, Models, model_options
from difftrace.cli.progress import Progress
from difftrace.core.baseline import load
from difftrace.core.errors import DiffTraceError, FormatError, NewerFormatError
from difftrace.core.forced import unseen
from difftrace.core.logits_codec import Lossless, Top
from difftrace.core.policies import POLICIES, Policy, exceptions
from difftrace.core.side_logits import open_beside
from difftrace.core.verification import (
    STRATEGIES,
    Asked,
    Result,
    Strategy,
    Unverified,
    baseline_document,
    verification_document,
)
from difftrace.determinism.profiles import PROFILES
from difftrace.reports.verification import result_lines, summary_line

_EXIT = {"passed": 0, "failed": 1, "could not run": 2}
# These judge the end of a run.
_OF_THE_END = ("tokens", "text")


def _names(_context: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of an option that may be repeated and take several, separated by commas."""
    return tuple(name.strip() for value in given for name in value.split(","))


@click.command("verify")
@click.argument("baselines", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--strategy", type=click.Choice(STRATEGIES), default="rerun", show_default=True, help="How to verify; see above."
)
@click.option("--steps", type=click.IntRange(min=1), metavar="K", help="Steps that `sampled` chooses.  [default: 8]")
@click.option("--sample-seed", type=int, metavar="N", help="What they are chosen by.  [default: 0]")
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    metavar="N",
    help="Canvases that `forced` and `sampled` score at once; 1 compares bits, without it as many as pay.",
)
@click.option("--policy", type=click.Choice(POLICIES), default="exact", show_default=True, help="What passes.")
@click.option("--fail-on", multiple=True, callback=_names, metavar="CLASS", help="Fail on these under any policy.")
@click.option("--allow", multiple=True, callback=_names, metavar="CLASS", help="Accept these under any policy.")
@model_options
@click.option(
    "--profile", type=click.Choice(tuple(PROFILES)), help="Determinism profile; without it that of the model's device."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of lines.")
def command(
    baselines: tuple[Path, ...],
    strategy: Strategy,
    steps: int | None,
    sample_seed: int | None,
    batch: int | None,
    policy: Policy,
    fail_on: tuple[str, ...],
    allow: tuple[str, ...],
    choice: ModelChoice,
    profile: str | None,
    as_json: bool,
) -> None:
    """Run BASELINES again, each with the arguments it was recorded with, and say what differs.

    BASELINES are files, or folders, in which every file below a `__difftrace__` folder is meant, and what
    `difftrace record` has written there: a baseline says itself which prompt it is of, so no file of prompts is asked
    for. Tests are not run: what is verified is the model here and the sampler of this package.

    \b
    rerun    denoise again and compare the runs, logits included
    forced   decide every step again on its golden canvas: faster, and finds all that differ
    sampled  the same for --steps steps, chosen at random by --sample-seed

    Forced and sampled compare decisions, and logits by the budget; with --batch 1 logits also bit for bit. What the
    sampler makes of the logits, its confidences, they compare by what it decides alone.

    \b
    exact     nothing may differ but numbers within the budget
    near-tie  nor close decisions
    tokens    the same final tokens (rerun alone)
    text      the same texts (rerun alone)

    --fail-on and --allow may be repeated and take several classes separated by commas. A baseline that cannot be run
    again, say because its random numbers came from a generator whose state nobody recorded, says so.

    \b
    Examples:
      difftrace verify tests/
      difftrace verify goldens --model ./LLaDA-8B-Instruct
      difftrace verify BASELINE --strategy forced --model ./LLaDA-8B-Instruct
      difftrace verify BASELINE --strategy sampled --steps 16 --sample-seed 7
      difftrace verify tests/ --policy near-tie --fail-on drift --json

    Exit status: 0 all pass, 1 one does not, 2 one could not be run.
    """
    _check(strategy, policy, steps, sample_seed, batch, fail_on, allow)
    files = baseline_files(baselines, "verify")
    asked = Asked(
        strategy=strategy,
        policy=policy,
        fail_on=fail_on,
        allow=allow,
        steps=Asked.steps if steps is None else steps,
        sample_seed=Asked.sample_seed if sample_seed is None else sample_seed,
        batch=batch,
        profile=profile,
    )
    models = Models(choice)
    # Of thousands of runs what is told, not the runs.
    entries = []
    with Progress(len(files), "verifying") as progress:
        for path in files:
            result = _result(path, models, asked)
            entries.append(baseline_document(str(path), asked, result))
            if not as_json:
                with progress.aside():
                    click.echo("\n".join(result_lines(str(path), asked, result, _options(choice))))
            progress.advance()
    document = verification_document(entries)
    if as_json:
        click.echo(json.dumps(document, sort_keys=True, allow_nan=False))
    else:
        click.echo(summary_line([entry["status"] for entry in entries]))
    raise SystemExit(_EXIT[document["status"]])


def _check(
    strategy: Strategy,
    policy: Policy,
    steps: int | None,
    sample_seed: int | None,
    batch: int | None,
    fail_on: tuple[str, ...],
    allow: tuple[str, ...],
) -> None:
    if strategy != "sampled" and (steps is not None or sample_seed is not None):
        raise click.UsageError("--steps and --sample-seed choose steps at random: they go with --strategy sampled")
    if strategy == "rerun" and batch is not None:
        raise click.UsageError("a rerun has the batch that was recorded: --batch goes with forced and sampled")
    if strategy != "rerun" and policy in _OF_THE_END:
        raise click.UsageError(f"--policy {policy} judges the end of a run: it goes with --strategy rerun")
    try:
        exceptions(fail_on, allow)
        missed = [] if strategy == "rerun" else unseen(fail_on, batch)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if missed:
        other = "--strategy rerun" if unseen(missed, 1) else "--strategy rerun or --batch 1"
        raise click.UsageError(f"--strategy {strategy} can miss {', '.join(missed)}, which is to fail: use {other}")


def _result(path: Path, models: Models, asked: Asked) -> Result:
    try:
        baseline = load(path)
        logits = None if baseline.logits is None else open_beside(path, baseline.logits)
    except FormatError as error:
        return Unverified(str(error), unreadable=not isinstance(error, NewerFormatError))
    # Torch takes seconds to import; help, usage errors and files that cannot be read do not wait for it.
    from difftrace.verification.verify import verify

    try:
        # The largest few alone cannot be compared.
        comparable = logits is not None and not isinstance(logits.method, Top)
        return verify(models.of(baseline), baseline, asked, Lossless() if comparable else None)
    except DiffTraceError as error:
        return Unverified(str(error))


def _options(choice: ModelChoice) -> list[str]:
    return [word for name, value in vars(choice).items() if value is not None for word in (f"--{name}", value)]
