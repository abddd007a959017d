"""How much of a difference is noise: what a baseline was calibrated to, or a default for its dtype."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from difftrace.core.recording import Baseline, Budget

SPREAD: Final = 4.0
"""How many times the root mean square a single difference may be: of normally distributed ones, 1 in 16,000 is more."""


def _default(logits: float, basis: str) -> Budget:
    return Budget(SPREAD * logits, SPREAD * logits, logits, MappingProxyType({"basis": basis}))


DEFAULTS: Final = MappingProxyType(
    {
        # Evidence is kept in float32, whose step at a logit of 16 to 32 is 1.9e-6; nothing finer can be seen.
        "float64": _default(1e-6, "the resolution of recorded evidence"),
        # LLaDA's architecture on CPUs, AVX512 against AVX2: 2.7e-5 was the largest difference of any logit, and
        # no decision of 12 runs differed. As a bound of the mean it leaves room for larger models and for GPUs.
        "float32": _default(2.7e-5, "largest difference of a logit between instruction sets of a CPU"),
        # Measured the same way, root mean squares: another attention kernel 0.095, an epsilon of RMSNorm 0.093,
        # a layer scaled by 1.0078 0.074, int8 weights 0.20, int4 2.9. The default lies between the first and
        # int8, at their geometric mean: small faults cannot be told from noise in bfloat16, quantisation can.
        "bfloat16": _default(0.14, "between another attention kernel (0.095) and int8 weights (0.20)"),
        # Not measured: bfloat16's, scaled by the three bits of mantissa that float16 has more.
        "float16": _default(0.14 / 8, "that of bfloat16, scaled by the precision"),
    }
)
"""By dtype, for a model called without guidance."""


@dataclass(frozen=True)
class Tolerance:
    """The budget that a comparison is held against, and where it is from."""

    budget: Budget
    source: str


def tolerance(golden: Baseline, observed: Baseline, given: Budget | None) -> Tolerance | None:
    """Return `given`, else what the golden was calibrated to, else the default for the coarser of the two dtypes.

    Defaults grow with guidance, which computes un + (scale + 1) * (cond - un) from two rows of logits and so makes
    their noise up to 2 * scale + 1 times as large. None where a dtype is not known or has no default.
    """
    if given is not None:
        return Tolerance(given, "given")
    if golden.budget is not None:
        return Tolerance(golden.budget, "calibrated in the baseline")
    dtypes = [baseline.environment.get("dtype") for baseline in (golden, observed)]
    known = [dtype for dtype in dtypes if isinstance(dtype, str) and dtype in DEFAULTS]
    if len(known) < len(dtypes):
        return None
    dtype = max(known, key=lambda name: DEFAULTS[name].logits)
    base, factor = DEFAULTS[dtype], amplification(golden)
    budget = Budget(base.scores * factor, base.confidences * factor, base.logits, base.measured)
    return Tolerance(budget, f"default for {dtype}" + ("" if factor == 1 else ", scaled for guidance"))


def amplification(baseline: Baseline) -> float:
    """Return how many times larger than in the model's logits noise may be in what the sampler decides by."""
    scale = None if baseline.sampler is None else baseline.sampler.arguments.get("cfg_scale")
    return 1.0 + 2.0 * scale if isinstance(scale, int | float) and scale > 0 else 1.0
