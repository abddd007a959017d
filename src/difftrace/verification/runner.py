"""Prompts in, runs out: a loaded model denoising under enforced determinism."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from difftrace.core.errors import SamplerError
from difftrace.core.run import Run
from difftrace.core.trajectory import Trajectory
from difftrace.determinism import enforce, fingerprint
from difftrace.models import LoadedModel
from difftrace.models.tokenizer import Tokenizer
from difftrace.sampling import SamplerArguments, generate

Prompt = str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]] | Tensor


@dataclass(frozen=True)
class ModelRunner:
    """Runs `loaded` and says, with every run, what ran, where, and what came out."""

    loaded: LoadedModel

    def generate(
        self,
        prompt: Prompt,
        *,
        gen_length: int,
        steps: int,
        block_length: int | None = None,
        temperature: float = 0.0,
        cfg_scale: float = 0.0,
        remasking: str = "low_confidence",
        logits_eos_inf: bool = False,
        confidence_eos_eot_inf: bool = False,
        tie_break: str = "stable",
        seed: int = 0,
    ) -> Run:
        """Denoise `prompt`: a text, token ids, or a list of either for a batch (left-padded, with a mask).

        `block_length` None means one block. The other arguments are those of `difftrace.sampling.generate`. Raises
        SamplerError for a prompt or arguments the model cannot run.
        """
        arguments = SamplerArguments(
            steps=steps,
            gen_length=gen_length,
            block_length=gen_length if block_length is None else block_length,
            temperature=temperature,
            cfg_scale=cfg_scale,
            remasking=remasking,
            logits_eos_inf=logits_eos_inf,
            confidence_eos_eot_inf=confidence_eos_eot_inf,
            tie_break=tie_break,
            seed=seed,
        )
        loaded = self.loaded
        ids, mask = self._pad([self._encode(one) for one in _rows(prompt)])
        with enforce(seed):
            generation = generate(loaded.model, ids, attention_mask=mask, **arguments.as_dict())
            environment = fingerprint(loaded.device, loaded.dtype)
        trajectories = tuple(generation.trajectories)
        texts = prompts = None
        if loaded.tokenizer is not None:
            texts = tuple(loaded.tokenizer.decode(t.final[ids.shape[1] :].tolist()) for t in trajectories)
            prompts = tuple(loaded.tokenizer.decode(t.prompt.tolist()) for t in trajectories)
        return Run(
            trajectories=trajectories,
            texts=texts,
            prompt_texts=prompts,
            model=loaded.identity,
            sampler=arguments.identity(),
            environment=environment,
            pieces=_pieces(loaded.tokenizer, trajectories),
        )

    def _encode(self, prompt: str | Sequence[int]) -> list[int]:
        if not isinstance(prompt, str):
            return [int(token) for token in prompt]
        if self.loaded.tokenizer is None:
            raise SamplerError(f"model {self.loaded.name} has no tokenizer: give token ids, not text")
        return self.loaded.tokenizer.encode(prompt)

    def _pad(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor | None]:
        width = max(len(row) for row in rows)
        pad = self.loaded.config.pad_token_id
        ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows], dtype=torch.long)
        if all(len(row) == width for row in rows):
            return ids.reshape(len(rows), width), None
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], dtype=torch.long)
        return ids, mask


def _rows(prompt: Prompt) -> list[str | Sequence[int]]:
    """Return the prompts of a batch; a single prompt is a batch of one."""
    if isinstance(prompt, str):
        return [prompt]
    given: Sequence[str | int | Sequence[int]] = prompt.tolist() if isinstance(prompt, Tensor) else prompt
    if len(given) == 0:
        raise SamplerError("the prompt is empty: give a text, token ids, or a list of either")
    if all(isinstance(one, int) for one in given):
        return [[one for one in given if isinstance(one, int)]]
    rows = [one for one in given if not isinstance(one, int)]
    if len(rows) != len(given):
        raise SamplerError("the prompt mixes token ids with texts or lists")
    return rows


def _pieces(tokenizer: Tokenizer | None, trajectories: Sequence[Trajectory]) -> dict[int, str]:
    """Return the text of every id that the runs use, so that they can be read without a tokenizer."""
    if tokenizer is None:
        return {}
    used = {int(token) for t in trajectories for column in (t.initial, t.tokens) for token in column}
    return {token: tokenizer.piece(token) for token in sorted(used)}
