"""Teacher-forced verification: every golden canvas is known, so each step can be decided again by itself.

A run that leaves its baseline is another run from there on, and says nothing more about it. On the golden canvases each
step is an observation of its own, so they can be scored in batches, in any order or only some of them, and all that
diverge are found, not just the first.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tqdm import tqdm

from difftrace.core.errors import RunError
from difftrace.core.forced import ForcedVerdict, ScoredStep
from difftrace.core.recording import Baseline
from difftrace.core.step_sample import StepSample, choose_steps
from difftrace.determinism.enforcement import enforce
from difftrace.determinism.environment import fingerprint
from difftrace.models import LoadedModel
from difftrace.verification.batch_size import batch_size, is_out_of_memory, release_memory
from difftrace.verification.runner import threads_that_pay
from difftrace.verification.teacher_forcing import SharedCanvas, TeacherForcing, teacher_forcing

# Every step that was scored, with its sequences in order.
Scored = dict[int, list[ScoredStep]]

# A bar shows on a terminal only, and only for what takes longer than this many seconds.
_PROGRESS_AFTER = 2.0


def verify_forced(
    loaded: LoadedModel,
    golden: Baseline,
    *,
    steps: Sequence[int] | None = None,
    batch: int | None = None,
    profile: str | None = None,
) -> ForcedVerdict:
    """Decide every step of `golden` again with `loaded` and the sampler as it is here; return what differs.

    The model scores the golden canvas before each step; what the step commits, how many and where is then the
    sampler's to say, the golden's only to be compared with.

    What else is in a batch changes last bits, so a step that decides otherwise in a batch is scored again as it was
    recorded, and only that counts. Once one diverges, the earlier steps are scored as recorded too, up to the first
    that diverges, which so is the one at which a rerun leaves the baseline. Where none diverges, a step that a rerun
    would find may still have agreed in the batch by less than those last bits: `batch=1` leaves no such doubt.

    Logits are held against the golden's evidence, where it has some, on the same terms: in a batch by the baseline's
    budget, scored as recorded also bit for bit. Steps beyond the budget are scored again until one is so as recorded.
    The first step that differs is scored twice as recorded, to tell whether the model repeats itself.

    Args:
        loaded: the model; it is left as it is.
        golden: the baseline, of one batch.
        steps: which to score; None is all.
        batch: canvases, each with all sequences, in one forward pass; None is as many as pay. Halved where memory does
            not suffice.
        profile: the determinism profile, None for the one of the model's device.

    Raises:
        RunError: a step that the baseline does not have, or a baseline that does not say how to run it again.
        SamplerError: arguments in the baseline that contradict each other.
        DeterminismError: determinism cannot be enforced, or something changed one of its switches.
    """
    forcing = teacher_forcing(loaded, golden)
    chosen = range(forcing.num_steps) if steps is None else _checked(steps, forcing.num_steps)
    return _verify(forcing, golden, chosen, batch, profile, None)


def verify_sampled(
    loaded: LoadedModel,
    golden: Baseline,
    *,
    count: int,
    seed: int = 0,
    batch: int | None = None,
    profile: str | None = None,
) -> ForcedVerdict:
    """Like `verify_forced`, of `count` steps chosen at random by `seed`, or all where there are no more.

    The verdict's `sample` says which, and what share of faults that catches. Raises RunError also where `count` is
    below 1 or the baseline has no steps.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise RunError(f"count is the number of steps to check, a positive integer, not {count!r}")
    forcing = teacher_forcing(loaded, golden)
    if forcing.num_steps == 0:
        raise RunError("the baseline has no step that could be checked")
    sample = choose_steps(forcing.num_steps, count, seed)
    return _verify(forcing, golden, sample.steps, batch, profile, sample)


def _verify(
    forcing: TeacherForcing,
    golden: Baseline,
    steps: Sequence[int],
    batch: int | None,
    profile: str | None,
    sample: StepSample | None,
) -> ForcedVerdict:
    if batch is None:
        length, noisy = forcing.initial.shape[1], forcing.arguments.temperature > 0
        batch = batch_size(forcing.loaded, forcing.rows, length, noisy=noisy)
    elif isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise RunError(f"batch is the number of canvases in one forward pass, a positive integer, not {batch!r}")
    loaded = forcing.loaded
    # Without a seed in the baseline nothing is drawn.
    seed, threads = forcing.arguments.seed or 0, threads_that_pay(loaded.model)
    with enforce(seed, profile=profile, device=loaded.device, threads=threads) as held, torch.no_grad():
        scored, largest = _score(forcing, steps, batch)
        rescored = _score_again(forcing, scored)
        repeats = _repeats(forcing, scored)
        held.check()
        environment = fingerprint(loaded.device, loaded.dtype)
    return ForcedVerdict(
        baseline=golden.digest,
        num_steps=forcing.num_steps,
        scored=tuple(one for step in sorted(scored) for one in scored[step]),
        frame=tuple(forcing.frame()),
        left_masked=forcing.left_masked(),
        batch=largest,
        rescored=rescored,
        sample=sample,
        repeats=repeats,
        environment=environment,
    )


def _score(forcing: TeacherForcing, steps: Sequence[int], batch: int) -> tuple[Scored, int]:
    """Return every step scored, in batches of equal size as far as they go, and the size of the largest."""
    waiting = forcing.shared_canvases(steps)
    scored: Scored = {}
    largest = 0
    with tqdm(total=len(steps), desc="scoring", delay=_PROGRESS_AFTER, disable=None, leave=False) as progress:
        while waiting:
            size = -(-len(waiting) // -(-len(waiting) // batch))
            done = _attempt(forcing, waiting[:size])
            if done is None:
                release_memory(forcing.loaded.device)
                batch = size // 2
                continue
            for one in done:
                scored.setdefault(one.step, []).append(one)
            progress.update(sum(len(shared) for shared in waiting[:size]))
            waiting, largest = waiting[size:], max(largest, size)
    return scored, largest


def _attempt(forcing: TeacherForcing, canvases: Sequence[SharedCanvas]) -> list[ScoredStep] | None:
    """Score `canvases` at once; return None where memory does not suffice and fewer can be tried."""
    try:
        return forcing.score(canvases)
    except (RuntimeError, MemoryError) as error:
        if len(canvases) == 1 or not is_out_of_memory(error):
            raise
        return None


def _score_again(forcing: TeacherForcing, scored: Scored) -> int:
    """Score in place, as they were recorded, the steps that a batch leaves in doubt; return how many those were."""
    in_batch = {step for step, rows in scored.items() if not rows[0].exact}
    again = {step for step in in_batch if _diverges(scored[step])}
    scored.update({step: forcing.score([(step,)]) for step in sorted(again)})
    first = min((step for step, rows in scored.items() if _diverges(rows)), default=0)
    for step in sorted(step for step in in_batch - again if step < first):
        again.add(step)
        scored[step] = forcing.score([(step,)])
        if _diverges(scored[step]):
            break
    confirmed = any(row.exact and row.beyond_noise for rows in scored.values() for row in rows)
    for step in sorted(step for step in in_batch - again if _beyond_noise(scored[step])):
        if confirmed:
            break
        again.add(step)
        scored[step] = forcing.score([(step,)])
        confirmed = _beyond_noise(scored[step])
    return len(again)


def _repeats(forcing: TeacherForcing, scored: Scored) -> bool | None:
    """Return whether the first step that differs, all of it scored as recorded, comes out the same a second time."""
    differing = (step for step, rows in scored.items() if rows[0].exact and (_diverges(rows) or _beyond_noise(rows)))
    first = min(differing, default=None)
    return None if first is None else forcing.score([(first,)]) == scored[first]


def _diverges(rows: Sequence[ScoredStep]) -> bool:
    return any(row.divergence is not None for row in rows)


def _beyond_noise(rows: Sequence[ScoredStep]) -> bool:
    return any(row.beyond_noise for row in rows)


def _checked(steps: Sequence[int], num_steps: int) -> list[int]:
    chosen = sorted(set(steps))
    wrong = [step for step in chosen if not 0 <= step < num_steps]
    if wrong:
        raise RunError(f"there is no step {wrong[0]}: the baseline's are 0 to {num_steps - 1}")
    if not chosen:
        raise RunError("steps names no step; leave it out to score all")
    return chosen
