"""vLLM's dllm-plugin (vllm-project/dllm-plugin, dllm_plugin/remasking): `RemaskingPolicy.apply` makes a block's step.

What is recorded is the policy, in the worker's process, with the mask's id:
`difftrace.record(policy, engine="vllm", mask_id=…)`. A policy is not told whose block it is given, so requests have to
come one after the other (max_num_seqs=1). The canvas is the request's blocks; its prompt lies outside.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch

from difftrace.capture.adapter import LoopAdapter
from difftrace.capture.blocks import Blocks
from difftrace.capture.callers import file_of_class
from difftrace.capture.methods import replaced
from difftrace.capture.tape import Tape
from difftrace.core.errors import CaptureError

_GIVE = "the RemaskingPolicy of the worker (pip install vllm dllm-plugin), in the worker's process"


class VLLMAdapter(LoopAdapter):
    """Listens to `apply(input_draft=…, logits=…)`; a token that is filled in stays."""

    name = "vllm"
    rewrites = False

    def matches(self, target: Any) -> bool:
        """A policy by the name of its class."""
        return type(target).__name__.endswith("RemaskingPolicy") and callable(getattr(target, "apply", None))

    def attach(self, target: Any, tape: Tape) -> AbstractContextManager[None]:
        """Replace the policy's `apply`."""
        # A model has a method of this name too.
        if not hasattr(target, "apply") or "input_draft" not in inspect.signature(target.apply).parameters:
            raise CaptureError(f"{type(target).__name__} has no apply(input_draft=…) to record: give {_GIVE}")
        return _listening(target, tape)


@contextmanager
def _listening(target: Any, tape: Tape) -> Iterator[None]:
    # Its steps are told when the recording ends, by which time nobody calls it any more.
    tape.caller = file_of_class(target)
    blocks = Blocks()
    drafts: list[Sequence[int]] = []
    masks: list[int] = []

    def around(apply: Callable[..., Any]) -> Callable[..., Any]:
        def listening(*args: Any, input_draft: Sequence[int], **kwargs: Any) -> Any:
            tape.claim()
            if drafts and list(drafts[-1]) != list(input_draft):
                raise CaptureError(
                    "the policy is given a block that is not what it returned last: blocks of several requests cannot "
                    "be told apart, so run one request at a time (max_num_seqs=1), in a recording of its own"
                )
            result = apply(*args, input_draft=input_draft, **kwargs)
            committed, following = result.committed_token_ids, result.next_input_block
            blocks.step(_row(input_draft), _row(committed or following))
            drafts.append(following)
            if committed:
                # What comes next is masks alone.
                masks[:] = following[:1]
                blocks.begin()
            return result

        return listening

    with replaced(target, "apply", around, _GIVE):
        yield
    # Without it there is one block, and nothing behind it.
    blocks.tell(tape, int(masks[0]) if masks else 0)


def _row(tokens: Sequence[int]) -> torch.Tensor:
    return torch.tensor([list(tokens)])


ADAPTER = VLLMAdapter()
