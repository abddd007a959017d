"""Bar charts as SVG, without a plotting library."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from difftrace.core.atomic import write_atomically

_WIDTH, _LEFT, _BAR, _GAP, _HEAD = 760, 300, 22, 8, 56
_FONT = 'font-family="sans-serif" font-size="13"'
_OURS, _PAPER = "#2f6fb2", "#b9bec6"


@dataclass(frozen=True)
class Bar:
    """One bar; `ours` says whose it is, which is its colour."""

    label: str
    value: float
    ours: bool = True


def add_svg_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the file of a chart."""
    parser.add_argument("--svg", type=Path, metavar="FILE", help="also draw the figures into FILE")


def draw(file: Path | None, title: str, unit: str, bars: Sequence[Bar], machine: Mapping[str, object]) -> None:
    """Write a chart of horizontal bars from zero, all of one `unit`; nothing without a file."""
    if file is None:
        return
    most = max(bar.value for bar in bars)
    height = _HEAD + len(bars) * (_BAR + _GAP) + 34
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" {_FONT}>',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        f'<text x="16" y="26" font-size="16" font-weight="bold">{escape(title)}</text>',
        f'<text x="16" y="44" fill="#555">{escape(unit)}; blue: this library, grey: the paper</text>',
    ]
    for index, bar in enumerate(bars):
        top = _HEAD + index * (_BAR + _GAP)
        width = max(1.0, (_WIDTH - _LEFT - 110) * bar.value / most)
        middle = top + _BAR * 0.7
        lines += [
            f'<text x="{_LEFT - 8}" y="{middle:.1f}" text-anchor="end">{escape(bar.label)}</text>',
            f'<rect x="{_LEFT}" y="{top}" width="{width:.1f}" height="{_BAR}" fill="{_OURS if bar.ours else _PAPER}"/>',
            f'<text x="{_LEFT + width + 6:.1f}" y="{middle:.1f}">{_shown(bar.value)}</text>',
        ]
    where = escape(", ".join(f"{key} {value}" for key, value in machine.items()))
    lines += [f'<text x="16" y="{height - 12}" font-size="11" fill="#555">{where}</text>', "</svg>"]
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, ("\n".join(lines) + "\n").encode())


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
