"""Digests of the numbers at a step's candidates, computed on the device to the same integers everywhere.

Multilinear hashing twice over (Lemire and Kaser, "Strongly universal string hashing is fast", The Computer Journal 57,
2014). A row's values are read as 32-bit words (16- or 8-bit ones where they are narrower); its hash is Σ k[v]·word[v]
modulo 2^64, and the digest of a step is Σ K[p]·hash[p] over the candidates p, with fixed pseudo-random keys. Positions
count from the row's first real token, so neither padding nor batch matters. Two steps that differ share one lane
for fewer than one in 2^27 choices of its keys, both for one in 2^54: it finds accidents, not adversaries.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from difftrace.sampling.tables import word_keys

_WORDS: Final = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int32}


def row_hashes(rows: Tensor, lanes: int) -> Tensor:
    """Return the hashes of contiguous `rows` [N, V] of any real dtype, int64 [N, lanes]."""
    words = rows.view(_WORDS[rows.element_size()])
    keys = word_keys(words.shape[1], words.device)
    return torch.stack([torch.mul(words, key).sum(dim=1) for key in keys[:lanes]], dim=1)
