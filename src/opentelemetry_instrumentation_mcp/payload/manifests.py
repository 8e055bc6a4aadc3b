"""Documents that say by their kind that all of their values are secret: Secrets of Kubernetes."""

from __future__ import annotations

import re

from .scan import Scan

MARK = "kind: Secret"
_KIND = re.compile(r"^[ \t-]{0,64}kind: Secret[ \t\r]*$", re.MULTILINE)
_DATA = re.compile(r"^([ \t-]{0,64})(?:data|stringData):[ \t\r]*$", re.MULTILINE)
_MEMBER = re.compile(r"[ \t]*[\"']?[\w.-]{1,253}[\"']?:[ \t]+(?=\S)")
_INDENT = re.compile(r"[ \t]*")


def find(scan: Scan) -> None:
    """Note the values below ``data`` and ``stringData`` of a text with a Secret in YAML in it."""
    if _KIND.search(scan.text):
        for data in _DATA.finditer(scan.text):
            _members(scan, data.end() + 1, len(data.group(1)))


def _members(scan: Scan, position: int, indent: int) -> None:
    text = scan.text
    while position < len(text):
        end = scan.end_of_line(position)
        start = _INDENT.match(text, position, end).end()  # type: ignore[union-attr]
        scan.steps += end - position
        if start < end:
            if start - position <= indent:
                return
            member = _MEMBER.match(text, position, end)
            start = member.end() if member else start
            # A key alone announces the lines of its value.
            if member or not text[start:end].rstrip().endswith(":"):
                scan.mask(start, start + len(text[start:end].rstrip()))
        position = end + 1
