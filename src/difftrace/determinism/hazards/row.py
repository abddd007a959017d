"""One row of the table of hazards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from difftrace.determinism.hazards.conditions import Condition

Kind = Literal["random", "nondeterministic", "tie-unspecified", "backend-chosen"]
Setting = Literal["deterministic-algorithms", "deterministic-cudnn", "one-attention-backend"]

ANY: Final = ("any",)
CPU: Final = ("cpu",)
# ROCm devices call themselves "cuda" in torch too.
CUDA: Final = ("cuda",)
CPU_AND_CUDA: Final = ("cpu", "cuda")


@dataclass(frozen=True)
class Hazard:
    """Some operations that vary for one reason.

    `operations` are ATen names without the `_` of in-place forms, `namespace::name` for others, or the names of
    functions in torch.nn.functional. `condition` decides by the arguments whether a call is concerned; None: always.
    `settled_by` are the settings of which any one removes the reason. `shown_as` is the public name of operations that
    a user does not call by their own.
    """

    kind: Kind
    operations: tuple[str, ...]
    why: str
    fix: str
    source: str
    devices: tuple[str, ...] = ANY
    condition: Condition | None = None
    settled_by: tuple[Setting, ...] = ()
    shown_as: str | None = None


# Where torch lists what it then makes deterministic, and what then raises.
DETERMINISTIC: Final = "torch.use_deterministic_algorithms"
ENFORCE: Final = (
    "run it under difftrace.enforce(), or torch.use_deterministic_algorithms(True), which take a deterministic form"
)
