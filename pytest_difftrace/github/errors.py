"""What makes the action end before any test has run."""

from __future__ import annotations

from typing import Final

from difftrace.core.errors import DiffTraceError

NOT_INSTALLED: Final = (
    "pytest has no DiffTrace ({}): set the input install to auto, or install pytest-difftrace for the input python"
)


class ActionError(DiffTraceError):
    """Inputs, installation or machine are not as they have to be; each message says what to do."""

    def __init__(self, *messages: str) -> None:
        super().__init__("; ".join(messages))
        self.messages = messages
