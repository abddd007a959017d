"""How often the reference model answers held-out prompts exactly, denoising as the product does."""

from __future__ import annotations

from collections.abc import Sequence

from difftrace.models.loading import LoadedModel
from difftrace.models.reference.corpus import Example
from difftrace.sampling import generate
from difftrace.sampling.padding import left_pad

GEN_LENGTH, STEPS, BLOCK_LENGTH = 16, 16, 8
_BATCH = 100


def answers(loaded: LoadedModel, prompts: Sequence[str]) -> list[str]:
    """Return the decoded answer to each prompt: 16 masks in 16 steps, in blocks of 8."""
    tokenizer = loaded.tokenizer
    assert tokenizer is not None
    found = []
    for start in range(0, len(prompts), _BATCH):
        rows = [tokenizer.encode(prompt) for prompt in prompts[start : start + _BATCH]]
        ids, mask = left_pad(rows, loaded.config.pad_token_id)
        tokens = generate(
            loaded.model,
            ids,
            attention_mask=mask,
            steps=STEPS,
            gen_length=GEN_LENGTH,
            block_length=BLOCK_LENGTH,
            seed=0,
            record="none",
        ).tokens
        found += [tokenizer.decode(row) for row in tokens[:, ids.shape[1] :].tolist()]
    return found


def correct(loaded: LoadedModel, examples: Sequence[Example]) -> int:
    """Return how many of `examples` are answered exactly."""
    given = answers(loaded, [example.prompt for example in examples])
    return sum(text == example.answer for text, example in zip(given, examples, strict=True))
