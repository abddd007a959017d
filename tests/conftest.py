"""Fixtures that several areas share. Nothing heavy is imported until a test asks for it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from difftrace.models import LoadedModel

pytest_plugins = ["pytester"]

# Fuzzing is short by default and long where time allows it: DIFFTRACE_TEST_FULL=1, as in .ci/run.
settings.register_profile("short", max_examples=300, deadline=None)
settings.register_profile("full", max_examples=5000, deadline=None)
settings.load_profile("full" if os.environ.get("DIFFTRACE_TEST_FULL") == "1" else "short")

# The models here are tiny. Threads gain them nothing, and where cores are shared (xdist, CI) threads that wait for
# each other make them many times slower. Subprocesses inherit it; it must be set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def _own_cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the user's cache out of the tests and the tests out of the user's cache, in subprocesses too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFTRACE_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def conformance_folder() -> Path:
    """The small random LLaDA checkpoint that the published code was run on."""
    return Path(__file__).parent / "conformance" / "llada"


@pytest.fixture(scope="session")
def conformance_cases(conformance_folder: Path) -> dict[str, Any]:
    """What the published modelling file and sampler gave for that checkpoint."""
    cases: dict[str, Any] = json.loads((conformance_folder / "cases.json").read_text(encoding="utf-8"))
    return cases


@pytest.fixture(scope="session")
def conformance_model(conformance_folder: Path) -> LoadedModel:
    """That checkpoint, loaded once on the CPU; it has no tokenizer. Treat it as read-only."""
    from difftrace.models import load_model

    return load_model(conformance_folder, device="cpu")


@pytest.fixture(scope="session")
def reference_model() -> LoadedModel:
    """The embedded reference model, loaded once on the CPU. Treat it as read-only."""
    from difftrace.models import load_model
    from difftrace.models.reference import reference_model_path

    return load_model(reference_model_path(), device="cpu")
