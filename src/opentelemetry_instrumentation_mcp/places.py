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
        target: the name of the tool or prompt it is about; None if there is none, or if it is unknown.
        server_name: the server that works on it; None until one has begun.
        taken: whether that server is at work on it.
        native: whether the library has made a span of its own for it.
    """

    __slots__ = ("method", "native", "server_name", "span", "taken", "target")

    def __init__(
        self,
        span: Any,
        method: str | None,
        server_name: str | None = None,
        *,
        target: str | None = None,
        taken: bool = False,
    ) -> None:
        self.span = span
        self.method = method
        self.target = target
        self.server_name = server_name
        self.taken = taken
        self.native = False


def role(
    place: Place | None,
    server_name: str | None,
    method: str,
    target: str | None = None,
    *,
    passes_calls_on: bool = False,
) -> str:
    """What it is that server ``server_name`` begins with ``method`` of ``target`` at ``place``.

    ``passes_calls_on``: servers hand calls, not only listings, to those mounted into them without saying so.
    """
    if place is None:
        return CALL
    if place.span is None:
        return UNSEEN
    if (
        not place.taken
        and place.method in (None, method)
        and place.server_name in (None, server_name)
        and (target is None or place.target in (None, target))
    ):
        return ADDRESSED
    is_other_server = place.server_name not in (None, server_name)
    if method not in LISTINGS:
        return MOUNTED if is_other_server and passes_calls_on else CALL
    return MOUNTED if is_other_server and place.method in (None, method) else UNSEEN
