"""Real faults, injected into real runs, are given the class that they are; a reduced form of benchmarks/divergence.py.

More prompts with DIFFTRACE_TEST_FULL=1.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "_faults.py"
PROMPTS = 20 if os.environ.get("DIFFTRACE_TEST_FULL") == "1" else 2


def _load() -> ModuleType:
    specification = importlib.util.spec_from_file_location("_faults", FILE)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    # Dataclasses look their own module up by name.
    sys.modules["_faults"] = module
    specification.loader.exec_module(module)
    return module


faults: Any = _load()


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    made: tuple[Any, ...] = faults.subjects(tmp_path_factory.mktemp("checkpoints"), PROMPTS)
    return made


@pytest.mark.parametrize("fault", faults.FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_given_its_class(subjects: tuple[Any, ...], fault: Any) -> None:
    verdicts = [verdict for subject in subjects for verdict in faults.inject(subject, fault)]
    wrong = [f"{v.subject}: {v.classification.divergence_class}" for v in verdicts if v.result == "wrong"]
    assert not wrong, wrong
    assert any(v.result == "right" for v in verdicts)


def test_without_a_fault_nothing_differs(subjects: tuple[Any, ...]) -> None:
    none = faults.Fault("none", ("IDENTICAL",), lambda setting: setting.twice())
    verdicts = [verdict for subject in subjects for verdict in faults.inject(subject, none)]
    assert {verdict.classification.divergence_class for verdict in verdicts} == {"IDENTICAL"}
    assert not any(verdict.has_effect for verdict in verdicts)


def test_another_dtype_is_never_another_rule(subjects: tuple[Any, ...]) -> None:
    fault = next(fault for fault in faults.FAULTS if fault.name == "bfloat16 against float32")
    for verdict in (verdict for subject in subjects for verdict in faults.inject(subject, fault)):
        assert verdict.classification.epsilon is not None
        assert verdict.classification.epsilon > 0
        assert "environment.dtype" in [suspect.field for suspect in verdict.classification.suspects]
