"""The fixtures. What they need is imported when a test first asks for them."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from pytest_difftrace import foreign, strategies
from pytest_difftrace.marker import ModelRequest, requested_model
from pytest_difftrace.session import LOADED, SESSION, Session, notes
from pytest_difftrace.workers import default_device, device_of_worker, worker_index

if TYPE_CHECKING:
    from difftrace.models import LoadedModel
    from difftrace.verification import DeferredRunner, ModelRunner
    from pytest_difftrace.checker import Checker


@pytest.fixture
def difftrace(request: pytest.FixtureRequest) -> Checker:
    """Check runs against the baselines recorded beside the test: `difftrace.check(run, name=None)`."""
    _refuse_foreign_package()
    from pytest_difftrace.checker import Checker

    return Checker(request.node, request.config.stash[SESSION].settings)


@pytest.fixture
def llada(request: pytest.FixtureRequest) -> ModelRunner | DeferredRunner:
    """Run a LLaDA model under enforced determinism: `llada.generate(prompt, gen_length=16, steps=16)`.

    The model is the one of `@pytest.mark.difftrace(model=…, revision=…, dtype=…, device=…)`, of `--difftrace-model`
    or the ini file, else the reference model that comes with the package. That one runs on the CPU unless the marker
    names a device or `--difftrace-profile` a profile of one; others run on the accelerator where there is one. A model
    is loaded once a session. Under `--difftrace-strategy=forced` or `sampled` a run is denoised when something is asked
    of it that its check did not settle.
    """
    _refuse_foreign_package()
    if find_spec("torch") is None:
        pytest.fail(
            'difftrace: the llada fixture needs torch; run `pip install "pytest-difftrace[torch]"`', pytrace=False
        )
    from difftrace.core.errors import DiffTraceError
    from pytest_difftrace.repetition import REPETITION

    session = request.config.stash[SESSION]
    try:
        asked = requested_model(request.node, session.settings)
        if asked.model is not None:
            notes(request.node).models.append(asked.model)
        loaded = _loaded(asked, session, worker_index(request.config))
        request.node.stash[LOADED] = loaded
        repetition = request.node.stash.get(REPETITION, None)
        return strategies.runner(loaded, session.settings, 1 if repetition is None else repetition.attempt)
    except (DiffTraceError, pytest.UsageError) as error:
        message = str(error)
    # Outside the handler, so that the failure stands alone and not below the error that it restates.
    pytest.fail(f"difftrace: {message}", pytrace=False)


def _loaded(asked: ModelRequest, session: Session, worker: int | None) -> LoadedModel:
    """Return the model asked for, loaded once a session for each dtype and device."""
    import torch

    from difftrace.determinism.enforcement import enforce
    from difftrace.models import load_model
    from difftrace.models.reference import reference_model_path

    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    kind = accelerator.type if accelerator is not None else None
    asked_device = asked.device or default_device(asked.model, session.settings.profile)
    device = device_of_worker(asked_device, worker, kind, torch.accelerator.device_count())
    if device == "auto":
        device = kind or "cpu"
    model = asked.model or str(reference_model_path())
    dtype = asked.dtype or "auto"
    key = (model, asked.revision, dtype, device)
    if key not in session.models:
        # Loading is the first use of the device, and what switches it looks only then.
        with enforce(profile=session.settings.profile, device=device):
            session.models[key] = load_model(model, revision=asked.revision, dtype=dtype, device=device)
    return session.models[key]


def _refuse_foreign_package() -> None:
    problem = foreign.problem()
    if problem is not None:
        pytest.fail(problem, pytrace=False)
