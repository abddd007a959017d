"""Which model a command runs for a baseline: the options, and what stands in for those that are not given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from difftrace.core.errors import ModelError
from difftrace.core.text import printable

if TYPE_CHECKING:
    from difftrace.core.recording import Baseline
    from difftrace.models import LoadedModel


@dataclass(frozen=True)
class ModelChoice:
    """What the command line says of a model; None where it says nothing."""

    model: str | None
    revision: str | None
    dtype: str | None
    device: str | None


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --model, --revision, --dtype and --device to a command, which gets them as `choice`."""

    @click.option("--model", help="Folder or hub id; without it the reference model, if that was recorded.")
    @click.option("--revision", metavar="COMMIT", help="Full commit hash of a hub model.")
    @click.option("--dtype", help="auto (as stored), bfloat16, float16, float32; without it what was recorded.")
    @click.option("--device", help="auto (the first accelerator), cpu, cuda:0, …; without it cpu if that was recorded.")
    @wraps(command)
    def with_choice(
        *, model: str | None, revision: str | None, dtype: str | None, device: str | None, **others: Any
    ) -> Any:
        return command(choice=ModelChoice(model, revision, dtype, device), **others)

    return with_choice


def sequence_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --sequence to a command."""
    help_text = "Run this sequence alone, 0-based; without it all of them as one batch, as they were recorded."
    return click.option("--sequence", type=click.IntRange(min=0), help=help_text)(command)


class Models:
    """Loads models, one at a time, and again only for a baseline that asks for another than the one before it."""

    def __init__(self, choice: ModelChoice) -> None:
        self._choice = choice
        self._key: object = None
        self._loaded: LoadedModel | None = None

    def of(self, baseline: Baseline) -> LoadedModel:
        """Return the model for `baseline`; raises ModelError as `load_for` does."""
        key = (baseline.model, baseline.environment.get("dtype"), baseline.environment.get("platform_key"))
        if self._loaded is None or self._key != key:
            # The one before must make room first.
            self._loaded = None
            self._loaded, self._key = load_for(baseline, self._choice), key
        return self._loaded


def load_for(baseline: Baseline, choice: ModelChoice) -> LoadedModel:
    """Load the model that the command line and, where that is silent, the baseline name.

    Raises:
        ModelError: it cannot be loaded; or none is named, and the baseline was not recorded with the reference model.
    """
    # Torch takes seconds to import; help and usage errors do not wait for it.
    from difftrace.models import load_model
    from difftrace.models.reference import reference_model_path

    recorded = baseline.environment
    dtype = choice.dtype or recorded.get("dtype")
    device = choice.device or ("cpu" if recorded.get("platform_key") == "cpu" else "auto")
    loaded = load_model(
        choice.model or reference_model_path(),
        revision=choice.revision,
        dtype=dtype if isinstance(dtype, str) else "auto",
        device=device,
    )
    if choice.model is None:
        _refuse_other_than_reference(baseline, loaded)
    return loaded


def _refuse_other_than_reference(baseline: Baseline, reference: LoadedModel) -> None:
    golden, own = baseline.model, reference.identity
    if golden is None:
        raise ModelError("the baseline does not say which model ran; give --model")
    if (golden.weights, golden.config) != (own.weights, own.config):
        revision = "" if golden.revision is None else f" at revision {golden.revision}"
        raise ModelError(f"the baseline was recorded with {printable(golden.name)}{revision}; give it as --model")
