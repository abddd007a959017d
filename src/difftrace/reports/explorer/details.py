"""What the page holds of one check: a summary for the list, and a pack of all the rest.

The summary: `test`, `status`, `outcome`, `class`, `step`, `position`, and the `pack`.

The pack's header:

- `facts`: `[label, text]` pairs; `problems`: sentences
- `verdict`: what the classification says, or null: `class`, `kind`, `reason`, `measured` (lines), `budget`, `came`
  (what came of it), `unknown` (sentences)
- `environments`: one line on what the two have to do with each other, or null
- `fields`: what ran and where, `[name, golden, observed, mark]`: mark is "decides" for what makes environments not
  comparable, "differs" or ""; a value is null where a side lacks the field, as every one does that is not there
- `tokens`: `ids` and `pieces`, see `difftrace.reports.explorer.sides.Tokens`
- `sequences`: each with `start`, the first position that is shown, `divergence` (`kind`, `step`, `position`) or null,
  and `sides`: golden and observed, see `difftrace.reports.explorer.sides.side`; a side that is not there is null
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from difftrace.core.classification import Classification
from difftrace.core.comparison import compare
from difftrace.core.environments import ABSENT, comparable
from difftrace.core.recording import Baseline
from difftrace.reports.context import differing_fields, environments_line
from difftrace.reports.explorer.entry import Entry
from difftrace.reports.explorer.packing import Columns, inert
from difftrace.reports.explorer.sides import Tokens, shown_from, side
from difftrace.reports.failure import GOLDEN_OBSERVED
from difftrace.reports.verdict import measured_text, outcome_text

# No line is cut here: the page wraps them.
_UNCUT = 10_000


def check_document(entry: Entry) -> dict[str, Any]:
    """Return what the page holds of `entry`."""
    found = entry.classification
    summary = {
        "test": entry.test,
        "status": entry.status,
        "outcome": entry.outcome,
        "class": entry.divergence_class,
        "step": entry.step,
        "position": entry.position,
    }
    columns = Columns()
    baselines = (entry.golden, entry.observed)
    tokens = Tokens({**_pieces(entry.observed), **_pieces(entry.golden)})
    sequences = [_sequence(baselines, index, tokens, columns) for index in range(max(map(_sequences, baselines)))]
    header = {
        "facts": entry.facts,
        "problems": entry.problems,
        "verdict": _bare_verdict(entry) if found is None else _verdict(found),
        "environments": _environments(*baselines),
        "fields": list(_fields(*baselines)),
        "tokens": tokens.header(),
        "sequences": sequences,
    }
    return {**inert(summary), "pack": columns.pack(header)}


def _verdict(found: Classification) -> dict[str, Any]:
    return {
        "class": found.divergence_class,
        "kind": found.kind,
        "reason": found.reason,
        "measured": [measured_text(one) for one in found.noise],
        "budget": found.tau_source,
        "came": None if found.outcome is None else outcome_text(found.outcome),
        "unknown": found.cannot_tell,
    }


def _bare_verdict(entry: Entry) -> dict[str, Any] | None:
    if entry.reason is None and entry.divergence_class is None:
        return None
    empty = {"kind": None, "measured": [], "budget": None, "came": None, "unknown": []}
    return {**empty, "class": entry.divergence_class, "reason": entry.reason or ""}


def _environments(golden: Baseline | None, observed: Baseline | None) -> str | None:
    if golden is None or observed is None:
        return None
    return environments_line(golden, observed, GOLDEN_OBSERVED, _UNCUT)


def _fields(golden: Baseline | None, observed: Baseline | None) -> Iterator[tuple[str, Any, Any, str]]:
    """Yield what differs, the best suspects first, then all the rest."""
    sides = [_described(baseline) for baseline in (golden, observed)]
    differing: dict[str, str] = {}
    if golden is not None and observed is not None:
        deciding = comparable(golden.environment, observed.environment).deciding
        for name, before, after in differing_fields(golden, observed):
            decides = name.removeprefix("environment.") in deciding and name.startswith("environment.")
            differing[name] = "decides" if decides else "differs"
            yield name, _value(before), _value(after), differing[name]
    for name in {**sides[0], **sides[1]}:
        if name not in differing:
            yield name, *(_value(one.get(name, ABSENT)) for one in sides), ""


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


def _sequence(
    baselines: tuple[Baseline | None, Baseline | None], index: int, tokens: Tokens, columns: Columns
) -> dict[str, Any]:
    present = [
        None if baseline is None or index >= len(baseline.sequences) else (baseline, baseline.sequences[index])
        for baseline in baselines
    ]
    trajectories = [one[1].trajectory for one in present if one is not None]
    found = compare(*trajectories) if len(trajectories) == 2 else None
    start = shown_from(trajectories)
    parting = None if found is None else found.step
    return {
        "start": start,
        "divergence": None
        if found is None
        else {"kind": found.kind, "step": found.step, "position": found.position},
        "sides": [None if one is None else side(*one, start, parting, tokens, columns) for one in present],
    }


def _pieces(baseline: Baseline | None) -> Mapping[int, str]:
    return {} if baseline is None else baseline.pieces


def _sequences(baseline: Baseline | None) -> int:
    return 0 if baseline is None else len(baseline.sequences)
