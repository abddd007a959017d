"""The operations whose results can differ between two runs of one program, why, and what to do about it.

A table, read by `difftrace.scan`. Sources: torch's documentation of `torch.use_deterministic_algorithms` (2.13), of the
operations themselves, and where that is silent torch's own source and issues. What one backward pass adds is left
out: a forward is scanned. So are matrix products: with a fixed cuBLAS workspace and one stream they repeat themselves.
`argmax` and `max` are not listed since torch documents that the first of equal elements is returned; nor are
accumulations of integers, which do not depend on their order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Final

from difftrace.determinism.hazards.choices import CHOSEN, TIES
from difftrace.determinism.hazards.order import NONDETERMINISTIC
from difftrace.determinism.hazards.randomness import RANDOM
from difftrace.determinism.hazards.row import Hazard

ROWS: Final[tuple[Hazard, ...]] = (*RANDOM, *NONDETERMINISTIC, *TIES, *CHOSEN)


def _by_operation() -> dict[str, tuple[Hazard, ...]]:
    found: dict[str, list[Hazard]] = defaultdict(list)
    for row in ROWS:
        for operation in row.operations:
            found[operation].append(row)
    return {operation: tuple(rows) for operation, rows in found.items()}


HAZARDS: Final[Mapping[str, tuple[Hazard, ...]]] = _by_operation()


def hazards_of(operation: str) -> tuple[Hazard, ...] | None:
    """Return the rows of an operation, in-place forms (`scatter_add_`) under the plain name; None if it has none."""
    return HAZARDS.get(operation) or HAZARDS.get(operation.removesuffix("_"))
