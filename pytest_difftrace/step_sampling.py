"""Which steps `--difftrace-strategy=sampled` checks: how many of each run, and the seed that they are chosen by."""

from __future__ import annotations

import time
from typing import Any, Final, NamedTuple

import pytest

_INPUT: Final = "difftrace_sample_seed"


class Sampling(NamedTuple):
    """How many steps of each run are checked, and what they are chosen by."""

    steps: int
    seed: int

    def __str__(self) -> str:
        return f"{self.steps} step{'' if self.steps == 1 else 's'}, seed {self.seed}"


USUAL: Final = Sampling(8, 0)


def add_options(group: Any, parser: pytest.Parser) -> None:
    """Register the options, to stand with the strategy, and their ini counterparts."""
    group.addoption(
        "--difftrace-sample-steps",
        metavar="K",
        type=int,
        default=None,
        dest="difftrace_sample_steps",
        help=f"Steps of each run that the strategy sampled checks (default: {USUAL.steps}).",
    )
    group.addoption(
        "--difftrace-sample-seed",
        metavar="N",
        type=int,
        default=None,
        dest="difftrace_sample_seed",
        help="What they are chosen by (default: today's date in UTC, as in 20260131, so that every step has its day);"
        " one that failed shows its seed, with which it is repeated.",
    )
    parser.addini("difftrace_sample_steps", "steps of each run that the strategy sampled checks (8)", default="")
    parser.addini("difftrace_sample_seed", "what they are chosen by (today's date in UTC)", default="")


def resolve(config: pytest.Config, strategy: str) -> Sampling:
    """Return what to sample; in a worker of xdist by the controller's seed, also where another day has begun.

    Raises pytest.UsageError for no number of steps, and for options that belong to another strategy.
    """
    if strategy != "sampled":
        given = [name for name in ("steps", "seed") if config.getoption(f"difftrace_sample_{name}") is not None]
        if given:
            raise pytest.UsageError(
                f"--difftrace-sample-{given[0]} chooses steps at random: it goes with --difftrace-strategy=sampled"
            )
        return USUAL
    steps, seed = (_number(config, f"difftrace_sample_{name}") for name in ("steps", "seed"))
    if steps is not None and steps < 1:
        raise pytest.UsageError(f"difftrace_sample_steps is the number of steps to check, at least 1, not {steps}")
    seed = getattr(config, "workerinput", {}).get(_INPUT, seed)
    return Sampling(USUAL.steps if steps is None else steps, _today() if seed is None else seed)


def tell_worker(workerinput: dict[str, Any], sampling: Sampling) -> None:
    """Have a worker of xdist, which resolves its own settings, sample by this session's seed."""
    workerinput[_INPUT] = sampling.seed


def _number(config: pytest.Config, name: str) -> int | None:
    given: int | None = config.getoption(name)
    ini: str = config.getini(name)
    if given is not None or not ini:
        return given
    try:
        return int(ini)
    except ValueError:
        raise pytest.UsageError(f"ini option {name} = {ini!r}: it takes a whole number") from None


def _today() -> int:
    return int(time.strftime("%Y%m%d", time.gmtime()))
