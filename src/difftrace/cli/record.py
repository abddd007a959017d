"""`difftrace record`: prompts run and kept as baselines, without any test."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from difftrace.cli.model_options import ModelChoice, load_chosen, recording_model_options
from difftrace.cli.progress import Progress
from difftrace.cli.sampler_options import sampler_options
from difftrace.core.errors import PromptsError, WriteError
from difftrace.core.prompt_names import file_names, prompt_test
from difftrace.core.prompt_recording import (
    SCOPES,
    Scope,
    baseline_document,
    exit_status,
    recording_document,
)
from difftrace.core.prompts import Prompt, given_prompts, load_prompts
from difftrace.core.text import printable
from difftrace.determinism.profiles import PROFILES
from difftrace.reports.recording import recorded_lines, recording_summary

if TYPE_CHECKING:
    from difftrace.models import LoadedModel
    from difftrace.verification.record import Batch

_MOST_PROBLEMS = 20


@click.command("record")
@click.option("--prompt", "texts", multiple=True, metavar="TEXT", help="A prompt; may be repeated.")
@click.option(
    "--prompts",
    "prompts_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE.jsonl",
    help="Prompts as JSON objects, one a line; see above.",
)
@click.option(
    "--out", "folder", type=click.Path(file_okay=False, path_type=Path), metavar="FOLDER", help="Where files go."
)
@click.option(
    "-o", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="The file, of one baseline."
)
@click.option("--scope", type=click.Choice(SCOPES), default="missing", show_default=True, help="What to write.")
@click.option(
    "--batch", type=click.IntRange(min=1), default=1, metavar="N", help="Prompts of a baseline, run together."
)
@sampler_options
@recording_model_options
@click.option(
    "--profile", type=click.Choice(tuple(PROFILES)), help="Determinism profile; without it that of the model's device."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of lines.")
def command(
    texts: tuple[str, ...],
    prompts_file: Path | None,
    folder: Path | None,
    file: Path | None,
    scope: Scope,
    batch: int,
    sampler: dict[str, Any],
    choice: ModelChoice,
    profile: str | None,
    as_json: bool,
) -> None:
    """Run prompts and keep each run as a baseline, which `difftrace verify` runs again.

    Every prompt is run twice, and written only if both runs are the same. Files are named for the prompt's id, else
    for its text, and lie in FOLDER, which verify, validate and upgrade take as it is.

    A line of FILE.jsonl is {"prompt": "12 + 30 = "}, or {"prompt": [5, 17]} for token ids; it may hold an "id", and
    options of the sampler, named as in "gen_length", which count for that prompt instead of those given here. Baselines
    of prompts with an id belong to that id of that file. If one line is wrong, nothing is run.

    \b
    missing  write files that are not there; the others must agree
    changed  also rewrite those that the run does not agree with
    all      rewrite everything, which refreshes environments

    With --batch prompts in succession that have the same options are denoised together, as one baseline.

    \b
    Examples:
      difftrace record --prompt "12 + 30 = " --gen-length 16 --block-length 8 --out goldens
      difftrace record --prompts prompts.jsonl --model ./LLaDA-8B-Instruct --out goldens
      difftrace record --prompts prompts.jsonl --scope changed --out goldens
      difftrace record --prompt "reverse stone: " --steps 8 --gen-length 16 -o stone.json

    And then, wherever the model is to run as it did here: difftrace verify goldens

    Exit status: 0 all are recorded, 1 one does not reproduce or is not what was recorded, 2 could not run.
    """
    if bool(texts) == (prompts_file is not None):
        raise click.UsageError("give either --prompt, once or more, or --prompts FILE.jsonl")
    if (folder is None) == (file is None):
        raise click.UsageError("give either --out FOLDER or -o FILE")
    several = "-o is one file, and these are several baselines: give --out FOLDER"
    try:
        prompts = given_prompts(texts) if prompts_file is None else load_prompts(prompts_file)
        if file is not None and len(prompts) > batch:
            raise click.UsageError(several)
        loaded, batches = _loaded(choice, prompts, sampler, batch)
    except PromptsError as error:
        _refuse(error)
    names = file_names([one.prompts for one in batches])
    paths = [folder / f"{name}.json" for name in names] if folder is not None else [file or Path()]
    if len(paths) != len(batches):
        raise click.UsageError(several)
    module = None if prompts_file is None else prompts_file.name
    # Of thousands of runs what is told, not the runs.
    entries: list[dict[str, Any]] = []
    try:
        with Progress(len(batches), "recording") as progress:
            _record(loaded, batches, paths, scope, module, profile, entries, progress, as_json)
    except (KeyboardInterrupt, WriteError):
        _end(entries, scope, len(batches), as_json)
        raise
    _end(entries, scope, len(batches), as_json)
    raise SystemExit(exit_status([one["status"] for one in entries]))


def _loaded(
    choice: ModelChoice, prompts: Sequence[Prompt], sampler: dict[str, Any], batch: int
) -> tuple[LoadedModel, list[Batch]]:
    # Torch takes seconds to import; help, usage errors and lines that cannot be read do not wait for it.
    from difftrace.verification.record import batches_of

    loaded = load_chosen(choice)
    return loaded, batches_of(loaded, prompts, sampler, batch)


def _record(
    loaded: LoadedModel,
    batches: Sequence[Batch],
    paths: Sequence[Path],
    scope: Scope,
    module: str | None,
    profile: str | None,
    entries: list[dict[str, Any]],
    progress: Progress,
    as_json: bool,
) -> None:
    """Record batch by batch; `entries` has what was done also where this is interrupted."""
    from difftrace.verification.record import record

    for batch, path in zip(batches, paths, strict=True):
        test = prompt_test(batch.prompts, module)
        result = record(loaded, batch, path, scope, test=test, profile=profile)
        entries.append(baseline_document(str(path), [one.id or one.where for one in batch.prompts], result))
        if not as_json:
            with progress.aside():
                click.echo("\n".join(recorded_lines(str(path), result)))
        progress.advance()


def _end(entries: Sequence[dict[str, Any]], scope: Scope, total: int, as_json: bool) -> None:
    document = recording_document(scope, total, entries)
    if as_json:
        click.echo(json.dumps(document, sort_keys=True, allow_nan=False))
    else:
        click.echo(recording_summary([one["status"] for one in entries], total))
    if not document["complete"]:
        done = f"stopped after {len(entries)} of {total}; {document['written']} written, each of them whole"
        click.echo(f"difftrace: {done}", err=True)


def _refuse(error: PromptsError) -> NoReturn:
    for problem in error.problems[:_MOST_PROBLEMS]:
        click.echo(f"difftrace: {printable(problem)}", err=True)
    more = len(error.problems) - _MOST_PROBLEMS
    click.echo(f"difftrace: {f'{more} more; ' if more > 0 else ''}nothing was run or written", err=True)
    raise SystemExit(2)
