"""What `difftrace layers` says of what it made."""

from __future__ import annotations

from collections.abc import Sequence
from shlex import quote

from difftrace.core.module_trace import GoldenLayers
from difftrace.core.recording import Baseline
from difftrace.core.text import printable
from difftrace.reports.bisection import alone, model_where, wrapped
from difftrace.reports.context import environment_differences


def layers_lines(layers: GoldenLayers, baseline: Baseline, baseline_name: str, output: str) -> list[str]:
    """Return what `difftrace layers` prints of a file."""
    return [
        *_made(layers, baseline, output),
        f"compare with it: difftrace bisect {quote(baseline_name)} --against {quote(output)}",
    ]


def probe_lines(layers: Sequence[GoldenLayers], baseline: Baseline, baseline_name: str) -> list[str]:
    """Return what `difftrace layers` prints of probes; `baseline` holds them."""
    sizes = {(probe.step, probe.sequence): len(probe.payload) for probe in baseline.probes}
    lines = []
    for one in layers:
        size = sizes[one.origin.step, one.origin.sequence] * 4 / 3 / 1000
        lines += _made(one, baseline, f"{baseline_name}: probe of {size:.0f} KB")
    return [*dict.fromkeys(lines), f"compare with it: difftrace bisect {quote(baseline_name)}"]


def _made(layers: GoldenLayers, baseline: Baseline, what: str) -> list[str]:
    """Return what was traced, and how it was not where the baseline was recorded."""
    trace, origin = layers.trace, layers.origin
    calls = f"{len(trace.modules)} modules, {len(trace.calls)} calls before step {origin.step}{alone(origin)}"
    lines = wrapped(f"{printable(what)}: {calls}, {model_where(origin)}")
    recorded = {name: value for name, value in baseline.environment.items() if name in origin.environment}
    others = environment_differences(recorded, {name: origin.environment[name] for name in recorded})
    if others:
        lines += ["not where the baseline was recorded (there → here):", *(f"  {line}" for line in others)]
    return lines
