"""What the page holds of one check: a summary for the list, and a pack of all the rest.

The summary: `test`, `status`, `outcome`, `class`, `sequence`, `step` and `position` of the first divergence, `pack`.

The pack's header:

- `facts`: `[label, text]` pairs; `problems`: sentences
- `verdict`: null, or the fields of `difftrace.reports.explorer.entry.Verdict` but the suspects
- `environments`: one line on what the two have to do with each other, or null
- `compared`: whether `fields` are of two sides
- `fields`: what ran and where, as indices of `[name, golden, observed, mark]` in the page's table: mark is "decides"
  for what makes environments not comparable, "differs" or ""; a value is null where a side lacks the field, as every
  one does that is not there
- `sequences`: each with `start`, the first position that is shown, `divergence`, null or the fields of
  `difftrace.reports.explorer.entry.Parting`, and `sides`: golden and observed, see
  `difftrace.reports.explorer.sides.side`; a side that is not there is null
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from difftrace.core.comparison import compare
from difftrace.core.environments import ABSENT, comparable
from difftrace.core.recording import Baseline
from difftrace.reports.context import differing_fields, environments_line
from difftrace.reports.explorer.entry import Entry, Parting
from difftrace.reports.explorer.packing import Columns, inert
from difftrace.reports.explorer.shared import Field, Shared
from difftrace.reports.explorer.sides import Tokens, shown_from, side
from difftrace.reports.failure import GOLDEN_OBSERVED

# No line is cut here: the page wraps them.
_UNCUT = 10_000

_LEFT_OUT = (
    "What it decided is left out to keep this page small; difftrace html shows its files on a page of their own."
)


@dataclass(frozen=True)
class Packed:
    """What the page holds of a check.

    Attributes:
        summary: the fields of the summary but the pack.
        pack: the pack.
        brief: the pack without sequences, which says so, for a page that has no room for them.
    """

    summary: dict[str, Any]
    pack: str
    brief: str


def packed(entry: Entry, shared: Shared) -> Packed:
    """Return what the page holds of `entry`; what it has in common with other checks is added to `shared`."""
    parting = entry.parting
    summary = {
        "test": entry.test,
        "status": entry.status,
        "outcome": entry.outcome,
        "class": entry.divergence_class,
        "sequence": None if parting is None else parting.sequence,
        "step": None if parting is None else parting.step,
        "position": None if parting is None else parting.position,
    }
    columns = Columns()
    baselines = (entry.golden, entry.observed)
    tokens = Tokens({**_pieces(entry.observed), **_pieces(entry.golden)}, shared)
    sequences = [_sequence(entry, index, tokens, columns) for index in range(max(map(_sequences, baselines)))]
    fields = list(_fields(entry))
    header: dict[str, Any] = {
        "facts": entry.facts,
        "problems": entry.problems,
        "verdict": _verdict(entry),
        "environments": _environments(*baselines),
        "compared": None not in baselines or any(mark for *_, mark in fields),
        "fields": [shared.field(field) for field in fields],
        "sequences": sequences,
    }
    brief = {**header, "problems": [*entry.problems, _LEFT_OUT], "sequences": []} if sequences else header
    return Packed(inert(summary), columns.pack(header), Columns().pack(brief))


def _verdict(entry: Entry) -> dict[str, Any] | None:
    if entry.verdict is None:
        return None
    return {name: value for name, value in vars(entry.verdict).items() if name != "suspects"}


def _environments(golden: Baseline | None, observed: Baseline | None) -> str | None:
    if golden is None or observed is None:
        return None
    return environments_line(golden, observed, GOLDEN_OBSERVED, _UNCUT)


def _fields(entry: Entry) -> Iterator[Field]:
    """Yield what differs, the best suspects first, then all the rest."""
    differing = {field[0]: field for field in _differing(entry)}
    yield from differing.values()
    sides = [_described(baseline) for baseline in (entry.golden, entry.observed)]
    for name in {**sides[0], **sides[1]}:
        if name not in differing:
            golden, observed = (_value(one.get(name, ABSENT)) for one in sides)
            yield name, golden, observed, ""


def _differing(entry: Entry) -> Iterator[Field]:
    golden, observed = entry.golden, entry.observed
    if golden is not None and observed is not None:
        deciding = comparable(golden.environment, observed.environment).deciding
        marks = dict.fromkeys((f"environment.{name}" for name in deciding), "decides")
        for name, before, after in differing_fields(golden, observed):
            yield name, _value(before), _value(after), marks.get(name, "differs")
    elif entry.verdict is not None:
        for one in entry.verdict.suspects:
            before, after = (None if value is None else str(value) for value in (one.golden, one.observed))
            yield one.field, before, after, "differs"


def _described(baseline: Baseline | None) -> dict[str, Any]:
    """Return the fields of `differing_fields`, those of model and sampler first."""
    if baseline is None:
        return {}
    fields: dict[str, Any] = {}
    if baseline.model is not None:
        fields |= _group("model", vars(baseline.model))
    if baseline.sampler is not None:
        fields |= {"sampler.name": baseline.sampler.name, "sampler.version": baseline.sampler.version}
        fields |= _group("sampler", baseline.sampler.arguments)
    return {**fields, **_group("environment", baseline.environment)}


def _group(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{name}.{key}": values[key] for key in sorted(values)}


def _value(value: Any) -> str | None:
    return None if value is ABSENT else str(value)


def _sequence(entry: Entry, index: int, tokens: Tokens, columns: Columns) -> dict[str, Any]:
    present = [
        None if baseline is None or index >= len(baseline.sequences) else (baseline, baseline.sequences[index])
        for baseline in (entry.golden, entry.observed)
    ]
    trajectories = [one[1].trajectory for one in present if one is not None]
    found = _parting(entry, index)
    start = shown_from(trajectories)
    step = None if found is None else found.step
    return {
        "start": start,
        "divergence": None if found is None else vars(found),
        "sides": [None if one is None else side(*one, start, step, tokens, columns) for one in present],
    }


def _parting(entry: Entry, index: int) -> Parting | None:
    """Return where the sequence parts: as its files say where both are there, else as it was told."""
    golden, observed = entry.golden, entry.observed
    if golden is None or observed is None:
        told = entry.parting
        return told if told is not None and told.sequence == index else None
    if index >= min(len(golden.sequences), len(observed.sequences)):
        return None
    found = compare(golden.sequences[index].trajectory, observed.sequences[index].trajectory)
    if found is None:
        return None
    texts = (_token(found.golden, golden), _token(found.observed, observed))
    return Parting(found.kind, index, found.step, found.position, *texts)


def _token(token: int | None, baseline: Baseline) -> str | None:
    return None if token is None else baseline.pieces.get(token, f"token {token}")


def _pieces(baseline: Baseline | None) -> Mapping[int, str]:
    return {} if baseline is None else baseline.pieces


def _sequences(baseline: Baseline | None) -> int:
    return 0 if baseline is None else len(baseline.sequences)
