"""Every command explains itself: examples, exit statuses, completion."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable

import click
import pytest

from difftrace import cli

Command = Callable[..., tuple[int, str, str]]

COMMANDS = cli.group.list_commands(click.Context(cli.group))


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_examples_and_the_exit_statuses(difftrace: Command, name: str) -> None:
    for option in ("--help", "-h"):
        status, out, err = difftrace(name, option)
        assert (status, err) == (0, "")
    examples = re.search(r"^ *Examples:\n((?: {4,}(?:difftrace|pytest) .*\n)+)", out, re.MULTILINE)
    assert examples is not None, f"{name} shows no examples"
    lines = [line.strip() for line in examples[1].splitlines()]
    assert any(line.startswith(f"difftrace {name}") for line in lines)
    assert re.search(r"^ *Exit status:\s+[01] .*2\s", out, re.MULTILINE | re.DOTALL), f"{name} hides its exit statuses"


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_use_options_that_there_are(name: str) -> None:
    command = cli.group.get_command(click.Context(cli.group), name)
    assert command is not None
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    for line in re.findall(rf"difftrace {name} .*", command.help or ""):
        own = line.partition("|")[0].partition(">")[0]
        assert set(re.findall(r"(?<=\s)--[\w-]+", own)) <= known | {"--textconv"}, line


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_speaks_json(name: str) -> None:
    command = cli.group.get_command(click.Context(cli.group), name)
    assert command is not None
    options = {option for parameter in command.params for option in parameter.opts}
    assert "--json" in options


def completed(words: str) -> list[str]:
    variables = {"_DIFFTRACE_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    return complete(variables).split()


def complete(variables: dict[str, str]) -> str:
    program = (
        "import sys\n"
        "from difftrace.cli import main\n"
        "try:\n    main()\nfinally:\n    assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **variables},
    )
    assert done.stderr == ""
    return done.stdout


def test_commands_and_options_are_completed_without_importing_torch() -> None:
    assert completed("difftrace va") == ["plain,validate"]
    assert completed("difftrace show --te") == ["plain,--textconv"]
    assert [line.partition(",")[2] for line in completed("difftrace ")] == COMMANDS


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_there_is_a_script_for_every_shell(shell: str) -> None:
    assert "_DIFFTRACE_COMPLETE" in complete({"_DIFFTRACE_COMPLETE": f"{shell}_source"})


@pytest.mark.skipif(os.name == "nt", reason="asks the bash at hand for its version")
def test_there_is_a_script_for_bash() -> None:
    assert "complete -o nosort" in complete({"_DIFFTRACE_COMPLETE": "bash_source"})


def test_the_help_says_how_completion_is_set_up(difftrace: Command) -> None:
    out = difftrace("--help")[1]
    for shell in ("bash", "zsh", "fish"):
        assert f"_DIFFTRACE_COMPLETE={shell}_source difftrace" in out
