"""Colour for the tree, by `rich`. Imported when colour is wanted, which fails where `rich` is missing."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TextIO

    from .tree import Line

# The sixteen standard colours only: they follow the theme of the terminal.
_STYLES = {
    "trace": "bold",
    "name": "bold",
    "guide": "bright_black",
    "dim": "bright_black",
    "note": "yellow",
    "error": "red",
    "service": "magenta",
    "kind.CLIENT": "cyan",
    "kind.SERVER": "green",
    "bar.CLIENT": "cyan",
    "bar.SERVER": "green",
}


def draw(lines: Iterable[Line], out: TextIO) -> None:
    """Write the lines to `out` in colour; whether colour is wanted has been decided before."""
    text = Text("\n").join(Text.assemble(*((part, _STYLES.get(role, "")) for part, role in line)) for line in lines)
    console = Console(file=out, force_terminal=True, force_jupyter=False, color_system="standard", no_color=False)
    # No wrapping, markup or highlighting: the layout is done and the text is not ours.
    console.print(text, soft_wrap=True, markup=False, highlight=False, emoji=False)


def to_ansi(lines: Iterable[Line]) -> str:
    """Return the lines as text with the escape codes for colour."""
    out = io.StringIO()
    draw(lines, out)
    return out.getvalue().removesuffix("\n")
