"""`difftrace replay`: a run's canvas at any step, from the decisions alone."""

from __future__ import annotations

import json
from pathlib import Path

import click

from difftrace.cli.sequences import chosen_sequences, sequence_choice
from difftrace.core.baseline import load
from difftrace.core.text import printable
from difftrace.reports.replayed import canvas_at, canvas_text, replay_document


@click.command("replay")
@click.argument("baseline", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--step", type=click.IntRange(min=0), metavar="N", help="The canvas before this step, 0-based; without it the last."
)
@sequence_choice
@click.option("--ids", is_flag=True, help="Print token ids instead of text.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with ids and text.")
def command(baseline: Path, step: int | None, sequence: int | None, ids: bool, as_json: bool) -> None:
    """Print the canvas of BASELINE before a step: one line for each sequence.

    It is made from the recorded decisions; no model runs. The text is that of the whole canvas without left padding,
    masks as ░; characters that would act on a terminal are escaped. The ids are those of every position.

    \b
    Examples:
      difftrace replay BASELINE
      difftrace replay BASELINE --step 8 --sequence 1
      difftrace replay BASELINE --step 0 --ids

    Exit status: 0 printed, 2 could not run.
    """
    recorded = load(baseline)
    chosen = chosen_sequences(recorded, sequence)
    if as_json:
        document = replay_document(recorded, str(baseline), chosen, step)
        click.echo(json.dumps(document, sort_keys=True, allow_nan=False))
        return
    for index in chosen:
        _, canvas = canvas_at(recorded.sequences[index].trajectory, index, step)
        click.echo(" ".join(map(str, canvas.tolist())) if ids else printable(canvas_text(recorded, index, canvas)))
