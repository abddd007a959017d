"""What samplers do where an argument is not named, so that baselines outlive the arguments that samplers gain."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from difftrace.core.recording import JsonScalar, SamplerIdentity

DEFAULTS: Final[Mapping[tuple[str, int], Mapping[str, JsonScalar]]] = MappingProxyType(
    {
        ("llada", 1): MappingProxyType(
            {
                "temperature": 0.0,
                "cfg_scale": 0.0,
                "remasking": "low_confidence",
                "logits_eos_inf": False,
                "confidence_eos_eot_inf": False,
                "tie_break": "stable",
                "noise": "upstream",
                "seed": None,
            }
        ),
    }
)
"""By name and version of a sampler. An argument that is added later joins with the value that changes nothing."""


def arguments_alike(one: SamplerIdentity, other: SamplerIdentity) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arguments of both; what only one of them names the other has at its default, where that is known."""
    return _completed(one, other), _completed(other, one)


def _completed(sampler: SamplerIdentity, other: SamplerIdentity) -> dict[str, Any]:
    defaults = DEFAULTS.get((sampler.name, sampler.version), {})
    lacking = [name for name in other.arguments if name not in sampler.arguments and name in defaults]
    return {**sampler.arguments, **{name: defaults[name] for name in lacking}}
