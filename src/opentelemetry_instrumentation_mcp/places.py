"""Where inside a server a message has got to: in the server it was sent to, or in one mounted into that. Pure.

Servers are composed of servers in one process, and call their own tools. That is no message, but worth a span.
"""

from __future__ import annotations

from typing import Any, Final

# What a part of a server that starts to work on something is, seen from where its caller is.
ADDRESSED: Final = "addressed"  # the server the message, or the delegation, is for
MOUNTED: Final = "mounted"  # another server in the same process
CALL: Final = "call"  # a call in process: the server's own, or an application's without any message
UNSEEN: Final = "unseen"  # the server's own book-keeping

LISTINGS: Final = frozenset({"tools/list", "prompts/list", "resources/list", "resources/templates/list"})


class Place:
    """One message, delegation or call in a server; everything done for it knows its place.

    Attributes:
        span: what is known of it becomes attributes of this span; None if it has none.
        method: the MCP method it is about; None if unknown.
        server_name: the server that works on it; None until one has begun.
        taken: whether that server is at work on it.
        native: whether the library has made a span of its own for it.
    """

    __slots__ = ("method", "native", "server_name", "span", "taken")

    def __init__(self, span: Any, method: str | None, server_name: str | None = None, *, taken: bool = False) -> None:
        self.span = span
        self.method = method
        self.server_name = server_name
        self.taken = taken
        self.native = False


def role(place: Place | None, server_name: str | None, method: str) -> str:
    """What it is that server ``server_name`` begins with ``method`` at ``place``."""
    if place is None:
        return CALL
    if place.span is None:
        return UNSEEN
    if not place.taken and place.method in (None, method) and place.server_name in (None, server_name):
        return ADDRESSED
    if method in LISTINGS and place.method not in (None, method):
        return UNSEEN
    if place.server_name not in (None, server_name):
        return MOUNTED
    return UNSEEN if method in LISTINGS else CALL
