"""Faults to inject into real runs, each with the classes of divergence that it may be given.

A fault changes what really runs: the sampler's functions are replaced, hooks are put on layers, changed checkpoints are
written and loaded. Nothing of what is recorded is made up.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from difftrace.core.classes import DivergenceClass
from difftrace.core.classification import Classification, classify
from difftrace.core.recording import Baseline
from difftrace.core.run import Run
from difftrace.models import LoadedModel, load_model
from difftrace.models.llada import RMSNorm
from difftrace.models.reference import reference_model_path
from difftrace.models.reference.corpus import KINDS
from difftrace.sampling import SamplerArguments, decision, llada
from difftrace.sampling.arguments import SamplerArguments as Arguments
from difftrace.sampling.noise import UpstreamNoise
from difftrace.verification.runner import denoise

Ids = list[int]
Result = Literal["right", "no effect", "wrong"]
Tensors = dict[str, Tensor]
Within = Callable[[LoadedModel], AbstractContextManager[object]]

_CONFORMANCE = Path(__file__).parents[1] / "tests" / "conformance" / "llada"
_DEFAULT = Arguments(steps=8, gen_length=16, block_length=8, noise="portable", seed=0)
_LAYER = 1


@dataclass(frozen=True)
class Subject:
    """A model that faults are injected into, its prompts, and a folder for its changed checkpoints."""

    name: str
    folder: Path
    prompts: tuple[Ids, ...]
    scratch: Path
    _loaded: dict[tuple[Path, str], LoadedModel] = field(default_factory=dict, repr=False)
    _goldens: dict[tuple[object, ...], Baseline] = field(default_factory=dict, repr=False)

    def loaded(self, dtype: str = "float32", folder: Path | None = None) -> LoadedModel:
        """Return the model in `dtype`, from its own folder or a changed one; each is loaded once."""
        key = (folder or self.folder, dtype)
        if key not in self._loaded:
            self._loaded[key] = load_model(key[0], dtype=dtype, device="cpu")
        return self._loaded[key]

    def changed(self, name: str, change: Callable[[Path], None]) -> Path:
        """Return a copy of the model's folder, named `name`, that `change` was applied to."""
        folder = self.scratch / self.name / name
        if not folder.exists():
            shutil.copytree(self.folder, folder, ignore=shutil.ignore_patterns("*.py", "*.md", "__pycache__"))
            change(folder)
        return folder

    def golden(self, prompt: Ids, arguments: SamplerArguments, dtype: str, folder: Path | None = None) -> Baseline:
        """Return the sound run of the model, its own or that of a changed `folder`; each is run once."""
        key = (tuple(prompt), arguments, dtype, folder)
        if key not in self._goldens:
            self._goldens[key] = _denoise(self.loaded(dtype, folder), prompt, arguments)[0].to_baseline(None)
        return self._goldens[key]


def subjects(scratch: Path, prompts: int) -> tuple[Subject, ...]:
    """Return the reference model and the conformance checkpoint, with as many prompts each, always the same."""
    rng = np.random.default_rng(20260101)
    tokenizer = load_model(reference_model_path(), device="cpu").tokenizer
    assert tokenizer is not None
    kinds = list(KINDS.values())
    questions = tuple(tokenizer.encode(kinds[index % len(kinds)](rng).prompt) for index in range(prompts))
    # Below 300: neither the mask nor the end of the text.
    ids = tuple(rng.integers(0, 300, int(rng.integers(4, 13))).tolist() for _ in range(prompts))
    return (
        Subject("reference", reference_model_path(), questions, scratch),
        Subject("conformance", _CONFORMANCE, ids, scratch),
    )


def _denoise(loaded: LoadedModel, prompt: Ids, arguments: SamplerArguments, **options: Any) -> tuple[Run, ...]:
    return denoise(loaded, torch.tensor([prompt]), None, arguments, **options)


@dataclass(frozen=True)
class Setting:
    """What a golden was run with, for its fault to change something of it."""

    subject: Subject
    prompt: Ids
    arguments: SamplerArguments
    dtype: str
    folder: Path | None = None

    @property
    def loaded(self) -> LoadedModel:
        """The sound model."""
        return self.subject.loaded(self.dtype, self.folder)

    def twice(
        self,
        *,
        loaded: LoadedModel | None = None,
        prompt: Ids | None = None,
        arguments: SamplerArguments | None = None,
        within: Within = lambda _: nullcontext(),
        attention: str | None = None,
    ) -> tuple[Run, ...]:
        """Run with what is given instead of the golden's, and once more."""
        model = loaded or self.loaded
        with within(model):
            return _denoise(model, prompt or self.prompt, arguments or self.arguments, attention=attention, times=2)


@dataclass(frozen=True)
class Fault:
    """One way in which a run can go wrong.

    Attributes:
        name: what is done.
        expected: the classes it may be given where it has an effect.
        observe: runs with the fault, twice.
        golden: arguments of the golden run, where they are not the usual ones.
        dtype: of the golden run.
        needs_tokenizer: whether it applies to models with a tokenizer only.
        checkpoint: what both runs' weights are changed by, under a name, where the fault needs some to have an effect.
    """

    name: str
    expected: tuple[DivergenceClass, ...]
    observe: Callable[[Setting], tuple[Run, ...]]
    golden: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "float32"
    needs_tokenizer: bool = False
    checkpoint: tuple[str, Callable[[Path], None]] | None = None


@dataclass(frozen=True)
class Verdict:
    """How one faulty run was classified; `has_effect` says whether a decision or a logit differs at all."""

    subject: str
    fault: Fault
    classification: Classification
    has_effect: bool

    @property
    def result(self) -> Result:
        """Whether the class is one that the fault may be given; without an effect there may be nothing to classify.

        Where no decision and no logit differs, what the sampler would have preferred may, which is drift.
        """
        given = self.classification.divergence_class
        if given in self.fault.expected:
            return "right"
        return "no effect" if not self.has_effect and given in ("IDENTICAL", "DRIFT") else "wrong"


def inject(subject: Subject, fault: Fault) -> Iterator[Verdict]:
    """Inject a fault into a run of each prompt and classify it; nothing for a fault that does not apply."""
    if fault.needs_tokenizer and subject.loaded().tokenizer is None:
        return
    folder = None if fault.checkpoint is None else subject.changed(*fault.checkpoint)
    for prompt in subject.prompts:
        setting = Setting(subject, prompt, replace(_DEFAULT, **fault.golden), fault.dtype, folder)
        golden = subject.golden(prompt, setting.arguments, fault.dtype, folder)
        observed, repeated = (run.to_baseline(None) for run in fault.observe(setting))
        found = classify(golden, observed, repeated=repeated)
        yield Verdict(subject.name, fault, found, _differs(golden, observed))


def _differs(golden: Baseline, observed: Baseline) -> bool:
    if not golden.same_decisions(observed):
        return True
    evidences = [baseline.sequences[0].evidence for baseline in (golden, observed)]
    one, other = (evidence.logits_digests for evidence in evidences if evidence is not None)
    return not np.array_equal(one, other)


def _with_prompt(change: Callable[[Setting], Ids], setting: Setting) -> tuple[Run, ...]:
    return setting.twice(prompt=change(setting))


def _with_arguments(setting: Setting, **changes: Any) -> tuple[Run, ...]:
    return setting.twice(arguments=replace(setting.arguments, **changes))


def _with_folder(name: str, change: Callable[[Path], None], setting: Setting) -> tuple[Run, ...]:
    return setting.twice(loaded=setting.subject.loaded(setting.dtype, setting.subject.changed(name, change)))


def _within(within: Within, setting: Setting) -> tuple[Run, ...]:
    return setting.twice(within=within)


def _other_template(setting: Setting) -> Ids:
    return [setting.prompt[-1], *setting.prompt]


def _other_token(setting: Setting) -> Ids:
    return [setting.prompt[0] + 1, *setting.prompt[1:]]


def _other_tokenizer(setting: Setting) -> tuple[Run, ...]:
    """Run a model whose tokenizer has two pieces exchanged."""
    folder = setting.subject.changed("tokenizer", _exchange_pieces)
    sound, changed = setting.loaded.tokenizer, setting.subject.loaded(setting.dtype, folder)
    assert sound is not None
    assert changed.tokenizer is not None
    return setting.twice(loaded=changed, prompt=changed.tokenizer.encode(sound.decode(setting.prompt)))


def _exchange_pieces(folder: Path) -> None:
    file = folder / "tokenizer.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    vocabulary = document["model"]["vocab"]
    vocabulary["e"], vocabulary["1"] = vocabulary["1"], vocabulary["e"]
    file.write_text(json.dumps(document), encoding="utf-8")


def _reweighted(change: Callable[[Tensors], None]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return write


def _one_ulp(tensors: Tensors) -> None:
    weight = tensors[f"model.transformer.blocks.{_LAYER}.q_proj.weight"]
    weight[3, 4] = torch.nextafter(weight[3, 4], torch.tensor(torch.inf, dtype=weight.dtype))


def _twins(tensors: Tensors) -> None:
    weight = tensors["model.transformer.ff_out.weight"]
    weight[1::2] = weight[: len(weight) // 2 * 2 : 2]


def _int8(tensors: Tensors) -> None:
    for name, weight in tensors.items():
        if weight.dim() == 2:
            scale = weight.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / 127
            tensors[name] = ((weight / scale).round() * scale).to(weight.dtype).contiguous()


def _scaled_layer(tensors: Tensors) -> None:
    for name, weight in tensors.items():
        if f"blocks.{_LAYER}.ff_out." in name:
            weight *= 1.01


@contextmanager
def _hooked(change: Callable[[Tensor], Tensor], loaded: LoadedModel) -> Iterator[None]:
    """Change what one layer returns."""
    layer = loaded.model.model.transformer.blocks[_LAYER]
    handle = layer.register_forward_hook(lambda _module, _inputs, output: change(output))
    try:
        yield
    finally:
        handle.remove()


def _one_nan(output: Tensor) -> Tensor:
    output = output.clone()
    output[:, -1, 0] = torch.nan
    return output


@contextmanager
def _other_epsilon(loaded: LoadedModel) -> Iterator[None]:
    norms = [module for module in loaded.model.modules() if isinstance(module, RMSNorm)]
    with ExitStack() as undo:
        for norm in norms:
            undo.enter_context(patch.object(norm, "eps", 1e-3))
        yield


@contextmanager
def _dropout_on(loaded: LoadedModel) -> Iterator[None]:
    """Let every layer drop a tenth of what it returns, as in training."""

    def drop(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        return functional.dropout(output, 0.1, training=True)

    handles = [layer.register_forward_hook(drop) for layer in loaded.model.model.transformer.blocks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _generator_noise(arguments: SamplerArguments, canvas: Tensor, _mask: Tensor | None) -> UpstreamNoise:
    """Draw from torch's generator under the seed of the run, which has the portable numbers."""
    assert arguments.seed is not None
    shape = (canvas.shape[0], canvas.shape[1])
    return UpstreamNoise(shape, canvas.device, torch.Generator(canvas.device).manual_seed(arguments.seed))


def _rightmost(confidence: Tensor, count: int) -> Tensor:
    """Select as `select_stable` does, but the rightmost of equals."""
    order = torch.sort(confidence.flip(-1), dim=-1, descending=True, stable=True).indices
    return (confidence.shape[-1] - 1 - order)[:, :count]


def _lowest(confidence: Tensor, count: int) -> Tensor:
    """Select the candidates of lowest confidence."""
    lifted = confidence.masked_fill(confidence.isneginf(), torch.inf)
    return torch.sort(lifted, dim=-1, stable=True).indices[:, :count]


def _last_argmax(tensor: Tensor, dim: int = -1) -> Tensor:
    """Return the last index of the largest value."""
    return tensor.shape[dim] - 1 - torch.argmax(tensor.flip(dim), dim=dim)


def _decide_with_last_argmax(*given: Any) -> decision.Decision:
    with patch.object(torch.Tensor, "argmax", _last_argmax):
        return decision.decide(*given)


def _quota_off_by_one(arguments: SamplerArguments) -> tuple[int, ...]:
    """Commit one more than planned at the first step of a block, which the last one lacks."""
    base, rest = divmod(arguments.block_length, arguments.steps_per_block)
    quotas = [base + (step < rest) for step in range(arguments.steps_per_block)]
    quotas[0] += 1
    quotas[-1] -= 1
    return tuple(quotas)


def _decide_without_eos_options(*given: Any) -> decision.Decision:
    *before, arguments, noise, unlikely = given
    plain = replace(arguments, logits_eos_inf=False, confidence_eos_eot_inf=False)
    return decision.decide(*before, plain, noise, unlikely)


def _coarse_confidence(logits: Tensor, tokens: Tensor) -> Tensor:
    return torch.softmax(logits.bfloat16(), dim=-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)


@contextmanager
def _one_step_short(_loaded: LoadedModel) -> Iterator[None]:
    """End the loop one step early, and say so."""
    planned, cut = llada.schedule, llada._trajectories
    with (
        patch.object(llada, "schedule", lambda *given: planned(*given)[:-1]),
        patch.object(llada, "_trajectories", lambda *given: cut(*given[:-1], steps=len(given[-2]))),
    ):
        yield


def _patched(target: object, name: str, value: object) -> Within:
    return lambda _loaded: patch.object(target, name, value)


def _selecting(select: decision.Select) -> Within:
    return lambda _loaded: patch.dict(decision.SELECT, {"stable": select})


def _elsewhere(within: Within, setting: Setting) -> tuple[Run, ...]:
    """Run with another attention backend too, so that no logit is the golden's."""
    return setting.twice(within=within, attention="flash")


def _in_bfloat16(setting: Setting) -> tuple[Run, ...]:
    return setting.twice(loaded=setting.subject.loaded("bfloat16"))


# Many candidates at once, so that some tie.
_WIDE = {"gen_length": 64, "block_length": 64, "steps": 16}
_DRAWN = {"temperature": 0.8}
_GENERATOR = partial(_within, _patched(llada, "noise_for", _generator_noise))

# What is done to the sampler, and the arguments under which it can show.
_IN_THE_SAMPLER: Mapping[str, tuple[Within, Mapping[str, Any]]] = {
    "the lowest confidences are taken": (_selecting(_lowest), {}),
    "quota off by one": (_patched(SamplerArguments, "quotas", _quota_off_by_one), {}),
    **{
        f"{option} ignored": (_patched(llada, "decide", _decide_without_eos_options), {option: True})
        for option in ("logits_eos_inf", "confidence_eos_eot_inf")
    },
    "confidences computed in bfloat16": (_patched(decision, "confidence_of", _coarse_confidence), {}),
}

FAULTS: tuple[Fault, ...] = (
    Fault("another prompt template", ("INPUT",), partial(_with_prompt, _other_template)),
    Fault("another token in the prompt", ("INPUT",), partial(_with_prompt, _other_token)),
    Fault("another tokenizer", ("INPUT",), _other_tokenizer, needs_tokenizer=True),
    Fault("steps + 1", ("CONFIG",), partial(_with_arguments, steps=9), golden={"block_length": 16}),
    Fault("another block length", ("CONFIG",), partial(_with_arguments, block_length=16)),
    Fault("another temperature", ("CONFIG",), partial(_with_arguments, temperature=0.5)),
    Fault("guidance", ("CONFIG",), partial(_with_arguments, cfg_scale=0.5)),
    Fault("another remasking", ("CONFIG",), partial(_with_arguments, remasking="random")),
    Fault("another seed", ("CONFIG",), partial(_with_arguments, seed=1)),
    Fault("one weight + 1 ulp", ("WEIGHTS",), partial(_with_folder, "ulp", _reweighted(_one_ulp))),
    Fault("weights rounded to int8", ("WEIGHTS",), partial(_with_folder, "int8", _reweighted(_int8))),
    Fault("one layer's weights x 1.01", ("WEIGHTS",), partial(_with_folder, "scaled", _reweighted(_scaled_layer))),
    Fault("a NaN in one layer", ("NON_FINITE",), partial(_within, partial(_hooked, _one_nan))),
    Fault("dropout left on", ("RUN_TO_RUN",), partial(_within, _dropout_on)),
    Fault("equal seed, another generator for tokens", ("RNG",), _GENERATOR, golden=_DRAWN),
    Fault("equal seed, another generator for positions", ("RNG",), _GENERATOR, golden={"remasking": "random"}),
    Fault(
        "ties of positions reversed",
        ("TIE_BREAK",),
        partial(_within, _selecting(_rightmost)),
        golden=_WIDE,
        dtype="bfloat16",
    ),
    Fault(
        "ties of tokens reversed",
        ("TIE_BREAK",),
        partial(_within, _patched(llada, "decide", _decide_with_last_argmax)),
        # Exact ties of tokens are too rare to be met: this head has every second row twice.
        checkpoint=("twins", _reweighted(_twins)),
    ),
    *(
        Fault(name, ("LOGIC",), partial(_within, within), golden=golden)
        for name, (within, golden) in _IN_THE_SAMPLER.items()
    ),
    *(
        Fault(f"{name}, another backend", ("LOGIC",), partial(_elsewhere, within), golden=golden)
        for name, (within, golden) in _IN_THE_SAMPLER.items()
    ),
    Fault("one layer's output x 1.01", ("NUMERIC",), partial(_within, partial(_hooked, lambda output: output * 1.01))),
    Fault("RMSNorm epsilon 1e-5 -> 1e-3", ("NUMERIC",), partial(_within, _other_epsilon)),
    Fault("another attention backend", ("IDENTICAL", "DRIFT"), lambda setting: setting.twice(attention="flash")),
    # Drift where no decision differs.
    Fault("bfloat16 against float32", ("NEAR_TIE", "NUMERIC", "DRIFT"), _in_bfloat16),
    Fault("the last step is missing", ("LENGTH",), partial(_within, _one_step_short)),
)
