"""How the installed torch was built and what is there for it to run on, found without starting a device."""

from __future__ import annotations

from typing import Any

import torch

from difftrace.determinism.libraries import driver, torch_libraries


def torch_build() -> dict[str, Any]:
    """Return facts of the build and of this process's threads as plain JSON data.

    No device is counted, named or initialised: that takes memory on it and makes a later fork of the process unsafe.
    """
    config = torch.__config__.show()
    return {
        "version": torch.__version__,
        "git": torch.version.git_version,
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "debug": torch.version.debug,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cudnn_built": torch.backends.cudnn.is_available(),  # type: ignore[no-untyped-call]
        "mkl": torch.backends.mkl.is_available(),  # type: ignore[no-untyped-call]
        "mkldnn": torch.backends.mkldnn.is_available(),  # type: ignore[no-untyped-call]
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "libraries": torch_libraries(config),
        "config": [line.strip(" -") for line in config.splitlines() if line.strip()],
        "driver": driver(),
    }
