"""Holds `difftrace.utils.config` alone, under the name that code written for the DiffTrace paper imports."""
