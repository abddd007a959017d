"""How the reference model is trained: every number that decides its weights."""

from __future__ import annotations

from dataclasses import dataclass, field

from difftrace.models.config import LLaDAConfig
from difftrace.models.reference import vocabulary


@dataclass(frozen=True)
class Recipe:
    """Shapes, schedule and seed of a training run.

    `lengths` are the sequence lengths of a batch and how often each is drawn; the answer is followed by EOS
    up to that length, so that the model learns to end a text of any length. `threads` is part of the recipe
    because fp32 sums depend on it.
    """

    d_model: int = 96
    n_layers: int = 6
    n_heads: int = 4
    mlp_hidden_size: int = 256
    max_sequence_length: int = 256
    steps: int = 5000
    batch_size: int = 96
    lengths: dict[int, float] = field(default_factory=lambda: {32: 0.7, 44: 0.2, 80: 0.1})
    learning_rate: float = 2e-3
    warmup_steps: int = 200
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    gradient_norm: float = 1.0
    average_decay: float = 0.998
    seed: int = 20260101
    threads: int = 1

    def config(self) -> LLaDAConfig:
        """The model's config."""
        return LLaDAConfig(
            d_model=self.d_model,
            n_layers=self.n_layers,
            n_heads=self.n_heads,
            n_kv_heads=self.n_heads,
            mlp_hidden_size=self.mlp_hidden_size,
            vocab_size=vocabulary.SIZE,
            embedding_size=vocabulary.SIZE,
            max_sequence_length=self.max_sequence_length,
            rope_theta=10000.0,
            rms_norm_eps=1e-5,
            mask_token_id=vocabulary.SPECIAL.index(vocabulary.MASK),
            eos_token_id=vocabulary.SPECIAL.index(vocabulary.EOS),
            pad_token_id=vocabulary.SPECIAL.index(vocabulary.EOS),
            eot_token_id=vocabulary.SPECIAL.index(vocabulary.EOT),
        )
