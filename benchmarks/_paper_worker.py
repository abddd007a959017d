"""Runs the code of the DiffTrace paper, which has to be what `import difftrace` finds: _paper_worker.py FOLDER."""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch
from difftrace.core.compressor import DifferentialCompressor
from difftrace.core.replay import ReplayEngine
from difftrace.core.trajectory import TrajectoryCapture
from difftrace.utils.config import CaptureConfig, CaptureGranularity, CompressionConfig, CompressionMode

GRANULARITIES = {"tokens": CaptureGranularity.TOKENS_ONLY, "tokens+masks": CaptureGranularity.TOKENS_AND_MASKS}


def milliseconds(action):
    start = time.perf_counter()
    result = action()
    return result, (time.perf_counter() - start) * 1e3


def captured(runs, run, granularity):
    """Capture one run; its masks are made before the clock starts."""
    prompt = runs["prompts"][run].astype(np.int32)
    length, steps = runs["outputs"].shape[1], runs["positions"].shape[1]
    masked = np.arange(length) >= prompt.size
    given = []
    for positions, tokens in zip(runs["positions"][run], runs["tokens"][run], strict=True):
        masked[positions] = False
        given.append((torch.from_numpy(positions), torch.from_numpy(tokens), torch.from_numpy(masked.copy())))
    output = torch.from_numpy(runs["outputs"][run])

    def capture_all():
        capture = TrajectoryCapture(CaptureConfig(granularity=granularity, capture_random_state=False))
        capture.begin_trajectory(str(run), prompt, num_diffusion_steps=steps, sequence_length=length, device="cpu")
        for step, (positions, tokens, mask) in enumerate(given):
            capture.capture_step(step, positions, tokens, mask, device="cpu")
        return capture.end_trajectory(output)

    return milliseconds(capture_all)


def lossy_logits(logits, bound):
    """Return the bytes of logits [S, L, V] and the largest error of what they are read back as."""
    compressor = DifferentialCompressor(
        CompressionConfig(mode=CompressionMode.DIFF_LOSSY, lossy_error_bound=bound, lossy_error_mode="abs")
    )
    size, error = 0, 0.0
    for step in logits:
        data = compressor._compress_logits_lossy(step)
        read = compressor.decompress_logits_lossy(data, step.shape)
        size += len(data)
        error = max(error, float(np.abs(read.astype(np.float64) - step.astype(np.float64)).max()))
    return {"bytes": size, "error": error}


def main(folder):
    document = json.loads((folder / "runs.json").read_text(encoding="utf-8"))
    runs = {
        name: np.fromfile(folder / name, dtype=kind["dtype"]).reshape(kind["shape"])
        for name, kind in document["arrays"].items()
    }
    found = {name: [] for name in ("original", "none", "lossless", "compress", "replay", "exact", *GRANULARITIES)}
    none = DifferentialCompressor(CompressionConfig(mode=CompressionMode.NONE))
    lossless = DifferentialCompressor(CompressionConfig(mode=CompressionMode.DIFF_LOSSLESS))
    engine = ReplayEngine(lossless)
    for run in range(len(runs["prompts"])):
        for name, granularity in GRANULARITIES.items():
            record, taken = captured(runs, run, granularity)
            found[name].append(taken)
        found["original"].append(record.total_size_bytes() - record.prompt_tokens.nbytes)
        found["none"].append(none.compress_trajectory(record).compressed_size_bytes)
        compressed, taken = milliseconds(lambda record=record: lossless.compress_trajectory(record))
        found["compress"].append(taken)
        found["lossless"].append(compressed.compressed_size_bytes)
        result, taken = milliseconds(lambda compressed=compressed: engine.token_replay(compressed))
        found["replay"].append(taken)
        found["exact"].append(float(result.exact_match))
    lossy = {bound: lossy_logits(runs["logits"], float(bound)) for bound in document["bounds"]}
    middle = {name: statistics.median(values) for name, values in found.items()}
    print(
        json.dumps(
            {
                "capture_ms": {name: middle[name] for name in GRANULARITIES},
                "original_bytes": middle["original"],
                "uncompressed_bytes": middle["none"],
                "compressed_bytes": middle["lossless"],
                "compress_ms": middle["compress"],
                "replay_ms": middle["replay"],
                "exact": statistics.fmean(found["exact"]),
                "lossless_logits_bytes": sum(len(lossless._compress_array(step)) for step in runs["logits"]),
                "lossy_logits": lossy,
            }
        )
    )


main(Path(sys.argv[1]))
