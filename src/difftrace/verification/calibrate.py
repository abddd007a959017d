"""How far runs are apart that should be as good as the golden one: the budget of a baseline, measured."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from difftrace.core.calibration import MARGIN, Calibration, TrustedPair, calibrated, trusted_pair
from difftrace.core.comparison import compare_sequences
from difftrace.core.errors import CalibrationError, DiffTraceError, ProbeError
from difftrace.core.identity_rules import changed_identity
from difftrace.core.recording import Baseline
from difftrace.core.run import Run
from difftrace.determinism.devices import platform_key
from difftrace.models import LoadedModel
from difftrace.verification.attention import BACKENDS, runs_here
from difftrace.verification.recorded import RecordedBatch, recorded_batch, seeded
from difftrace.verification.runner import denoise
from difftrace.verification.second_copy import require_second_copy

# The rows of the batch again, from runs of another shape.
_Rows = Callable[[], Baseline]


def calibrate(loaded: LoadedModel, baseline: Baseline, margin: float = MARGIN) -> Calibration:
    """Run the baseline again, and under every variation that is trusted; return the budget of their differences.

    The variations: the same run repeated; the batch doubled; each sequence of a batch alone; another backend of
    attention; and computing in float32 where the model's dtype is narrower, with the same (rounded) weights. What
    cannot run here is named in the result.

    Raises:
        CalibrationError: the model is another one than was recorded, or in another dtype, or does not decide as the
            golden does, so the budget would be one of something else; or it does not repeat itself; or nothing could be
            compared.
        RunError: the baseline does not say how it was recorded, or drew random numbers that cannot be had again.
        SamplerError: the model cannot run it.
    """
    batch = recorded_batch(baseline)
    batch = replace(batch, arguments=seeded(batch.arguments))
    _refuse_other_model(baseline, loaded)
    base, again = (run.to_baseline(None) for run in _denoise(loaded, batch, batch.prompt_ids, batch.prompt_mask, 2))
    _refuse_others(baseline, base)
    if not base.same_decisions(again):
        raise CalibrationError(
            f"model {loaded.name} does not repeat itself here (RUN_TO_RUN), so nothing can be measured with it;"
            " see `difftrace bisect`"
        )
    trusted = [trusted_pair("repeat", base, again), *_variations(loaded, batch, base)]
    measured_on = {
        "dtype": loaded.dtype_name,
        "platform": platform_key(loaded.device),
        "torch": torch.__version__,
    }
    return calibrated(trusted, baseline, margin, measured_on)


def _denoise(
    loaded: LoadedModel,
    batch: RecordedBatch,
    ids: Tensor,
    mask: Tensor | None,
    times: int = 1,
    attention: str | None = None,
) -> tuple[Run, ...]:
    return denoise(loaded, ids, mask, batch.arguments, times=times, attention=attention)


def _refuse_other_model(baseline: Baseline, loaded: LoadedModel) -> None:
    changed = changed_identity(baseline, loaded.identity)
    if changed:
        raise CalibrationError(f"model {loaded.name} has other {' and '.join(changed)} than the one that was recorded")
    recorded, dtype = baseline.environment.get("dtype"), loaded.dtype_name
    if recorded not in (None, dtype):
        raise CalibrationError(
            f"the golden run was in {recorded}, not in {dtype}, whose noise is another; give --dtype {recorded}"
        )


def _refuse_others(baseline: Baseline, base: Baseline) -> None:
    sides = ([record.trajectory for record in side.sequences] for side in (baseline, base))
    divergence = compare_sequences(*sides)
    if divergence is None:
        return
    where = "" if divergence.step is None else f" at step {divergence.step}"
    raise CalibrationError(
        f"the model here does not decide as the baseline does: sequence {divergence.sequence} differs{where}. A budget"
        " measured on it would be one of something else; calibrate where the baseline verifies, or record it anew"
    )


def _variations(loaded: LoadedModel, batch: RecordedBatch, base: Baseline) -> Iterator[TrustedPair]:
    yield _varied("batch doubled", base, partial(_doubled, loaded, batch))
    if len(batch.prompt_ids) > 1:
        yield _varied("each sequence alone", base, partial(_alone, loaded, batch))
    for name in BACKENDS:
        yield _varied(f"attention {name}", base, partial(_attending, loaded, batch, name))
    if loaded.dtype.itemsize < torch.float32.itemsize:
        yield _varied("float32 compute", base, partial(_in_float32, loaded, batch))
    else:
        yield TrustedPair("float32 compute", not_run="the model computes in it anyway")


def _varied(name: str, base: Baseline, run: _Rows) -> TrustedPair:
    """Run a variation and measure it; say why where it cannot run."""
    try:
        return trusted_pair(name, base, run())
    except (DiffTraceError, RuntimeError) as error:
        return TrustedPair(name, not_run=str(error).splitlines()[0] if str(error) else type(error).__name__)


def _attending(loaded: LoadedModel, batch: RecordedBatch, attention: str) -> Baseline:
    if not runs_here(loaded, BACKENDS[attention]):
        raise ProbeError(f"not available here on {loaded.device.type}")
    return _whole(loaded, batch, attention)


def _whole(loaded: LoadedModel, batch: RecordedBatch, attention: str | None = None) -> Baseline:
    runs = _denoise(loaded, batch, batch.prompt_ids, batch.prompt_mask, attention=attention)
    return runs[0].to_baseline(None)


def _doubled(loaded: LoadedModel, batch: RecordedBatch) -> Baseline:
    """Run every row beside a copy of the batch, and return the rows once."""
    _refuse_drawn_noise(batch)
    mask = None if batch.prompt_mask is None else batch.prompt_mask.repeat(2, 1)
    [run] = _denoise(loaded, batch, batch.prompt_ids.repeat(2, 1), mask)
    doubled = run.to_baseline(None)
    return replace(doubled, sequences=doubled.sequences[: len(batch.prompt_ids)])


def _alone(loaded: LoadedModel, batch: RecordedBatch) -> Baseline:
    """Run every row by itself, its padding kept, so that the canvases are the same."""
    _refuse_drawn_noise(batch)
    masks: Sequence[Tensor | None] = [None] * len(batch.prompt_ids)
    if batch.prompt_mask is not None:
        masks = torch.split(batch.prompt_mask, 1)
    rows = zip(torch.split(batch.prompt_ids, 1), masks, strict=True)
    alone = [_denoise(loaded, batch, ids, mask)[0].to_baseline(None) for ids, mask in rows]
    return replace(alone[0], sequences=tuple(one.sequences[0] for one in alone))


def _refuse_drawn_noise(batch: RecordedBatch) -> None:
    """Raise ProbeError where a batch of another size draws other random numbers."""
    if batch.arguments.draws and batch.arguments.noise == "upstream":
        raise ProbeError("with the published sampler's noise another batch draws other random numbers")


def _in_float32(loaded: LoadedModel, batch: RecordedBatch) -> Baseline:
    """Compute in float32 with the weights as they are, which float32 holds exactly."""
    require_second_copy(loaded, torch.float32)
    wide = copy.deepcopy(loaded.model).float()
    return _whole(replace(loaded, model=wide, dtype=torch.float32), batch)
