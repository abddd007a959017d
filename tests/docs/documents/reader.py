"""Somebody who follows a page from top to bottom, in a folder of their own."""

from __future__ import annotations

import os
import shlex
import string
import subprocess
import sys
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

from documents.blocks import Block, shown_in

# Runs a program with its arguments and returns (exit status, output).
Program = Callable[[list[str]], tuple[int, str]]

# What else a page may run: it changes nothing outside the page's folder.
_SHELL = frozenset({"cp", "echo", "git", "ls"})


class Reader:
    """Runs the blocks of one page; what a block leaves behind, names and files, is there for the next."""

    def __init__(self, folder: Path, programs: dict[str, Program]) -> None:
        self._folder = folder
        self._programs = programs
        self._module = ModuleType("page")
        self._variables: dict[str, str] = {}
        self._output: str | None = None
        self.unread: set[str] = set()  # test files that no pytest command has run yet

    def read(self, page: Path, block: Block) -> None:
        """Run one block; fails where it does not do what the page says."""
        where = f"{page.name}:{block.line}"
        if block.is_output:
            assert self._output is not None, f"{where}: nothing was run that could have printed this"
            assert shown_in(block, self._output), f"{where}: this was printed instead:\n{self._output}"
        elif block.file_name is not None:
            self._keep(block.file_name, block.text)
        elif block.language == "python":
            self._run(block)
        elif block.language == "console":
            self._output = self._console(where, block)
        else:
            raise AssertionError(f"{where}: nothing is done with a block of {block.language}: say what it is above it")

    def _run(self, block: Block) -> None:
        """Run Python in the page's one module, from a file whose lines are numbered as the page's are."""
        path = self._folder / ".page" / f"line_{block.line}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n" * block.line + block.text, encoding="utf-8")
        SourceFileLoader("page", str(path)).exec_module(self._module)

    def _keep(self, name: str, text: str) -> None:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        if path.name.startswith("test_"):
            self.unread.add(name)

    def _console(self, where: str, block: Block) -> str:
        commands = [line for line in block.text.replace("\\\n", " ").splitlines() if shlex.split(line, comments=True)]
        printed = []
        for number, command in enumerate(commands, 1):
            status, output = self._command(command)
            expected = block.status if number == len(commands) else 0
            assert status == expected, f"{where}: {command}\nended with {status}, not {expected}:\n{output}"
            printed.append(output)
        return "".join(printed)

    def _command(self, command: str) -> tuple[int, str]:
        words = shlex.split(string.Template(command).safe_substitute(self._variables), comments=True)
        name, equals, value = words[0].partition("=")
        if equals and name.isidentifier() and len(words) == 1:
            self._variables[name] = value
            return 0, ""
        program = self._programs.get(words[0])
        assert program is not None or words[0] in _SHELL, f"{command}: say why it is not run"
        if program is None or any(sign in command.partition("#")[0] for sign in "|>;&"):
            return self._shell(command)
        if "pytest" in words[:3]:
            self.unread.clear()
        return program([one for word in words[1:] for one in self._expanded(word)])

    def _expanded(self, word: str) -> list[str]:
        matches = sorted(self._folder.glob(word)) if "*" in word else []
        return [str(one.relative_to(self._folder)) for one in matches] or [word]

    def _shell(self, command: str) -> tuple[int, str]:
        environment = {
            **os.environ,
            **self._variables,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "GIT_CONFIG_GLOBAL": os.devnull,
        }
        done = subprocess.run(
            ["bash", "-ec", command], cwd=self._folder, env=environment, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout + done.stderr
