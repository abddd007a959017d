"""Which model a command runs for a baseline: the options, and what stands in for those that are not given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
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
    """Add --model, --revision, --dtype and --device to a command on baselines, which gets them as `choice`."""
    return _with_choice(
        command,
        model="without it the reference model, if that was recorded.",
        dtype="without it what was recorded.",
        device="without it cpu if that was recorded.",
    )


def recording_model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the same options to a command that has no baseline yet."""
    return _with_choice(
        command,
        model="without it the reference model.",
        dtype="without it as stored.",
        device="without it cpu for the reference model, else auto.",
    )


def _with_choice(command: Callable[..., Any], *, model: str, dtype: str, device: str) -> Callable[..., Any]:
    """Add the options; the texts say what stands in for those that are not given."""

    @click.option("--model", help=f"Folder or hub id; {model}")
    @click.option("--revision", metavar="COMMIT", help="Full commit hash of a hub model.")
    @click.option("--dtype", help=f"auto (as stored), bfloat16, float16, float32; {dtype}")
    @click.option("--device", help=f"auto (the first accelerator), cpu, cuda:0, …; {device}")
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
        self._asked: ModelChoice | None = None
        self._loaded: LoadedModel | None = None

    def of(self, baseline: Baseline) -> LoadedModel:
        """Return the model for `baseline`; raises ModelError as `load_for` does."""
        asked = _asked_for(baseline, self._choice)
        if self._loaded is None or self._asked != asked:
            # The one before must make room first.
            self._loaded = None
            self._loaded, self._asked = load_chosen(asked), asked
        if self._choice.model is None:
            _refuse_other_than_reference(baseline, self._loaded)
        return self._loaded


def load_for(baseline: Baseline, choice: ModelChoice) -> LoadedModel:
    """Load the model that the command line and, where that is silent, the baseline name.

    Raises:
        ModelError: it cannot be loaded; or none is named, and the baseline was not recorded with the reference model.
    """
    return Models(choice).of(baseline)


def load_chosen(choice: ModelChoice) -> LoadedModel:
    """Load the model that `choice` names, the reference model without a name; raises ModelError where it cannot be."""
    # Torch takes seconds to import; help and usage errors do not wait for it.
    from difftrace.models import load_model
    from difftrace.models.reference import reference_model_path

    return load_model(
        choice.model or reference_model_path(),
        revision=choice.revision,
        dtype=choice.dtype or "auto",
        device=choice.device or ("auto" if choice.model else "cpu"),
    )


def _asked_for(baseline: Baseline, choice: ModelChoice) -> ModelChoice:
    recorded = baseline.environment
    dtype = choice.dtype or recorded.get("dtype")
    device = choice.device or ("cpu" if recorded.get("platform_key") == "cpu" else "auto")
    return replace(choice, dtype=dtype if isinstance(dtype, str) else "auto", device=device)


def _refuse_other_than_reference(baseline: Baseline, reference: LoadedModel) -> None:
    golden, own = baseline.model, reference.identity
    if golden is None:
        raise ModelError("the baseline does not say which model ran; give --model")
    if (golden.weights, golden.config) != (own.weights, own.config):
        revision = "" if golden.revision is None else f" at revision {golden.revision}"
        raise ModelError(f"the baseline was recorded with {printable(golden.name)}{revision}; give it as --model")
