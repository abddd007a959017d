"""The pytest side of DiffTrace: options, fixtures, baselines beside the tests, and what is said about them."""
