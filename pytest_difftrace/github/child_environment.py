"""The environments of what the action starts: only the fetch of a model has a token, only pytest has the profile.

The step's own environment, with its tokens, can be read in /proc for as long as its process lives, by whatever runs as
the same user. So the process that runs code of the checkout is started with `for_run`, in place of the first.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Final

from difftrace.core.errors import DeterminismError
from difftrace.determinism.early_variables import value_for
from difftrace.determinism.profiles import CPU, CUDA, ROCM, early_rows
from pytest_difftrace.github.errors import ActionError
from pytest_difftrace.github.inputs import PREFIX
from pytest_difftrace.github.torch_build import TorchBuild

ORIGINAL_PYTHONPATH: Final = "DIFFTRACE_PYTHONPATH"
"""Where `action.yml` puts the job's PYTHONPATH, while its own leads to the action."""

OFFLINE: Final = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}

_HUB_TOKENS: Final = frozenset({"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"})
_OTHER_TOKENS: Final = frozenset(
    {"GITHUB_TOKEN", "GH_TOKEN", "ACTIONS_RUNTIME_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"}
)
_OUTPUT: Final = "GITHUB_OUTPUT"
# What sets the environment of later steps, and what the runner hears of.
_SAY: Final = frozenset({"GITHUB_ENV", "GITHUB_PATH", "GITHUB_STATE", _OUTPUT})


def for_fetch(environment: Mapping[str, str], source: Path) -> dict[str, str]:
    """Return the environment that a model is fetched in: with the hub's token, and without code of the checkout.

    The job's PYTHONPATH may lead there; that of the fetch has nothing but `source`, the action's folder.
    """
    return {**_without(plain(environment), _OTHER_TOKENS | _SAY), "PYTHONPATH": _import_path(source)}


def for_installation(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of venv and pip: without tokens, and without code of the checkout.

    The job's PYTHONPATH may lead there, and what is imported from it could read the tokens of the process that started
    it, which still has them.
    """
    kept = without_tokens(environment)
    kept.pop("PYTHONPATH", None)
    return kept


def for_run(environment: Mapping[str, str], source: Path) -> dict[str, str]:
    """Return the environment of the process that runs pytest: inputs and outputs of the action, and no tokens."""
    own = environment.get(ORIGINAL_PYTHONPATH, "")
    kept = _without(environment, _HUB_TOKENS | _OTHER_TOKENS | (_SAY - {_OUTPUT}))
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, [_import_path(source), own]))}


def without_tokens(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the job's environment without tokens and without a say in later steps."""
    return _without(plain(environment), _HUB_TOKENS | _OTHER_TOKENS | _SAY)


def plain(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the job's environment without what the action added to it."""
    kept = {name: value for name, value in environment.items() if not name.startswith(PREFIX)}
    original = kept.pop(ORIGINAL_PYTHONPATH, None)
    if original is not None:
        kept.pop("PYTHONPATH", None)
        if original:
            kept["PYTHONPATH"] = original
    return kept


def profile_of(named: str, torch: TorchBuild | None) -> str:
    """Return the profile that is `named`, else that of the devices `torch` is built for."""
    if named or torch is None:
        return named or CPU
    return ROCM if torch.hip else CUDA if torch.cuda else CPU


def for_pytest(environment: Mapping[str, str], profile: str, *, summary: bool) -> dict[str, str]:
    """Return the environment of pytest, with what `profile` needs from the start.

    Raises:
        ActionError: a variable of the job has a value that cannot be kept.
    """
    wanted = without_tokens(environment) | OFFLINE
    if not summary:
        wanted.pop("GITHUB_STEP_SUMMARY", None)
    wanted.setdefault("PYTHONHASHSEED", "0")
    problems = []
    for row in early_rows(profile):
        try:
            value = value_for(row, wanted.get(row.name))
        except DeterminismError as error:
            problems.append(str(error))
            continue
        wanted.pop(row.name, None)
        if value is not None:
            wanted[row.name] = value
    if problems:
        raise ActionError(*problems)
    return wanted


def _import_path(source: Path) -> str:
    return os.pathsep.join([str(source), str(source / "src")])


def _without(environment: Mapping[str, str], names: Set[str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in names}
