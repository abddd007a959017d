"""Golden canvases scored by a model, many at once, and decided on by the sampler, each step by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from difftrace.core.budgets import tolerance
from difftrace.core.comparison import Divergence, compare, compare_step
from difftrace.core.errors import RunError
from difftrace.core.forced import ScoredStep
from difftrace.core.recording import Baseline
from difftrace.core.trajectory import Trajectory
from difftrace.models import LoadedModel
from difftrace.sampling import SamplerArguments
from difftrace.sampling.decision import Decision, decide, double, unlikely_ids
from difftrace.sampling.noise import Noise
from difftrace.sampling.replay import NoiseOfSteps, any_step_noise
from difftrace.sampling.schedule import PlannedStep, candidates, schedule
from difftrace.verification.recorded import recorded_batch
from difftrace.verification.step_logits import GoldenLogits, step_logits
from difftrace.verification.step_scores import golden_events, order_scores, token_scores

# Steps that see the same canvas: one that commits, and those before it that commit nothing.
SharedCanvas = tuple[int, ...]

_NO_EVENTS = np.zeros(0, dtype=np.int32)


@dataclass(frozen=True, eq=False)
class TeacherForcing:
    """A baseline of B sequences on canvases of L positions, ready to have any of its steps decided again.

    Attributes:
        loaded: the model.
        arguments: the sampler's.
        golden: the sequences.
        golden_logits: what was recorded of theirs.
        planned: every step of the sampler's own schedule.
        initial: the first canvases as the sampler makes them, [B, L].
        attention_mask: likewise, [B, L]; None where nothing is hidden.
        noise: the sampler's, for these canvases; any step can be asked.
        unlikely: ids of EOS and end-of-turn.
    """

    loaded: LoadedModel
    arguments: SamplerArguments
    golden: tuple[Trajectory, ...]
    golden_logits: GoldenLogits
    planned: tuple[PlannedStep, ...]
    initial: Tensor
    attention_mask: Tensor | None
    noise: Noise
    unlikely: Tensor

    @property
    def num_steps(self) -> int:
        """Steps that can be scored: those that the baseline and the schedule both have."""
        return min(len(self.planned), *(t.num_steps for t in self.golden))

    @property
    def rows(self) -> int:
        """Rows that the model scores at a step: one for each sequence, two under guidance."""
        return len(self.golden) * (2 if self.arguments.cfg_scale > 0 else 1)

    def shared_canvases(self, steps: Sequence[int]) -> list[SharedCanvas]:
        """Return ascending `steps` grouped by the canvas they see: a step that commits nothing leaves it as it is."""
        committed = np.unique(np.concatenate([t.steps for t in self.golden]))
        return [tuple(group) for _, group in groupby(steps, key=lambda step: int(committed.searchsorted(step)))]

    def frame(self) -> list[Divergence]:
        """Return what differs, beside all decisions, from what the sampler makes of the prompts."""
        prompt_length = self.initial.shape[1] - self.arguments.gen_length
        found = []
        for index, golden in enumerate(self.golden):
            initial = self.initial[index].cpu().numpy()
            mask = None if self.attention_mask is None else self.attention_mask[index].cpu().numpy()
            padding = 0 if mask is None else int(np.argmax(mask != 0))
            sampled = Trajectory(
                prompt=initial[padding:prompt_length],
                initial=initial,
                steps=_NO_EVENTS,
                positions=_NO_EVENTS,
                tokens=_NO_EVENTS,
                num_steps=len(self.planned),
                padding=padding,
                attention_mask=mask,
            )
            bare = replace(golden, steps=_NO_EVENTS, positions=_NO_EVENTS, tokens=_NO_EVENTS)
            difference = compare(bare, sampled)
            if difference is not None:
                agreed = int(golden.steps.searchsorted(difference.agreed_steps))
                found.append(replace(difference, sequence=index, agreed_events=agreed))
        return found

    def left_masked(self) -> tuple[int, ...]:
        """Return how many positions of each golden final canvas are masks."""
        return tuple(int((t.final == self.loaded.config.mask_token_id).sum()) for t in self.golden)

    def score(self, canvases: Sequence[SharedCanvas]) -> list[ScoredStep]:
        """Score `canvases` in one forward pass, and decide all their steps.

        A canvas alone is scored as it was recorded, and each of its steps is decided on alone.
        """
        ids = np.stack([t.canvas(steps[0]) for steps in canvases for t in self.golden])
        canvas = torch.tensor(ids, dtype=torch.long).to(self.loaded.device)
        logits = self._logits(canvas, len(canvases))
        exact = len(canvases) == 1
        scored: list[ScoredStep] = []
        for steps, places in self._alike(canvases, 1 if exact else len(canvases)):
            decision = self._decide(steps, canvas, logits, places)
            scored += self._judge(steps, decision, exact)
        return scored

    def _logits(self, canvas: Tensor, count: int) -> Tensor:
        mask = self.attention_mask
        mask = None if mask is None else mask.repeat(count, 1)
        if self.arguments.cfg_scale > 0:
            mask_id = self.loaded.config.mask_token_id
            canvas = double(canvas, (self.initial != mask_id).repeat(count, 1), mask_id)
            mask = None if mask is None else torch.cat((mask, mask))
        logits: Tensor = self.loaded.model(canvas, attention_mask=mask).logits
        return logits

    def _alike(self, canvases: Sequence[SharedCanvas], most: int) -> Iterator[tuple[list[int], list[int]]]:
        """Yield steps that commit equally many positions, at most so many, and the index of each one's canvas."""
        steps = [(self.planned[step].quota, place, step) for place, shared in enumerate(canvases) for step in shared]
        for _, group in groupby(sorted(steps), key=lambda entry: entry[0]):
            alike = list(group)
            for start in range(0, len(alike), most):
                _, places, numbers = zip(*alike[start : start + most], strict=True)
                yield list(numbers), list(places)

    def _decide(self, steps: Sequence[int], canvas: Tensor, logits: Tensor, places: Sequence[int]) -> Decision:
        size = len(self.golden)
        if list(places) != list(range(len(canvas) // size)):
            chosen = torch.tensor([place * size + row for place in places for row in range(size)])
            halves = [chosen + half for half in range(0, len(logits), len(canvas))]
            logits = logits.index_select(0, torch.cat(halves).to(logits.device))
            canvas = canvas.index_select(0, chosen.to(canvas.device))
        mask_id = self.loaded.config.mask_token_id
        each = zip(torch.split(canvas, size), steps, strict=True)
        masked = [candidates(rows, mask_id, self.planned[step]) for rows, step in each]
        quota, noise = self.planned[steps[0]].quota, NoiseOfSteps(self.noise, steps)
        return decide(logits, torch.cat(masked), quota, steps[0], self.arguments, noise, self.unlikely)

    def _judge(self, steps: Sequence[int], decision: Decision, exact: bool) -> Iterator[ScoredStep]:
        events = golden_events(self.golden, steps)
        token = token_scores(decision, events, self.arguments.temperature)
        order = order_scores(decision, events)
        logits = step_logits(decision.as_step(self.arguments.temperature), self._first(len(steps)))
        masked, *columns = (x.cpu().numpy() for x in (decision.candidates, decision.positions, decision.tokens))
        row = 0
        for step in steps:
            for sequence, golden in enumerate(self.golden):
                positions, tokens = (column[row] for column in columns)
                if masked[row].sum() < self.planned[step].quota:
                    # The golden is ahead of the schedule here. No run of the sampler gets to such a canvas, and what it
                    # would write over means nothing.
                    positions, tokens = positions[masked[row][positions]], tokens[masked[row][positions]]
                found = compare_step(golden, step, positions, tokens, sequence)
                held = self.golden_logits.hold(logits, row, step, sequence)
                yield ScoredStep(step, sequence, exact, float(token[row]), float(order[row]), found, held)
                row += 1

    def _first(self, steps: int) -> Tensor:
        """Return where each row's first real token is, of so many steps with all sequences."""
        if self.attention_mask is None:
            return self.initial.new_zeros(steps * len(self.golden))
        return self.attention_mask.argmax(dim=-1).repeat(steps)


def teacher_forcing(loaded: LoadedModel, baseline: Baseline) -> TeacherForcing:
    """Return what decides the steps of `baseline` again.

    Raises:
        RunError: the baseline does not say how it was recorded, or not to this sampler; its random numbers cannot
            be had again; it holds tokens that the model does not have.
    """
    recorded = recorded_batch(baseline)
    arguments, device = recorded.arguments, loaded.device
    highest, size = _highest_token(recorded.trajectories), loaded.config.embedding_size
    if highest >= size:
        raise RunError(f"the baseline holds token {highest}, outside the vocabulary of {size} of {loaded.name}")
    prompt, mask = recorded.prompt_ids.to(device), recorded.prompt_mask
    masks = prompt.new_full((len(prompt), arguments.gen_length), loaded.config.mask_token_id)
    initial = torch.cat((prompt, masks), dim=1)
    if mask is not None:
        # As in the sampler, a mask that hides nothing is not applied.
        mask = None if bool(mask.all()) else torch.cat((mask.to(device), torch.ones_like(masks)), dim=1)
    held = tolerance(baseline, replace(baseline, environment={"dtype": loaded.dtype_name}), None)
    return TeacherForcing(
        loaded=loaded,
        arguments=arguments,
        golden=recorded.trajectories,
        golden_logits=GoldenLogits(
            tuple(record.evidence for record in baseline.sequences), None if held is None else held.budget.logits
        ),
        planned=schedule(arguments, prompt.shape[1]),
        initial=initial,
        attention_mask=mask,
        noise=any_step_noise(arguments, initial, mask, size),
        unlikely=unlikely_ids(loaded.config, device),
    )


def _highest_token(trajectories: Sequence[Trajectory]) -> int:
    return max(int(column.max(initial=0)) for t in trajectories for column in (t.initial, t.tokens))
