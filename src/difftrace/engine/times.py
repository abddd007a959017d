"""Times as the paper's interface gives them, in nanoseconds."""

from __future__ import annotations

import operator
from datetime import datetime, timedelta, timezone
from typing import Final

from difftrace.core.errors import EngineError
from difftrace.core.text import printable

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)


def query_times(time_range: tuple[int, int]) -> tuple[datetime, datetime]:
    """Return a range of nanoseconds as the beginning and the end of a query, which does not belong to it.

    Raises:
        EngineError: it is no pair of integers, or beyond the years 1 to 9999.
    """
    try:
        since, until = (timedelta(microseconds=operator.index(nanoseconds) // 1000) for nanoseconds in time_range)
        return _EPOCH + since, _EPOCH + until + timedelta(microseconds=1)
    except (TypeError, ValueError, OverflowError) as error:
        raise EngineError(
            f"time_range is {printable(repr(time_range))}; it must be two integers, nanoseconds since 1970 within the"
            f" years 1 to 9999 ({error})"
        ) from None
