"""`difftrace doctor`: what is enforced here, and what changes a run here, measured."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from difftrace.core.doctor import PROBES, Demand, Probe
from difftrace.reports.doctor import closing, opening, probe_lines

if TYPE_CHECKING:
    from difftrace.core.doctor import ProbeResult, Surroundings
    from difftrace.models import LoadedModel

_DEFAULT: Final[Probe] = "repeat"
_NOTHING: Final = "none"
_DECISIONS: Final = "decisions"


def _chosen(_context: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> tuple[Probe, ...]:
    """Return the probes to run."""
    names = [_probe(name) for name in _split(given)]
    return tuple(name for name in PROBES if name in names or not given)


def _demanded(_context: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> tuple[Demand, ...] | None:
    """Return what is asked for; None where the command line does not say."""
    names = _split(given)
    if not names:
        return None
    if names == [_NOTHING]:
        return ()
    if _NOTHING in names:
        raise click.BadParameter(f"{_NOTHING} stands alone")
    return tuple(map(_demand, names))


def _demand(text: str) -> Demand:
    name, separator, accepts = text.partition(":")
    if separator and accepts != _DECISIONS:
        raise click.BadParameter(f"{text!r}: after the colon stands {_DECISIONS}, or leave both away for equal bits")
    return Demand(_probe(name), "same decisions" if separator else "bit-equal")


def _probe(text: str) -> Probe:
    for name in PROBES:
        if name == text:
            return name
    raise click.BadParameter(f"there is no probe {text!r}: choose from {', '.join(PROBES)}")


def _split(given: tuple[str, ...]) -> list[str]:
    return [name.strip() for value in given for name in value.split(",")]


@click.command("doctor")
@click.option("--model", help="Folder or hub id of the model to probe; without it the embedded reference model.")
@click.option("--revision", help="Full commit hash of a hub model.")
@click.option("--dtype", default="auto", show_default=True, help="auto (as stored), bfloat16, float16 or float32.")
@click.option("--device", default="auto", show_default=True, help="auto (the first accelerator), cpu, cuda:0, …")
@click.option("--probe", "probes", multiple=True, callback=_chosen, metavar="NAME", help="Run only these probes.")
@click.option(
    "--fail-on",
    "demands",
    multiple=True,
    callback=_demanded,
    metavar="NAME[:decisions]",
    help="Exit with 1 unless these probes ran and were bit-equal, or with `:decisions` took the same decisions;"
    f" {_NOTHING} for never. Without it: {_DEFAULT}.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of lines.")
def command(
    model: str | None,
    revision: str | None,
    dtype: str,
    device: str,
    probes: tuple[Probe, ...],
    demands: tuple[Demand, ...] | None,
    as_json: bool,
) -> None:
    """Show what is enforced here, then measure what changes a run.

    Each probe runs a short generation twice with one thing changed, and says whether every logit is equal bit by bit,
    whether the decisions are the same (tokens, positions, steps), or where they first differ. Steps and positions
    count from 0. What was not run is never called equal.

    \b
    repeat     the same run again: in this process, in a fresh one
    batch      a row alone, and in batches of 2 and 4
    padding    a row left-padded beside a longer one
    threads    one CPU thread, and several
    attention  plain matrix products, and every other backend that can run here
    dtype      the model's dtype, and fp32 (bf16 for a model in fp32)

    --probe and --fail-on may be repeated and take several names separated by commas.

    \b
    Examples:
      difftrace doctor
      difftrace doctor --model ./LLaDA-8B-Instruct --dtype bfloat16
      difftrace doctor --fail-on repeat,batch:decisions --json

    Exit status: 0 what --fail-on asks for was found, 1 it was not, 2 could not run.
    """
    demands = _checked(demands, probes)
    # What follows imports torch, which takes seconds; help and usage errors do not wait for it.
    from difftrace.verification.doctor import examine

    loaded = _load(model, revision, dtype, device)
    if as_json:
        report = examine(loaded, probes)
        click.echo(json.dumps(report.to_json(demands), sort_keys=True, allow_nan=False))
    else:
        report = examine(loaded, probes, started=_print_opening, finished=_print_result)
        _print(closing(demands, report.results))
    raise SystemExit(0 if all(demand.met_by(report.results) for demand in demands) else 1)


def _checked(demands: tuple[Demand, ...] | None, probes: tuple[Probe, ...]) -> tuple[Demand, ...]:
    if demands is None:
        return (Demand(_DEFAULT),) if _DEFAULT in probes else ()
    for demand in demands:
        if demand.probe not in probes:
            raise click.UsageError(f"--fail-on {demand.probe} asks for a probe that --probe leaves out")
    return demands


def _load(model: str | None, revision: str | None, dtype: str, device: str) -> LoadedModel:
    from difftrace.models import load_model
    from difftrace.models.reference import reference_model_path

    path: str | Path = reference_model_path() if model is None else model
    return load_model(path, revision=revision, dtype=dtype, device=device)


def _print_opening(around: Surroundings) -> None:
    _print(opening(around))


def _print_result(result: ProbeResult) -> None:
    _print(probe_lines(result))


def _print(lines: Sequence[str]) -> None:
    for line in lines:
        click.echo(line)
