"""The examination behind `difftrace doctor`: what is in force, and what the probes measure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from difftrace.core.doctor import PROBES, DoctorReport, Probe, ProbeResult, Surroundings
from difftrace.determinism.enforcement import enforce
from difftrace.determinism.environment import fingerprint
from difftrace.determinism.status import status
from difftrace.models import LoadedModel
from difftrace.verification.probe_prompts import ProbePrompts, probe_prompts
from difftrace.verification.probe_run import ARGUMENTS
from difftrace.verification.probes import RUN, base_of
from difftrace.verification.runner import threads_that_pay


def examine(
    loaded: LoadedModel,
    probes: Sequence[Probe] = PROBES,
    *,
    started: Callable[[Surroundings], None] | None = None,
    finished: Callable[[ProbeResult], None] | None = None,
) -> DoctorReport:
    """Run `probes` on `loaded`, as `load_model` returned it, and return what they showed.

    Args:
        loaded: the model. A fresh process and another dtype load it again from its folder.
        probes: which to run; they run in the order of `PROBES`.
        started: called once, before anything is run.
        finished: called with each result as soon as it is there.

    A probe that fails is reported as not run. An error of the base run, without which nothing can be compared, is
    raised.
    """
    prompts = probe_prompts(loaded)
    threads = threads_that_pay(loaded.model) or torch.get_num_threads()
    surroundings = _surroundings(loaded, prompts, threads)
    if started is not None:
        started(surroundings)
    subject = base_of(loaded, prompts, threads)
    results = []
    for name in PROBES:
        if name not in probes:
            continue
        for result in RUN[name](subject):
            results.append(result)
            if finished is not None:
                finished(result)
    return DoctorReport(surroundings, tuple(results))


def _surroundings(loaded: LoadedModel, prompts: ProbePrompts, threads: int) -> Surroundings:
    assert ARGUMENTS.seed is not None
    with enforce(ARGUMENTS.seed, device=loaded.device, threads=threads):
        in_force = status()
        environment = fingerprint(loaded.device, loaded.dtype)
    return Surroundings(
        model=loaded.name,
        revision=loaded.revision,
        dtype=loaded.dtype_name,
        device=str(loaded.device),
        settings={
            "prompts": len(prompts.rows),
            "prompt_tokens": prompts.length,
            "threads": threads,
            "attention": "math",
            **ARGUMENTS.as_dict(),
        },
        status=in_force,
        fingerprint={**environment},
    )
