"""What a recording gave."""

from __future__ import annotations

from dataclasses import dataclass

from difftrace.core.audit import Audit
from difftrace.core.evidence import Evidence
from difftrace.core.trajectory import Trajectory


@dataclass(frozen=True)
class Captured:
    """The trajectories of a batch, and what is not known of them.

    Attributes:
        trajectories: one for each row.
        unverified: for each row the positions whose final token is the last one seen, not one the engine returned: the
            last step may have committed there what nobody saw.
        prompt_end: canvas position behind the prompts of the batch.
        generated_from: for each row the first position that the loop filled or changed, `prompt_end` at most: before
            that where prompts of several lengths share a batch, or masks lie within a text. Texts begin there.
        evidences: the evidence of each row; None where none was recorded.
        notes: what a reader of the trajectories should know, a sentence each.
        audit: what the loop drew and selected; None unless that was asked for. `difftrace.reports.audit.audit_lines`
            puts it into words.
    """

    trajectories: tuple[Trajectory, ...]
    unverified: tuple[tuple[int, ...], ...]
    prompt_end: int
    generated_from: tuple[int, ...]
    evidences: tuple[Evidence, ...] | None = None
    notes: tuple[str, ...] = ()
    audit: Audit | None = None

    @property
    def verified(self) -> bool:
        """Whether every position's final token is what the engine returned.

        It says nothing of the way there: changes that no call of the model showed are put down to the call before.
        """
        return not any(self.unverified)
