"""What this machine computes of a training step, as two digests.

They are part of the committed record: it holds where they agree. So what is computed here never changes, however the
canary of runs (`difftrace.determinism.canary`) goes on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from difftrace.models.llada import LLaDAModel
from difftrace.models.reference.objective import Batch, diffusion_loss
from difftrace.models.reference.recipe import Recipe


def forward_canary() -> str:
    """Return `sha256:` over the result bits of products, attention, norms, softmax and sums in fp32."""
    total = hashlib.sha256(b"difftrace-canary-1")
    with torch.no_grad():
        for result in _probes():
            total.update(result.contiguous().numpy().tobytes())
    return f"sha256:{total.hexdigest()}"


def gradient_canary() -> str:
    """Return `sha256:` over what one step of training computes: the gradients of a small model on one batch."""
    model = LLaDAModel(Recipe(d_model=48, n_layers=1, mlp_hidden_size=80).config())
    for index, parameter in enumerate(model.parameters()):
        values = torch.arange(parameter.numel()) * (40503 + 2 * index) % 65521
        parameter.data.copy_(((values - 32760) / 327710).reshape(parameter.shape))
    ids = (torch.arange(6 * 32) * 31 % 97 + 4).reshape(6, 32)
    loss = diffusion_loss(model, Batch(ids, torch.arange(6) + 5), torch.Generator().manual_seed(0))
    total = hashlib.sha256()
    for gradient in torch.autograd.grad(loss, list(model.parameters())):
        total.update(gradient.numpy().tobytes())
    return f"sha256:{total.hexdigest()}"


def _probes() -> Iterator[Tensor]:
    left, right = _numbers(129, 515), _numbers(515, 67)
    yield left @ right
    yield functional.linear(left[:1], right.T.contiguous())
    heads = _numbers(2, 3, 37, 24)
    yield functional.scaled_dot_product_attention(heads, heads.flip(2), heads.roll(1, 3))
    yield torch.softmax(left * 9, dim=-1)
    yield torch.rsqrt(left.pow(2).mean(-1) + 1e-5)
    yield functional.silu(left)
    yield _numbers(100_003).sum()[None]
    yield torch.logsumexp(left * 9, dim=-1)


def _numbers(*shape: int) -> Tensor:
    """Fill a shape with numbers in [-1, 1] without a random generator."""
    scrambled = (torch.arange(torch.Size(shape).numel()) * 40503 + 12345) % 65521
    return ((scrambled - 32760).to(torch.float32) / 32771).reshape(shape)
