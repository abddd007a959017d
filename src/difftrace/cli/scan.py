"""`difftrace scan`: what in a model need not repeat itself."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import click

from difftrace.core.text import printable

if TYPE_CHECKING:
    from torch import Tensor

    from difftrace.models import LoadedModel

# What is fed to the model: this text, where there is a tokenizer, and a canvas of masks.
_PROMPT: Final = "12 + 30 = "
_MASKS: Final = 16


@click.command("scan")
@click.option("--model", "path_or_id", metavar="PATH_OR_ID", help="Folder or hub id; default: the reference model.")
@click.option("--revision", help="Full commit hash of a hub model.")
@click.option("--dtype", default="auto", show_default=True, help="bfloat16, float16, float32, or as stored.")
@click.option("--device", default="auto", show_default=True, help="Device to run on: cpu, cuda, ….")
@click.option("--device-kind", type=click.Choice(["cpu", "cuda"]), help="Kind that decides the exit status.")
@click.option("--train", is_flag=True, help="Scan in training mode.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def command(
    path_or_id: str | None,
    revision: str | None,
    dtype: str,
    device: str,
    device_kind: str | None,
    train: bool,
    as_json: bool,
) -> None:
    """List the operations of a model whose results can differ between runs.

    Runs one forward and lists what is random, nondeterministic, leaves ties open or lets torch choose a kernel, with
    module, reason and fix. What concerns CUDA and ROCm alone is listed on a CPU too. Other models than LLaDA are
    scanned from Python: `print(difftrace.scan(model, inputs))`.

    Exit status: 1 if a random or nondeterministic operation is found that concerns the kind of device scanned on (or
    --device-kind; cuda stands for ROCm too), 0 if none, 2 if the model cannot be loaded or run.

    \b
    Examples:
      difftrace scan
      difftrace scan --model path/to/LLaDA-8B-Instruct --device-kind cuda
      difftrace scan --train --json
    """
    # Importing torch takes seconds, which --help need not pay.
    from difftrace.determinism.scan import scan
    from difftrace.models import load_model
    from difftrace.models.reference import reference_model_path

    loaded = load_model(path_or_id or reference_model_path(), revision=revision, dtype=dtype, device=device)
    loaded.model.train(train)
    report = scan(loaded.model, _canvas(loaded))
    judged_for = device_kind or report.device
    varying = report.varying(judged_for)
    dtype_name = str(loaded.dtype).removeprefix("torch.")
    if as_json:
        model = {"name": loaded.name, "revision": loaded.revision, "dtype": dtype_name}
        click.echo(json.dumps(report.to_json() | {"model": model, "judged_for": judged_for}, sort_keys=True))
    else:
        click.echo(f"{printable(loaded.name)} in {dtype_name}\n\n{report}")
        click.echo(f"{len(varying)} of them random or nondeterministic on {judged_for}")
    raise SystemExit(1 if varying else 0)


def _canvas(loaded: LoadedModel) -> Tensor:
    """Return a prompt followed by masks [1, L], as the first step of denoising sees it."""
    import torch

    prompt = loaded.tokenizer.encode(_PROMPT) if loaded.tokenizer is not None else []
    ids = [*prompt, *[loaded.config.mask_token_id] * _MASKS][-loaded.config.max_sequence_length :]
    return torch.tensor([ids], device=loaded.device)
