"""What verifying a baseline said, as lines: one on each baseline, and why below those that do not pass.

Lines are at most 100 columns wide; only paths and commands, which must stay whole to be of use, may be wider.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from difftrace.core.classes import CANNOT_TELL
from difftrace.core.forced import ForcedVerdict, ScoredStep, score_text
from difftrace.core.policies import divergence_classes
from difftrace.core.text import printable
from difftrace.core.verification import Asked, Result, Status, Unverified, Verified
from difftrace.reports.canvas import token_text
from difftrace.reports.columns import LINE, width, wrapped
from difftrace.reports.failure import divergence_text
from difftrace.reports.logits import logits_lines
from difftrace.reports.verdict import budget_lines, detail_lines, measured_text, reason_lines

_MOST_DIVERGENT: Final = 8
_MOST_STEPS: Final = 40
# Classes of what went in, whose reason says nothing of decisions.
_OF_IDENTITY: Final = ("INPUT", "CONFIG", "WEIGHTS")


def result_lines(path: str, asked: Asked, result: Result, model: Sequence[str] = ()) -> list[str]:
    """Return the lines on a baseline; `model` are the options that chose the model, for commands that are advised."""
    if isinstance(result, Unverified):
        name = ": INVALID" if result.unreadable else ""
        # A reader's message starts with the file, which has just been named.
        error = printable(result.error).removeprefix(f"{printable(path)}: ")
        return [f"could not run  {printable(path)}{name}", *wrapped(error, "  ")]
    lines = _headline(path, result)
    if result.forced is not None:
        return [*lines, *_forced_lines(result, result.forced, asked)]
    if result.judgement.passes:
        return [*lines, *_warning(result)]
    return [*lines, "", *_failure(path, result, asked, model), ""]


def summary_line(statuses: Sequence[Status]) -> str:
    """Return "3 verified: 2 passed, 1 could not run"."""
    counted = Counter(statuses)
    parts = [f"{counted[status]} {status}" for status in ("passed", "failed", "could not run") if counted[status]]
    return f"{len(statuses)} baseline{'' if len(statuses) == 1 else 's'}: {', '.join(parts)}"


def _headline(path: str, result: Verified) -> list[str]:
    status = "passed" if result.judgement.passes else "FAILED"
    found = result.classification.divergence_class or CANNOT_TELL
    sequence, step, position = result.where
    places = (("sequence", sequence or None), ("step", step), ("position", position))
    where = [f"{name} {value}" for name, value in places if value is not None]
    at = f", first at {', '.join(where)}" if where else ""
    line = f"{status:<13}  {printable(path)}: {found}{at}"
    if width(line) <= LINE:
        return [line]
    return [f"{status:<13}  {printable(path)}:", f"  {found}{at}"]


def _warning(result: Verified) -> list[str]:
    """Return what differs where that is let pass, and what is not known."""
    if not result.judgement.warns:
        untold = result.classification.cannot_tell
        return [line for sentence in untold for line in wrapped(f"cannot tell: {sentence}", "  ")]
    return [
        *wrapped(result.classification.reason, "  "),
        *wrapped(f"policy: {result.judgement.reason}", "  "),
        *detail_lines(result.classification),
    ]


def _failure(path: str, result: Verified, asked: Asked, model: Sequence[str]) -> list[str]:
    found = result.classification
    told = asked.policy != "exact" or found.divergence_class in divergence_classes(asked.fail_on) or bool(found.others)
    name = found.divergence_class
    sequence, step, _ = result.where
    logits = logits_lines(Path(path), result.golden, result.logits, step, sequence)
    text = divergence_text(
        result.golden,
        result.observed,
        result.divergence,
        subject=f"{'' if name is None else f'{name}: '}run differs from its baseline",
        where=[],
        reasons=[*reason_lines(found, result.judgement.reason if told else None), *logits],
        advice=["To find the module it starts in:", f"  {_bisect_command(path, model)}"],
    )
    return text.splitlines()


def _bisect_command(path: str, model: Sequence[str]) -> str:
    return printable(shlex.join(["difftrace", "bisect", path, *model]))


def _forced_lines(result: Verified, verdict: ForcedVerdict, asked: Asked) -> Iterator[str]:
    found = result.classification
    if found.divergence_class != "IDENTICAL":
        yield from wrapped(found.reason, "  ")
    if found.divergence_class in _OF_IDENTITY:
        steps = len({one.step for one in verdict.divergent})
        yield f"  {steps or 'none'} of {len(verdict.steps)} scored steps decide{'s' if steps == 1 else ''} otherwise"
    yield from _divergent_lines(result, verdict)
    if any(one.epsilon > 0 for one in found.noise):
        yield from wrapped(f"measured: {'; '.join(map(measured_text, found.noise))}", "  ")
        yield from budget_lines(found)
    elif verdict.divergent and found.divergence_class not in _OF_IDENTITY:
        yield from budget_lines(found)
    if found.divergence_class != "IDENTICAL":
        yield from wrapped(f"policy {asked.policy}: {result.judgement.reason}", "  ")
    if verdict.sample is not None:
        chosen = ", ".join(map(str, verdict.steps[:_MOST_STEPS]))
        more = len(verdict.steps) - _MOST_STEPS
        yield from wrapped(f"steps: {chosen}{f' and {more} more' if more > 0 else ''}", "  ")
    yield from wrapped(f"basis: {verdict.basis}", "  ")
    canvases = "1 canvas" if verdict.batch == 1 else f"{verdict.batch} canvases"
    yield f"  scored: {len(verdict.steps)} of {verdict.num_steps} steps, up to {canvases} at once"
    if any(verdict.left_masked):
        yield from wrapped(f"positions of the final canvas still masked: {sum(verdict.left_masked)}", "  ")
    for sentence in found.cannot_tell:
        yield from wrapped(f"cannot tell: {sentence}", "  ")


def _divergent_lines(result: Verified, verdict: ForcedVerdict) -> Iterator[str]:
    for one in verdict.divergent[:_MOST_DIVERGENT]:
        yield from wrapped(_divergent(one, result), "  ")
    more = len(verdict.divergent) - _MOST_DIVERGENT
    if more > 0:
        yield f"  and {more} more that decide otherwise; --json lists all"


def _divergent(one: ScoredStep, result: Verified) -> str:
    assert one.divergence is not None
    pieces = result.golden.pieces
    sides = []
    for name, token in (("golden", one.divergence.golden), ("here", one.divergence.observed)):
        piece = "" if token is None or pieces.get(token) is None else f" '{token_text(token, pieces)}'"
        sides.append(f"{name} {'nothing' if token is None else f'token {token}{piece}'}")
    batch = f" of sequence {one.sequence}" if len(result.golden.sequences) > 1 else ""
    at = f"step {one.step}{batch}, position {one.divergence.position}"
    scores = f"tokens by {score_text(one.token_score)}, order by {score_text(one.order_score)}"
    return f"{at}: {', '.join(sides)} ({scores})"
