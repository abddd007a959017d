"""The `difftrace` command, from its own help."""

from __future__ import annotations

import textwrap

import click

from difftrace.cli import group
from reference_pages.markdown import fence, prose

# In the help of click, this alone on a line keeps the paragraph below as it is.
_VERBATIM = "\b"


def page() -> str:
    """Return the page."""
    context = click.Context(group, info_name="difftrace", **group.context_settings)
    lines = ["# The `difftrace` command", ""]
    lines += _help(group.help or "")
    names = group.list_commands(context)
    for name in names:
        command = group.get_command(context, name)
        assert command is not None, name
        below = click.Context(command, info_name=name, parent=context)
        lines += [f"## difftrace {name}", ""]
        lines += fence("text", [" ".join(["difftrace", name, *command.collect_usage_pieces(below)])])
        lines += _help(command.help or "")
        lines += ["**Options**", "", *_options(command, below), ""]
    return "\n".join(lines)


def _help(text: str) -> list[str]:
    lines: list[str] = []
    for paragraph in text.split("\n\n"):
        first, _, rest = paragraph.strip("\n").partition("\n")
        if first.strip() == _VERBATIM:
            lines += _verbatim(rest.splitlines())
        else:
            lines += [prose(paragraph), ""]
    return lines


def _verbatim(block: list[str]) -> list[str]:
    head, body = block[0].strip(), textwrap.dedent("\n".join(block[1:])).splitlines()
    if head == "Examples:":
        return ["**Examples**", "", *fence("console", body)]
    if head.endswith(":"):
        return [prose(head), "", *fence("console", body)]
    return fence("text", [line.strip() for line in block])


def _options(command: click.Command, context: click.Context) -> list[str]:
    lines = []
    for parameter in command.params:
        record = parameter.get_help_record(context)
        if record is not None and isinstance(parameter, click.Option):
            lines.append(f"- `{record[0]}`: {prose(record[1])}")
    return lines
