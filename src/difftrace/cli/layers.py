"""`difftrace layers`: what every module computed, in a file that travels to where a run differs, or in the baseline."""

from __future__ import annotations

import json
from pathlib import Path

import click

from difftrace.cli.model_options import ModelChoice, load_for, model_options, sequence_option
from difftrace.core.baseline import load, save
from difftrace.core.layers_file import save_layers
from difftrace.core.probe_steps import with_probes
from difftrace.core.text import printable
from difftrace.reports.layers import layers_lines, probe_lines


@click.command("layers")
@click.argument("baseline", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--step",
    "steps",
    type=click.IntRange(min=0),
    required=True,
    multiple=True,
    help="Run the canvas before this step, 0-based; with --into-baseline repeatable.",
)
@sequence_option
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="The file to write.")
@click.option("--into-baseline", is_flag=True, help="Put the steps into BASELINE itself, as its probes.")
@model_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object about what was written instead of lines.")
def command(
    baseline: Path,
    steps: tuple[int, ...],
    sequence: int | None,
    output: Path | None,
    into_baseline: bool,
    choice: ModelChoice,
    as_json: bool,
) -> None:
    """Write what every module is given and returns on BASELINE's canvas at a step.

    To be run where the baseline was recorded; elsewhere `difftrace bisect --against` then finds the first module that
    differs. The file holds digests and sketches, no weights and no activations: 0.6 MB for a model of 32 layers,
    however wide.

    With --into-baseline they become probes of BASELINE, which bisect and failing tests then use by themselves, the
    nearest one to a step without. Each adds 50 KB for the reference model, 0.2 MB for one of 32 layers. Probes of other
    steps stay, and decisions are not touched. The model has to decide at these steps as it did when it was recorded.

    Either way a model is refused whose logits are not those that BASELINE has evidence of: in any bit where the
    environment is as good as the golden one, by more than the budget elsewhere.

    \b
    Examples:
      difftrace layers BASELINE --step 5 -o layers.json
      difftrace layers BASELINE --step 5 --model ./LLaDA-8B-Instruct -o layers.json
      difftrace layers BASELINE --step 0 --step 8 --into-baseline

    Exit status: 0 written, 2 could not run.
    """
    if (output is None) != into_baseline:
        raise click.UsageError("give either -o FILE or --into-baseline")
    if output is not None and len(steps) > 1:
        raise click.UsageError("a file is of one --step; several go --into-baseline")
    recorded = load(baseline)
    loaded = load_for(recorded, choice)
    if output is None:
        from difftrace.verification.probe_steps import golden_probes

        made = golden_probes(loaded, recorded, steps, sequence)
        extended = with_probes(recorded, made)
        save(baseline, extended)
        lines = probe_lines(made, extended, str(baseline))
    else:
        from difftrace.verification.bisect import golden_layers

        made = (golden_layers(loaded, recorded, steps[0], sequence),)
        save_layers(output, made[0])
        lines = layers_lines(made[0], recorded, str(baseline), str(output))
    if as_json:
        written = {
            "baseline": str(baseline),
            "output": None if output is None else str(output),
            "sequence": sequence,
            "layers": [
                {"step": one.origin.step, "modules": len(one.trace.modules), "calls": len(one.trace.calls)}
                for one in made
            ],
        }
        click.echo(json.dumps({"format": "difftrace-layers-written", "version": "0.1", **written}, sort_keys=True))
        return
    for line in lines:
        click.echo(printable(line))
