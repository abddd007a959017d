"""A bisection as text: what was run, which module it points at, and what to do where it cannot tell.

Lines are at most 100 columns wide, unless a name or a command does not fit, which must stay whole to be of use. Every
text from a model or a file is made printable first.
"""

from __future__ import annotations

from collections.abc import Sequence
from shlex import quote
from textwrap import wrap
from typing import Final

from difftrace.core.bisection import Against, Bisection
from difftrace.core.error_gain import ErrorGain
from difftrace.core.first_non_finite import FirstNonFinite
from difftrace.core.module_difference import ModuleFinding, StatePair
from difftrace.core.module_trace import TraceOrigin
from difftrace.core.text import printable
from difftrace.reports.context import environment_differences
from difftrace.reports.module_places import place, point_text, within

COLUMNS: Final = 100

_MOST_STATE: Final = 4
_MOST_NAMES: Final = 3
_DIGEST: Final = len("sha256:") + 12


def bisection_lines(found: Bisection, baseline: str) -> list[str]:
    """Return what `difftrace bisect` prints; `baseline` is the path of the baseline's file."""
    origin = found.origin
    canvas = f"before step {origin.step} of 0..{found.num_steps - 1}{alone(origin)}"
    lines = [
        f"difftrace bisect: {printable(baseline)}",
        *_item("canvas", f"{canvas}{place_of_probe(found)}, {_why(found)}"),
        *_item("model", f"{model_where(origin)}: {found.modules} modules, {found.calls} calls, run twice"),
    ]
    if found.against is not None:
        same = "the same environment" if found.same_environment else "another environment"
        lines += _item("golden", f"{_source(found.against)}{model_where(found.against.origin)}, {same}")
    return [*lines, "", *finding_lines(found), *_advice(found, baseline)]


def finding_lines(found: Bisection) -> list[str]:
    """Return the result alone, to be put below another report: a headline and what speaks for it."""
    match found.verdict:
        case "run-to-run":
            assert found.repeat is not None
            lines = _run_to_run(found.repeat, found.against)
        case "repeatable":
            lines = ["every module repeats itself bit for bit; there is no golden side to compare with"]
        case "no difference":
            lines = ["no difference: on this canvas every module computes what it does in the golden run"]
        case "difference":
            assert found.against is not None
            lines = _difference(found, found.against)
    if found.non_finite is not None:
        lines = [*_first_non_finite(found.non_finite), *lines]
    if found.changed_identity:
        changed = " and ".join(found.changed_identity)
        lines += wrapped(f"as it is stored, the model has other {changed} than the one that was recorded")
    lines += _decisions(found)
    if found.draws_random_numbers:
        lines.append("the model draws random numbers while it runs: is a dropout left on?")
    if found.unseen:
        lines += wrapped(
            f"not called as modules: {_listed(found.unseen)}; what they compute counts to the module around them"
        )
    return lines


def probe_command(baseline: str, step: int, sequence: int | None = None) -> str:
    """Return the command that puts a probe of `step` into the file `baseline`."""
    which = "" if sequence is None else f" --sequence {sequence}"
    return f"difftrace layers {quote(baseline)} --step {step}{which} --into-baseline"


def place_of_probe(found: Bisection) -> str:
    """Return what is to be said of the step that was run: nothing, or of which one it is the nearest with a probe."""
    if found.origin.step == found.asked_step:
        return ""
    if found.step_choice == "none diverges":
        return ", the first with a probe"
    return f", the probe nearest to step {found.asked_step}"


def _first_non_finite(first: FirstNonFinite) -> list[str]:
    """Return where NaN or infinite values begin; that is no news where the golden run has them too."""
    name = "" if first.in_golden else "NON_FINITE: "
    where = place(first.module, first.class_name, first.ordinal, first.after, first.before)
    lines = wrapped(f"{name}NaN or infinite values begin in {where}")
    given = "it was given finite values and returned" if first.after is None else "every value before is finite, there"
    counted = f"{first.non_finite} of {first.values}"
    lines += wrapped(f"{given} {counted} {'that ' if first.after is None else ''}are NaN or infinite", "  ")
    if first.in_golden:
        lines.append("  the golden run has such values in its logits too")
    return lines


def _run_to_run(repeat: ModuleFinding, against: Against | None) -> list[str]:
    lines = ["RUN_TO_RUN: the same canvas twice gives different results"]
    lines += wrapped(f"first in {_where(repeat)}", "  ")
    lines += _evidence(repeat, ("first run", "second run"))
    if against is not None and against.finding is not None:
        lines += wrapped(f"from the golden run it first differs in {_where(against.finding)}", "  ")
    return lines


def _difference(found: Bisection, against: Against) -> list[str]:
    finding = against.finding
    assert finding is not None
    if found.same_environment or finding.kind in ("input", "structure"):
        return [*wrapped(f"first difference: {_where(finding)}"), *_evidence(finding, ("golden", "here"))]
    return _other_environment(found, against, finding)


def _other_environment(found: Bisection, against: Against, finding: ModuleFinding) -> list[str]:
    """Return the lines where every result differs a little, so that the first difference is nobody's fault."""
    lines = []
    weights, largest = found.changed_weights, found.largest_gain
    if weights:
        lines += wrapped(f"weights differ, which no environment explains: {_listed([w.name for w in weights])}")
        lines += [f"  {line}" for line in _digests(weights, ("golden", "here"), "")]
    elif largest is not None:
        lines += wrapped(f"the error grows most in {_part(largest)}: {largest.gain:.1f}-fold")
    else:
        lines += wrapped(
            f"no module stands out: the error grows nowhere more than {_largest(against):.1f}-fold, as rounding does"
        )
    at_output = _error(finding.error_at_output)
    lines += wrapped(f"first difference, as between any two environments: {_where(finding)}", "  ")
    lines += [f"  relative error of what the model returns: {at_output}"]
    if against.gains:
        lines += ["  growth  error in → out      in", *(_gain(gain) for gain in against.gains)]
    others = environment_differences(against.origin.environment, found.origin.environment)
    return [*lines, "  golden → here:", *(f"    {line}" for line in others)]


def _gain(gain: ErrorGain) -> str:
    errors = f"{_error(gain.error_before)} → {_error(gain.error_after)}"
    name = printable(gain.module) or "the model"
    if gain.after is not None and gain.before is not None:
        name += f": {point_text(gain.after, gain.module)} → {point_text(gain.before, gain.module)}"
    return f"  {gain.gain:6.1f}  {errors:<18}  {name}"


def _largest(against: Against) -> float:
    return against.gains[0].gain if against.gains else 0.0


def _evidence(finding: ModuleFinding, labels: tuple[str, str]) -> list[str]:
    """Return the indented lines below a finding's headline."""
    lines = [_reason(finding)]
    differing = [pair for pair in finding.state if pair.equal is False]
    lines += [f"  {line}" for line in _digests(differing, labels, finding.module)]
    if finding.error_after:
        end = finding.error_at_output
        at_end = "nothing" if end == 0.0 else _error(end)
        lines.append(f"relative difference {_error(finding.error_after)} there, {at_end} in what the model returns")
    if any(finding.non_finite):
        counts = ", ".join(f"{label} {count}" for label, count in zip(labels, finding.non_finite, strict=True))
        lines.append(f"values that are NaN or infinite: {counts}")
    elsewhere = [pair.name for pair in finding.changed if pair not in finding.state]
    if elsewhere:
        lines.append(f"parameters and buffers that differ elsewhere: {_listed(elsewhere)}")
    return [line for one in lines for line in wrapped(one, "  ")]


def _reason(finding: ModuleFinding) -> str:
    """Return why the finding points where it does."""
    if finding.kind == "input":
        return "the model itself was given something else"
    if finding.kind == "structure":
        return printable(finding.detail or "")
    if finding.without_effect:
        return "its parameters differ, without any effect on this canvas:"
    if finding.kind == "parameters":
        return "everything before it agrees, but its parameters differ:"
    unknown = any(pair.equal is None for pair in finding.state)
    known = [f"{printable(within(pair.name, finding.module))} {_short(pair.observed)}" for pair in finding.state]
    if not finding.state:
        parameters = "it has no parameters of its own"
    elif unknown:
        parameters = "its parameters cannot be compared"
    else:
        parameters = f"its parameters agree ({_listed(known)})"
    if finding.kind == "module":
        return f"it was given the same and returned something else; {parameters}"
    return f"every module before agrees; {parameters}"


def _where(finding: ModuleFinding) -> str:
    return place(finding.module, finding.class_name, finding.ordinal, finding.after, finding.before)


def _part(gain: ErrorGain) -> str:
    return place(gain.module, gain.class_name, gain.ordinal, gain.after, gain.before)


def _decisions(found: Bisection) -> list[str]:
    """Return what the model's own run says beside a canvas on which nothing differs."""
    if found.verdict in ("run-to-run", "difference"):
        return []
    if found.decisions == "agree":
        return ["run again, the model takes the golden decision at every step"]
    if found.divergence is None:
        return []
    step = found.divergence.step
    if step is None:
        return ["run again, it starts from another canvas than the golden run"]
    if step != found.origin.step:
        return wrapped(f"run again, the model leaves the baseline at step {step}, which this canvas does not show")
    if found.verdict == "repeatable":
        return wrapped(f"run again, the model leaves the baseline at step {step}")
    if found.origin.sequence is not None:
        return wrapped(f"yet at step {step} it decides otherwise; without --sequence the whole batch is looked at")
    return wrapped(f"yet at step {step} it decides otherwise: not the model has changed, but what samples from it")


def _advice(found: Bisection, baseline: str) -> list[str]:
    """Return which command would tell more."""
    step = found.origin.step
    if found.divergence is not None and found.divergence.step is not None:
        step = found.divergence.step
    if found.verdict == "repeatable" or (found.verdict == "no difference" and step != found.origin.step):
        return [
            "to find the module, run this where the baseline was recorded, and then bisect again:",
            f"  {probe_command(printable(baseline), step, found.origin.sequence)}",
            "or, to leave the baseline as it is, with -o layers.json instead, and bisect with --against layers.json",
        ]
    return []


def _source(against: Against) -> str:
    match against.source:
        case "file":
            return f"{printable(against.file or '')}: "
        case "probe":
            return "probe in the baseline: "
        case "model":
            return ""


def _why(found: Bisection) -> str:
    match found.step_choice:
        case "given":
            return "as asked for"
        case "of the golden trace":
            return "which the golden trace is of"
        case "none diverges":
            return "since no step diverges"
        case "first divergent":
            divergence = found.divergence
            at = "" if divergence is None or divergence.position is None else f" (position {divergence.position})"
            return f"the first at which the model leaves the baseline{at}"


def alone(origin: TraceOrigin) -> str:
    """Return what is to be said where one sequence was run alone."""
    return "" if origin.sequence is None else f", sequence {origin.sequence} alone"


def model_where(origin: TraceOrigin) -> str:
    """Return what ran, in which dtype and on what."""
    name = "unknown model" if origin.model is None else printable(origin.model.name)
    environment = origin.environment
    return printable(f"{name}, {environment.get('dtype')} on {environment.get('platform_key')}")


def _digests(pairs: Sequence[StatePair], labels: tuple[str, str], around: str) -> list[str]:
    """Return a line for each of the first pairs, by their names within the module `around`."""
    lines = [
        f"{printable(within(pair.name, around))}: {labels[0]} {_short(pair.golden)}, {labels[1]}"
        f" {_short(pair.observed)}"
        for pair in pairs[:_MOST_STATE]
    ]
    return [*lines, f"and {len(pairs) - _MOST_STATE} more"] if len(pairs) > _MOST_STATE else lines


def _short(digest: str | None) -> str:
    return "nothing" if digest is None else f"{digest[:_DIGEST]}…"


def _error(error: float | None) -> str:
    return "unknown" if error is None else f"{error:.1e}"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(printable(name) for name in names[:_MOST_NAMES])
    return f"{shown} and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else shown


def _item(label: str, text: str) -> list[str]:
    return wrap(f"{label:<7} {text}", COLUMNS, initial_indent="  ", subsequent_indent=" " * 10, break_long_words=False)


def wrapped(text: str, indent: str = "") -> list[str]:
    """Return lines of at most `COLUMNS`, all but the first indented once more; a line feed begins another."""
    lines: list[str] = []
    for part in text.split("\n"):
        deeper = f"{indent}  "
        lines += wrap(
            part,
            COLUMNS,
            initial_indent=deeper if lines else indent,
            subsequent_indent=deeper,
            break_long_words=False,
            break_on_hyphens=False,
        )
    return lines
