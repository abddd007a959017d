"""Workflow commands of GitHub's runners: lines such as `::error file=…::text`. Needs nothing but Python."""

from __future__ import annotations

from collections.abc import Mapping


def command(name: str, properties: Mapping[str, str], text: str) -> str:
    """Return the workflow command `name` with `text` as its message, on one line."""
    listed = ",".join(f"{key}={escaped_property(value)}" for key, value in properties.items())
    return f"::{name}{' ' if listed else ''}{listed}::{escaped_data(text)}"


def escaped_data(text: str) -> str:
    """Return `text` as the message of a workflow command."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def escaped_property(text: str) -> str:
    """Return `text` as the value of a workflow command's property."""
    return escaped_data(text).replace(":", "%3A").replace(",", "%2C")
