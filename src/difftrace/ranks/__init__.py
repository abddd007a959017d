"""Several processes that run one model, or the same model each: do all of them decide alike?"""

from difftrace.ranks.lockstep import Ranks, agreed, current

__all__ = ["Ranks", "agreed", "current"]
