"""Which class runs with a known fault are given: a table of confusion.

    python benchmarks/divergence.py [--prompts N] [--only WORD] [--json FILE]

Every fault of `_faults` is injected into real runs of the reference model and of the conformance checkpoint, one for
each prompt; each faulty run is repeated, as a verification does, and classified. Exit status 1 if one is given a class
that its fault may not be given, or if a fault has no effect on any model, so that it shows nothing. Single runs in
which a fault changes no decision and no logit are counted by themselves.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from _faults import FAULTS, Verdict, inject, subjects
from _harness import Figure, describe_machine, report

from difftrace.core.classes import CLASSES


def main() -> int:
    """Inject, print, and return the exit status."""
    parser = argparse.ArgumentParser(description="Which class runs with a known fault are given.")
    parser.add_argument("--prompts", type=int, default=20, metavar="N", help="runs of each fault and model")
    parser.add_argument("--only", default="", metavar="WORD", help="only faults whose name holds WORD")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    options = parser.parse_args()
    chosen = [fault for fault in FAULTS if options.only in fault.name]
    if not chosen:
        parser.error(f"no fault's name holds {options.only!r}")
    with tempfile.TemporaryDirectory() as scratch:
        models = subjects(Path(scratch), options.prompts)
        verdicts = [verdict for fault in chosen for subject in models for verdict in inject(subject, fault)]
    figures = []
    for subject in models:
        own = [verdict for verdict in verdicts if verdict.subject == subject.name]
        _print_confusion(subject.name, own)
        figures += _figures(subject.name, own)
    shown = {verdict.fault.name for verdict in verdicts if verdict.result == "right"}
    missing = [fault.name for fault in chosen if fault.name not in shown]
    figures.append(Figure("faults that never showed", len(missing), "faults", at_most=0))
    _print_faults(verdicts, [subject.name for subject in models])
    _print_wrong(verdicts)
    for name in missing:
        print(f"NEVER SHOWED: {name}")
    settings = {"prompts": options.prompts, "faults": len(chosen)}
    return report("divergence", settings, figures, {**describe_machine(), "torch": torch.__version__}, options.json)


def _expected(verdict: Verdict) -> str:
    return " or ".join(verdict.fault.expected)


def _given(verdict: Verdict) -> str:
    return verdict.classification.divergence_class or "not told"


def _print_confusion(name: str, verdicts: Sequence[Verdict]) -> None:
    """Print how many runs of each expected class (rows) were given which class (columns)."""
    rows = list(dict.fromkeys(map(_expected, verdicts)))
    given = Counter((_expected(verdict), _given(verdict)) for verdict in verdicts)
    columns = [one for one in (*CLASSES, "not told") if any(given[row, one] for row in rows)]
    width = max(map(len, rows), default=0)
    print(f"{name}\n{'expected':<{width}}  " + " ".join(f"{column:>10}" for column in columns))
    for row in rows:
        print(f"{row:<{width}}  " + " ".join(f"{given[row, column] or '':>10}" for column in columns))
    print()


def _print_faults(verdicts: Sequence[Verdict], names: Sequence[str]) -> None:
    """Print for each fault and model how many runs were classified right, and in how many it had no effect."""
    faults = list(dict.fromkeys(verdict.fault.name for verdict in verdicts))
    width = max(map(len, faults))
    print(f"{'right / no effect / wrong':<{width}}  " + " ".join(f"{name:>16}" for name in names))
    results = Counter((verdict.fault.name, verdict.subject, verdict.result) for verdict in verdicts)
    for fault in faults:
        cells = [" / ".join(f"{results[fault, name, r]:>2}" for r in ("right", "no effect", "wrong")) for name in names]
        print(f"{fault:<{width}}  " + " ".join(f"{cell:>16}" for cell in cells))
    print()


def _print_wrong(verdicts: Sequence[Verdict]) -> None:
    for verdict in verdicts:
        if verdict.result == "wrong":
            print(f"WRONG: {verdict.subject}, {verdict.fault.name}: {_given(verdict)}. {verdict.classification.reason}")


def _figures(name: str, verdicts: Sequence[Verdict]) -> list[Figure]:
    results = Counter(verdict.result for verdict in verdicts)
    told = results["right"] + results["wrong"]
    given = Counter((_expected(verdict), _given(verdict)) for verdict in verdicts)
    coarse = [v.classification.epsilon or 0.0 for v in verdicts if v.fault.name == "bfloat16 against float32"]
    return [
        *([Figure(f"{name}: epsilon of bfloat16, median", statistics.median(coarse))] if coarse else []),
        Figure(f"{name}: classified wrongly", results["wrong"], "runs", at_most=0),
        Figure(f"{name}: share right", results["right"] / told if told else 1.0),
        Figure(f"{name}: without an effect", results["no effect"], "runs"),
        *(Figure(f"{name}: {row} given {column}", count, "runs") for (row, column), count in given.items()),
    ]


if __name__ == "__main__":
    sys.exit(main())
