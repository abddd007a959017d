"""A pytest plugin that plays the bug: the feed-forward activation replaced by a cheaper look-alike.

    pytest -p broken_kernel --difftrace-verify

Hard-swish follows SiLU closely enough that the text may still read well; the trajectory tells them apart.
"""

import pytest


@pytest.fixture(autouse=True)
def broken_kernel(monkeypatch):
    from torch.nn import functional

    monkeypatch.setattr(functional, "silu", functional.hardswish)
