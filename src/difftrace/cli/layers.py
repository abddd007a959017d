"""`difftrace layers`: what every module computed, in a file that travels to where a run differs."""

from __future__ import annotations

import json
from pathlib import Path

import click

from difftrace.cli.model_options import ModelChoice, load_for, model_options, sequence_option
from difftrace.core.baseline import load
from difftrace.core.layers_file import save_layers
from difftrace.core.text import printable
from difftrace.reports.bisection import layers_lines


@click.command("layers")
@click.argument("baseline", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--step", type=click.IntRange(min=0), required=True, help="Run the canvas before this step, 0-based.")
@sequence_option
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The file to write."
)
@model_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object about the file instead of lines.")
def command(baseline: Path, step: int, sequence: int | None, output: Path, choice: ModelChoice, as_json: bool) -> None:
    """Write what every module is given and returns on BASELINE's canvas at a step.

    To be run where the baseline was recorded; `difftrace bisect --against` then finds the first module that differs
    elsewhere. The file holds digests and sketches, no weights and no activations: 0.6 MB for a model of 32 layers,
    however wide.

    \b
    Examples:
      difftrace layers BASELINE --step 5 -o layers.json
      difftrace layers BASELINE --step 5 --model ./LLaDA-8B-Instruct -o layers.json

    Exit status: 0 written, 2 could not run.
    """
    recorded = load(baseline)
    loaded = load_for(recorded, choice)
    from difftrace.verification.bisect import golden_layers

    layers = golden_layers(loaded, recorded, step, sequence)
    save_layers(output, layers)
    if as_json:
        written = {
            "baseline": str(baseline),
            "output": str(output),
            "step": step,
            "sequence": sequence,
            "modules": len(layers.trace.modules),
            "calls": len(layers.trace.calls),
        }
        click.echo(json.dumps({"format": "difftrace-layers-written", "version": "0.1", **written}, sort_keys=True))
        return
    for line in layers_lines(layers, recorded, str(baseline), str(output)):
        click.echo(printable(line))
