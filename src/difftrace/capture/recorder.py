"""Recording a loop: what to wrap while it runs, and what to make of it afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from operator import methodcaller
from types import TracebackType
from typing import Any, Literal

from difftrace.capture.adapter import Adapter
from difftrace.capture.asked import scalars, truth_value, whole_number
from difftrace.capture.assembly import assemble
from difftrace.capture.audit import Auditor
from difftrace.capture.captured import Captured
from difftrace.capture.compiled import CALLED_COMPILED, is_of_our_refusal
from difftrace.capture.identity import Subject, sampler_identity, source_digest
from difftrace.capture.reading import Reading
from difftrace.capture.registry import adapter_for
from difftrace.capture.scores import ScoreRecorder
from difftrace.capture.tape import Played, Tape
from difftrace.core.audit import Audit
from difftrace.core.errors import CaptureError, RankError
from difftrace.core.recording import JsonScalar
from difftrace.core.run import Run
from difftrace.core.trajectory import Trajectory
from difftrace.determinism.environment import Environment, fingerprint
from difftrace.ranks import agreed

# Test runners then show the caller's line, not ours, for errors that are the caller's to mend.
__tracebackhide__ = methodcaller("errisinstance", (CaptureError, RankError))


def record(
    model: Any,
    *,
    mask_id: int | None = None,
    engine: str | Adapter = "auto",
    arguments: Mapping[str, JsonScalar] | None = None,
    rewrites: bool | None = None,
    prompt_length: int | None = None,
    keep: Literal["decisions", "evidence"] = "evidence",
    audit: bool = False,
    across_ranks: bool = False,
) -> Recorder:
    """Return a context in which the loop that calls `model` is recorded, without changing what it does.

        with difftrace.record(model) as rec:
            out = generate(model, prompt, steps=64)
        difftrace.check(rec.run(out))

    `model` is any object with a `forward`, or what `load_model` returned. `mask_id` is the mask's id, by default the
    one that its configuration names. `engine` names the adapter ("auto" picks one), or is one. `arguments` are the
    loop's, kept in the baseline so that runs with others are told apart. `rewrites` says whether the loop changes what
    it has committed, by default what the adapter says. `prompt_length` is where the prompt ends on the canvas, by
    default where the last masks begin; a text begins where its row was first filled or changed, if that is earlier.
    `keep` is how much is recorded: `decisions`, the trajectories; `evidence`, also what the model said at the positions
    that were committed, for engines with a mask whose calls return logits. `audit` also notes every random draw and
    every selection with ties at its boundary, which takes about as long again as a small model on a CPU does:
    `capture(out).audit`, and below a failing check.
    `across_ranks` says that every rank of torch.distributed's default group records the same run: `run` then makes sure
    that all of them decided alike, and every rank has to call it. Nothing changes where there is no group.

    The loop must call the model in this process, in one thread, uncompiled and with token ids, for one run over one
    canvas; each call is a step unless the adapter knows better. It is not waited for the device before the context has
    ended.

    Raises:
        CaptureError: the model cannot be recorded, an argument is of another kind, or there is no such engine; in the
            context also what is wrong with a call.
    """
    if keep not in ("decisions", "evidence"):
        raise CaptureError(f"keep must be decisions or evidence, not {keep!r}")
    given, prompt = whole_number(mask_id, "mask_id"), whole_number(prompt_length, "prompt_length")
    changes, named = truth_value(rewrites, "rewrites"), scalars(arguments)
    for value, name in ((audit, "audit"), (across_ranks, "across_ranks")):
        truth_value(value, name)
    subject = Subject.of(model)
    adapter = adapter_for(subject.target, engine)
    mask = adapter.mask_id(subject.target) if given is None else given
    changes = adapter.rewrites if changes is None else changes
    scored = keep == "evidence" and (adapter.candidates == "next" or (mask is not None and not adapter.grows))
    scores = ScoreRecorder(None if adapter.candidates == "next" else mask, adapter.shift) if scored else None
    tape = Tape(type(subject.target).__name__, scores)
    auditor = Auditor(lambda: tape.answered) if audit else None
    return Recorder(subject, Reading(adapter, mask, changes, prompt), named, tape, auditor, across_ranks)


class Recorder:
    """One recording: a context to run a loop in, once, and its result."""

    def __init__(
        self,
        subject: Subject,
        reading: Reading,
        arguments: Mapping[str, JsonScalar],
        tape: Tape,
        auditor: Auditor | None = None,
        across_ranks: bool = False,
    ) -> None:
        """Record `subject` on `tape`, and what `auditor` sees; use `record`, which knows the adapters."""
        self._subject = subject
        self._reading = reading
        self._arguments = arguments
        self._tape = tape
        self._auditor = auditor
        self._audit: Audit | None = None
        self._across_ranks = across_ranks
        self._stack = ExitStack()
        self._state = "has not begun"
        self._played: Played | None = None
        self._environment: Environment = {}
        self._captured: Captured | None = None

    @property
    def engine(self) -> str:
        """The name of the adapter that reads the loop."""
        return self._reading.adapter.name

    def __enter__(self) -> Recorder:
        if self._state != "has not begun":
            raise CaptureError("a recorder records once: call record again for another run")
        self._stack.enter_context(self._reading.adapter.attach(self._subject.target, self._tape))
        self._tape.begin()
        if self._auditor is not None:
            self._stack.enter_context(self._auditor)
        self._state = "is not over"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._tape.open = False
        self._state = "failed"
        try:
            self._stack.__exit__(kind, error, traceback)
            if self._tape.failure is not None and error is None:
                raise CaptureError(self._tape.failure)
            if error is None:
                self._played = self._tape.play()
                self._audit = None if self._auditor is None else self._auditor.result()
                self._environment = self._where()
                self._state = "is over"
            elif is_of_our_refusal(error):
                self._tape.failure = f"{self._tape.name} {CALLED_COMPILED}"
                raise CaptureError(self._tape.failure) from error
            else:
                self._tape.failure = f"the loop raised {type(error).__name__} while it was recorded"
        finally:
            self._tape.forget()

    def step(self, before: Any, after: Any, *, logits: Any = None, row: int | None = None) -> None:
        """Say that a step turned the canvases `before` [B, L] into `after`; [L] for the one `row` alone.

        `logits` [B, L, V] are what the model returned for `before`, for evidence where its calls are not seen; whole
        batches only. Hand them over before anything is written to them, or a copy.

        For loops whose author can add a line, and for engines without a forward to wrap. Steps told this way are the
        trajectory's; calls of the model that were seen too must fit. Copies are made at once; nothing waits for the
        device.

        Raises:
            CaptureError: these are no canvases of one shape, or the recording is not under way.
        """
        if self._state != "is not over":
            raise CaptureError(f"rec.step was called although the recording {self._state}")
        self._tape.add_step(before, after, row, logits)

    def capture(self, output: Any = None) -> Captured:
        """Return what was recorded: `output` is what the loop returned, which alone shows what its last step committed.

        Without it, and behind its end, positions are listed as unverified.

        Raises:
            CaptureError: the recording is not over or failed, or it contradicts itself or `output`.
        """
        if self._played is None:
            reason = f": {self._tape.failure}" if self._tape.failure else ""
            raise CaptureError(f"there is nothing to ask for, the recording {self._state}{reason}")
        self._captured = assemble(self._played, output, self._reading, self._audit)
        return self._captured

    def trajectories(self, output: Any = None) -> list[Trajectory]:
        """Return the trajectory of each row; as `capture`."""
        return list(self.capture(output).trajectories)

    def run(self, output: Any = None) -> Run:
        """Return the run for `difftrace.check`, with what is known of model, loop and environment; as `capture`.

        Raises:
            RankError: another rank decided otherwise, or made no such run.
        """

        def captured() -> Run:
            return self._as_run(self.capture(output))

        return agreed(captured) if self._across_ranks else captured()

    def as_run(self) -> Run:
        """Return the run of the output that was given last.

        Raises:
            CaptureError: none was.
        """
        if self._captured is None:
            raise CaptureError(
                "this recorder was not given what the loop returned: check rec.run(output), where output holds the "
                "last commits"
            )
        return self._as_run(self._captured)

    def _as_run(self, captured: Captured) -> Run:
        tokenizer = self._subject.tokenizer
        found = captured.trajectories
        run = Run(
            trajectories=found,
            model=self._subject.identity(self._reading.mask_id),
            sampler=sampler_identity(self._reading.adapter, self._arguments, captured),
            environment=self._environment,
            evidences=captured.evidences,
            audit=captured.audit,
        )
        if tokenizer is None:
            return run
        used = {int(token) for one in found for column in (one.initial, one.tokens) for token in column}
        return replace(
            run,
            texts=tuple(
                tokenizer.decode(one.final[begin:].tolist())
                for one, begin in zip(found, captured.generated_from, strict=True)
            ),
            prompt_texts=tuple(tokenizer.decode(one.prompt.tolist()) for one in found),
            pieces={token: tokenizer.piece(token) for token in sorted(used)},
        )

    def _where(self) -> Environment:
        device, dtype = self._subject.placement()
        digest = source_digest(self._reading.adapter.source() or self._tape.caller)
        environment = fingerprint(device, dtype)
        return environment if digest is None else {**environment, "sampler_source": digest}
