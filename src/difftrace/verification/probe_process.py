"""The same rows in a fresh process: the side that starts it, and what it runs.

`python -m difftrace.verification.probe_process REQUEST RESULT` reads a JSON request and writes a safetensors file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from difftrace.core.errors import ProbeError
from difftrace.core.text import printable
from difftrace.core.trajectory import Trajectory
from difftrace.models import LoadedModel, load_model
from difftrace.verification.probe_run import Conditions, Prompts, RowRun, run_rows
from difftrace.verification.second_copy import require_second_copy

# Seconds. Reading the weights of a large model from a slow disk takes minutes.
TIMEOUT: Final = 900.0

_LAST_BYTES: Final = 4096


def rows_of_fresh_process(
    loaded: LoadedModel, prompts: Prompts, threads: int, *, timeout: float = TIMEOUT
) -> tuple[RowRun, ...]:
    """Load the model again in a new interpreter, denoise each of `prompts` alone there, and return the rows.

    The process has this one's environment, imports from where this one imports, and works in an empty folder. Raises
    ProbeError where it ends without an answer, with the last line it wrote, or takes longer than `timeout` seconds.
    """
    require_second_copy(loaded, loaded.dtype)
    with TemporaryDirectory(prefix="difftrace-") as name:
        folder = Path(name)
        request, result, messages = folder / "request.json", folder / "result.safetensors", folder / "messages"
        request.write_text(json.dumps(_request(loaded, prompts, threads)), encoding="utf-8")
        command = [sys.executable, "-m", __name__, str(request), str(result)]
        with messages.open("wb") as file:
            try:
                status = subprocess.run(  # noqa: S603 - this interpreter, our module, our files
                    command,
                    cwd=folder,
                    env={**os.environ, "PYTHONPATH": _search_path()},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=file,
                    timeout=timeout,
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired:
                raise ProbeError(f"the fresh process gave no answer within {timeout:g} s") from None
            except OSError as error:
                raise ProbeError(f"no fresh process could be started: {error.strerror}") from error
        if status != 0:
            raise ProbeError(f"the fresh process ended with status {status}{_last_words(messages)}")
        return _read(result, len(prompts))


def _request(loaded: LoadedModel, prompts: Prompts, threads: int) -> dict[str, object]:
    return {
        "folder": str(loaded.folder.absolute()),
        "dtype": str(loaded.dtype),
        "device": str(loaded.device),
        "prompts": [list(prompt) for prompt in prompts],
        "threads": threads,
    }


def _search_path() -> str:
    """Return where this process imports from, so that a fresh one finds the same modules from any folder."""
    return os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)


def _last_words(messages: Path) -> str:
    with messages.open("rb") as file:
        file.seek(max(messages.stat().st_size - _LAST_BYTES, 0))
        lines = file.read().decode("utf-8", "replace").strip().splitlines()
    return f": {lines[-1].strip()}" if lines else " and said nothing"


def _read(result: Path, count: int) -> tuple[RowRun, ...]:
    try:
        tensors = load_file(result)
        return tuple(
            RowRun(Trajectory.from_bytes(tensors[f"{row}.trajectory"].numpy().tobytes()), tensors[f"{row}.logits"])
            for row in range(count)
        )
    except (OSError, KeyError, SafetensorError) as error:
        raise ProbeError(f"the fresh process left no readable answer: {error}") from error


def _answer(request_file: Path, result_file: Path) -> None:
    request = json.loads(request_file.read_text(encoding="utf-8"))
    loaded = load_model(Path(request["folder"]), dtype=request["dtype"], device=request["device"])
    tensors = {}
    for row, run in enumerate(run_rows(loaded, request["prompts"], Conditions(request["threads"]))):
        tensors[f"{row}.trajectory"] = torch.tensor(list(run.trajectory.to_bytes()), dtype=torch.uint8)
        tensors[f"{row}.logits"] = run.logits
    save_file(tensors, result_file)


def main(arguments: list[str]) -> int:
    """Answer the request in file `arguments[0]` in file `arguments[1]`; return the exit status."""
    try:
        _answer(Path(arguments[0]), Path(arguments[1]))
    except Exception as error:  # whatever it is, its first line is what the other side can show
        print(printable(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
