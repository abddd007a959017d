"""Capturing a loop step by step, under the names of the DiffTrace paper's interface.

The interface is that of Gupta, "DiffTrace", HPAI4S'26 (github.com/raviguptaamd/difftrace,
difftrace/core/trajectory.py).
"""

from __future__ import annotations

import json
import math
import operator
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

from difftrace.core.captured import PLACEHOLDER, CapturedSteps, TrajectoryRecord, check_length, trajectory_of
from difftrace.core.engine_config import CaptureConfig, CaptureGranularity, check_capture
from difftrace.core.errors import EngineError
from difftrace.core.kept_arrays import keep, on_host
from difftrace.core.limits import MAX_CANVAS, MAX_STEPS, MAX_TOKEN
from difftrace.core.logits_spool import LogitsPlan, LogitsSpool
from difftrace.core.recording import JsonScalar
from difftrace.core.text import printable
from difftrace.core.trajectory import int_column


class TrajectoryCapture:
    """Captures one sequence at a time; sequences that are denoised together need one capture each.

    Within the loop nothing waits for a device: what is handed over is copied where it lies. `end_trajectory` brings it
    to the host and checks it. With FULL_LOGITS a thread encodes what the model returned and writes it to a file; the
    loop waits only while that is too far behind, see `difftrace.core.logits_spool`.

    Raises:
        EngineError: a setting cannot have its effect, see `difftrace.core.engine_config`.
    """

    def __init__(self, config: CaptureConfig) -> None:
        check_capture(config)
        self._config = config
        self._full_logits = config.granularity is CaptureGranularity.FULL_LOGITS
        self._masks = config.granularity is not CaptureGranularity.TOKENS_ONLY
        self._record: TrajectoryRecord | None = None
        self._steps = CapturedSteps()
        self._logits: LogitsSpool | None = None
        self._overhead_ns = 0

    def begin_trajectory(
        self,
        request_id: str,
        prompt_tokens: Any,
        prompt_text: str = "",
        model_name: str = "",
        model_config: Mapping[str, Any] | None = None,
        num_diffusion_steps: int = 0,
        sequence_length: int = 0,
        temperature: float | None = None,
        top_p: float | None = None,
        device: object = "",
        world_size: int = 1,
        rank: int = 0,
        mask_token_id: int | None = None,
    ) -> TrajectoryRecord:
        """Begin a sequence.

        Args:
            request_id: for the store.
            prompt_tokens: integers [P] or [1, P], array or tensor.
            prompt_text: the same as text.
            model_name: for the store.
            model_config: what else is to be kept of the model; values that JSON cannot hold are kept as their text.
            num_diffusion_steps: steps of the run; 0 takes the last one captured for the last of the run.
            sequence_length: positions of the canvas, the prompt included.
            temperature: kept, as is top_p.
            top_p: kept.
            device: kept, as text.
            world_size: kept where it is not 1.
            rank: kept where world_size is not 1.
            mask_token_id: what positions hold before anything is committed to them; by default the entry of that name
                in `model_config`, else `PLACEHOLDER`.

        Raises:
            EngineError: a sequence is being captured already, or the arguments contradict each other, make no sense or
                are beyond `difftrace.core.limits`.
            TrajectoryError: the prompt holds something that is no token id.
        """
        if self._record is not None:
            raise EngineError(
                f"{_shown(self._record.request_id)} is still being captured; end_trajectory() or discard() it first,"
                " and use one TrajectoryCapture for each request that runs at the same time"
            )
        prompt = int_column("prompt_tokens", on_host(keep("prompt_tokens", prompt_tokens)), MAX_TOKEN, MAX_CANVAS)
        length = _integer("sequence_length", sequence_length, MAX_CANVAS)
        if length <= prompt.size:
            raise EngineError(
                f"sequence_length is {length} for a prompt of {prompt.size} tokens; it counts the whole canvas, the"
                " prompt and what is generated"
            )
        about = {} if model_config is None else model_config
        if not isinstance(about, Mapping):
            raise EngineError(f"model_config must be a mapping, not {type(about).__name__}")
        for name, number in (("temperature", temperature), ("top_p", top_p)):
            if isinstance(number, float) and not math.isfinite(number):
                raise EngineError(f"{name} is {number}; it must be a finite number, or None where there is none")
        given = {
            "prompt_text": prompt_text or None,
            "temperature": temperature,
            "top_p": top_p,
            "device": str(device) or None,
            "world_size": None if world_size == 1 else world_size,
            "rank": None if world_size == 1 else rank,
            **{f"model_config.{key}": value for key, value in about.items()},
        }
        if mask_token_id is None:
            mask_token_id = about.get("mask_token_id")
        mask = PLACEHOLDER if mask_token_id is None else _integer("mask_token_id", mask_token_id, MAX_TOKEN)
        self._record = TrajectoryRecord(
            request_id=request_id,
            prompt_tokens=prompt,
            model_name=model_name,
            num_diffusion_steps=_integer("num_diffusion_steps", num_diffusion_steps, MAX_STEPS),
            sequence_length=length,
            mask_token_id=mask,
            created_at=datetime.now(timezone.utc),
            metadata={key: _scalar(value) for key, value in given.items() if value is not None},
        )
        self._steps = CapturedSteps()
        plan = self._config.logits or LogitsPlan()
        if self._full_logits and plan.kept:
            self._logits = LogitsSpool(plan, self._record.num_diffusion_steps)
        self._overhead_ns = 0
        return self._record

    def capture_step(
        self,
        step_index: int,
        unmasked_positions: Any,
        sampled_tokens: Any,
        mask_state: Any = None,
        logits: Any = None,
        confidence_scores: Any = None,
        device: object = "",
    ) -> None:
        """Capture what one step committed; steps that commit nothing may be left out.

        Args:
            step_index: 0-based, larger than that of the step before.
            unmasked_positions: integers [K], positions of the whole canvas.
            sampled_tokens: integers [K], what they took.
            mask_state: true where the canvas is masked after the step, [L], or [L - P] without the prompt; not looked
                at with TOKENS_ONLY.
            logits: what the model returned, [L, V] or [1, L, V], the same positions at each step, in bfloat16, float16,
                float32 or float64; not looked at but with FULL_LOGITS. Steps may come without.
            confidence_scores: not kept; they follow from logits.
            device: not needed.

        Raises:
            EngineError: nothing is being captured, steps are out of order, or there is not one token for each
                position. What the values are is looked at in `end_trajectory`.
            LogitsError: logits of that dtype or size cannot be recorded.
            WriteError: logits cannot be written.
        """
        start = time.perf_counter_ns()
        record = self._active("capture_step")
        step = _integer("step_index", step_index, MAX_STEPS - 1)
        last = self._steps.indexes[-1] if self._steps.indexes else -1
        if step <= last:
            raise EngineError(
                f"step {step} comes after step {last}; capture steps in ascending order, each once, and every sequence"
                " of a batch with a capture of its own"
            )
        if 0 < record.num_diffusion_steps <= step:
            raise EngineError(f"step {step} is none of the {record.num_diffusion_steps} steps announced, 0-based")
        positions = keep(f"unmasked_positions of step {step}", unmasked_positions)
        tokens = keep(f"sampled_tokens of step {step}", sampled_tokens)
        if positions.shape[0] != tokens.shape[0]:
            raise EngineError(
                f"step {step} has {positions.shape[0]} unmasked_positions and {tokens.shape[0]} sampled_tokens; it"
                " takes one token for each position"
            )
        mask = None
        if self._masks and mask_state is not None:
            mask = keep(f"mask_state of step {step}", mask_state)
            check_length(f"mask_state of step {step}", mask, record)
        if self._logits is not None and logits is not None:
            self._logits.add(step, logits)
        if mask is not None:
            self._steps.masks.append((step, mask))
        self._steps.indexes.append(step)
        self._steps.positions.append(positions)
        self._steps.tokens.append(tokens)
        self._overhead_ns += time.perf_counter_ns() - start

    def end_trajectory(self, generated_tokens: Any = None, generated_text: str = "") -> TrajectoryRecord:
        """End the sequence and return it, checked. Whatever happens, the next one can begin.

        Args:
            generated_tokens: the output, [L] with or [L - P] without the prompt; what a replay is compared with.
            generated_text: the same as text.

        Raises:
            EngineError: nothing is being captured, or what was captured contradicts itself.
            TrajectoryError: something captured is no position of the canvas or no token id.
            WriteError: logits could not be written.
        """
        start = time.perf_counter_ns()
        record, steps, logits = self._active("end_trajectory"), self._steps, self._logits
        self._record, self._steps, self._logits = None, CapturedSteps(), None
        try:
            ended = _ended(record, steps, logits, generated_tokens, generated_text)
        except BaseException:
            if logits is not None:
                logits.discard()
            raise
        self._overhead_ns += time.perf_counter_ns() - start
        return ended

    def discard(self) -> None:
        """Forget the sequence that is being captured, if one is: its request failed."""
        logits, self._logits = self._logits, None
        self._record, self._steps = None, CapturedSteps()
        if logits is not None:
            logits.discard()

    @property
    def capture_overhead_ms(self) -> float:
        """Milliseconds that `capture_step` and `end_trajectory` took for the last sequence."""
        return self._overhead_ns / 1e6

    def _active(self, method: str) -> TrajectoryRecord:
        if self._record is None:
            raise EngineError(f"{method}() was called outside a trajectory; call begin_trajectory() first")
        return self._record


def _ended(
    record: TrajectoryRecord, steps: CapturedSteps, logits: LogitsSpool | None, generated_tokens: Any, text: str
) -> TrajectoryRecord:
    trajectory = trajectory_of(record, steps)
    output = None
    if generated_tokens is not None:
        kept = keep("generated_tokens", generated_tokens)
        check_length("generated_tokens", kept, record)
        output = int_column("generated_tokens", on_host(kept), MAX_TOKEN, MAX_CANVAS)
    return replace(
        record,
        metadata={**record.metadata, **({"generated_text": text} if text else {})},
        trajectory=trajectory,
        generated_tokens=output,
        logits=None if logits is None else logits.finish(),
    )


def _integer(name: str, value: Any, most: int) -> int:
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise EngineError(f"{name} must be an integer, not {type(value).__name__}")
    if number < 0:
        raise EngineError(f"{name} is {number}; it must be at least 0")
    if number > most:
        raise EngineError(f"{name} is {number}; it must be at most {most}")
    return number


def _scalar(value: Any) -> JsonScalar:
    if isinstance(value, (str, bool)) or (isinstance(value, int) and abs(value) < 1 << 63):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    try:
        return json.dumps(value, sort_keys=True, ensure_ascii=False)
    except (TypeError, ValueError):
        return str(value)


def _shown(request_id: object) -> str:
    return f"'{printable(str(request_id))}'"
