"""DiffusionGemma under transformers' `generate` (models/diffusion_gemma/generation_diffusion_gemma.py).

Blocks of random tokens are rewritten at every step, nearly all positions of them, while an encoder holds what comes
before. There is no mask. A block ends as the best tokens of its last step: the encoder is shown them before the next
block begins, and the engine returns them. The canvas here is all blocks; the prompt lies outside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

from torch import Tensor

from difftrace.capture.adapter import Forward, Look, LoopAdapter
from difftrace.capture.forward import wrapped
from difftrace.capture.tape import Tape
from difftrace.core.errors import CaptureError

_ENCODED: Final = "encoded"

# Where `generate` keeps its compiled decoder.
_COMPILED: Final = "_compiled_decoder_forward"
_USE_ANOTHER: Final = (
    "generate compiles the model for a static cache, and the calls of compiled code cannot be recorded: pass "
    "disable_compile=True, or leave cache_implementation out"
)


class DiffusionGemmaAdapter(LoopAdapter):
    """Reads `generate`, and loops that call encoder and decoder as it does."""

    name = "diffusion_gemma"

    def matches(self, target: Any) -> bool:
        """`DiffusionGemmaForBlockDiffusion`."""
        return getattr(getattr(target, "config", None), "model_type", None) == "diffusion_gemma"

    def mask_id(self, target: Any) -> int | None:
        """None: canvases begin as random tokens."""
        return None

    def attach(self, target: Any, tape: Tape) -> AbstractContextManager[None]:
        """Wrap the `forward` of the model, which denoises, and of its encoder, which is shown finished blocks."""
        return _attached(target, tape, self)

    def decides(self, forwards: Sequence[Forward], mask_id: int | None) -> Sequence[bool]:
        """Calls of the decoder."""
        return [_ENCODED not in forward.facts for forward in forwards]


@contextmanager
def _attached(target: Any, tape: Tape, adapter: DiffusionGemmaAdapter) -> Iterator[None]:
    encoder = getattr(getattr(target, "model", None), "encoder", None)
    if encoder is None:
        raise CaptureError(f"{type(target).__name__} has no model.encoder: give the model whose generate is called")
    text = _Text(target)
    before = vars(target).get(_COMPILED)
    try:
        with wrapped(encoder, tape, text.encoded), wrapped(target, tape, text.denoised, adapter.logits):
            yield
    finally:
        if before is None:
            # It was compiled around the wrapper.
            vars(target).pop(_COMPILED, None)
    if text.encodings and not text.denoisings:
        raise CaptureError(f"the encoder of {tape.name} was called, its decoder was not: {_USE_ANOTHER}")


class _Text:
    """How long the encoded text is, which is where the canvas window of the next denoising call starts."""

    def __init__(self, target: Any) -> None:
        self.encodings = 0
        self.denoisings = 0
        self._target = target
        self._compiled = vars(target).get(_COMPILED)
        self._cache: Any = None
        self._length = 0
        self._prompt: Tensor | None = None

    def encoded(self, arguments: Mapping[str, Any]) -> Look | None:
        """Take a call of the encoder: of the prompt first, later of blocks that are finished."""
        ids, cache = arguments.get("input_ids"), arguments.get("past_key_values")
        if not isinstance(ids, Tensor):
            raise CaptureError("the encoder is called without token ids (input_ids), so the prompt is not known")
        if vars(self._target).get(_COMPILED) is not self._compiled:
            raise CaptureError(_USE_ANOTHER)
        self.encodings += 1
        known = self._length if cache is not None and cache is self._cache else 0
        self._cache, self._length = cache, known + ids.shape[-1]
        if self._prompt is None:
            self._prompt = ids.detach().clone()
            return None
        prompt = self._prompt.shape[-1]
        if self._length < prompt:
            raise CaptureError("another, shorter prompt was encoded: record one run at a time")
        shown = ids[:, max(0, prompt - known) :]
        return Look(shown, max(0, known - prompt), facts={_ENCODED: True}) if shown.shape[-1] else None

    def denoised(self, arguments: Mapping[str, Any]) -> Look:
        """Take a call of the decoder."""
        ids = arguments.get("decoder_input_ids")
        if not isinstance(ids, Tensor):
            raise CaptureError("the model is called without the canvas (decoder_input_ids), which then is not known")
        self.denoisings += 1
        prompt, length = self._prompt, self._length
        given = arguments.get("input_ids")
        if isinstance(given, Tensor):
            # The encoder is about to be called, inside this call.
            known = self._length if arguments.get("past_key_values") is self._cache is not None else 0
            length = known + given.shape[-1]
            prompt = given if prompt is None else prompt
        start = 0 if prompt is None else length - prompt.shape[-1]
        return Look(ids, start, prompt=prompt)


ADAPTER = DiffusionGemmaAdapter()
