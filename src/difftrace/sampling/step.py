"""One step of a denoising loop as its sampler saw it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from difftrace.core.evidence import PROJECTIONS


@dataclass(frozen=True)
class Step:
    """What B rows were decided from at one step, over W columns of their canvases and a vocabulary of V.

    Nothing has left the device. Whoever builds it lets nobody write to these tensors afterwards, except that the
    logits may lie in memory that a later forward writes to again.

    Attributes:
        logits: what the model returned, [B, W, V]; under guidance [2B, W, V], conditional rows first.
        scores: the value of each token before noise, [B, W, V]: `logits` after guidance and with what forbids tokens.
        candidates: which positions could have been committed, bool [B, W].
        committed: which were, bool [B, W].
        tokens: the token each position takes or would have taken, [B, W].
        confidences: what the positions' rank was decided by, [B, W]: probabilities, or random numbers of 0 to 1.
        token_noise: the uniform random numbers that `sampling.decision.gumbel` perturbed the scores with, [B, W, V].
        temperature: its temperature; 0 where `token_noise` is None.
        position_noise: the random numbers drawn for positions, [B, W].
        start: the canvas position of the first column.
    """

    logits: Tensor
    scores: Tensor
    candidates: Tensor
    committed: Tensor
    tokens: Tensor
    confidences: Tensor
    token_noise: Tensor | None = None
    temperature: float = 0.0
    position_noise: Tensor | None = None
    start: int = 0

    @property
    def passes(self) -> int:
        """How often the model scored each row: 2 under guidance."""
        return self.logits.shape[0] // self.candidates.shape[0]

    @property
    def kind(self) -> tuple[object, ...]:
        """What steps must share to be reduced together."""
        noises = (self.token_noise is None, self.position_noise is None)
        return (self.logits.shape, self.logits.dtype, self.candidates.shape, self.temperature, self.start, *noises)

    @property
    def kept_bytes(self) -> int:
        """Bytes of memory that stay allocated as long as the step does, and that its sketch takes a while."""
        kept = [self.logits, self.scores] + ([] if self.token_noise is None else [self.token_noise])
        storages = [tensor.untyped_storage() for tensor in kept]
        large = sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
        return large + 8 * PROJECTIONS * self.candidates.numel()
