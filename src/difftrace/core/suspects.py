"""What else differs between two runs: hints at the cause of a divergence, never a verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from difftrace.core.environments import ABSENT, comparable
from difftrace.core.recording import Baseline


@dataclass(frozen=True)
class Suspect:
    """A field that differs; a side that lacks it has None."""

    field: str
    golden: Any
    observed: Any


def suspects(golden: Baseline, observed: Baseline) -> tuple[Suspect, ...]:
    """Return the differing fields, likeliest first; a side recorded without an environment is not compared in it."""
    found: list[Suspect] = []
    if golden.environment and observed.environment:
        differing = comparable(golden.environment, observed.environment).fields
        found += [Suspect(f"environment.{one.name}", *map(_or_none, (one.a, one.b))) for one in differing]
    if golden.model is not None and observed.model is not None:
        names = ({"name": model.name, "revision": model.revision} for model in (golden.model, observed.model))
        found += _fields("model", *names)
    return tuple(found)


def _or_none(value: Any) -> Any:
    return None if value is ABSENT else value


def _fields(group: str, golden: Mapping[str, Any], observed: Mapping[str, Any]) -> Iterator[Suspect]:
    for name in sorted({*golden, *observed}):
        if golden.get(name) != observed.get(name):
            yield Suspect(f"{group}.{name}", golden.get(name), observed.get(name))
