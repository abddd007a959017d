"""Two recordings held against each other: the class of their divergence, where it begins, what else differs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from difftrace.core.classes import CANNOT_TELL
from difftrace.core.classification import Classification, classify, divergence_of
from difftrace.core.comparison import Divergence, compare
from difftrace.core.environments import comparable
from difftrace.core.recording import Baseline
from difftrace.core.text import printable
from difftrace.reports.columns import LINE, wrapped
from difftrace.reports.context import environments_line, other_differences
from difftrace.reports.failure import GOLDEN_OBSERVED, divergence_text
from difftrace.reports.verdict import reason_lines

FORMAT: Final = "difftrace-diff"
VERSION: Final = "0.1"

_MOST_SEQUENCES: Final = 20


@dataclass(frozen=True)
class Difference:
    """Two recordings and why they differ.

    Attributes:
        golden: the recording to hold on to.
        observed: the one that is compared with it.
        classification: why they differ.
        only: index of the sequence that was taken of each; None where all were.
    """

    golden: Baseline
    observed: Baseline
    classification: Classification
    only: int | None = None

    @property
    def same(self) -> bool:
        """Whether nothing differs that is recorded of the runs; where they ran may."""
        return self.classification.divergence_class == "IDENTICAL"

    @property
    def divergence(self) -> Divergence | None:
        """The first decision that differs; None if none does."""
        return divergence_of(self.golden, self.observed, self.classification)

    @property
    def divergences(self) -> list[Divergence | None]:
        """The first difference of every sequence that both have, by itself."""
        pairs = zip(self.golden.sequences, self.observed.sequences, strict=False)
        return [compare(one.trajectory, other.trajectory) for one, other in pairs]


def difference(golden: Baseline, observed: Baseline, only: int | None = None) -> Difference:
    """Return what two recordings, or their sequences `only` alone, have to do with each other.

    Raises:
        IndexError: one of them has no such sequence.
    """
    if only is not None:
        golden, observed = (replace(side, sequences=(side.sequences[only],)) for side in (golden, observed))
    return Difference(golden, observed, classify(golden, observed), only)


def difference_lines(found: Difference, paths: tuple[str, str]) -> list[str]:
    """Return the text, at most 100 columns wide but for `paths`, the files of the golden and the observed run."""
    where = [f"  {label}: {printable(path)}" for label, path in zip(("golden", "observed"), paths, strict=True)]
    if found.only is not None:
        where.append(f"  sequence {found.only} alone")
    if found.same:
        return [*_same(found, where)]
    name = found.classification.divergence_class
    text = divergence_text(
        found.golden,
        found.observed,
        found.divergence,
        subject=f"{name or CANNOT_TELL}: the runs differ",
        where=where,
        reasons=reason_lines(found.classification),
        advice=(),
    )
    return [*text.splitlines(), *_by_sequence(found)]


def _same(found: Difference, where: list[str]) -> Iterator[str]:
    yield "difftrace: IDENTICAL: nothing differs that is recorded of the runs"
    yield from where
    for sentence in found.classification.cannot_tell:
        yield from wrapped(f"cannot tell: {sentence}", "  ")
    others = other_differences(found.golden, found.observed)
    if others:
        yield ""
        yield "what else differs (golden → observed):"
        yield from (f"  {line}" for line in others)
    environments = environments_line(found.golden, found.observed, GOLDEN_OBSERVED, LINE, advise=False)
    if environments is not None:
        yield environments


def _by_sequence(found: Difference) -> Iterator[str]:
    """Yield where each of several sequences parts, those that differ first."""
    divergences = list(enumerate(found.divergences))
    if len(divergences) < 2:
        return
    differing = [(index, one) for index, one in divergences if one is not None]
    yield ""
    yield f"{len(differing)} of {len(divergences)} sequences decide otherwise{':' if differing else ''}"
    for index, one in differing[:_MOST_SEQUENCES]:
        yield f"  {index}  {_place(one)}"
    if len(differing) > _MOST_SEQUENCES:
        yield f"  and {len(differing) - _MOST_SEQUENCES} more; --json lists all"


def _place(divergence: Divergence) -> str:
    if divergence.kind == "decision":
        return f"first at step {divergence.step}, position {divergence.position}"
    if divergence.kind == "length":
        return f"one of the two ends at step {divergence.step}; what both have is equal"
    at = "" if divergence.position is None else f", first at {divergence.position}"
    return f"{'prompt or its frame' if divergence.kind == 'prompt' else 'first canvas'} differs{at}"


def difference_document(found: Difference, paths: tuple[str, str]) -> dict[str, Any]:
    """Return the document that schemas/diff.schema.json describes."""
    why, environments = found.classification, comparable(found.golden.environment, found.observed.environment)
    first = found.divergence
    return {
        "format": FORMAT,
        "version": VERSION,
        "golden": paths[0],
        "observed": paths[1],
        "same": found.same,
        "class": why.divergence_class,
        "kind": why.kind,
        "reason": why.reason,
        "sequence": why.sequence,
        "step": why.step,
        "position": why.position,
        "noise": [{**asdict(one), "exceeds": one.exceeds} for one in why.noise],
        "budget": why.tau_source,
        "cannot_tell": list(why.cannot_tell),
        "outcome": None if why.outcome is None else asdict(why.outcome),
        "suspects": [asdict(one) for one in why.suspects],
        "environments": {
            "verdict": environments.verdict,
            "reason": environments.reason,
            "deciding": list(environments.deciding),
            "differing": [field.name for field in environments.fields],
        },
        "divergence": None if first is None else asdict(first),
        "only_sequence": found.only,
        "sequences": [
            None if one is None else {**asdict(one), "sequence": index} for index, one in enumerate(found.divergences)
        ],
    }
