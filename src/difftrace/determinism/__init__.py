"""What a run is held to, and what it ran on."""

from difftrace.determinism.enforcement import enforce
from difftrace.determinism.environment import fingerprint, platform_key

__all__ = ["enforce", "fingerprint", "platform_key"]
