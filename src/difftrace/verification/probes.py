"""The probes: one thing changed at a time, and what that changed in the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import torch
from torch.nn.attention import SDPBackend

from difftrace.core.doctor import Probe, ProbeResult
from difftrace.core.errors import DiffTraceError, ProbeError
from difftrace.core.text import printable
from difftrace.models import LoadedModel, load_model
from difftrace.verification.attention import BACKENDS, runs_here
from difftrace.verification.probe_compare import compare_rows
from difftrace.verification.probe_process import rows_of_fresh_process
from difftrace.verification.probe_prompts import ProbePrompts
from difftrace.verification.probe_run import Conditions, RowRun, run_rows
from difftrace.verification.second_copy import require_second_copy

Rows = Sequence[RowRun]

_LONGEST_REASON: Final = 300


class _UnavailableError(ProbeError):
    """This machine has no such thing."""


@dataclass(frozen=True)
class Subject:
    """What is probed: a model, what it is given, and the run that variants are held against.

    Attributes:
        loaded: the model as `load_model` returned it; a fresh process and another dtype load it again from its folder.
        prompts: what it denoises.
        threads: CPU threads of all runs but those of the threads probe.
        base: each prompt alone, under attention backend `math`.
    """

    loaded: LoadedModel
    prompts: ProbePrompts
    threads: int
    base: tuple[RowRun, ...]

    @property
    def conditions(self) -> Conditions:
        """What the base ran under."""
        return Conditions(self.threads)


def base_of(loaded: LoadedModel, prompts: ProbePrompts, threads: int) -> Subject:
    """Run each prompt alone and return the subject whose base that is."""
    return Subject(loaded, prompts, threads, run_rows(loaded, prompts.rows, Conditions(threads)))


def repeat(subject: Subject) -> Iterator[ProbeResult]:
    """Run the same again: in this process, and in a fresh one."""
    yield _against_base(subject, "repeat", "in process", partial(_alone, subject, subject.conditions))
    elsewhere = partial(rows_of_fresh_process, subject.loaded, subject.prompts.rows, subject.threads)
    yield _against_base(subject, "repeat", "fresh process", elsewhere)


def batch(subject: Subject) -> Iterator[ProbeResult]:
    """Run each row beside others of the same length."""
    for size in (2, 4):
        yield _against_base(subject, "batch", f"{size} rows instead of 1", partial(_batched, subject, size))


def padding(subject: Subject) -> Iterator[ProbeResult]:
    """Run rows left-padded beside a longer one, against a batch of the same size that needs no padding."""
    loaded, prompts = subject.loaded, subject.prompts
    *kept, _ = prompts.rows
    beside_longer = (*kept, prompts.longer)

    def both() -> tuple[Rows, Rows]:
        padded = run_rows(loaded, beside_longer, subject.conditions, batch=len(beside_longer))
        return _batched(subject, len(beside_longer))[: len(kept)], padded[: len(kept)]

    yield _outcome("padding", f"{len(prompts.longer) - prompts.length} padding positions", both)


def threads(subject: Subject) -> Iterator[ProbeResult]:
    """Run one batch with another number of CPU threads: 2 against 1, or 1 against several.

    All rows at once, because small products are not split over threads. No more than 2 for a model that runs on one:
    where there are fewer processors to be had, threads spend most of their time waiting for each other.
    """
    count = 2 if subject.threads == 1 else 1
    size = len(subject.prompts.rows)

    def both() -> tuple[Rows, Rows]:
        other = run_rows(subject.loaded, subject.prompts.rows, Conditions(count), batch=size)
        return _batched(subject, size), other

    yield _outcome("threads", f"{count} instead of {subject.threads}", both)


def attention(subject: Subject) -> Iterator[ProbeResult]:
    """Run with every attention backend that can run here, instead of plain matrix products."""
    for name, backend in BACKENDS.items():
        run = partial(_attending, subject, name, backend)
        yield _against_base(subject, "attention", f"{name} instead of math", run)


def dtype(subject: Subject) -> Iterator[ProbeResult]:
    """Run the model as loaded in fp32; one that is in fp32 already, in bf16."""
    loaded = subject.loaded
    other = torch.bfloat16 if loaded.dtype == torch.float32 else torch.float32

    def run() -> Rows:
        require_second_copy(loaded, other)
        again = load_model(loaded.folder, dtype=other, device=loaded.device)
        return run_rows(again, subject.prompts.rows, subject.conditions)

    yield _against_base(subject, "dtype", f"{_short(other)} instead of {_short(loaded.dtype)}", run)


RUN: Final[dict[Probe, Callable[[Subject], Iterator[ProbeResult]]]] = {
    "repeat": repeat,
    "batch": batch,
    "padding": padding,
    "threads": threads,
    "attention": attention,
    "dtype": dtype,
}


def _alone(subject: Subject, conditions: Conditions) -> Rows:
    return run_rows(subject.loaded, subject.prompts.rows, conditions)


def _attending(subject: Subject, name: str, backend: SDPBackend) -> Rows:
    loaded = subject.loaded
    if not runs_here(loaded, backend):
        heads = f"{_short(loaded.dtype)} heads of {loaded.config.head_dim} on {loaded.device.type}"
        raise _UnavailableError(f"not available here: torch has no such kernel for {heads}")
    return _alone(subject, Conditions(subject.threads, name))


def _batched(subject: Subject, size: int) -> Rows:
    return run_rows(subject.loaded, subject.prompts.rows, subject.conditions, batch=size)


def _against_base(subject: Subject, probe: Probe, variant: str, run: Callable[[], Rows]) -> ProbeResult:
    return _outcome(probe, variant, lambda: (subject.base, run()))


def _outcome(probe: Probe, variant: str, both: Callable[[], tuple[Rows, Rows]]) -> ProbeResult:
    try:
        return compare_rows(probe, variant, *both())
    except _UnavailableError as error:
        return ProbeResult(probe, variant, "not run", reason=_reason(error), unavailable=True)
    except Exception as error:  # one probe that cannot run must not keep the others from running
        return ProbeResult(probe, variant, "not run", reason=_reason(error))


def _reason(error: Exception) -> str:
    first = str(error).strip().partition("\n")[0]
    text = first if isinstance(error, DiffTraceError) else f"{type(error).__name__}: {first}"
    return printable(text)[:_LONGEST_REASON]


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
