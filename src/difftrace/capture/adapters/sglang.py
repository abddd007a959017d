"""SGLang's diffusion decoding (python/sglang/srt/dllm/algorithm): `DllmAlgorithm.step` changes the blocks of a batch.

What is recorded is the algorithm, in the process that runs the model: `difftrace.record(algorithm, engine="sglang")`.
The canvas is the decoded blocks, one behind the other; prompts that end before the first of them lie outside it. A
batch must stay together, so first-done-first-out scheduling (--dllm-fdfo) is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from torch import Tensor

from difftrace.capture.adapter import LoopAdapter
from difftrace.capture.blocks import Blocks
from difftrace.capture.callers import file_of_class
from difftrace.capture.methods import replaced
from difftrace.capture.tape import Tape
from difftrace.core.errors import CaptureError

_GIVE = "the DllmAlgorithm of the model worker (pip install sglang), in the worker's process"


class SGLangAdapter(LoopAdapter):
    """Listens to `step(forward_batch, full_logits, states)`; joint thresholds and renoising change tokens again."""

    name = "sglang"
    rewrites = True

    def matches(self, target: Any) -> bool:
        """An algorithm by its class's bases."""
        return any(base.__name__ == "DllmAlgorithm" for base in type(target).__mro__)

    def mask_id(self, target: Any) -> int | None:
        """The algorithm's."""
        found = getattr(target, "mask_id", None)
        return found if isinstance(found, int) else None

    def attach(self, target: Any, tape: Tape) -> AbstractContextManager[None]:
        """Replace the algorithm's `step`, and what begins a block."""
        if getattr(target, "fdfo", False):
            raise CaptureError(
                "rows that finish first leave the batch (--dllm-fdfo), so their blocks cannot be told apart: start "
                "SGLang without it"
            )
        return _listening(target, tape)


@contextmanager
def _listening(target: Any, tape: Tape) -> Iterator[None]:
    # Its steps are told when the recording ends, by which time nobody calls it any more.
    tape.caller = file_of_class(target)
    blocks = Blocks()

    def around_begin(begin: Callable[..., Any]) -> Callable[..., Any]:
        def listening(*args: Any, **kwargs: Any) -> Any:
            blocks.begin()
            return begin(*args, **kwargs)

        return listening

    def around_step(step: Callable[..., Any]) -> Callable[..., Any]:
        def listening(forward_batch: Any, *args: Any, **kwargs: Any) -> Any:
            tape.claim()
            before = _ids(forward_batch)
            done = step(forward_batch, *args, **kwargs)
            blocks.step(before, _ids(forward_batch))
            return done

        return listening

    with replaced(target, "init_step_state", around_begin, _GIVE), replaced(target, "step", around_step, _GIVE):
        yield
    blocks.tell(tape, target.mask_id)


def _ids(forward_batch: Any) -> Tensor:
    """Return a copy of the blocks [B, block], which lie flat in a batch's ids."""
    ids: Tensor = forward_batch.input_ids
    return ids.detach().clone().view(forward_batch.batch_size, -1)


ADAPTER = SGLangAdapter()
