"""The trajectory: which position of the canvas took which token at which step of a denoising run."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from difftrace.core import codec
from difftrace.core.errors import FormatError, TrajectoryError
from difftrace.core.limits import MAX_CANVAS, MAX_EVENTS, MAX_STEPS, MAX_TOKEN
from difftrace.core.once import once

if TYPE_CHECKING:
    from difftrace.core.captured import TrajectoryRecord as TrajectoryRecord
    from difftrace.core.step_capture import TrajectoryCapture as TrajectoryCapture

Ints = npt.NDArray[np.int32]

_DIGEST_HEADER: Final = b"difftrace-trajectory-1\n"

# Where code written for the DiffTrace paper imports them from; what they are made of needs this module.
_CAPTURE_HOMES: Final = {
    "TrajectoryCapture": "difftrace.core.step_capture",
    "TrajectoryRecord": "difftrace.core.captured",
}


@dataclass(frozen=True, eq=False, repr=False)
class Trajectory:
    """One sequence's run.

    Arrays may be anything numpy reads as integers; they are kept as read-only int32 copies.

    Attributes:
        prompt: token ids of the prompt, shape [P]; P may be 0.
        initial: token ids of the whole first canvas, shape [L], L >= 1: padding, prompt and masks, or the
            canvas alone where the prompt lies outside it.
        steps: 0-based step of each event, shape [E]. Steps that commit nothing have no event but count.
        positions: canvas position of each event, shape [E].
        tokens: token id committed by each event, shape [E]. Committing the token already there is an event
            too.
        num_steps: steps of the run.
        padding: left padding positions of the canvas, before the prompt.
        attention_mask: 1 where the canvas is attended to, else 0, shape [L]; None where nothing is hidden
            (all ones become None).

    Events may come in any order; they are kept by step, then position. A position may be committed at several
    steps.

    Raises:
        TrajectoryError: a column leaves its range or contradicts another.
    """

    prompt: Ints
    initial: Ints
    steps: Ints
    positions: Ints
    tokens: Ints
    num_steps: int
    padding: int = 0
    attention_mask: Ints | None = None

    def __post_init__(self) -> None:
        num_steps = _count("num_steps", self.num_steps, MAX_STEPS)
        prompt = int_column("prompt", self.prompt, MAX_TOKEN, MAX_CANVAS)
        initial = int_column("initial", self.initial, MAX_TOKEN, MAX_CANVAS)
        if initial.size == 0:
            raise TrajectoryError("initial is empty: a canvas has at least one position")
        padding = _count("padding", self.padding, initial.size)
        steps = int_column("steps", self.steps, num_steps - 1, MAX_EVENTS)
        positions = int_column("positions", self.positions, initial.size - 1, MAX_EVENTS)
        tokens = int_column("tokens", self.tokens, MAX_TOKEN, MAX_EVENTS)
        if not steps.size == positions.size == tokens.size:
            raise TrajectoryError(
                "steps, positions and tokens must be equally long, "
                f"not {steps.size}, {positions.size} and {tokens.size}"
            )
        keys = steps.astype(np.int64) * initial.size + positions
        order = keys.argsort(kind="stable")
        twice = np.flatnonzero(np.diff(keys[order]) == 0)
        if twice.size:
            step, position = divmod(int(keys[order[twice[0]]]), initial.size)
            raise TrajectoryError(
                f"position {position} is committed twice at step {step}; give each commit a step of its own"
            )
        self.__dict__.update(
            prompt=_read_only(prompt),
            initial=_read_only(initial),
            steps=_read_only(steps[order]),
            positions=_read_only(positions[order]),
            tokens=_read_only(tokens[order]),
            num_steps=num_steps,
            padding=padding,
            attention_mask=_mask(self.attention_mask, initial.size),
        )

    @property
    def length(self) -> int:
        """Positions of the canvas."""
        return self.initial.size

    @property
    def num_events(self) -> int:
        """Committed tokens, repeated commits included."""
        return self.steps.size

    @property
    def prompt_in_canvas(self) -> bool:
        """Whether the canvas holds the prompt, right after the padding."""
        return np.array_equal(self.initial[self.padding : self.padding + self.prompt.size], self.prompt)

    def canvas(self, step: int) -> Ints:
        """Return the canvas before `step`, shape [L]; `canvas(num_steps)` is the final one.

        Raises:
            IndexError: `step` is not in [0, num_steps].
        """
        if not 0 <= step <= self.num_steps:
            raise IndexError(f"step {step} is not in 0..{self.num_steps}")
        return self._after(int(self.steps.searchsorted(step)))

    @property
    def final(self) -> Ints:
        """The canvas after the last step, shape [L]."""
        return self._after(self.steps.size)

    def _after(self, events: int) -> Ints:
        """Return the canvas after the first `events` events."""
        canvas: Ints = self.initial.copy()
        positions = self.positions[:events]
        by_position = positions.argsort(kind="stable")
        # The last commit at each position counts; numpy leaves open which of several assignments to one index
        # stays.
        ordered = positions[by_position]
        last = np.ones(events, dtype=bool)
        np.not_equal(ordered[1:], ordered[:-1], out=last[:-1])
        canvas[ordered[last]] = self.tokens[by_position[last]]
        return canvas

    @once
    def digest(self) -> str:
        """`sha256:` and 64 hex digits over the content, whatever encoding it was read from.

        Hashed are `difftrace-trajectory-1` and a line feed; num_steps and padding; then prompt, initial,
        attention mask, steps, positions and tokens, each as its length and its values. Numbers are
        little-endian, lengths and the first two of 8 bytes, values of 4 bytes. A mask that is None has length
        0.
        """
        digest = hashlib.sha256(_DIGEST_HEADER)
        digest.update(np.array([self.num_steps, self.padding], dtype="<i8").tobytes())
        mask = self.attention_mask if self.attention_mask is not None else np.zeros(0, dtype=np.int32)
        for column in (self.prompt, self.initial, mask, self.steps, self.positions, self.tokens):
            digest.update(column.size.to_bytes(8, "little"))
            digest.update(column.astype("<i4").tobytes())
        return f"sha256:{digest.hexdigest()}"

    def to_bytes(self) -> bytes:
        """Return the compact encoding that `difftrace.core.codec` describes."""
        return codec.encode(
            codec.Columns(
                self.prompt,
                self.initial,
                self.steps,
                self.positions,
                self.tokens,
                self.num_steps,
                self.padding,
                self.attention_mask,
            )
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Trajectory:
        """Decode what `to_bytes` returned.

        Raises:
            FormatError: `data` is anything else.
        """
        if not isinstance(data, bytes):
            raise FormatError(f"an encoded trajectory is bytes, not {type(data).__name__}")
        fields = codec.decode(data).__dict__
        for value in fields.values():
            if isinstance(value, np.ndarray):
                value.setflags(write=False)
        # The codec has checked every rule of __post_init__; a second pass would double the cost of reading.
        trajectory = object.__new__(cls)
        trajectory.__dict__.update(fields)
        return trajectory

    def __eq__(self, other: object) -> bool:
        return self.digest == other.digest if isinstance(other, Trajectory) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        size = f"{self.length} positions, {self.num_steps} steps, {self.num_events} events"
        return f"<Trajectory: {size}, {self.digest[:15]}>"


def _count(name: str, value: object, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TrajectoryError(f"{name} must be an integer, not {type(value).__name__}")
    if not 0 <= value <= most:
        raise TrajectoryError(f"{name} is {value}; it must be in 0..{most}")
    return int(value)


def _array(name: str, values: object) -> npt.NDArray[Any]:
    try:
        return np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        raise TrajectoryError(f"{name} cannot be read as a column of integers: {error}") from None


def int_column(name: str, values: object, most: int, longest: int) -> Ints:
    """Return `values`, called `name` in messages, as a new int32 array of at most `longest` numbers in 0..`most`.

    Raises:
        TrajectoryError: they are no such column.
    """
    array = _array(name, values)
    if array.ndim != 1:
        raise TrajectoryError(f"{name} must have one dimension, not the shape {list(array.shape)}")
    if array.size == 0:
        return np.zeros(0, dtype=np.int32)
    if array.size > longest:
        raise TrajectoryError(f"{name} has {array.size} entries, more than the limit of {longest}")
    if not np.issubdtype(array.dtype, np.integer):
        raise TrajectoryError(f"{name} must hold integers, not {array.dtype}")
    wrong = np.flatnonzero((array < 0) | (array > most))
    if wrong.size:
        index = int(wrong[0])
        allowed = f"it must be in 0..{most}" if most >= 0 else "there are no steps"
        raise TrajectoryError(f"{name}[{index}] is {array[index]}; {allowed}")
    return array.astype(np.int32)


def _mask(values: object, length: int) -> Ints | None:
    if values is None:
        return None
    array = _array("attention_mask", values)
    mask = int_column("attention_mask", array.astype(np.int32) if array.dtype == bool else array, 1, MAX_CANVAS)
    if mask.size != length:
        raise TrajectoryError(f"attention_mask has {mask.size} entries for a canvas of {length} positions")
    return None if mask.all() else _read_only(mask)


def _read_only(values: npt.NDArray[np.integer]) -> Ints:
    column = values.astype(np.int32, copy=False)
    column.setflags(write=False)
    return column


def __getattr__(name: str) -> Any:
    if name in _CAPTURE_HOMES:
        return getattr(import_module(_CAPTURE_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
