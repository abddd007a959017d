"""Denoising loops: LLaDA's sampler, deterministic where the published one is not."""

from difftrace.sampling.arguments import SamplerArguments
from difftrace.sampling.llada import Generation, generate, undecided
from difftrace.sampling.logits_stream import LogitsTarget

__all__ = ["Generation", "LogitsTarget", "SamplerArguments", "generate", "undecided"]
