"""What else differs between two recordings: model, sampler and environment, as hints at the cause."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from difftrace.core.environments import ABSENT, comparable
from difftrace.core.recording import Baseline
from difftrace.core.sampler_defaults import arguments_alike
from difftrace.core.text import printable
from difftrace.reports.columns import clip

MOST_LINES: Final = 7
_WIDEST_VALUE: Final = 28


def other_differences(golden: Baseline, observed: Baseline, most: int = MOST_LINES) -> list[str]:
    """Return at most `most` lines `model.weights: sha256:ab… → sha256:cd…`; none if nothing else differs.

    Those of the environments come last, the best suspects first. A side that was recorded without model, sampler or
    environment is not compared in that.
    """
    return _lines(differing_fields(golden, observed), most)


def environment_differences(golden: Mapping[str, Any], observed: Mapping[str, Any]) -> list[str]:
    """Return at most seven lines `environment.torch: 2.6.0 → 2.13.0`; none if nothing differs."""
    return _lines(_fields("environment", golden, observed), MOST_LINES)


def _lines(differences: Iterator[tuple[str, Any, Any]], most: int) -> list[str]:
    lines = [f"{clip(printable(name), 36)}: {_value(before)} → {_value(after)}" for name, before, after in differences]
    if len(lines) > most:
        return [*lines[: most - 1], f"and {len(lines) - most + 1} more"]
    return lines


def environments_line(
    golden: Baseline, observed: Baseline, labels: tuple[str, str], columns: int, *, advise: bool = True
) -> str | None:
    """Return what the environments have to do with each other, in `columns`; None if neither side says where it ran.

    With `advise` it adds where to look for the cause of a difference.
    """
    if not golden.environment and not observed.environment:
        return None
    for label, baseline in zip(labels, (golden, observed), strict=True):
        if not baseline.environment:
            return clip(f"environments: not comparable: {label} does not say where it ran", columns)
    found = comparable(golden.environment, observed.environment)
    advice = ", so look at model or sampler first" if found and advise else ""
    return clip(f"environments: {found}{advice}", columns)


def differing_fields(golden: Baseline, observed: Baseline) -> Iterator[tuple[str, Any, Any]]:
    """Yield name and both values of what differs in model, sampler and environment, in the order of the lines."""
    if golden.model is not None and observed.model is not None:
        yield from _fields("model", vars(golden.model), vars(observed.model))
    one, other = golden.sampler, observed.sampler
    if one is not None and other is not None:
        named = ({"name": s.name, "version": s.version} for s in (one, other))
        yield from _fields("sampler", *named)
        yield from _fields("sampler", *arguments_alike(one, other))
    if golden.environment and observed.environment:
        for name, before, after in comparable(golden.environment, observed.environment).fields:
            yield f"environment.{name}", before, after


def _fields(group: str, golden: Mapping[str, Any], observed: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for name in sorted({*golden, *observed}):
        before, after = golden.get(name, ABSENT), observed.get(name, ABSENT)
        if before != after:
            yield f"{group}.{name}", before, after


def _value(value: Any) -> str:
    return clip(printable(str(value)), _WIDEST_VALUE)
