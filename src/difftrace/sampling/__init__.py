"""Denoising loops: LLaDA's sampler, deterministic where the published one is not."""

from difftrace.sampling.arguments import SamplerArguments
from difftrace.sampling.llada import Generation, generate, undecided

__all__ = ["Generation", "SamplerArguments", "generate", "undecided"]
