"""Prompts recorded outside any test: each run twice, and a baseline written where both runs agree."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from difftrace.core.baseline import dump, load, save
from difftrace.core.classification import Classification, classify
from difftrace.core.errors import DeterminismError, FormatError, NewerFormatError, PromptsError, RunError, SamplerError
from difftrace.core.policies import judge
from difftrace.core.prompt_recording import Recorded, Scope, Status
from difftrace.core.prompts import Prompt
from difftrace.core.recording import Baseline
from difftrace.core.rerecording import loses_budget, loses_probes, with_kept
from difftrace.core.run_rules import non_finite_step
from difftrace.core.test_id import TestId
from difftrace.core.text import printable
from difftrace.models import LoadedModel
from difftrace.sampling import SamplerArguments, undecided
from difftrace.sampling.padding import left_pad
from difftrace.verification.runner import denoise, encoded

# As the published sampler has it.
_GEN_LENGTH: Final = 128


@dataclass(frozen=True, eq=False)
class Batch:
    """Prompts that are denoised together, and make one baseline.

    Attributes:
        prompts: as they were given.
        ids: [B, P], left-padded.
        mask: [B, P], 0 at padding; None where nothing is hidden.
        arguments: of the sampler, the same for all.
    """

    prompts: tuple[Prompt, ...]
    ids: Tensor
    mask: Tensor | None
    arguments: SamplerArguments


def batches_of(
    loaded: LoadedModel, prompts: Sequence[Prompt], options: Mapping[str, Any], size: int = 1
) -> list[Batch]:
    """Return what is to be run: up to `size` prompts in succession with the same arguments make a batch.

    Arguments are those of the prompt, else those of `options`, else the defaults: 128 tokens, as many steps as tokens,
    one block, and `ModelRunner.generate`'s for the others.

    Raises:
        PromptsError: prompts that `loaded` or the sampler cannot run, or that are there twice.
    """
    planned: list[tuple[Prompt, list[int], SamplerArguments]] = []
    problems: list[str] = []
    seen: dict[object, str] = {}
    for prompt in prompts:
        try:
            one = (prompt, *_checked(loaded, prompt, options))
        except SamplerError as error:
            problems.append(f"{prompt.where}: {error}")
            continue
        twin = prompt.where if prompt.id is not None else seen.setdefault((prompt.content, one[2]), prompt.where)
        if twin != prompt.where:
            problems.append(f"{prompt.where}: is the same as {twin}; leave it out, or give each an id")
        planned.append(one)
    if problems:
        raise PromptsError(problems)
    grouped: list[list[tuple[Prompt, list[int], SamplerArguments]]] = []
    for one in planned:
        if grouped and len(grouped[-1]) < size and grouped[-1][0][2] == one[2]:
            grouped[-1].append(one)
        else:
            grouped.append([one])
    return [
        Batch(
            tuple(prompt for prompt, _, _ in group),
            *left_pad([ids for _, ids, _ in group], loaded.config.pad_token_id),
            group[0][2],
        )
        for group in grouped
    ]


def record(
    loaded: LoadedModel,
    batch: Batch,
    path: Path,
    scope: Scope = "missing",
    *,
    test: TestId | None = None,
    profile: str | None = None,
) -> Recorded:
    """Run `batch`, and write its baseline to the file `path`, which belongs to `test`, if a second run is the same.

    Of a baseline that is there, `scope` says what becomes of it: "missing" leaves it as it is, "changed" puts the run
    in its place if the run does not pass as its verification, "all" always, which refreshes its environment. One of
    another test or a newer version is never overwritten.

    Raises:
        WriteError: the file could not be written; what was there is whole.
    """
    golden, refused = _existing(path, scope, test)
    if refused is not None:
        return Recorded("refused", golden, problem=refused)
    try:
        return _recorded(loaded, batch, path, scope, golden, test, profile)
    except (SamplerError, DeterminismError, RunError, FormatError) as error:
        return Recorded("could not run", golden, problem=str(error))


def _checked(loaded: LoadedModel, prompt: Prompt, options: Mapping[str, Any]) -> tuple[list[int], SamplerArguments]:
    """Return the ids and arguments of a prompt; raises SamplerError where its run would before its first step."""
    given = {"noise": "portable", "seed": 0, "gen_length": _GEN_LENGTH, **options, **prompt.options}
    given = {"steps": given["gen_length"], "block_length": given["gen_length"], **given}
    arguments = SamplerArguments(**given)
    if arguments.seed is None:
        raise SamplerError("a run that is to be repeated needs a seed, an integer")
    ids = encoded(loaded, prompt.content)
    undecided(loaded.model, *left_pad([ids], loaded.config.pad_token_id), arguments)
    return ids, arguments


def _existing(path: Path, scope: Scope, test: TestId | None) -> tuple[Baseline | None, str | None]:
    """Return the baseline that is there, and why it must stay as it is."""
    if not os.path.lexists(path):
        return None, None
    try:
        golden = load(path)
    except NewerFormatError as error:
        return None, str(error)
    except FormatError as error:
        problem = f"{error}; record with the scope changed to put another in its place"
        return None, problem if scope == "missing" else None
    if golden.test is not None and golden.test != test:
        of = printable(f"{golden.test.module}::{golden.test.id}")
        return golden, f"{printable(str(path))}: is the baseline of {of}; record that one, or choose another file"
    return golden, None


def _recorded(
    loaded: LoadedModel,
    batch: Batch,
    path: Path,
    scope: Scope,
    golden: Baseline | None,
    test: TestId | None,
    profile: str | None,
) -> Recorded:
    def run(times: int) -> list[Baseline]:
        # Runs of one seeding: a model that draws random numbers itself repeats itself under a fresh seed.
        runs = denoise(loaded, batch.ids, batch.mask, batch.arguments, profile=profile, times=times)
        return [one.to_baseline(test) for one in runs]

    # A baseline that holds is not written, and takes no second run.
    first, *more = run(1 if golden is not None and scope != "all" else 2)
    found = None if golden is None else classify(golden, first)
    passed = found is not None and _passes(found)
    if passed and not more:
        return Recorded("unchanged", golden, first, classification=found)
    second = more[0] if more else run(2)[1]
    repetition = classify(first, second)
    if not (first.same_decisions(second) and _passes(repetition)):
        return Recorded("not reproducible", golden, first, second, repetition)
    step = non_finite_step(first)
    if step is not None:
        problem = f"the model returned NaN or infinite logits, first at step {step}: such a run is no golden one"
        return Recorded("refused", golden, first, problem=problem)
    existed = os.path.lexists(path)
    if golden is not None and scope == "missing":
        return Recorded("differs", golden, first, classification=classify(golden, first, repeated=second))
    to_write = first if golden is None else with_kept(golden, first, passed)
    if golden is not None and path.read_bytes() == dump(to_write):
        return Recorded("unchanged", golden, first, classification=found)
    save(path, to_write)
    remarks = [] if repetition.divergence_class == "IDENTICAL" else ["logits do not repeat to the bit"]
    if golden is not None and loses_budget(golden, first):
        remarks.append("the budget was dropped, calibrate again")
    if golden is not None and loses_probes(golden, first, passed):
        remarks.append("the probes were dropped, make them again")
    status: Status = "changed" if existed else "new"
    return Recorded(status, golden, first, classification=found, remarks=tuple(remarks))


def _passes(found: Classification) -> bool:
    return judge(found, "exact").passes
