"""What a model said at some places of its calls, reduced to columns; on the CPU, all calls together.

The same numbers as `difftrace.sampling.evidence` gives, without what only a sampler's own choice needs: a small model
then pays a dozen operations a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from difftrace.core.evidence import DIGEST_LANES, PROJECTIONS, Evidence
from difftrace.sampling.decision import confidence_of
from difftrace.sampling.reduction import as_logarithm, best_two, of_rows, table_length
from difftrace.sampling.sketch import as_logits
from difftrace.sampling.tables import CONDITIONAL, position_keys, position_signs

# Values worked on at once, so that intermediate results stay in the caches.
_PIECE: Final = 1 << 17


@dataclass(frozen=True)
class Answers:
    """The `logits` [T, R, W, V] of T calls, of which the places `where`, bool [T, R, W], count; canvas positions of
    their first columns are `starts`. Nobody writes to these tensors any more."""

    where: Tensor
    logits: Tensor
    starts: Sequence[int]


@dataclass(frozen=True)
class Said:
    """What the model said to one row in T calls, at N places: columns as those of `difftrace.core.evidence.Evidence`,
    [N], by call, then position, and [T, ...]."""

    top_tokens: npt.NDArray[np.int32]
    top_scores: npt.NDArray[np.float32]
    runner_up_tokens: npt.NDArray[np.int32]
    runner_up_scores: npt.NDArray[np.float32]
    confidences: npt.NDArray[np.float32]
    non_finite: npt.NDArray[np.int64]
    logits_digests: npt.NDArray[np.int64]
    sketches: npt.NDArray[np.float32]
    sketched: npt.NDArray[np.int64]

    @classmethod
    def of(cls, evidence: Evidence) -> Said:
        """Take the columns of evidence in which each place is an event."""
        return cls(**{field.name: getattr(evidence, field.name) for field in fields(cls)})

    @classmethod
    def joined(cls, parts: Sequence[Said]) -> Said:
        """Put one row's calls together."""
        columns: dict[str, Any] = {
            field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)
        }
        return cls(**columns)


@torch.no_grad()
def reduce_answers(answers: Answers, first: Tensor) -> list[Said]:
    """Reduce answers on the CPU; `first` [R] is the canvas position of each row's first real token."""
    where = answers.where
    calls, rows, width = where.shape
    vocabulary = answers.logits.shape[-1]
    flat = where.flatten().nonzero().squeeze(1)
    owner = flat // width
    starts = torch.tensor(answers.starts)
    length = table_length(int(starts.max()) + width)
    positions = (flat % width + starts[owner // rows] - first[owner % rows]) % length
    tokens, scores, confidences, hashes, projections, bad = _of_places(answers.logits.view(-1, vocabulary), flat)
    digests = torch.zeros((calls * rows, DIGEST_LANES), dtype=torch.int64)
    digests.index_add_(0, owner, hashes * position_keys(length, CONDITIONAL, flat.device)[positions])
    sketches = torch.zeros((calls * rows, PROJECTIONS), dtype=torch.int64)
    sketches.index_add_(0, owner, projections * position_signs(length, CONDITIONAL, flat.device)[positions])
    non_finite = torch.zeros(calls * rows, dtype=torch.int64).index_add_(0, owner, bad)
    row_of = (owner % rows).numpy()
    tokens = tokens.to(torch.int32)
    place_columns = (tokens[:, 0], scores[:, 0], tokens[:, 1], scores[:, 1], confidences)
    call_columns = (non_finite, digests, as_logits(sketches), where.sum(-1).flatten() * vocabulary)
    said = []
    for row in range(rows):
        mine = row_of == row
        said.append(
            Said(
                *(column.numpy()[mine] for column in place_columns),
                *(column.numpy()[row::rows] for column in call_columns),
            )
        )
    return said


def _of_places(logits: Tensor, flat: Tensor) -> tuple[Tensor, ...]:
    """Return what the rows `flat` [N] of `logits` say, each [N, ...]."""
    most = max(1, _PIECE // logits.shape[1])
    found = []
    for part in torch.split(flat, most):
        own = logits.index_select(0, part)
        tokens, scores = best_two(0.0, own)
        found.append((tokens, scores, as_logarithm(confidence_of(own, tokens[:, 0])), *of_rows(own)))
    return found[0] if len(found) == 1 else tuple(torch.cat(column) for column in zip(*found, strict=True))
