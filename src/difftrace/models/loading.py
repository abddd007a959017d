"""From a path or hub id to a model that runs: architecture, weights, tokenizer, identity."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch

from difftrace.core.baseline import ModelIdentity
from difftrace.core.errors import ModelError
from difftrace.models import hub
from difftrace.models.config import LLaDAConfig
from difftrace.models.digest_cache import remembered_digest
from difftrace.models.llada import LLaDAModel
from difftrace.models.tokenizer import Tokenizer, load_tokenizer, tokenizer_digest
from difftrace.models.weights import Checkpoint, load_into, open_checkpoint

# The published config leaves the end-of-turn id to the tokenizer, under this name.
_END_OF_TURN = "<|eot_id|>"

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
_SHORT = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to denoise, with what is needed to say which one it is.

    `tokenizer` is None for a bare checkpoint. `revision` is the hub commit, None for a local folder.
    """

    model: LLaDAModel = field(repr=False)
    tokenizer: Tokenizer | None = field(repr=False)
    config: LLaDAConfig
    name: str
    revision: str | None
    folder: Path
    checkpoint: Checkpoint = field(repr=False)
    dtype: torch.dtype
    device: torch.device

    @property
    def dtype_name(self) -> str:
        """What environments and options call the dtype it computes in: "float32", say."""
        return str(self.dtype).removeprefix("torch.")

    @cached_property
    def identity(self) -> ModelIdentity:
        """The model's identity: digests of config, tokenizer files and weights as stored, before casting."""
        config = json.dumps(self.config.to_json(), sort_keys=True).encode()
        return ModelIdentity(
            name=self.name,
            revision=self.revision,
            weights=remembered_digest(self.checkpoint),
            config=f"sha256:{hashlib.sha256(config).hexdigest()}",
            tokenizer=tokenizer_digest(self.folder),
            vocab_size=self.config.embedding_size,
            mask_token_id=self.config.mask_token_id,
        )


def load_model(
    path_or_id: str | Path,
    *,
    revision: str | None = None,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "auto",
    device_map: str | None = None,
) -> LoadedModel:
    """Load a LLaDA checkpoint: a local folder, or a hub id with a pinned revision. No remote code is run.

    `dtype`: `auto` (as stored), `bfloat16`, `float16`, `float32` or a torch dtype. `device`: `auto` (the first
    accelerator, else the CPU) or a torch device. `device_map="auto"` spreads the layers with accelerate instead.
    Raises ModelError for anything missing, unsupported or misshapen, naming it.
    """
    if device_map not in (None, "auto"):
        raise ModelError(f"device_map must be 'auto' or None, not {device_map!r}")
    if device_map and device != "auto":
        raise ModelError(f"device_map='auto' chooses the devices itself; drop device={str(device)!r}")
    folder, commit = _locate(path_or_id, revision)
    config = LLaDAConfig.from_file(folder / "config.json")
    checkpoint = open_checkpoint(folder)
    tokenizer = load_tokenizer(folder)
    if config.eot_token_id is None and tokenizer is not None:
        found = tokenizer.token_id(_END_OF_TURN)
        config = config if found is None else config.with_eot(found)
    wanted = checkpoint.dtype if dtype == "auto" else _dtype(dtype)
    target = torch.device("cpu") if device_map else _device(device)
    with torch.device("meta"):
        model = LLaDAModel(config)
    load_into(model, checkpoint, wanted, target)
    model.eval()
    if device_map:
        model, target = _spread(model)
    name = str(path_or_id) if commit else folder.name
    return LoadedModel(model, tokenizer, config, name, commit, folder, checkpoint, wanted, target)


def _locate(path_or_id: str | Path, revision: str | None) -> tuple[Path, str | None]:
    """Return the model's folder and, for a hub id, its commit."""
    path = Path(path_or_id).expanduser()
    if path.is_dir():
        if revision is not None:
            raise ModelError(f"{path}: a local folder has no revision; drop revision={revision!r}")
        return path.resolve(), None
    name = str(path_or_id)
    if not hub.is_hub_id(name) or isinstance(path_or_id, Path):
        raise ModelError(f"{name}: no such folder, and no hub id of the form owner/model")
    if not hub.is_commit(revision):
        raise ModelError(
            f"{name}: no such folder; as a hub id it needs revision= with the full 40-hex commit "
            f"(branches and tags move), not {revision!r}"
        )
    assert revision is not None
    return hub.snapshot(name, revision), revision


def _dtype(dtype: str | torch.dtype) -> torch.dtype:
    name = str(dtype).removeprefix("torch.")
    name = _SHORT.get(name, name)
    if name not in _DTYPES:
        raise ModelError(f"dtype must be auto, {', '.join(_DTYPES)}, not {dtype!r}")
    return _DTYPES[name]


def _device(device: str | torch.device) -> torch.device:
    if device == "auto":
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return accelerator or torch.device("cpu")
    try:
        wanted = torch.device(device)
        torch.empty(1, device=wanted)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ModelError(f"device {device!r} cannot be used here: {str(error).splitlines()[0]}") from error
    return wanted


def _spread(model: LLaDAModel) -> tuple[LLaDAModel, torch.device]:
    """Spread the layers over what accelerate finds; return the model and the device its inputs belong on."""
    from accelerate import dispatch_model, infer_auto_device_map

    device_map = infer_auto_device_map(model, no_split_module_classes=["Block"])
    dispatched: LLaDAModel = dispatch_model(model, device_map)
    return dispatched, next(dispatched.parameters()).device
