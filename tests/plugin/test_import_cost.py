"""Having the plugin installed loads nothing heavy into suites that do not use it."""

from __future__ import annotations

import json

HEAVY = ("torch", "transformers", "numpy", "jsonschema", "click", "zstandard", "difftrace")


def test_a_suite_without_our_fixtures_loads_nothing_heavy(pytester):
    pytester.makepyfile("def test_plain(): pass")
    pytester.makeconftest(
        f"""
        import json, sys
        def pytest_unconfigure(config):
            with open("loaded.json", "w") as file:
                json.dump([name for name in {HEAVY!r} if name in sys.modules], file)
        """
    )
    # What has to be set before torch is imported stands in tables of ours, which are light.
    for arguments, loaded in ((["--collect-only"], []), ([], []), (["--difftrace-verify"], ["difftrace"])):
        result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:hypothesispytest", *arguments)
        assert result.ret == 0
        assert json.loads((pytester.path / "loaded.json").read_text(encoding="utf-8")) == loaded
