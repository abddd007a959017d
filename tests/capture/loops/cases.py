"""One run of every loop in every way it can go, for tests that hold for all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from loops import dinfer, dllm, dream, fast_dllm, llada, llada2, remdm, sglang, vllm_plugin
from loops.model import EOS, MASK, PAD, TinyDenoiser
from loops.truth import Truth

PROMPT = torch.tensor([[3, 1, 4, 1, 5], [2, 7, 1, 8, 2]])
_ONE = PROMPT[:1]
_PADDED = torch.tensor([[PAD, PAD, 4, 1, 5], [2, 7, 1, 8, 2]])
_UNEVEN = [[3, 1, 4, 1, 5], [2, 7]]

Run = Callable[[TinyDenoiser, Truth], Any]


@dataclass(frozen=True)
class Case:
    """A loop with its arguments.

    Attributes:
        name: engine and variant.
        run: runs it on a model, and returns what the engine returns.
        shown: what of the last canvas [B, L] the engine returns, in the form in which it returns it.
        model: makes the model; the same every time.
        rewrites: whether a position is put down more than once.
        leaves_masks: whether some of what it returns is still masked.
    """

    name: str
    run: Run
    shown: Callable[[Tensor], Any] = lambda canvas: canvas.tolist()
    model: Callable[[], TinyDenoiser] = TinyDenoiser
    rewrites: bool = False
    leaves_masks: bool = False

    def result(self) -> tuple[Any, Truth]:
        """Run it with a fixed seed; return what the engine returns, as lists, and what it did."""
        model = self.model()
        truth = Truth(model)
        torch.manual_seed(0)
        return as_lists(self.run(model, truth)), truth


def as_lists(returned: Any) -> Any:
    """Return the tokens in whatever an engine returned."""
    if isinstance(returned, tuple):
        returned = returned[0]
    returned = getattr(returned, "sequences", returned)
    return returned.tolist() if isinstance(returned, Tensor) else returned


def _fast(loop: Callable[..., Any], **arguments: Any) -> Run:
    return lambda model, truth: loop(model, PROMPT, 8, 16, 8, truth=truth, **arguments)


def _llada(prompt: Tensor = PROMPT, **arguments: Any) -> Run:
    return lambda model, truth: llada.generate(model, prompt, truth=truth, **arguments)


def _dream(inputs: Tensor = PROMPT, **arguments: Any) -> Run:
    def run(model: TinyDenoiser, truth: Truth) -> Any:
        assert isinstance(model, dream.DreamModel)
        model.truth = truth
        return model.diffusion_generate(inputs, **arguments)

    return run


def _mdlm(**arguments: Any) -> Run:
    return lambda model, truth: dllm.MDLMSampler(model, truth).sample(_UNEVEN, **arguments)


def _bd3lm(**arguments: Any) -> Run:
    return lambda model, truth: dllm.BD3LMSampler(model, truth).sample(_UNEVEN, **arguments)


def _llada2(**arguments: Any) -> Run:
    def run(model: TinyDenoiser, truth: Truth) -> Any:
        assert isinstance(model, llada2.LLaDA2Model)
        model.truth = truth
        return model.generate(_ONE, **arguments)

    return run


def _dinfer(decoder: Callable[[Truth], dinfer.ParallelDecoder], prompt: Tensor = _ONE, **arguments: Any) -> Run:
    return lambda model, truth: dinfer.BlockWiseDiffusionLLM(model, decoder(truth), **arguments).generate(prompt)


def _sglang(algorithm: Callable[[Truth], sglang.DllmAlgorithm], prompt: Tensor = PROMPT) -> Run:
    return lambda model, truth: sglang.serve(model, algorithm(truth), prompt)


def _vllm(**config: Any) -> Run:
    policy = vllm_plugin.Llada2DefaultRemaskingPolicy()
    return lambda model, truth: vllm_plugin.serve(model, policy, PROMPT, remasking_config=config, truth=truth)


def _remdm(batch: int = 2, eta: float = 0.0) -> Run:
    return lambda model, truth: remdm.Diffusion(model, truth, eta).sample(batch)


def _generated(canvas: Tensor) -> Any:
    return canvas[:, PROMPT.shape[1] :].tolist()


def _to_first_end(canvas: Tensor) -> Any:
    row = canvas[0, PROMPT.shape[1] :][:16].tolist()
    return [row[: row.index(EOS) + 1] if EOS in row else row]


def _without_ends(canvas: Tensor) -> Any:
    return [[token for token in row if token != EOS] for row in canvas.tolist()]


_ends = partial(TinyDenoiser, favoured=EOS, by=5.0)
_edits = partial(llada2.LLaDA2Model, 1)
_threshold, _hierarchy = dinfer.ThresholdParallelDecoder, dinfer.HierarchyRemaskDecoder

CASES = (
    Case("llada", _llada()),
    Case("llada more steps than masks", _llada(steps=32, block_length=16)),
    Case("llada at a temperature", _llada(temperature=0.8)),
    Case("llada with guidance", _llada(cfg_scale=1.5)),
    Case("llada left-padded", _llada(_PADDED, attention_mask=(_PADDED != PAD).long())),
    Case("llada left-padded with guidance", _llada(_PADDED, attention_mask=(_PADDED != PAD).long(), cfg_scale=0.5)),
    Case("llada logits overwritten", _llada(logits_eos_inf=True), model=_ends),
    Case(
        "llada predicting masks",
        _llada(),
        model=partial(TinyDenoiser, favoured=MASK, by=2.0),
        rewrites=True,
        leaves_masks=True,
    ),
    Case(
        "llada filling in a prompt",
        _llada(torch.tensor([[3, MASK, 4, MASK, 5], [2, 7, MASK, MASK, 2]])),
        leaves_masks=True,
    ),
    Case("llada embeddings", _llada(embed=True)),
    Case("fast-dllm", _fast(fast_dllm.generate)),
    Case("fast-dllm threshold", _fast(fast_dllm.generate, threshold=0.6)),
    Case("fast-dllm prefix cache", _fast(fast_dllm.generate_with_prefix_cache)),
    Case("fast-dllm prefix cache threshold", _fast(fast_dllm.generate_with_prefix_cache, threshold=0.6)),
    Case("fast-dllm dual cache", _fast(fast_dllm.generate_with_dual_cache)),
    Case("fast-dllm dual cache threshold", _fast(fast_dllm.generate_with_dual_cache, threshold=0.6)),
    Case("dream", _dream(), model=dream.DreamModel),
    Case("dream origin", _dream(alg="origin", temperature=0.5), model=dream.DreamModel),
    Case("dream places drawn", _dream(alg="maskgit_plus", alg_temp=0.5), model=dream.DreamModel),
    Case("dream left-padded", _dream(_PADDED, attention_mask=(_PADDED != PAD).long()), model=dream.DreamModel),
    Case("dream dictionary", _dream(output_history=True, return_dict_in_generate=True), model=dream.DreamModel),
    Case("dllm mdlm", _mdlm()),
    Case("dllm mdlm histories", _mdlm(return_dict=True)),
    Case("dllm mdlm with guidance", _mdlm(cfg_scale=1.0)),
    Case("dllm mdlm logits overwritten and shifted", _mdlm(suppress_tokens=[3], right_shift_logits=True)),
    Case("dllm bd3lm", _bd3lm()),
    Case("dllm bd3lm histories", _bd3lm(return_dict=True)),
    Case("dllm bd3lm with guidance", _bd3lm(cfg_scale=1.0)),
    Case("llada2.0", _llada2(), _to_first_end, llada2.LLaDA2Model),
    Case("llada2.1 edits", _llada2(editing_threshold=0.2), _to_first_end, _edits, rewrites=True),
    Case(
        "llada2.0 cut at its end",
        _llada2(),
        _to_first_end,
        partial(llada2.LLaDA2Model, favoured=EOS, by=9.0),
    ),
    Case("dinfer threshold", _dinfer(_threshold), _without_ends),
    Case("dinfer threshold, a batch", _dinfer(_threshold, PROMPT)),
    Case("dinfer dual cache", _dinfer(_threshold, cache="dual"), _without_ends),
    Case("dinfer stopped early", _dinfer(_threshold), _without_ends, _ends),
    Case("dinfer masks again", _dinfer(partial(_hierarchy, remask_threshold=0.6)), _without_ends, rewrites=True),
    Case("sglang low confidence", _sglang(sglang.LowConfidence), _generated),
    Case(
        "sglang joint threshold", _sglang(partial(sglang.JointThreshold, edit_threshold=0.3)), _generated, rewrites=True
    ),
    Case("vllm plugin", _vllm(), _generated),
    Case("vllm plugin, all that is sure", _vllm(commit_confidence_threshold=0.5), _generated),
    Case("mdlm", _remdm(batch=1)),
    Case("remdm", _remdm(eta=0.3), rewrites=True),
)
