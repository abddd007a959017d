"""Prompts in, runs out: a loaded model denoising under enforced determinism."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from operator import methodcaller
from typing import Any, Generic, TypeGuard, TypeVar

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from difftrace.core.errors import DeterminismError, LogitsError, RankError, SamplerError
from difftrace.core.evidence import Evidence
from difftrace.core.logits_codec import Method
from difftrace.core.logits_reference import method_named
from difftrace.core.recording import JsonScalar
from difftrace.core.run import Run
from difftrace.core.trajectory import Trajectory
from difftrace.determinism.enforcement import enforce
from difftrace.determinism.environment import fingerprint
from difftrace.models import LoadedModel
from difftrace.models.tokenizer import Tokenizer
from difftrace.ranks import agreed
from difftrace.sampling import Generation, SamplerArguments, generate
from difftrace.sampling.padding import left_pad
from difftrace.verification.scratch_logits import with_scratch_logits

# Test runners then show the caller's line, not ours, for errors that are the caller's to mend.
__tracebackhide__ = methodcaller("errisinstance", (SamplerError, LogitsError, DeterminismError, RankError))

Result = TypeVar("Result", covariant=True)

Prompt = str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]] | Tensor | npt.NDArray[np.integer]


# Parameters. Below this a forward pass is so short that several threads mostly wait for each other: where cores are
# shared they made the reference model (0.7 million) over ten times slower.
_THREADS_PAY_FROM = 20_000_000


@dataclass(frozen=True)
class PromptRunner(ABC, Generic[Result]):
    """Takes prompts and the sampler's arguments as a user gives them, for `loaded`.

    `profile` is the determinism profile, None for the one of the model's device. `across_ranks` says that every rank of
    torch.distributed's default group makes the same runs: they then have to decide alike. Nothing changes where there
    is no group.
    """

    loaded: LoadedModel
    profile: str | None = None
    across_ranks: bool = field(default=False, kw_only=True)

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
        noise: str = "portable",
        seed: int = 0,
        record: str = "evidence",
        logits: str = "lossless",
    ) -> Result:
        """Denoise `prompt`: a text, token ids, or a list of either for a batch (left-padded, with a mask).

        `block_length` None means one block. `record="logits"` also writes all logits to a file, by the method `logits`:
        "lossless", "lossy:0.01" for logits within 0.01, or "top:32" for the 32 largest of each position; the file lasts
        as long as the run. The other arguments are those of `difftrace.sampling.generate`. Raises SamplerError for a
        prompt or arguments the model cannot run, LogitsError for a method that there is not, DeterminismError where
        determinism cannot be enforced or something changed one of its switches during the run, RankError where ranks
        do not agree. The run's `repeat` runs the same again.
        """
        if record not in ("evidence", "logits"):
            raise SamplerError(f"record must be evidence or logits, not {record!r}")
        method = method_named(logits)
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
            noise=noise,
            seed=seed,
        )
        ids, mask = left_pad([encoded(self.loaded, one) for one in _rows(prompt)], self.loaded.config.pad_token_id)
        # The sampler asks this too; here it is told at the caller's line.
        arguments.check_fits(ids.shape[1], self.loaded.config)
        return self.start(ids, mask, arguments, method if record == "logits" else None)

    @abstractmethod
    def start(
        self, ids: Tensor, mask: Tensor | None, arguments: SamplerArguments, logits: Method | None = None
    ) -> Result:
        """Return the run of a batch of ids [B, P] and their mask [B, P], None where nothing is hidden.

        `logits` is how they are recorded, None if they are not.
        """


@dataclass(frozen=True)
class ModelRunner(PromptRunner[Run]):
    """Runs `loaded` and says, with every run, what ran, where, and what came out.

    A run is the last of `times` runs in one seeding. They are alike, unless the model draws random numbers itself (say,
    because dropout was left on): by a second one a run that does not repeat itself differs from the first.
    """

    times: int = field(default=1, kw_only=True)

    def start(self, ids: Tensor, mask: Tensor | None, arguments: SamplerArguments, logits: Method | None = None) -> Run:
        """Denoise a batch of ids [B, P] under their mask [B, P], None where nothing is hidden."""
        run = self._run(ids, mask, arguments, logits, times=self.times)
        return replace(run, repeat=partial(self.again, ids, mask, arguments))

    def again(self, ids: Tensor, mask: Tensor | None, arguments: SamplerArguments) -> Run:
        """Denoise the batch twice and return the second run, which repeats a `start` of the same."""
        # The second run of one seeding: a model that draws random numbers itself repeats itself under a fresh seed.
        return self._run(ids, mask, arguments, None, times=2)

    def _run(
        self, ids: Tensor, mask: Tensor | None, arguments: SamplerArguments, logits: Method | None, *, times: int
    ) -> Run:
        def last() -> Run:
            return denoise(self.loaded, ids, mask, arguments, profile=self.profile, times=times, logits=logits)[-1]

        return agreed(last) if self.across_ranks else last()


def encoded(loaded: LoadedModel, prompt: str | Sequence[int]) -> list[int]:
    """Return the token ids of a prompt; raises SamplerError for a text where the model has no tokenizer."""
    if not isinstance(prompt, str):
        return list(prompt)
    if loaded.tokenizer is None:
        raise SamplerError(f"model {loaded.name} has no tokenizer: give token ids, not text")
    return loaded.tokenizer.encode(prompt)


def denoise(
    loaded: LoadedModel,
    prompt_ids: Tensor,
    prompt_mask: Tensor | None,
    arguments: SamplerArguments,
    *,
    profile: str | None = None,
    attention: str | None = None,
    times: int = 1,
    logits: Method | None = None,
) -> tuple[Run, ...]:
    """Denoise a batch `times` times in succession, under enforced determinism; `prompt_ids`, `prompt_mask` [B, P].

    Random generators are seeded once, before the first run, and the sampler draws from `arguments.seed` alone: so the
    later runs repeat the first, unless the model itself draws random numbers (say, because dropout was left on).

    `attention` is the backend of scaled_dot_product_attention, None for the profile's. With `logits`, a method, each
    run comes with a file of them, which lasts as long as the run. Raises SamplerError for a batch or arguments the
    model cannot run, or without a seed, DeterminismError where determinism cannot be enforced or something changed one
    of its switches during a run.
    """
    seed = arguments.seed
    if seed is None:
        raise SamplerError("a run that is to be repeated needs a seed: give seed= an integer")
    threads = threads_that_pay(loaded.model)
    with enforce(seed, profile=profile, device=loaded.device, threads=threads, attention=attention) as held:

        def once(**recorded: Any) -> Generation:
            return generate(loaded.model, prompt_ids, attention_mask=prompt_mask, **arguments.as_dict(), **recorded)

        generations = [once() if logits is None else with_scratch_logits(once, logits) for _ in range(times)]
        held.check()
        environment = fingerprint(loaded.device, loaded.dtype)
    runs = (run_of(loaded, one.trajectories, arguments, environment, one.evidence) for one in generations)
    return tuple(replace(run, logits=one.logits_file) for run, one in zip(runs, generations, strict=True))


def run_of(
    loaded: LoadedModel,
    trajectories: Sequence[Trajectory],
    arguments: SamplerArguments,
    environment: Mapping[str, JsonScalar | list[JsonScalar]],
    evidences: Sequence[Evidence] | None = None,
) -> Run:
    """Return these decisions as a run of `loaded`, read by its tokenizer."""
    trajectories = tuple(trajectories)
    texts = prompts = None
    if loaded.tokenizer is not None:
        prompt_length = trajectories[0].length - arguments.gen_length
        texts = tuple(loaded.tokenizer.decode(t.final[prompt_length:].tolist()) for t in trajectories)
        prompts = tuple(loaded.tokenizer.decode(t.prompt.tolist()) for t in trajectories)
    return Run(
        trajectories=trajectories,
        texts=texts,
        prompt_texts=prompts,
        model=loaded.identity,
        sampler=arguments.identity(),
        environment=environment,
        pieces=_pieces(loaded.tokenizer, trajectories),
        evidences=None if evidences is None else tuple(evidences),
    )


def threads_that_pay(model: nn.Module) -> int | None:
    """Return 1 for a model too small for threads to pay, which makes its runs alike on any number of cores; else
    None."""
    size = sum(parameter.numel() for parameter in model.parameters())
    return 1 if size < _THREADS_PAY_FROM else None


def _rows(prompt: Prompt) -> list[str | Sequence[int]]:
    """Return the prompts of a batch; a single prompt is a batch of one."""
    given: Any = prompt.tolist() if isinstance(prompt, Tensor | np.ndarray) else prompt
    if isinstance(given, str):
        return [given]
    if not isinstance(given, Sequence):
        raise SamplerError(f"the prompt must be a text, token ids, or a list of either, not {type(given).__name__}")
    if len(given) == 0:
        raise SamplerError("the prompt is empty: give a text, token ids, or a list of either")
    if _are_ids(given):
        return [given]
    for row, one in enumerate(given):
        if not (isinstance(one, str) or (isinstance(one, Sequence) and _are_ids(one))):
            raise SamplerError(f"prompt {row} of the batch is neither a text nor a list of token ids: {one!r:.80}")
    return list(given)


def _are_ids(values: Sequence[object]) -> TypeGuard[Sequence[int]]:
    return all(isinstance(one, int) and not isinstance(one, bool) for one in values)


def _pieces(tokenizer: Tokenizer | None, trajectories: Sequence[Trajectory]) -> dict[int, str]:
    """Return the text of every id that the runs use, so that they can be read without a tokenizer."""
    if tokenizer is None:
        return {}
    used = {int(token) for t in trajectories for column in (t.initial, t.tokens) for token in column}
    return {token: tokenizer.piece(token) for token in sorted(used)}
