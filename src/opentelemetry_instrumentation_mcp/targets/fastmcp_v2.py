"""FastMCP 2.x: a server's work on a message, and that of the servers mounted into it; all pass one method each."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from ..guard import contained
from ..telemetry import Telemetry
from .arguments import argument
from .fastmcp import work


def _worker(telemetry: Telemetry, method: str, target_parameter: str | None = None) -> Any:
    telemetry.tracks_places = True

    @contained("see a server at work")
    def begin(server: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Generator[Any, None, None] | None:
        if not telemetry.records():
            return None
        about = argument(args, kwargs, 0, target_parameter) if target_parameter else None
        about = str(about) if about is not None else None
        is_uri = method == "resources/read"
        target, uri = (None, about) if is_uri else (about, None)
        return work(telemetry, method, server.name, target, uri, {}, passes_calls_on=True)

    async def wrapper(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        generator = begin(instance, args, kwargs)
        if generator is None:
            return await wrapped(*args, **kwargs)
        with contextmanager(lambda: generator)():
            return await wrapped(*args, **kwargs)

    return wrapper


def _factory(method: str, target_parameter: str | None = None) -> Callable[[Telemetry], Any]:
    def factory(telemetry: Telemetry) -> Any:
        return _worker(telemetry, method, target_parameter)

    return factory


call_tool = _factory("tools/call", "key")
get_prompt = _factory("prompts/get", "name")
read_resource = _factory("resources/read", "uri")
list_tools = _factory("tools/list")
list_prompts = _factory("prompts/list")
list_resources = _factory("resources/list")
list_resource_templates = _factory("resources/templates/list")
