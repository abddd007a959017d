"""A baseline as plain lines for `git diff`: what a person reviews, one line each, from the bytes of the file alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from typing import Any, Final

from difftrace.core.baseline_json import parse
from difftrace.core.errors import FormatError
from difftrace.core.recording import Baseline, SequenceRecord
from difftrace.core.text import printable
from difftrace.core.trajectory import Ints
from difftrace.reports.canvas import mask_token, token_text

# Positions of a canvas on one line: few enough that a changed prompt changes few lines.
_CHUNK: Final = 16
_FILE: Final = "file"


def textconv_lines(data: bytes) -> Iterator[str]:
    """Yield the lines for the file with the content `data`.

    The header comes with sorted fields, then for every sequence its texts by line, its first canvas by chunks and each
    commit. Lines keep their form whatever else is in the file, so that only what changed differs between two versions.
    A file that is no baseline comes as its own text, after a line that says why: git stops where this fails.
    """
    try:
        baseline = parse(data, _FILE)
    except FormatError as error:
        yield f"cannot be shown as a trajectory: {printable(str(error).removeprefix(f'{_FILE}: '))}"
        yield from map(printable, data.decode("utf-8", errors="replace").splitlines())
        return
    yield from _header(baseline)
    for index, record in enumerate(baseline.sequences):
        yield ""
        yield f"sequence {index}"
        yield from _sequence(baseline, record)


def _header(baseline: Baseline) -> Iterator[str]:
    fields: dict[str, Any] = {"digest": baseline.digest}
    groups = {"test": baseline.test, "model": baseline.model, "sampler": baseline.sampler, "budget": baseline.budget}
    for name, group in groups.items():
        fields.update({name: None} if group is None else _flat(name, vars(group)))
    fields.update(_flat("environment", baseline.environment))
    for name in sorted(fields):
        yield f"{printable(name)}: {_value(fields[name])}"


def _flat(name: str, group: Any) -> dict[str, Any]:
    """Return the fields of `group` under dotted names, those of mappings in it as well."""
    fields: dict[str, Any] = {}
    for key, value in group.items():
        fields.update(_flat(f"{name}.{key}", value) if hasattr(value, "items") else {f"{name}.{key}": value})
    return fields


def _sequence(baseline: Baseline, record: SequenceRecord) -> Iterator[str]:
    trajectory = record.trajectory
    yield f"  digest: {_value(trajectory.digest)}"
    yield f"  evidence: {_value(None if record.evidence is None else record.evidence.digest)}"
    yield f"  prompt tokens: {trajectory.prompt.size}"
    yield f"  padding: {trajectory.padding}"
    yield f"  steps: {trajectory.num_steps}"
    yield f"  commits: {trajectory.num_events}"
    yield from _text("prompt", record.prompt_text)
    yield from _text("text", record.text)
    mask = mask_token(baseline, trajectory)
    if not trajectory.prompt_in_canvas:
        yield from _tokens("prompt outside the canvas", trajectory.prompt, baseline, mask)
    yield from _tokens("first canvas", trajectory.initial, baseline, mask)
    if trajectory.attention_mask is not None:
        hidden = (trajectory.attention_mask == 0).nonzero()[0].tolist()
        yield f"  hidden from attention: {', '.join(map(str, hidden))}"
    columns = (trajectory.steps, trajectory.positions, trajectory.tokens)
    for step, position, token in zip(*(column.tolist() for column in columns), strict=True):
        yield f"  step {step}, position {position}: {_token(baseline, token, mask)}"


def _text(label: str, text: str | None) -> Iterator[str]:
    if text is None:
        yield f"  {label}: null"
        return
    # Split where people see a line end, so that a changed line of the text is a changed line here.
    for line in text.split("\n"):
        yield f"  {label} | {printable(line)}"


def _tokens(label: str, tokens: Ints, baseline: Baseline, mask: int | None) -> Iterator[str]:
    for start in range(0, tokens.size, _CHUNK):
        chunk = tokens[start : start + _CHUNK].tolist()
        cells = []
        for token, run in groupby(chunk):
            count = len(list(run))
            cells.append(token_text(token, baseline.pieces, mask) + (f" ×{count}" if count > 1 else ""))
        yield f"  {label} from {start}: {'  '.join(cells)}"


def _token(baseline: Baseline, token: int, mask: int | None) -> str:
    text = token_text(token, baseline.pieces, mask)
    return text if token not in baseline.pieces else f"{text} ({token})"


def _value(value: Any) -> str:
    return printable(json.dumps(value, ensure_ascii=False, sort_keys=True))
