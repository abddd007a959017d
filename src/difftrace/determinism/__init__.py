"""What a run is held to, and what it ran on."""

from difftrace.determinism.digest import checkpoint_digest, digest
from difftrace.determinism.enforcement import enforce
from difftrace.determinism.environment import fingerprint, platform_key

__all__ = ["checkpoint_digest", "digest", "enforce", "fingerprint", "platform_key"]
