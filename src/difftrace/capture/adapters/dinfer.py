"""dInfer (inclusionAI/dInfer, python/dinfer/decoding): whichever way a block was scored, a decoder decides.

What is recorded is the decoder: `difftrace.record(decoder, engine="dinfer")`. Each `decode` is a step. What is written
between two of them, such as the EOS behind the end of a row, belongs to the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from torch import Tensor

from difftrace.capture.adapter import Final, LoopAdapter
from difftrace.capture.methods import replaced
from difftrace.capture.tape import Tape

_GIVE = "the ParallelDecoder that dInfer's generate decodes with (pip install dinfer)"


class DInferAdapter(LoopAdapter):
    """Listens to `decode(logits, block_start, block_end, x)`; decoders may mask tokens again."""

    name = "dinfer"
    rewrites = True

    def matches(self, target: Any) -> bool:
        """A decoder by its class's bases."""
        return any(base.__name__ == "ParallelDecoder" for base in type(target).__mro__)

    def finals(self, output: Any) -> Sequence[Final] | None:
        """Return the rows of a batch, which is whole; a single row has lost its EOS, wherever they were."""
        found = super().finals(output)
        return [Final(found[0].tokens, thinned=True)] if found is not None and len(found) == 1 else found

    def attach(self, target: Any, tape: Tape) -> AbstractContextManager[None]:
        """Replace the decoder's `decode`."""
        return _listening(target, tape)


@contextmanager
def _listening(target: Any, tape: Tape) -> Iterator[None]:
    before: list[Tensor] = []
    canvas: list[Any] = []

    def around(decode: Callable[..., Any]) -> Callable[..., Any]:
        def listening(logits: Any, block_start: int, block_end: int, x: Any, *args: Any, **kwargs: Any) -> Any:
            tape.claim()
            now = _ids(x)
            if before:
                tape.add_step(before[-1], now, None)
            before[:], canvas[:] = [now], [x]
            return decode(logits, block_start, block_end, x, *args, **kwargs)

        return listening

    with replaced(target, "decode", around, _GIVE):
        yield
    if before:
        tape.add_step(before[-1], _ids(canvas[-1]), None)


def _ids(x: Any) -> Tensor:
    """Return a copy of the canvas [B, L] in dInfer's array of tokens, or in a tensor."""
    ids: Tensor = x.data
    return ids.detach().clone()


ADAPTER = DInferAdapter()
