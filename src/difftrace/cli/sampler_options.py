"""How prompts are to be denoised: the sampler's arguments as options."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Final

import click

from difftrace.core.prompts import OPTIONS

# Those of `difftrace.sampling.arguments`, which imports torch.
REMASKING: Final = ("low_confidence", "random")
NOISES: Final = ("portable", "upstream")
TIE_BREAKS: Final = ("stable", "upstream")

_COUNT: Final = click.IntRange(min=1)
_AMOUNT: Final = click.FloatRange(min=0)

_DECORATORS: Final = (
    click.option("--gen-length", type=_COUNT, metavar="N", help="Tokens to generate.  [default: 128]"),
    click.option("--steps", type=_COUNT, metavar="N", help="Denoising steps.  [default: one a token]"),
    click.option("--block-length", type=_COUNT, metavar="N", help="Tokens of a block.  [default: one block]"),
    click.option("--temperature", type=_AMOUNT, metavar="T", help="Of Gumbel noise.  [default: 0, none]"),
    click.option("--cfg-scale", type=_AMOUNT, metavar="S", help="Of classifier-free guidance.  [default: 0, none]"),
    click.option(
        "--remasking", type=click.Choice(REMASKING), help="What is committed first.  [default: low_confidence]"
    ),
    click.option("--logits-eos-inf", is_flag=True, default=None, help="Forbid the end of the text."),
    click.option("--confidence-eos-eot-inf", is_flag=True, default=None, help="Commit the ends of the text last."),
    click.option("--seed", type=click.IntRange(0, 2**64 - 1), metavar="N", help="Of random numbers.  [default: 0]"),
    click.option("--noise", type=click.Choice(NOISES), help="How they are made.  [default: portable]"),
    click.option("--tie-break", type=click.Choice(TIE_BREAKS), help="Which of equals comes first.  [default: stable]"),
)


def sampler_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the sampler's arguments to a command, which gets those that were given as `sampler`, by their names."""

    @wraps(command)
    def with_sampler(**values: Any) -> Any:
        given = {name: values.pop(name) for name in OPTIONS}
        return command(sampler={name: value for name, value in given.items() if value is not None}, **values)

    wrapped: Callable[..., Any] = with_sampler
    for decorate in reversed(_DECORATORS):
        wrapped = decorate(wrapped)
    return wrapped
