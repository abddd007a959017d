"""Which sequences of a baseline a command is about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from difftrace.core.recording import Baseline


def sequence_choice(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --sequence to a command that reads a baseline."""
    help_text = "This sequence alone, 0-based; without it all."
    return click.option("--sequence", type=click.IntRange(min=0), metavar="I", help=help_text)(command)


def chosen_sequences(baseline: Baseline, sequence: int | None) -> range:
    """Return the indices of the sequences meant; raises UsageError if there is no such sequence."""
    total = len(baseline.sequences)
    if sequence is None:
        return range(total)
    if sequence >= total:
        raise click.UsageError(f"there is no sequence {sequence}: the baseline has 0 to {total - 1}")
    return range(sequence, sequence + 1)
