"""A pytest plugin that plays the bug: GELU where the feed-forward layers should have SiLU.

    pytest -p broken_kernel --difftrace-verify

The two functions are close enough that the answer stays right, so a test of the text alone passes. The
trajectory tells them apart.
"""

import pytest


@pytest.fixture(autouse=True)
def broken_kernel(monkeypatch):
    from torch.nn import functional

    monkeypatch.setattr(functional, "silu", functional.gelu)
