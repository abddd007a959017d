"""A baseline for people: its header, then the canvas of every sequence over the steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from difftrace.core.recording import Baseline
from difftrace.core.trajectory import Trajectory
from difftrace.reports.columns import wrapped
from difftrace.reports.decided import decision_lines
from difftrace.reports.header import header_lines, sequence_lines
from difftrace.reports.steps import LEGEND, Span, canvas_lines
from difftrace.reports.styles import Paint, plain

FORMAT = "difftrace-show"
VERSION = "0.1"


def show_lines(
    baseline: Baseline,
    path: str,
    *,
    sequences: Sequence[int],
    span: Span | None,
    columns: int,
    paint: Paint = plain,
) -> Iterator[str]:
    """Yield the text for the sequences asked for; `span` None is all steps of each.

    A sequence that ends before `span` says so. Of a single step its decisions are explained as well.
    """
    first, *rest = header_lines(baseline, path, columns)
    yield paint(first, "title")
    yield from rest
    yield from wrapped(f"legend: {LEGEND}", "", columns)
    for index in sequences:
        record = baseline.sequences[index]
        yield ""
        title, *texts = sequence_lines(record, index, len(baseline.sequences), columns)
        yield paint(title, "title")
        yield from texts
        yield ""
        shown = covered(record.trajectory, span)
        if shown.first >= shown.last:
            yield "it has no step of those asked for" if span is not None else "it has no steps"
            continue
        yield from canvas_lines(baseline, index, shown, columns, paint)
        if span is not None and shown.last - shown.first == 1:
            yield from decision_lines(baseline, index, shown.first, columns)


def covered(trajectory: Trajectory, span: Span | None) -> Span:
    """Return the part of `span` that a run has; `span` None is all of it."""
    if span is None:
        return Span(0, trajectory.num_steps)
    return Span(min(span.first, trajectory.num_steps), min(span.last, trajectory.num_steps))


def show_document(baseline: Baseline, path: str, *, sequences: Sequence[int], span: Span | None) -> dict[str, Any]:
    """Return the document that schemas/show.schema.json describes: the baseline with its decisions decoded."""
    sampler, budget = baseline.sampler, baseline.budget
    return {
        "format": FORMAT,
        "version": VERSION,
        "path": path,
        "test": None if baseline.test is None else vars(baseline.test),
        "model": None if baseline.model is None else vars(baseline.model),
        "sampler": None if sampler is None else {**vars(sampler), "arguments": dict(sampler.arguments)},
        "environment": dict(baseline.environment),
        "budget": None if budget is None else {**vars(budget), "measured": dict(budget.measured)},
        "pieces": {str(token): piece for token, piece in baseline.pieces.items()},
        "digest": baseline.digest,
        "sequences": [_sequence(baseline, index, span) for index in sequences],
    }


def _sequence(baseline: Baseline, index: int, span: Span | None) -> dict[str, Any]:
    record = baseline.sequences[index]
    trajectory = record.trajectory
    shown = covered(trajectory, span)
    first, last = trajectory.steps.searchsorted([shown.first, shown.last]).tolist()
    columns = (trajectory.steps, trajectory.positions, trajectory.tokens)
    commits = zip(*(column[first:last].tolist() for column in columns), strict=True)
    mask = trajectory.attention_mask
    return {
        "index": index,
        "digest": trajectory.digest,
        "prompt_text": record.prompt_text,
        "text": record.text,
        "prompt": trajectory.prompt.tolist(),
        "padding": trajectory.padding,
        "attention_mask": None if mask is None else mask.tolist(),
        "num_steps": trajectory.num_steps,
        "from_step": shown.first,
        "to_step": shown.last,
        "canvas_before": trajectory.canvas(shown.first).tolist(),
        "commits": [dict(zip(("step", "position", "token"), commit, strict=True)) for commit in commits],
        "canvas_after": trajectory.canvas(shown.last).tolist(),
        "has_evidence": record.evidence is not None,
    }
