"""`difftrace diff`: two recordings, and why they differ."""

from __future__ import annotations

import json
from pathlib import Path

import click

from difftrace.cli.sequences import chosen_sequences, sequence_choice
from difftrace.core.baseline import load
from difftrace.reports.difference import difference, difference_document, difference_lines

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("diff")
@click.argument("golden", metavar="A", type=_FILE)
@click.argument("observed", metavar="B", type=_FILE)
@sequence_choice
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of lines.")
def command(golden: Path, observed: Path, sequence: int | None, as_json: bool) -> None:
    """Compare two baselines, or a baseline A and what a run left instead of it, B.

    Says of which class their divergence is, shows both canvases around the first decision that differs, what came of
    it, whether the environments are comparable, and what else differs. Both are taken as recorded: no model runs. They
    are the same where nothing differs that is recorded of the runs, their logits included; where they ran may differ.

    \b
    Examples:
      difftrace diff tests/__difftrace__/test_sum/test_sum.json received.json
      difftrace diff A B --sequence 1
      difftrace diff A B --json | jq .class

    Exit status: 0 the same, 1 different, 2 could not run.
    """
    one, other = load(golden), load(observed)
    for side in (one, other):
        chosen_sequences(side, sequence)
    found, paths = difference(one, other, sequence), (str(golden), str(observed))
    if as_json:
        click.echo(json.dumps(difference_document(found, paths), sort_keys=True, allow_nan=False))
    else:
        click.echo("\n".join(difference_lines(found, paths)))
    raise SystemExit(0 if found.same else 1)
