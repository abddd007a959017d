"""What is known of a training run, as `training.json` beside the weights."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from difftrace.core.schemas import violation
from difftrace.models.llada import LLaDAModel
from difftrace.models.reference.canaries import forward_canary, gradient_canary
from difftrace.models.reference.corpus import CORPUS_VERSION
from difftrace.models.reference.recipe import Recipe
from difftrace.models.reference.train import write_model
from difftrace.models.weights import open_checkpoint

FILE = "training.json"
SHORT_RUN = 50


@dataclass(frozen=True)
class Score:
    """How many of `of` held-out prompts were answered exactly."""

    correct: int
    of: int


def training_environment(recipe: Recipe) -> dict[str, str | int]:
    """Return the conditions under which the digests of a training run hold; sets the recipe's thread count."""
    torch.set_num_threads(recipe.threads)
    return {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "machine": platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "canary": forward_canary(),
        "gradient_canary": gradient_canary(),
    }


def weights_digest(model: LLaDAModel) -> str:
    """Return the digest that the model's checkpoint has once written."""
    with TemporaryDirectory() as folder:
        write_model(model, Path(folder))
        return open_checkpoint(Path(folder)).digest()


def training_record(
    recipe: Recipe, model: LLaDAModel, short_digest: str, scores: Mapping[str, Score]
) -> dict[str, Any]:
    """Return the content of `training.json`."""
    return {
        "format": "difftrace-training",
        "version": "0.1",
        # Through JSON, so that a record compares equal to one read back (its keys are strings, its tuples lists).
        "recipe": json.loads(json.dumps(asdict(recipe))),
        "corpus_version": CORPUS_VERSION,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "environment": training_environment(recipe),
        "weights": weights_digest(model),
        "short_run": {"steps": SHORT_RUN, "weights": short_digest},
        "accuracy": {kind: asdict(score) for kind, score in scores.items()},
    }


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write `training.json`, checked against its schema."""
    problem = violation("training", record)
    assert problem is None, problem
    text = json.dumps(record, indent=1, sort_keys=True)
    (folder / FILE).write_text(text + "\n", encoding="utf-8")


def read_record(folder: Path) -> dict[str, Any]:
    """Read `training.json`, checked against its schema."""
    record: dict[str, Any] = json.loads((folder / FILE).read_text(encoding="utf-8"))
    problem = violation("training", record)
    assert problem is None, problem
    return record
