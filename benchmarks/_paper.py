"""What the DiffTrace paper reports, and what its code does on this machine.

Gupta, "DiffTrace: Provenance-Aware Reproducible Inference for Stochastic Diffusion Language Models", HPAI4S'26; its
repository is github.com/raviguptaamd/difftrace (Apache-2.0). The figures are those of paper/main.tex, for LLaDA-8B on
an MI300X, 128 generated tokens and 64 steps where nothing else is said. Its code is run where a benchmark is given
`--paper FOLDER`, a checkout of that repository: in a process of its own, on the same runs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from _runs import Runs

ORIGINAL_BYTES: Final = 12408
UNCOMPRESSED_BYTES: Final = 12224
COMPRESSED_BYTES: Final = 5203
COMPRESS_MS: Final = 0.5
REPLAY_MS: Final = 0.362
OVERHEAD: Final = {"tokens": 1.0091, "tokens+masks": 1.0110}
CAPTURE_MS: Final = {"tokens": 11.9, "tokens+masks": 14.6}
COORDINATION: Final = 1.18
# results/compression.json, 128 positions of 4,000 logits, 64 steps: bound, largest error.
LOSSY_ERRORS: Final = {0.1: 0.205078125, 0.01: 0.0390625, 0.001: 0.0316162109375}

_WORKER: Final = Path(__file__).with_name("_paper_worker.py")


@dataclass(frozen=True)
class Measured:
    """Medians over runs of what the paper's code took here; bytes without the prompt.

    Attributes:
        capture_ms: capturing a whole run, by granularity.
        original_bytes: what it counts as the size of a run.
        uncompressed_bytes: its mode `none`.
        compressed_bytes: its mode `diff_lossless`.
        compress_ms: that mode.
        replay_ms: its token replay, decompression included.
        exact: share of the replays that it calls exact.
        lossless_logits_bytes: the logits given, without loss.
        lossy_logits: by error bound, their bytes and the largest error of what they are read back as.
    """

    capture_ms: dict[str, float]
    original_bytes: float
    uncompressed_bytes: float
    compressed_bytes: float
    compress_ms: float
    replay_ms: float
    exact: float
    lossless_logits_bytes: float
    lossy_logits: dict[str, dict[str, float]]


def add_paper_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that `measured` reads."""
    parser.add_argument(
        "--paper", type=Path, metavar="FOLDER", help="checkout of the paper's repository, to measure its code too"
    )


def measured(folder: Path | None, runs: Runs, logits: npt.NDArray[np.float16] | None = None) -> Measured | None:
    """Run the paper's code on `runs`, and on `logits` [S, L, V] where they are given; None without a folder."""
    if folder is None:
        return None
    if not (folder / "difftrace" / "core" / "compressor.py").is_file():
        raise SystemExit(f"{folder} is no checkout of github.com/raviguptaamd/difftrace")
    with tempfile.TemporaryDirectory() as scratch:
        arrays = {name: getattr(runs, name) for name in ("prompts", "positions", "tokens", "outputs")}
        arrays["logits"] = np.zeros((0, 1, 1), dtype=np.float16) if logits is None else logits
        described = {}
        for name, array in arrays.items():
            array.tofile(Path(scratch) / name)
            described[name] = {"shape": array.shape, "dtype": array.dtype.str}
        document = {"arrays": described, "bounds": [str(bound) for bound in LOSSY_ERRORS]}
        (Path(scratch) / "runs.json").write_text(json.dumps(document), encoding="utf-8")
        environment = {**os.environ, "PYTHONPATH": str(folder.resolve()), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, str(_WORKER), scratch]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=scratch)
    if done.returncode:
        raise SystemExit(f"the paper's code failed:\n{done.stderr}")
    return Measured(**json.loads(done.stdout.splitlines()[-1]))
