"""What was captured of one request, before and after it becomes a trajectory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import numpy as np

from difftrace.core.errors import EngineError
from difftrace.core.kept_arrays import joined_on_host
from difftrace.core.limits import MAX_TOKEN
from difftrace.core.mask_states import check_masks
from difftrace.core.recording import JsonScalar
from difftrace.core.trajectory import Ints, Trajectory

PLACEHOLDER: Final = MAX_TOKEN
"""Token id of positions that nothing was committed to, where the id of the mask is not known. No model has it."""


@dataclass(frozen=True, eq=False)
class TrajectoryRecord:
    """One captured request.

    Attributes:
        request_id: the request's.
        prompt_tokens: token ids, shape [P].
        model_name: empty where it is not known.
        num_diffusion_steps: as announced, 0 where it was not.
        sequence_length: positions of the canvas, L, prompt included.
        mask_token_id: of positions that nothing was committed to: the mask's id where it is known, else `PLACEHOLDER`.
        created_at: when the capture began.
        metadata: what else was given, as values that a store keeps.
        trajectory: None until the capture has ended.
        generated_tokens: the output as the caller had it, shape [L] or [L - P]; None where it was not given.
    """

    request_id: str
    prompt_tokens: Ints
    model_name: str
    num_diffusion_steps: int
    sequence_length: int
    mask_token_id: int
    created_at: datetime
    metadata: Mapping[str, JsonScalar]
    trajectory: Trajectory | None = None
    generated_tokens: Ints | None = None

    @property
    def num_steps_captured(self) -> int:
        """Steps of the trajectory that committed something."""
        return 0 if self.trajectory is None else np.unique(self.trajectory.steps).size


@dataclass
class CapturedSteps:
    """What was captured so far; entry i of every column but `masks` is of step `indexes[i]`.

    Attributes:
        indexes: the steps.
        positions: what `keep` made of the positions of each.
        tokens: likewise.
        masks: (step, mask) for the steps that came with one.
    """

    indexes: list[int] = field(default_factory=list)
    positions: list[Any] = field(default_factory=list)
    tokens: list[Any] = field(default_factory=list)
    masks: list[tuple[int, Any]] = field(default_factory=list)


def trajectory_of(record: TrajectoryRecord, steps: CapturedSteps) -> Trajectory:
    """Return the trajectory of `record`, after comparing it with the masks.

    Raises:
        EngineError: what was captured contradicts itself.
        TrajectoryError: something captured is no position of the canvas or no token id.
    """
    positions = joined_on_host(steps.positions)
    prompt = record.prompt_tokens
    counts = [int(part.shape[0]) for part in steps.positions]
    indexes = np.repeat(np.array(steps.indexes, dtype=np.int32), counts)
    trajectory = Trajectory(
        prompt=prompt,
        initial=np.concatenate((prompt, np.full(record.sequence_length - prompt.size, record.mask_token_id))),
        steps=indexes,
        positions=positions,
        tokens=joined_on_host(steps.tokens),
        num_steps=record.num_diffusion_steps or (steps.indexes[-1] + 1 if steps.indexes else 0),
    )
    inside = np.flatnonzero(trajectory.positions < prompt.size)
    if inside.size:
        raise EngineError(
            f"step {int(trajectory.steps[inside[0]])} commits position {int(trajectory.positions[inside[0]])}, which is"
            f" in the prompt of {prompt.size} tokens; positions count from the start of the canvas, the prompt included"
        )
    masks = [(step, _truth(step, mask)) for step, mask in _together(steps.masks)]
    check_masks(trajectory, masks, record.mask_token_id)
    return trajectory


def _together(masks: list[tuple[int, Any]]) -> list[tuple[int, Any]]:
    """Bring the masks to the host at once."""
    joined = joined_on_host([mask for _, mask in masks])
    bounds = np.cumsum([mask.shape[0] for _, mask in masks], dtype=np.int64)
    return list(zip([step for step, _ in masks], np.split(joined, bounds[:-1]), strict=True)) if masks else []


def _truth(step: int, mask: Any) -> Any:
    if mask.dtype != bool and not (np.issubdtype(mask.dtype, np.integer) and np.isin(mask, (0, 1)).all()):
        raise EngineError(f"mask_state of step {step} must hold truth values, not {mask.dtype}")
    return mask.astype(bool)


def check_length(name: str, values: Any, record: TrajectoryRecord) -> None:
    """Refuse what is neither as long as the canvas nor as what follows the prompt; raises EngineError."""
    whole = record.sequence_length
    part = whole - record.prompt_tokens.size
    if values.shape[0] not in (whole, part):
        raise EngineError(
            f"{name} has {values.shape[0]} entries; it must have {whole}, one for each position of the canvas, or"
            f" {part}, those after the prompt"
        )
