"""The model card, written from the record of the training run so that its figures are the measured ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from difftrace.models.reference.corpus import KINDS
from difftrace.models.reference.evaluate import BLOCK_LENGTH, GEN_LENGTH, STEPS

FILE = "MODEL_CARD.md"


def model_card(record: Mapping[str, Any]) -> str:
    """Return the card as Markdown."""
    recipe, environment = record["recipe"], record["environment"]
    rows = []
    for kind in KINDS:
        score = record["accuracy"][kind]
        about = str(KINDS[kind].__doc__).splitlines()[0]
        share = 100 * score["correct"] / score["of"]
        rows.append(f"| {kind} | {about} | {score['correct']} of {score['of']} ({share:.1f} %) |")
    texts = f"{recipe['steps']:,} steps of {recipe['batch_size']} texts"
    place = f"{environment['cpu_capability']} on {environment['machine']}, threads: {environment['threads']}"
    return f"""# The reference model

A LLaDA of {record["parameters"]:,} parameters in fp32: {recipe["n_layers"]} layers, width {recipe["d_model"]},
{recipe["n_heads"]} heads, one token per ASCII character. It is a test fixture, there to run the whole of DiffTrace
offline; it is no language model and knows nothing but the kinds of text below.

## Accuracy

Exact match on held-out prompts, which training never sees (one in ten, by the prompt's hash): {GEN_LENGTH} masks in
{STEPS} steps, blocks of {BLOCK_LENGTH}, temperature 0.

| kind | what it learns | exact |
| --- | --- | --- |
{chr(10).join(rows)}

It has not learned leap years: the day after 28 February is answered with 1 March in every year.

## Data

Text made by `corpus.py` (version {record["corpus_version"]}) from a seeded generator while training. No text of
anybody's is used.

## Recipe

Masked diffusion as in LLaDA's supervised fine-tuning (arXiv 2502.09992): prompts stay whole, each answer, EOS behind
it included, is masked at a ratio t drawn per text, and the cross-entropy at the masks is weighted by 1/t.
{texts} with AdamW, cosine schedule from {recipe["learning_rate"]}, averaged weights
(decay {recipe["average_decay"]}).

Targets are smoothed, the more the further a place is from the answer's beginning (`objective.py`). Its confidences
therefore differ from place to place by more than arithmetic noise, so that commits have the same order on every
machine. They say nothing about how sure a trained language model would be.

## Reproducing it

`python -m difftrace.models.reference train --out FOLDER` trains it anew;
`python -m difftrace.models.reference check` does so and compares the digest, with `--short` after
{record["short_run"]["steps"]} steps. The digest holds where the environment of `training.json` does: torch
{environment["torch"]}, {place},
and the numeric canary recorded there.

Weights: `{record["weights"]}`
"""
