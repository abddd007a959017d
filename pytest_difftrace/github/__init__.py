"""The GitHub Action's own work: inputs, installation, environment, checks before the run, pytest, outputs.

`action.yml` runs `python -m pytest_difftrace.github`. Nothing here imports torch, and what comes before the
installation nothing but Python's own library.
"""
