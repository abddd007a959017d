"""DiffTrace: reproducibility testing for diffusion language models.

Names are imported when first used, so that `import difftrace` costs next to nothing and reading a baseline
needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# PyPI knows an unrelated project under the import name `difftrace`; the plugin tells the two apart by this.
__distribution__ = "pytest-difftrace"

if TYPE_CHECKING:
    from difftrace.capture.recorder import record
    from difftrace.core.baseline import Baseline, load
    from difftrace.core.classification import Classification, classify
    from difftrace.core.comparison import Divergence, compare
    from difftrace.core.environments import Comparability, comparable
    from difftrace.core.errors import DiffTraceError
    from difftrace.core.replay import Replay, replay
    from difftrace.core.trajectory import Trajectory
    from difftrace.determinism.digest import checkpoint_digest, digest
    from difftrace.determinism.enforcement import enforce
    from difftrace.determinism.environment import fingerprint
    from difftrace.determinism.scan import scan
    from difftrace.determinism.status import status

_HOMES = {
    "Baseline": "difftrace.core.baseline",
    "Classification": "difftrace.core.classification",
    "Comparability": "difftrace.core.environments",
    "DiffTraceError": "difftrace.core.errors",
    "Divergence": "difftrace.core.comparison",
    "Replay": "difftrace.core.replay",
    "Trajectory": "difftrace.core.trajectory",
    "checkpoint_digest": "difftrace.determinism.digest",
    "classify": "difftrace.core.classification",
    "comparable": "difftrace.core.environments",
    "compare": "difftrace.core.comparison",
    "digest": "difftrace.determinism.digest",
    "enforce": "difftrace.determinism.enforcement",
    "fingerprint": "difftrace.determinism.environment",
    "load": "difftrace.core.baseline",
    "record": "difftrace.capture.recorder",
    "replay": "difftrace.core.replay",
    "scan": "difftrace.determinism.scan",
    "status": "difftrace.determinism.status",
}

__all__ = [
    "Baseline",
    "Classification",
    "Comparability",
    "DiffTraceError",
    "Divergence",
    "Replay",
    "Trajectory",
    "__version__",
    "checkpoint_digest",
    "classify",
    "comparable",
    "compare",
    "digest",
    "enforce",
    "fingerprint",
    "load",
    "record",
    "replay",
    "scan",
    "status",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'difftrace' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
