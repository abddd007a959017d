"""What `difftrace doctor` prints: the switches, the fingerprint, a line for each probe, and what was asked for.

Lines are at most 100 columns wide. Every text from a model or the machine is made printable first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Final

from difftrace.core.doctor import Demand, ProbeResult, StatusLike, Surroundings, SwitchLike, Value
from difftrace.core.recording import JsonScalar
from difftrace.core.text import printable
from difftrace.reports.columns import clip, pad, width

COLUMNS: Final = 100

_INDENT: Final = "  "
_IN_FORCE: Final = {True: "yes", False: "no", None: "unknown"}
_SWITCH_HEAD: Final = ("switch", "requested", "found", "in force", "known from")
_WIDEST_SWITCH: Final = (34, 12, 17, 8)
_PROBE_HEAD: Final = ("probe", "variant", "verdict", "Δ logits", "first difference")
# Of all columns but the last, which has the rest of the line.
_PROBE_WIDTHS: Final = (9, 27, 14, 8)


def opening(around: Surroundings) -> list[str]:
    """Return everything above the first probe's line: model, determinism, fingerprint, what the probes run."""
    revision = "" if around.revision is None else f" at {around.revision}"
    lines = [clip(printable(f"model {around.model}{revision}, {around.dtype} on {around.device}"), COLUMNS)]
    lines += ["", *_status(around.status)]
    lines += ["", "fingerprint", *_fingerprint(around.fingerprint)]
    settings = around.settings
    base = (
        f"probes: {settings['prompts']} prompts of {settings['prompt_tokens']} tokens, {settings['gen_length']} masks"
        f" filled in {settings['steps']} steps, threads {settings['threads']}, attention {settings['attention']};"
        " base: each prompt alone, for padding and threads all in one batch"
    )
    return [*lines, "", *_wrapped(base), _probe_row(*_PROBE_HEAD)]


def probe_lines(result: ProbeResult) -> list[str]:
    """Return the line of one probe's variant; below it why it was not run, or that numbers were not finite."""
    if result.reason is not None:
        return [_probe_row(result.probe, result.variant, result.verdict), *_note(result.reason)]
    apart = "" if result.difference is None else f"{result.difference:.3g}"
    where = "" if result.step is None else f"step {result.step} position {result.position}, prompt {result.prompt}"
    lines = [_probe_row(result.probe, result.variant, result.verdict, apart, where)]
    if result.non_finite:
        lines += _note(f"{result.non_finite} pairs of logits were left out of that: NaN or infinite")
    return lines


def closing(demands: Sequence[Demand], results: Sequence[ProbeResult]) -> list[str]:
    """Return for each demand whether it is met and, if not, by what."""
    lines = []
    for demand in demands:
        asked = f"{demand.probe}: asked for {_no_worse_than(demand)}"
        failures = demand.failures(results)
        if demand.met_by(results):
            lines.append(f"{asked}: met")
        elif not failures:
            lines.append(f"{asked}: NOT MET, nothing was run")
        else:
            found = ", ".join(f"{failure.variant}: {_short(failure)}" for failure in failures)
            lines += _wrapped(f"{asked}: NOT MET ({found})")
    return lines


def _status(status: StatusLike) -> list[str]:
    held = "enforced while the probes run" if status.active else "not enforced"
    rows = [_SWITCH_HEAD] + [
        (switch.name, _value(switch.requested), _value(switch.effective), _in_force(switch), switch.checked)
        for switch in status.switches
    ]
    cells = [[clip(printable(cell), most) for cell, most in zip(row, _WIDEST_SWITCH, strict=False)] for row in rows]
    widths = [max(width(row[column]) for row in cells) for column in range(len(_SWITCH_HEAD) - 1)]
    start = len(_INDENT) + sum(widths) + 2 * len(widths)
    lines = [clip(f"determinism: profile {printable(status.profile)}, {held}", COLUMNS)]
    for row, texts in zip(rows, cells, strict=True):
        known = printable(row[-1])
        # Mostly names from torch, which are of no use when cut.
        if start + width(known) <= COLUMNS:
            lines.append((_joined(texts, widths) + known).rstrip())
        else:
            lines += [_joined(texts, widths).rstrip(), *_note(known)]
    return lines


def _in_force(switch: SwitchLike) -> str:
    # A required switch that is off is what to look at first.
    return "NO" if switch.required and switch.in_force is False else _IN_FORCE[switch.in_force]


def _fingerprint(fields: Mapping[str, JsonScalar | list[JsonScalar]]) -> list[str]:
    names = max(map(width, fields), default=0)
    return [
        clip(f"{_INDENT}{pad(printable(name), names)}  {printable(_value(value))}", COLUMNS)
        for name, value in fields.items()
    ]


def _value(value: Value | JsonScalar | list[JsonScalar]) -> str:
    if value is None:
        return "none"
    return ", ".join(map(_value, value)) if isinstance(value, list) else str(value)


def _probe_row(*cells: str) -> str:
    *texts, last = (*cells, *("",) * (len(_PROBE_HEAD) - len(cells)))
    return clip((_joined([printable(text) for text in texts], _PROBE_WIDTHS) + last).rstrip(), COLUMNS)


def _joined(texts: Sequence[str], widths: Sequence[int]) -> str:
    return _INDENT + "".join(f"{pad(text, columns)}  " for text, columns in zip(texts, widths, strict=True))


def _note(text: str) -> list[str]:
    return _wrapped(text, 2 * len(_INDENT))


def _wrapped(text: str, start: int = 0) -> list[str]:
    """Return `text` in lines that begin at column `start`."""
    # A line may be cut right before `::`, which is defused again, in three columns more.
    lines = wrap(printable(text), COLUMNS - start - 3)
    return [" " * start + printable(line) for line in lines]


def _no_worse_than(demand: Demand) -> str:
    return "bit-equal runs" if demand.accepts == "bit-equal" else "the same decisions"


def _short(failure: ProbeResult) -> str:
    return "logits not finite" if failure.non_finite and failure.verdict != "differs" else failure.verdict
