"""The errors the library raises on purpose; each message says what is wrong, where, and what to do."""

from __future__ import annotations

from collections.abc import Sequence


class DiffTraceError(Exception):
    """Base of every error raised on purpose by this package."""


class TrajectoryError(DiffTraceError, ValueError):
    """Columns given to a trajectory contradict each other or leave their ranges."""


class FormatError(DiffTraceError):
    """Bytes or a file are not what they claim to be; nothing was decoded from them."""


class NewerFormatError(FormatError):
    """A newer version of this package wrote the file: it is not broken, and must not be overwritten."""


class LogitsError(DiffTraceError, ValueError):
    """Logits cannot be recorded as was asked, or a file of them does not hold what was asked for."""


class WriteError(DiffTraceError):
    """A file could not be written; what was there before is untouched."""


class PathError(DiffTraceError, ValueError):
    """A path leads out of the folder that it belongs in."""


class ReportError(DiffTraceError):
    """A report cannot be used for what was asked, or not here."""


class ModelError(DiffTraceError):
    """A model or tokenizer folder cannot be loaded as it is."""


class SamplerError(DiffTraceError, ValueError):
    """Arguments of a denoising loop contradict each other or the model."""


class RunError(DiffTraceError, ValueError):
    """A run was asked for something it does not hold, such as one text of a batch."""


class ReplayError(DiffTraceError, ValueError):
    """A step was asked for that the run does not have."""


class ProbeError(DiffTraceError):
    """A probe could not be run; whatever it was to find stays unknown."""


class BisectionError(DiffTraceError):
    """A bisection cannot be run on what it was given, or not compared with what it was to be."""


class BudgetError(DiffTraceError, ValueError):
    """A budget holds something that no difference can be held against."""


class CalibrationError(DiffTraceError):
    """A budget cannot be measured on what was given."""


class DigestError(DiffTraceError, ValueError):
    """A value has no content to digest, or none that can be told from its type's."""


class DeterminismError(DiffTraceError):
    """Determinism that was asked for is not in force, or cannot be any more."""


class DeterminismWarning(UserWarning):
    """The same, where a warning was asked for (`level="warn"`)."""


class ScanError(DiffTraceError, ValueError):
    """What was given to a scan is no model and its inputs, or the model is not ready to run."""


class PromptsError(DiffTraceError):
    """Prompts, or the sampler's arguments given with them, cannot be run; nothing was.

    Attributes:
        problems: one line for each, naming the prompt.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        more = len(self.problems) - 1
        super().__init__(f"{self.problems[0]}{f' (and {more} more)' if more else ''}")


class StoreError(DiffTraceError):
    """A store could not do what it was asked; what it had acknowledged before is untouched."""


class RecordError(StoreError, ValueError):
    """A record to be stored, or a question about stored ones, is not valid."""


class ConflictError(StoreError):
    """A request id is taken by a record that differs; nothing was overwritten."""


class NotStoredError(StoreError, LookupError):
    """No record has the request id."""


class DamagedError(StoreError):
    """A stored record breaks a rule of its columns or does not match its digests."""


class BusyError(StoreError):
    """Another process or thread kept the store locked for longer than this one was to wait; trying again may help."""


class EngineError(DiffTraceError, ValueError):
    """An engine, or a capture for one, was set up or called in a way that it cannot honour."""


class CaptureError(DiffTraceError):
    """A loop written elsewhere cannot be recorded as it is, or contradicts what was recorded of it."""


class RankError(DiffTraceError):
    """The ranks of a distributed run disagree, are out of step, or cannot reach each other."""
