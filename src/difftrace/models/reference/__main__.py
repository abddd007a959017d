"""`python -m difftrace.models.reference`: train the reference model, or check that it can be reproduced."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from difftrace.models.loading import load_model
from difftrace.models.reference import card, reference_model_path
from difftrace.models.reference.corpus import KINDS, held_out_examples
from difftrace.models.reference.evaluate import correct
from difftrace.models.reference.recipe import Recipe
from difftrace.models.reference.record import (
    SHORT_RUN,
    Score,
    read_record,
    training_environment,
    training_record,
    weights_digest,
    write_record,
)
from difftrace.models.reference.train import train, write_model

_HELD_OUT = 1000


@click.group()
def main() -> None:
    """Train the embedded reference model, or check its digest."""


@main.command("train")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write the model to.")
def train_command(out: Path) -> None:
    """Run the whole recipe, evaluate the result, write model, record and card."""
    recipe = Recipe()
    short_digest = weights_digest(train(recipe, SHORT_RUN))
    model = train(recipe, recipe.steps, log=100)
    write_model(model, out)
    loaded = load_model(out, device="cpu")
    scores = {kind: Score(correct(loaded, held_out_examples(kind, _HELD_OUT)), _HELD_OUT) for kind in KINDS}
    record = training_record(recipe, model, short_digest, scores)
    write_record(out, record)
    (out / card.FILE).write_text(card.model_card(record), encoding="utf-8")
    for kind, score in scores.items():
        click.echo(f"{kind}: {score.correct} of {score.of}")
    click.echo(f"weights: {record['weights']}")


@main.command("check")
@click.option("--short", is_flag=True, help=f"Train {SHORT_RUN} steps only.")
def check_command(short: bool) -> None:
    """Train again and compare the digest with the committed one.

    Exit status: 0 equal, 1 different, 3 not comparable because this environment computes differently.
    """
    recipe = Recipe()
    record = read_record(reference_model_path())
    here = training_environment(recipe)
    differing = [key for key, value in record["environment"].items() if here[key] != value]
    if differing:
        there = ", ".join(f"{key} {record['environment'][key]} (here {here[key]})" for key in differing)
        click.echo(f"not comparable: the committed digests were made with {there}")
        sys.exit(3)
    expected = record["short_run"]["weights"] if short else record["weights"]
    found = weights_digest(train(recipe, SHORT_RUN if short else recipe.steps, log=0 if short else 100))
    click.echo(f"committed {expected}\nretrained {found}")
    sys.exit(0 if found == expected else 1)


if __name__ == "__main__":
    main()
