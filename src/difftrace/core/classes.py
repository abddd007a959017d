"""The classes of divergence, and what a rule finds.

- IDENTICAL: nothing differs that is recorded
- INVALID: the baseline cannot be read
- INPUT: prompt, tokenizer or first canvas differ
- CONFIG: the sampler, its arguments or the model's configuration differ
- WEIGHTS: the model's weights differ
- NON_FINITE: the model returned NaN or infinite logits
- RUN_TO_RUN: the same run, repeated in the same environment, differs
- TIE_BREAK: a choice among exactly equal values fell otherwise
- RNG: the random numbers differ
- LOGIC: the decisions follow another rule; noise does not explain them
- NEAR_TIE: a close decision, of a token or of the order, fell otherwise by noise within the budget
- NUMERIC: the computation differs by more than the budget
- DRIFT: the computation differs within the budget, and no decision does
- LENGTH: one run ends before the other, and all common steps are equal
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from difftrace.core.noise import Measured

DivergenceClass = Literal[
    "IDENTICAL",
    "INVALID",
    "INPUT",
    "CONFIG",
    "WEIGHTS",
    "NON_FINITE",
    "RUN_TO_RUN",
    "TIE_BREAK",
    "RNG",
    "LOGIC",
    "NEAR_TIE",
    "NUMERIC",
    "DRIFT",
    "LENGTH",
]
NearTie = Literal["token", "order"]

CLASSES: Final[tuple[DivergenceClass, ...]] = get_args(DivergenceClass)

CANNOT_TELL: Final = "CANNOT TELL"
"""What stands in the place of a class that cannot be told."""


@dataclass(frozen=True)
class Finding:
    """What a rule concludes; see `difftrace.core.classification.Classification` for the fields."""

    divergence_class: DivergenceClass | None
    reason: str
    sequence: int | None = None
    step: int | None = None
    position: int | None = None
    kind: NearTie | None = None
    noise: tuple[Measured, ...] = ()
    decided_by: Measured | None = None
    cannot_tell: tuple[str, ...] = ()
