"""The explorer: checks and their trajectories as one HTML file that opens from disk and loads nothing.

`sources` reads reports and baselines into entries, `page` puts the file together, `details` says what it holds of a
check, `sides` what of its runs, `packing` how that travels in it; `assets/` has the page's frame, style and script.
"""

from difftrace.reports.explorer.entry import Entry, Parting, Verdict
from difftrace.reports.explorer.page import explorer_page, is_explorer_page

__all__ = ["Entry", "Parting", "Verdict", "explorer_page", "is_explorer_page"]
