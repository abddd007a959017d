"""Arguments that contradict each other are refused before anything runs, each with its own words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from difftrace.core.errors import SamplerError
from difftrace.core.sampler_defaults import DEFAULTS, arguments_alike
from difftrace.sampling import SamplerArguments

GOOD: dict[str, Any] = {"steps": 8, "gen_length": 16, "block_length": 8}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"steps": 0}, "steps must be a positive integer, not 0"),
        ({"steps": -1}, "steps must be a positive integer, not -1"),
        ({"steps": 8.0}, r"steps must be a positive integer, not 8\.0"),
        ({"steps": True}, "steps must be a positive integer, not True"),
        ({"gen_length": 0}, "gen_length must be a positive integer, not 0"),
        ({"gen_length": "16"}, "gen_length must be a positive integer, not '16'"),
        ({"block_length": None}, "block_length must be a positive integer, not None"),
        ({"block_length": 5}, "gen_length 16 is no multiple of block_length 5"),
        ({"block_length": 32}, "gen_length 16 is no multiple of block_length 32"),
        ({"steps": 7}, r"steps 7 cannot be divided by the 2 blocks \(gen_length 16 / block_length 8\)"),
        ({"steps": 1}, "steps 1 cannot be divided by the 2 blocks"),
        ({"temperature": -0.1}, r"temperature must be finite and not negative, is -0\.1"),
        ({"temperature": float("nan")}, "temperature must be finite and not negative, is nan"),
        ({"temperature": "0"}, "temperature must be a number, not '0'"),
        ({"cfg_scale": float("inf")}, "cfg_scale must be finite and not negative, is inf"),
        ({"cfg_scale": True}, "cfg_scale must be a number, not True"),
        ({"remasking": "entropy"}, "remasking must be one of low_confidence, random, not 'entropy'"),
        ({"tie_break": "left"}, "tie_break must be one of stable, upstream, not 'left'"),
        ({"noise": "device"}, "noise must be one of portable, upstream, not 'device'"),
        ({"noise": "portable"}, "noise='portable' is computed from the seed: give seed= an integer"),
        ({"seed": 1.5}, r"seed must be an integer of 0 to 2\*\*64 - 1, or None, not 1\.5"),
        ({"seed": True}, "seed must be an integer"),
        ({"seed": -1}, "seed must be an integer"),
        ({"seed": 2**64}, "seed must be an integer"),
    ],
)
def test_a_contradiction_is_named(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(SamplerError, match=says):
        SamplerArguments(**{**GOOD, **changes})


@pytest.mark.parametrize(
    ("block_length", "steps", "expected"),
    [
        (10, 4, (3, 3, 2, 2)),
        (8, 8, (1,) * 8),
        (8, 1, (8,)),
        (3, 5, (1, 1, 1, 0, 0)),
    ],
)
def test_early_steps_take_the_remainder_of_a_block(block_length: int, steps: int, expected: tuple[int, ...]) -> None:
    arguments = SamplerArguments(steps=2 * steps, gen_length=2 * block_length, block_length=block_length)
    assert arguments.quotas() == expected


def test_equal_runs_are_recorded_equally_however_their_numbers_were_written() -> None:
    integers = SamplerArguments(**GOOD, temperature=0, cfg_scale=1)
    floats = SamplerArguments(**GOOD, temperature=0.0, cfg_scale=1.0)
    assert integers == floats
    assert repr(integers.identity()) == repr(floats.identity())


def test_the_identity_holds_every_argument() -> None:
    identity = SamplerArguments(**GOOD, seed=7).identity()
    assert (identity.name, identity.version) == ("llada", 1)
    assert identity.arguments == {
        **GOOD,
        "temperature": 0.0,
        "cfg_scale": 0.0,
        "remasking": "low_confidence",
        "logits_eos_inf": False,
        "confidence_eos_eot_inf": False,
        "tie_break": "stable",
        "noise": "upstream",
        "seed": 7,
    }


def test_what_an_old_baseline_does_not_name_is_taken_for_what_the_sampler_does_by_default() -> None:
    named = {"steps", "gen_length", "block_length"}
    identity = SamplerArguments(**GOOD).identity()
    assert set(identity.arguments) - set(DEFAULTS[identity.name, identity.version]) == named
    assert arguments_alike(replace(identity, arguments=GOOD), identity) == (identity.arguments, identity.arguments)
