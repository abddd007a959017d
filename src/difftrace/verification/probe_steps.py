"""Probes for a baseline, made only by a model that decides at their steps as the golden run did."""

from __future__ import annotations

from collections.abc import Sequence

from difftrace.core.errors import BisectionError, RunError
from difftrace.core.module_trace import GoldenLayers
from difftrace.core.recording import Baseline
from difftrace.models import LoadedModel
from difftrace.verification.bisect import golden_trace
from difftrace.verification.forced import verify_forced
from difftrace.verification.golden_side import refuse_other_logits


def golden_probes(
    loaded: LoadedModel, baseline: Baseline, steps: Sequence[int], sequence: int | None = None
) -> tuple[GoldenLayers, ...]:
    """Return the traces of `loaded` on the baseline's canvases before `steps`: what `with_probes` puts into it.

    `sequence` None runs the batch as it was recorded. Whatever is run, decisions and logits of the whole batch are held
    against the golden ones first, each step scored as it was recorded.

    Raises:
        BisectionError: as `golden_layers` does, or where the model is in another dtype, or decides otherwise or has
            other logits at one of the steps, or the baseline does not say how it was recorded, so that decisions cannot
            be compared.
    """
    chosen = sorted(set(steps))
    recorded, dtype = baseline.environment.get("dtype"), loaded.dtype_name
    if recorded not in (None, dtype):
        raise BisectionError(f"the golden run was in {recorded}, not in {dtype}; give --dtype {recorded}")
    try:
        verdict = verify_forced(loaded, baseline, steps=chosen, batch=1)
    except RunError as error:
        raise BisectionError(str(error)) from None
    if verdict.divergent:
        first = verdict.divergent[0]
        at = "" if first.divergence is None else f", position {first.divergence.position}"
        raise BisectionError(
            f"at step {first.step}{at}, model {loaded.name} decides otherwise here than the golden run did, so what it"
            " computes is nothing to compare with"
        )
    refuse_other_logits(loaded, baseline, verdict)
    return tuple(golden_trace(loaded, baseline, step, sequence) for step in chosen)
