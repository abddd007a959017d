"""What a run is held to, and what it ran on.

Nothing is imported here: the table of profiles has to be readable before torch is imported. The public names are at
the top of the package (`difftrace.enforce`, `difftrace.status`, …).
"""
