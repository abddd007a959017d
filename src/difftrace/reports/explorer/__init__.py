"""The explorer: checks and their trajectories as one HTML file that opens from disk and loads nothing.

`page` puts the file together, `details` says what is known of a check, `sides` what its runs decided, `packing` how
that travels in the file; `assets/` holds the page, its style and its script.
"""

from difftrace.reports.explorer.entry import Entry
from difftrace.reports.explorer.page import explorer_page

__all__ = ["Entry", "explorer_page"]
