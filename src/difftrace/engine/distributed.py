"""The ranks that an engine compares its requests with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from difftrace.core.engine_config import DistributedConfig
from difftrace.core.errors import EngineError

if TYPE_CHECKING:
    from difftrace.ranks import Ranks


def agreeing_ranks(config: DistributedConfig) -> Ranks | None:
    """Return the ranks of torch.distributed's default group; None where they are not to be compared, or there is one.

    Raises:
        EngineError: there is no such group, or it has no rank that is to store.
    """
    if not config.enabled:
        return None
    # An engine of one process does without torch.
    import torch.distributed as dist

    from difftrace.ranks import current

    if not dist.is_available() or not dist.is_initialized():
        raise EngineError(
            "distributed.enabled is True, but torch.distributed has no default group; call"
            " torch.distributed.init_process_group() before the engine is made"
        )
    size = dist.get_world_size()
    if config.coordinator_rank >= size:
        raise EngineError(f"distributed.coordinator_rank is {config.coordinator_rank}, but there are {size} ranks")
    return current()
