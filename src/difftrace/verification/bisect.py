"""The first module at which a model's run differs: from itself, or from a golden one on the same canvas."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from difftrace.core.bisection import Against, Bisection, Decisions, Source, StepChoice
from difftrace.core.comparison import Divergence, compare_sequences
from difftrace.core.error_gain import error_gains
from difftrace.core.errors import BisectionError, RunError
from difftrace.core.first_non_finite import FirstNonFinite, first_non_finite
from difftrace.core.identity_rules import changed_identity
from difftrace.core.module_difference import ModuleFinding, first_difference
from difftrace.core.module_trace import GoldenLayers, ModuleTrace, TraceOrigin
from difftrace.core.probe_steps import golden_at, nearest
from difftrace.core.recording import Baseline
from difftrace.determinism.canary import canary
from difftrace.determinism.enforcement import enforce
from difftrace.determinism.environment import fingerprint
from difftrace.models import LoadedModel
from difftrace.verification.forced import verify_forced
from difftrace.verification.golden_side import refuse_other_logits
from difftrace.verification.module_trace import trace_modules
from difftrace.verification.recorded import inputs_at, run_again
from difftrace.verification.runner import threads_that_pay

_GAINS: Final = 5

Load = Callable[[], LoadedModel]


@dataclass(frozen=True)
class _Choice:
    """The step to look at, and what running the baseline again said if that was how it was found."""

    step: int
    why: StepChoice
    decisions: Decisions = "not compared"
    divergence: Divergence | None = None


def golden_layers(loaded: LoadedModel, baseline: Baseline, step: int, sequence: int | None = None) -> GoldenLayers:
    """Return the trace of `loaded` on the baseline's canvas before `step`: what `difftrace layers` writes.

    To be made where the golden was: `bisect` compares with it. `sequence` None runs the batch as it was recorded.
    Whatever is run, the logits of the whole batch are held against the golden's evidence as well, where the baseline
    says how it was recorded.

    Raises:
        BisectionError: the baseline has no such step or sequence, was recorded with another model, or the model does
            not compute what the golden run did, or does not repeat itself here, so that nothing could be compared with
            its trace.
    """
    made = golden_trace(loaded, baseline, step, sequence)
    with suppress(RunError):
        refuse_other_logits(loaded, baseline, verify_forced(loaded, baseline, steps=[step], batch=1))
    return made


def golden_trace(loaded: LoadedModel, baseline: Baseline, step: int, sequence: int | None) -> GoldenLayers:
    """Return what `golden_layers` does, for those who have seen themselves that the logits are the golden's."""
    changed = changed_identity(baseline, loaded.identity)
    if changed:
        raise BisectionError(
            f"model {loaded.name} is not the one that the baseline was recorded with: other {' and '.join(changed)}"
        )
    return _repeatable_trace(loaded, baseline, step, sequence)


def bisect(
    loaded: LoadedModel,
    baseline: Baseline,
    *,
    step: int | None = None,
    sequence: int | None = None,
    golden: GoldenLayers | None = None,
    file: str | None = None,
) -> Bisection:
    """Run `loaded` twice on a golden canvas; return the first module that does not repeat itself, or differs.

    The golden side is `golden`, what `golden_layers` returned elsewhere and `file` brought here, or else the probe of
    the baseline whose step is nearest to the one asked for. Without either only repeatability is found out.
    `step` and `sequence` default to those of `golden`; else the step is the first at which the model's own run
    leaves the baseline (0 if none does), and all sequences are run as one batch, as they were recorded.

    Raises:
        BisectionError: the baseline has no such step or sequence, does not say how to run it again (give `step`), or
            `golden` was made from something else.
        FormatError: the probe was, or is no module trace.
    """
    source: Source = "file"
    if golden is None:
        choice = _choose(loaded, baseline, step, sequence)
        inputs_at(loaded, baseline, choice.step, sequence)
        probe = nearest(baseline.probes, choice.step, sequence)
        if probe is not None:
            golden, source = golden_at(baseline, probe), "probe"
    else:
        _check_origin(golden.origin, baseline, step, sequence)
        choice = _Choice(golden.origin.step, "of the golden trace")
    ran, alone = (choice.step, sequence) if golden is None else (golden.origin.step, golden.origin.sequence)
    origin, first, second = _trace_twice(loaded, baseline, ran, alone)
    against = None if golden is None else _compare(source, file, golden, first)
    broken = _non_finite(first, baseline, origin, golden)
    found = _bisection(baseline, choice, origin, (first, second), against, broken)
    if found.verdict != "no difference" or found.decisions != "not compared":
        return found
    # The canvas of another step may show what this one does not.
    with suppress(BisectionError):
        divergence = _divergence(loaded, baseline, alone)
        return replace(found, decisions="diverge" if divergence else "agree", divergence=divergence)
    return found


def bisect_models(
    load_observed: Load,
    load_golden: Load,
    baseline: Baseline,
    *,
    step: int | None = None,
    sequence: int | None = None,
) -> Bisection:
    """Like `bisect`, compared with another model here, say the trusted checkpoint or another dtype.

    The models are loaded one after the other, so that there need be memory for one only. The golden one is not asked
    if the other does not repeat itself; if only the golden one does not, that is a BisectionError.
    """
    loaded = load_observed()
    choice = _choose(loaded, baseline, step, sequence)
    origin, first, second = _trace_twice(loaded, baseline, choice.step, sequence)
    del loaded
    broken = _non_finite(first, baseline, origin, None)
    found = _bisection(baseline, choice, origin, (first, second), None, broken)
    if found.repeat is not None:
        return found
    golden = _repeatable_trace(load_golden(), baseline, choice.step, sequence)
    broken = _non_finite(first, baseline, origin, golden)
    return replace(found, against=_compare("model", None, golden, first), non_finite=broken)


def _choose(loaded: LoadedModel, baseline: Baseline, step: int | None, sequence: int | None) -> _Choice:
    if step is not None:
        return _Choice(step, "given")
    divergence = _divergence(loaded, baseline, sequence)
    if divergence is None:
        return _Choice(0, "none diverges", "agree")
    return _Choice(divergence.step or 0, "first divergent", "diverge", divergence)


def _divergence(loaded: LoadedModel, baseline: Baseline, sequence: int | None) -> Divergence | None:
    """Return where the model's own run leaves the baseline, in one sequence or in any."""
    try:
        observed = run_again(loaded, baseline)
    except RunError as error:
        raise BisectionError(f"{error}; give --step") from None
    golden = [record.trajectory for record in baseline.sequences]
    if sequence is None:
        return compare_sequences(golden, observed)
    one = slice(sequence, sequence + 1)
    found = compare_sequences(golden[one], observed[one])
    return None if found is None else replace(found, sequence=sequence)


def _check_origin(origin: TraceOrigin, baseline: Baseline, step: int | None, sequence: int | None) -> None:
    if origin.baseline != baseline.digest:
        raise BisectionError(
            f"the golden trace was made from another baseline ({origin.baseline[:19]}…, this is"
            f" {baseline.digest[:19]}…); make it anew with `difftrace layers`"
        )
    for name, asked, there in (("step", step, origin.step), ("sequence", sequence, origin.sequence)):
        if asked is not None and asked != there:
            of = "all sequences" if there is None else f"{name} {there}"
            raise BisectionError(f"the golden trace is of {of}, not of {name} {asked}; drop --{name}")


def _repeatable_trace(loaded: LoadedModel, baseline: Baseline, step: int, sequence: int | None) -> GoldenLayers:
    """Return the trace of a model that has to repeat itself, for others to be compared with."""
    origin, first, second = _trace_twice(loaded, baseline, step, sequence)
    unstable = _repeat(first, second)
    if unstable is not None:
        raise BisectionError(
            f"model {loaded.name} does not repeat itself on this canvas (RUN_TO_RUN, first in"
            f" {unstable.module or 'the model'}, {unstable.class_name}), so its trace is nothing to compare with; see"
            " `difftrace bisect`"
        )
    return GoldenLayers(origin, first)


def _trace_twice(
    loaded: LoadedModel, baseline: Baseline, step: int, sequence: int | None
) -> tuple[TraceOrigin, ModuleTrace, ModuleTrace]:
    """Run the canvas twice under enforced determinism, with one seed for both: what draws numbers shows itself."""
    inputs = inputs_at(loaded, baseline, step, sequence)
    with enforce(device=loaded.device, threads=threads_that_pay(loaded.model)):
        first, second = (
            trace_modules(loaded.model, inputs.input_ids, attention_mask=inputs.attention_mask) for _ in range(2)
        )
        environment = {
            **fingerprint(loaded.device, loaded.dtype),
            "canary": canary(loaded.device, loaded.dtype),
        }
    return TraceOrigin(baseline.digest, step, sequence, loaded.identity, environment), first, second


def _repeat(first: ModuleTrace, second: ModuleTrace) -> ModuleFinding | None:
    """Return the first difference between two runs; a buffer that counts calls, say, is none by itself."""
    found = first_difference(first, second)
    return None if found is not None and found.without_effect else found


def _compare(source: Source, file: str | None, golden: GoldenLayers, observed: ModuleTrace) -> Against:
    gains = error_gains(golden.trace, observed)[:_GAINS]
    return Against(source, file, golden.origin, first_difference(golden.trace, observed), gains)


def _bisection(
    baseline: Baseline,
    choice: _Choice,
    origin: TraceOrigin,
    traces: tuple[ModuleTrace, ModuleTrace],
    against: Against | None,
    non_finite: FirstNonFinite | None,
) -> Bisection:
    first, second = traces
    return Bisection(
        origin=origin,
        num_steps=max(record.trajectory.num_steps for record in baseline.sequences),
        asked_step=choice.step,
        step_choice=choice.why,
        decisions=choice.decisions,
        divergence=choice.divergence,
        modules=len(first.modules),
        calls=len(first.calls),
        changed_identity=changed_identity(baseline, origin.model),
        unseen=tuple(first.modules[index].name for index in first.unseen),
        draws_random_numbers=first.draws_random_numbers,
        repeat=_repeat(first, second),
        against=against,
        non_finite=non_finite,
    )


def _non_finite(
    observed: ModuleTrace, baseline: Baseline, origin: TraceOrigin, golden: GoldenLayers | None
) -> FirstNonFinite | None:
    """Return where NaN or infinite values begin, and whether the golden run has some as well."""
    first = first_non_finite(observed)
    if first is None:
        return None
    if golden is not None:
        return replace(first, in_golden=first_non_finite(golden.trace) is not None)
    chosen = baseline.sequences if origin.sequence is None else baseline.sequences[origin.sequence :][:1]
    counts = [None if one.evidence is None else int(one.evidence.non_finite[origin.step]) for one in chosen]
    return replace(first, in_golden=True if any(counts) else None if None in counts else False)
