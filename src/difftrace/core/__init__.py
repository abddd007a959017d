"""Trajectories, their encoding, the baseline file and comparison: numpy, zstandard and jsonschema, never
torch."""
