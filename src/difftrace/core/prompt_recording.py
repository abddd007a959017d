"""What recording prompts said: one value for each baseline, and the document of all."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from difftrace.core.classification import Classification, divergence_of
from difftrace.core.comparison import Divergence
from difftrace.core.recording import Baseline

FORMAT: Final = "difftrace-recording"
VERSION: Final = "0.1"

Scope = Literal["missing", "changed", "all"]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
Status = Literal["new", "changed", "unchanged", "differs", "not reproducible", "refused", "could not run"]
STATUSES: Final[tuple[Status, ...]] = get_args(Status)
WRITTEN: Final[tuple[Status, ...]] = ("new", "changed")
GOOD: Final[tuple[Status, ...]] = (*WRITTEN, "unchanged")


@dataclass(frozen=True)
class Recorded:
    """What became of one baseline.

    Attributes:
        status: "new" and "changed": it was written. "unchanged": there is one that the run agrees with. "differs":
            there is one that it does not agree with, and it stayed. "not reproducible": a second run was another, and
            nothing was written. "refused": the file that is there must not be overwritten, or the run's
            logits are not finite. "could not run".
        golden: the baseline that was there.
        observed: the run.
        repeated: the second run, where that is the one that differs.
        classification: what differs, of what was there or of the second run.
        problem: why, for "refused" and "could not run".
        remarks: what is to be known of one that was written.
    """

    status: Status
    golden: Baseline | None = None
    observed: Baseline | None = None
    repeated: Baseline | None = None
    classification: Classification | None = None
    problem: str | None = None
    remarks: tuple[str, ...] = ()

    @property
    def sides(self) -> tuple[Baseline, Baseline] | None:
        """The two runs that differ: the two of this recording, or what was there and the run."""
        if self.status == "not reproducible" and self.observed is not None and self.repeated is not None:
            return self.observed, self.repeated
        if self.status == "differs" and self.golden is not None and self.observed is not None:
            return self.golden, self.observed
        return None

    @property
    def divergence(self) -> Divergence | None:
        """The first decision that differs; None if none does."""
        if self.sides is None or self.classification is None:
            return None
        return divergence_of(*self.sides, self.classification)


def exit_status(statuses: Collection[Status]) -> int:
    """Return 2 if something could not be run, else 1 if something may not be written, else 0."""
    if "could not run" in statuses:
        return 2
    return 0 if set(statuses) <= set(GOOD) else 1


def recording_document(scope: Scope, total: int, baselines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the document that schemas/recording.schema.json describes, of what `baseline_document` returned.

    `total` baselines were to be recorded.
    """
    return {
        "format": FORMAT,
        "version": VERSION,
        "scope": scope,
        "complete": len(baselines) == total,
        "total": total,
        "written": sum(one["status"] in WRITTEN for one in baselines),
        "baselines": list(baselines),
    }


def baseline_document(path: str, prompts: Sequence[str], result: Recorded) -> dict[str, Any]:
    """Return what the document says of one baseline; `prompts` is what its prompts are called."""
    found = result.classification
    first = result.divergence or found
    return {
        "path": path,
        "prompts": list(prompts),
        "status": result.status,
        "digest": None if result.observed is None else result.observed.digest,
        "texts": None if result.observed is None else [record.text for record in result.observed.sequences],
        "class": None if found is None else found.divergence_class,
        "sequence": None if first is None else first.sequence,
        "step": None if first is None else first.step,
        "position": None if first is None else first.position,
        "reason": None if found is None else found.reason,
        "remarks": list(result.remarks),
        "problem": result.problem,
    }
