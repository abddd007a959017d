"""The failure text: where two runs part, what each decided there, and what to do about it.

Lines are at most 100 columns wide and 40 in number whatever the length of the runs; only paths and commands, which must
stay whole to be of use, may be wider. Every text from a model or a file is made printable first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from difftrace.core.comparison import Divergence
from difftrace.core.recording import Baseline
from difftrace.core.trajectory import Ints, Trajectory
from difftrace.reports.canvas import NOTHING, Row, mask_token, table, token_text
from difftrace.reports.columns import clip, pad, width
from difftrace.reports.context import MOST_LINES, environments_line, other_differences
from difftrace.reports.texts import equal_text, text_difference

COLUMNS: Final = 100
LINES: Final = 40
_MOST_REASONS: Final = 8
GOLDEN_OBSERVED: Final = ("golden", "observed")


def divergence_text(
    golden: Baseline,
    observed: Baseline,
    divergence: Divergence | None,
    *,
    subject: str,
    where: Sequence[str],
    advice: Sequence[str],
    reasons: Sequence[str] = (),
    labels: tuple[str, str] = GOLDEN_OBSERVED,
) -> str:
    """Return the text for two recordings that differ.

    Args:
        golden: the recording to hold on to.
        observed: the one that differs from it.
        divergence: their first difference, None where no decision differs.
        subject: starts the first line, "diverged from its baseline".
        where: lines right below: the line of the test, the file of the baseline; at most 4.
        advice: lines at the end: what to do; at most 4.
        reasons: lines that say why they differ; the first eight are shown.
        labels: what to call the two.
    """
    lines = [_headline(subject, divergence, golden, observed), *where]
    if reasons:
        lines += ["", *_cut(reasons)]
    sequence = 0
    if divergence is not None:
        sequence = divergence.sequence
        lines += _decision(golden, observed, divergence, labels)
    if sequence < min(len(golden.sequences), len(observed.sequences)):
        lines += ["", *_final(golden, observed, sequence, labels)]
    end = ["", *advice] if advice else []
    # What else differs takes the room that is left, with a blank line, a title and the line on the environments.
    others = other_differences(golden, observed, min(MOST_LINES, LINES - len(lines) - len(end) - 3))
    if others:
        lines += ["", f"what else differs ({labels[0]} → {labels[1]}):", *(f"  {line}" for line in others)]
    environments = environments_line(golden, observed, labels, COLUMNS)
    if environments is not None:
        lines += [environments] if others else ["", environments]
    return "\n".join([*lines, *end])


def _headline(subject: str, divergence: Divergence | None, golden: Baseline, observed: Baseline) -> str:
    if divergence is None:
        texts = [[record.text for record in baseline.sequences] for baseline in (golden, observed)]
        other_text = texts[0] != texts[1] and None not in (*texts[0], *texts[1])
        return f"difftrace: {subject}{': its final text is another' if other_text else ', though no decision does'}"
    count = max(len(golden.sequences), len(observed.sequences))
    of = f" of sequence {divergence.sequence}"
    for batch in ("",) if count == 1 else (f"{of} (of 0..{count - 1})", of):
        line = f"difftrace: {subject}{_place(divergence, golden, observed, batch)}"
        if width(line) <= COLUMNS:
            break
    return line


def _cut(reasons: Sequence[str]) -> list[str]:
    if len(reasons) <= _MOST_REASONS:
        return list(reasons)
    return [*reasons[: _MOST_REASONS - 1], f"  and {len(reasons) - _MOST_REASONS + 1} more lines"]


def _place(divergence: Divergence, golden: Baseline, observed: Baseline, of: str) -> str:
    if divergence.kind == "sequences":
        return f": {len(golden.sequences)} and {len(observed.sequences)} sequences"
    if divergence.kind == "decision":
        return f" at step {divergence.step}, position {divergence.position}{of}"
    if divergence.kind == "length":
        return f" at step {divergence.step}{of}, where one of the two ends"
    what = "prompt" if divergence.kind == "prompt" else "first canvas"
    at = "" if divergence.position is None else f" at position {divergence.position}"
    return f" in the {what}{at}{of}, before any step"


def _decision(golden: Baseline, observed: Baseline, divergence: Divergence, labels: tuple[str, str]) -> list[str]:
    if divergence.kind == "sequences":
        return []
    one, other = (b.sequences[divergence.sequence].trajectory for b in (golden, observed))
    if divergence.kind == "length":
        steps = (f"{labels[0]} has {one.num_steps} steps", f"{labels[1]} has {other.num_steps}")
        return ["", ", ".join(steps) + f"; the {divergence.agreed_steps} steps that both have are equal"]
    if divergence.position is None:
        return ["", _frame(one, other, labels)]
    tokens = _tokens(golden, observed, divergence, labels)
    if divergence.kind == "decision":
        return ["", _agreement(divergence, one), *tokens, "", *_step(golden, observed, divergence, labels)]
    return ["", *tokens, "", *_start(golden, observed, divergence, labels)]


def _frame(one: Trajectory, other: Trajectory, labels: tuple[str, str]) -> str:
    if one.padding != other.padding:
        return f"left padding: {labels[0]} {one.padding} positions, {labels[1]} {other.padding}"
    return "the prompts are equal, but their attention masks hide other positions"


def _agreement(divergence: Divergence, golden: Trajectory) -> str:
    steps, events = divergence.agreed_steps, divergence.agreed_events
    return f"{steps} of {golden.num_steps} steps agreed before it ({events} decision{'' if events == 1 else 's'})"


def _tokens(golden: Baseline, observed: Baseline, divergence: Divergence, labels: tuple[str, str]) -> list[str]:
    decided = divergence.kind == "decision"
    lines = []
    for label, baseline, token in zip(
        labels, (golden, observed), (divergence.golden, divergence.observed), strict=True
    ):
        if token is None:
            text = "commits nothing there at this step" if decided else "has no such position"
        else:
            piece = baseline.pieces.get(token)
            shown = "" if piece is None else f"  '{token_text(token, baseline.pieces)}'"
            text = f"{'commits ' if decided else 'has '}token {token}{shown}"
        lines.append(clip(f"  {pad(label, max(map(len, labels)))}  {text}", COLUMNS))
    return lines


def _step(golden: Baseline, observed: Baseline, divergence: Divergence, labels: tuple[str, str]) -> list[str]:
    assert divergence.step is not None
    assert divergence.position is not None
    one, other = (b.sequences[divergence.sequence].trajectory for b in (golden, observed))
    canvas, mask = one.canvas(divergence.step), mask_token(golden, one)
    pieces = {**observed.pieces, **golden.pieces}
    rows = [
        Row("canvas", lambda position: token_text(int(canvas[position]), pieces, mask)),
        _commits(labels[0], golden, one, divergence.step),
        _commits(labels[1], observed, other, divergence.step),
    ]
    title = f"the canvas before step {divergence.step}, and what each commits at it:"
    return [title, *table(rows, one.length, divergence.position, COLUMNS)]


def _commits(label: str, baseline: Baseline, trajectory: Trajectory, step: int) -> Row:
    first, last = trajectory.steps.searchsorted([step, step + 1])
    committed = dict(
        zip(trajectory.positions[first:last].tolist(), trajectory.tokens[first:last].tolist(), strict=True)
    )

    def cell(position: int) -> str:
        token = committed.get(position)
        return NOTHING if token is None else token_text(token, baseline.pieces)

    return Row(label, cell)


def _start(golden: Baseline, observed: Baseline, divergence: Divergence, labels: tuple[str, str]) -> list[str]:
    assert divergence.position is not None
    sides = [(b, b.sequences[divergence.sequence].trajectory) for b in (golden, observed)]
    columns = [t.prompt if divergence.kind == "prompt" else t.initial for _, t in sides]
    rows = [
        _column(label, baseline, trajectory, column)
        for label, (baseline, trajectory), column in zip(labels, sides, columns, strict=True)
    ]
    return table(rows, max(column.size for column in columns), divergence.position, COLUMNS)


def _column(label: str, baseline: Baseline, trajectory: Trajectory, tokens: Ints) -> Row:
    mask = mask_token(baseline, trajectory)

    def cell(position: int) -> str:
        return token_text(int(tokens[position]), baseline.pieces, mask) if position < tokens.size else NOTHING

    return Row(label, cell)


def _final(golden: Baseline, observed: Baseline, sequence: int, labels: tuple[str, str]) -> list[str]:
    one, other = golden.sequences[sequence], observed.sequences[sequence]
    if one.text is not None and other.text is not None:
        if one.text == other.text:
            return [equal_text("final text, equal in both:", one.text, COLUMNS)]
        return ["final text:", *text_difference(one.text, other.text, labels, COLUMNS)]
    finals = [record.trajectory.final for record in (one, other)]
    if finals[0].size != finals[1].size:
        return [f"final canvas: {labels[0]} {finals[0].size} positions, {labels[1]} {finals[1].size}"]
    differs = finals[0] != finals[1]
    if not differs.any():
        return ["final canvas: equal in both"]
    rows = [
        _column(label, baseline, record.trajectory, final)
        for label, baseline, record, final in zip(labels, (golden, observed), (one, other), finals, strict=True)
    ]
    return ["final canvas:", *table(rows, finals[0].size, int(differs.argmax()), COLUMNS)]
