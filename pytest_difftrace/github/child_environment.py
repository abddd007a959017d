"""The environment that pytest runs in: the profile's variables from the start, no network, no secrets, no say."""

from __future__ import annotations

from collections.abc import Mapping
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

# Tests have no business with them.
_WITHHELD: Final = frozenset(
    {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "GITHUB_TOKEN", "GH_TOKEN"}
    | {"GITHUB_ENV", "GITHUB_PATH", "GITHUB_OUTPUT", "GITHUB_STATE"}
    | {"ACTIONS_RUNTIME_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"}
)


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
    wanted = {name: value for name, value in plain(environment).items() if name not in _WITHHELD} | OFFLINE
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
