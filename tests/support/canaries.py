"""Canaries: marked texts at every place where data of a host could leave it, and a workload that sends them.

``Canaries`` makes and finds them, ``run_workload`` plants them over one transport against a real server. As a program
(``canaries.py server|client PLAN ...``) this module is either end of a stdio connection, planting the canaries of a
plan that ``Canaries.save`` wrote.
"""

# No `from __future__ import annotations`: SDK 1.9 does not resolve the annotations of tools if they are strings.
import base64
import json
import logging
import os
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import anyio
from opentelemetry import baggage
from opentelemetry import context as otel_context

from support import sdk
from support.wire import WireLog, WireLogASGI, read_stdio_log, tap_streams

SECRET = "secret"
"""Never exported, whatever is switched on: secrets, and what no option captures."""
CONTENT = "content"
"""Exported only where content is captured, and there it must be: else nothing would be tested."""
ERROR = "error text"
"""May be exported where texts of errors are: they go through the policy, which keeps what is no secret."""

IN_MESSAGES = {
    "tool argument": CONTENT,
    "name of a tool argument": CONTENT,
    "password among arguments": SECRET,
    "header list among arguments": SECRET,
    "JSON text among arguments": SECRET,
    "secret in the name of an argument": SECRET,
    "user info of a URL among arguments": SECRET,
    "token in a URL among arguments": SECRET,
    "text of a result": CONTENT,
    "JSON text of a result": SECRET,
    "bearer token in a result": SECRET,
    "structured result": CONTENT,
    "secret in a structured result": SECRET,
    "text of a tool error": CONTENT,
    "secret in the text of a tool error": SECRET,
    "exception of a tool": CONTENT,
    "secret in the exception of a tool": SECRET,
    "prompt variable": CONTENT,
    "password among prompt variables": SECRET,
    "secret in a prompt variable": SECRET,
    "prompt message": SECRET,
    "resource content": SECRET,
    "exception of a prompt": ERROR,
    "secret in the exception of a prompt": SECRET,
    "exception of a resource": ERROR,
    "secret in the exception of a resource": SECRET,
    "exception of a low-level tool": ERROR,
    "secret in the exception of a low-level tool": SECRET,
    "exception of a low-level prompt": ERROR,
    "secret in the exception of a low-level prompt": SECRET,
    "exception of a low-level resource": ERROR,
    "secret in the exception of a low-level resource": SECRET,
    "JSON-RPC error": ERROR,
    "secret in a JSON-RPC error": SECRET,
    "data of a JSON-RPC error": SECRET,
    "log message": SECRET,
    "progress message": SECRET,
    "completion argument": SECRET,
    "completion value": SECRET,
    "extra of _meta": SECRET,
    "description of a tool": SECRET,
    "name of the client": SECRET,
    "version of the client": SECRET,
    "name of the server": SECRET,
    "baggage": CONTENT,
    "password in the baggage": SECRET,
    "baggage that is not allowed": SECRET,
}
# What a server asks its client. At 2026-07-28 this is part of the result of a tool, and of no argument.
ASKED = {
    "sampled message": SECRET,
    "system prompt": SECRET,
    "secret in a sampled message": SECRET,
    "answer to sampling": SECRET,
    "root": SECRET,
    "elicitation": SECRET,
    "answer to elicitation": SECRET,
}
ASKED_IN_RESULTS = ("sampled message", "system prompt", "elicitation")
QUERY, USER_INFO = "query of the server's URL", "user info of the server's URL"
HTTP = {
    QUERY: SECRET,
    USER_INFO: SECRET,
    "Authorization header": SECRET,
    "Cookie header": SECRET,
    "custom header": SECRET,
}
USER = {
    "OAuth token": SECRET,
    "subject of the user": SECRET,
    "e-mail of the user": SECRET,
    "OAuth client": SECRET,
    "claim of the user": SECRET,
}
PROCESS = {"environment variable": SECRET, "key of the identity hashes": SECRET}

# Newer SDKs keep the exceptions that they do not expect to themselves.
UNCERTAIN = frozenset({"exception of a tool"})
# Without a stream of its own a notification goes nowhere, so it is seen on these transports for certain only.
NOTIFIED = frozenset({"log message", "progress message"})
HAS_ELICITATION = sdk.VERSION >= (1, 10)

# No hexadecimal digits, so that neither ids nor hashes look like part of a canary.
_LETTERS = "ghjkmnpqrstvwxz"


def forms_of(text: str) -> tuple[list[bytes], list[bytes]]:
    """What to look for: the lower-case text and its halves, and its base64 at each alignment, without the edges."""
    marked = text.rpartition("-")[2].lower()
    plain = [marked.encode(), marked[: len(marked) // 2].encode(), marked[len(marked) // 2 :].encode()]
    encoded: list[bytes] = []
    for shift in range(3):
        padded = base64.b64encode(b"\0" * shift + text.encode())
        encoded.append(padded[-(-shift * 4 // 3) : (shift + len(text)) // 3 * 4])
    return plain, encoded


@dataclass
class Canaries:
    """The canaries of one run: ``texts`` by place, ``kinds`` tells who may see them."""

    texts: dict[str, str] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, place: str) -> str:
        return self.texts[place]

    def __len__(self) -> int:
        return len(self.texts)

    @classmethod
    def make(cls, transport: str, era: str) -> "Canaries":
        """New canaries for every place that there is on ``transport``."""
        kinds = {**IN_MESSAGES, **PROCESS}
        if era == "modern":
            # Every result says in its _meta who it is from.
            kinds["name of the server"] = CONTENT
        if asks(transport, era):
            kinds.update(ASKED)
            if era == "modern":
                kinds.update(dict.fromkeys(ASKED_IN_RESULTS, CONTENT))
            if not HAS_ELICITATION:
                kinds = {place: kind for place, kind in kinds.items() if "elicitation" not in place}
        if transport in sdk.HTTP_TRANSPORTS:
            kinds.update({**HTTP, **USER})
            if not has_claims():
                kinds = {place: kind for place, kind in kinds.items() if "of the user" not in place}
        texts = {place: "CANARY-" + "".join(secrets.choice(_LETTERS) for _ in range(16)) for place in kinds}
        return cls(texts, kinds)

    def of_kind(self, *kinds: str) -> list[str]:
        """The places of some kinds."""
        return [place for place in self.texts if self.kinds[place] in kinds]

    def found_in(self, data: bytes) -> list[str]:
        """The places whose canaries are in ``data``: whole or half, in any case, or as base64."""
        low = data.lower()
        found: list[str] = []
        for place, text in self.texts.items():
            plain, encoded = forms_of(text)
            if any(form in low for form in plain) or any(form in data for form in encoded):
                found.append(place)
        return found

    def save(self, path: Path) -> None:
        """Write the plan that this module reads as a program."""
        path.write_text(json.dumps({"texts": self.texts, "kinds": self.kinds}), encoding="utf-8")

    @classmethod
    def load(cls, path: str) -> "Canaries":
        return cls(**json.loads(Path(path).read_text(encoding="utf-8")))


def has_claims() -> bool:
    """Whether this SDK's tokens say who their user is."""
    from mcp.server.auth.provider import AccessToken

    return "claims" in AccessToken.model_fields


def asks(transport: str, era: str) -> bool:
    """Whether a server can ask its client something: not without a way back."""
    return era == "modern" or transport in ("memory", "stdio", "http", "sse")


# ----- the server


def build_server(canaries: Canaries) -> Any:
    """A high-level server that plants; what begins with ``low`` is answered by low-level handlers."""
    c = canaries
    server = sdk.MCPServer(c["name of the server"], log_level="CRITICAL")

    @server.tool(description=f"A tool, {c['description of a tool']}")
    async def echo(note: str, password: str, headers: Any, document: Any, link: str, dsn: str) -> str:
        inner = {"note": c["text of a result"], "api_key": c["JSON text of a result"]}
        return json.dumps(inner) + f"\nAuthorization: Bearer {c['bearer token in a result']}"

    @server.tool()
    async def fail() -> str:
        raise ValueError(f"lost {c['exception of a tool']}; password={c['secret in the exception of a tool']}")

    @server.tool()
    async def notify(ctx: sdk.Context) -> str:
        await ctx.report_progress(1, 2, c["progress message"])
        await ctx.session.send_log_message(
            level="info", data={"line": c["log message"]}, related_request_id=ctx.request_id
        )
        return "notified"

    @server.tool()
    async def ask(ctx: sdk.Context) -> str:
        text = sdk.types.TextContent(type="text", text=_sampled(c))
        message = sdk.types.SamplingMessage(role="user", content=text)
        await ctx.session.create_message(messages=[message], max_tokens=10, system_prompt=c["system prompt"])
        await ctx.session.list_roots()
        if HAS_ELICITATION:
            await ctx.session.elicit(c["elicitation"], _SCHEMA)
        return "asked"

    @server.prompt()
    def render(note: str, password: str, text: str) -> str:
        return f"Say {c['prompt message']}"

    @server.prompt()
    def broken() -> str:
        raise ValueError(f"lost {c['exception of a prompt']}; secret={c['secret in the exception of a prompt']}")

    @server.resource("res://document")
    def document() -> str:
        return c["resource content"]

    @server.resource("res://broken")
    def broken_resource() -> str:
        raise ValueError(f"lost {c['exception of a resource']}; token={c['secret in the exception of a resource']}")

    serve_low(server, "tools/call", "CallTool", partial(_low_tool, c))
    serve_low(server, "prompts/get", "GetPrompt", partial(_low_prompt, c))
    serve_low(server, "resources/read", "ReadResource", partial(_low_resource, c))
    serve_low(server, "completion/complete", "Complete", partial(_low_completion, c))
    return server


_SCHEMA = {"type": "object", "properties": {"answer": {"type": "string"}}}


def _sampled(c: Canaries) -> str:
    return f"{c['sampled message']} password={c['secret in a sampled message']}"


Answer = Callable[[Mapping[str, Any]], Awaitable[dict[str, Any] | None]]


def serve_low(server: Any, method: str, kind: str, answer: Answer) -> None:
    """Let ``answer`` make the results (as on the wire) of ``method``; where it gives None, the server itself does."""
    low, types = sdk.lowlevel(server), sdk.types
    result_type = getattr(types, f"{kind}Result")
    if sdk.SDK2:
        entry = low.get_request_handler(method)

        async def handle(ctx: Any, params: Any) -> Any:
            result = await answer(params.model_dump(by_alias=True, mode="json", exclude_none=True))
            if result is None:
                return await entry.handler(ctx, params)
            asked = "inputRequests" in result
            return (types.InputRequiredResult if asked else result_type).model_validate(result)

        low.add_request_handler(method, getattr(types, f"{kind}RequestParams"), handle)
        return
    request_type = getattr(types, f"{kind}Request")
    inner = low.request_handlers.get(request_type)

    async def handle_request(request: Any) -> Any:
        result = await answer(request.params.model_dump(by_alias=True, mode="json", exclude_none=True))
        return await inner(request) if result is None else types.ServerResult(result_type.model_validate(result))

    low.request_handlers[request_type] = handle_request


async def _low_tool(c: Canaries, params: Mapping[str, Any]) -> dict[str, Any] | None:
    name = params["name"]
    if name == "low_raise":
        lost, secret = c["exception of a low-level tool"], c["secret in the exception of a low-level tool"]
        raise LookupError(f"lost {lost}; api_key={secret}")
    if name == "low_result":
        return {
            "content": [{"type": "text", "text": "see the structure"}],
            "structuredContent": {
                "note": c["structured result"],
                "client": {"clientSecret": c["secret in a structured result"]},
            },
        }
    if name == "low_error":
        lost, secret = c["text of a tool error"], c["secret in the text of a tool error"]
        return {"content": [{"type": "text", "text": f"lost {lost}; password={secret}"}], "isError": True}
    if name == "low_ask":
        return {"content": []} if "inputResponses" in params else _questions(c)
    return None


def _questions(c: Canaries) -> dict[str, Any]:
    """What a server of 2026-07-28 answers in order to ask."""
    message = {"role": "user", "content": {"type": "text", "text": _sampled(c)}}
    sampling = {"messages": [message], "maxTokens": 10, "systemPrompt": c["system prompt"]}
    form = {"mode": "form", "message": c["elicitation"], "requestedSchema": _SCHEMA}
    return {
        "inputRequests": {
            "sampled": {"method": "sampling/createMessage", "params": sampling},
            "listed": {"method": "roots/list"},
            "elicited": {"method": "elicitation/create", "params": form},
        }
    }


async def _low_prompt(c: Canaries, params: Mapping[str, Any]) -> dict[str, Any] | None:
    if params["name"] == "low_raise":
        lost, secret = c["exception of a low-level prompt"], c["secret in the exception of a low-level prompt"]
        raise LookupError(f"lost {lost}; Authorization: Bearer {secret}")
    if params["name"] == "low_reject":
        lost, secret = c["JSON-RPC error"], c["secret in a JSON-RPC error"]
        error: Any = sdk.mcp_error(-32050, f"lost {lost}; password={secret}")
        error.error.data = {"more": c["data of a JSON-RPC error"]}
        raise error
    return None


async def _low_resource(c: Canaries, params: Mapping[str, Any]) -> dict[str, Any] | None:
    if params["uri"] == "res://low-raise":
        lost, secret = c["exception of a low-level resource"], c["secret in the exception of a low-level resource"]
        raise LookupError(f"lost {lost}; https://user:{secret}@host.example/")
    return None


async def _low_completion(c: Canaries, params: Mapping[str, Any]) -> dict[str, Any] | None:
    return {"completion": {"values": [c["completion value"]]}}


# ----- the client


class PlantingCallbacks(sdk.Callbacks):
    """A client that answers what it is asked."""

    def __init__(self, canaries: Canaries) -> None:
        super().__init__()
        self.canaries = canaries

    async def sampling(self, context: Any, params: Any) -> Any:
        content = sdk.types.TextContent(type="text", text=self.canaries["answer to sampling"])
        return sdk.types.CreateMessageResult(role="assistant", content=content, model="m")

    async def list_roots(self, context: Any) -> Any:
        uri = f"file:///home/{self.canaries['root']}"
        return sdk.types.ListRootsResult.model_validate({"roots": [{"uri": uri}]})

    async def elicit(self, context: Any, params: Any) -> Any:
        return sdk.types.ElicitResult(action="accept", content={"answer": self.canaries["answer to elicitation"]})

    def keywords(self) -> dict[str, Any]:
        c = self.canaries
        info = sdk.types.Implementation(name=c["name of the client"], version=c["version of the client"])
        found = {**super().keywords(), "client_info": info}
        if HAS_ELICITATION:
            found["elicitation_callback"] = self.elicit
        return found


async def exercise(peer: sdk.Peer, c: Canaries, transport: str, era: str) -> None:
    """Plant everything that messages can hold."""
    session = peer.session
    with _baggage(c):
        for listing in (session.list_tools, session.list_prompts, session.list_resources):
            await listing()
        await peer.call("echo", _arguments(c))
        await _call_with_meta(peer, {"example.org/note": c["extra of _meta"]})
        await peer.call("fail")
        await peer.call("low_error")
        await peer.call(
            "low_result", {c["name of a tool argument"]: 1, f"token={c['secret in the name of an argument']}": 2}
        )
        with suppress(sdk.McpError):
            await peer.call("low_raise")
        await peer.call("notify", progress=True)
        text = f"use api_key={c['secret in a prompt variable']}"
        variables = {"note": c["prompt variable"], "password": c["password among prompt variables"], "text": text}
        await session.get_prompt("render", variables)
        for name in ("broken", "low_raise", "low_reject"):
            with suppress(sdk.McpError):
                await session.get_prompt(name)
        await peer.read("res://document")
        for uri in ("res://broken", "res://low-raise"):
            with suppress(sdk.McpError):
                await peer.read(uri)
        await session.complete(
            sdk.types.PromptReference(type="ref/prompt", name="render"),
            {"name": "note", "value": c["completion argument"]},
        )
        if asks(transport, era):
            await (peer.client.call_tool("low_ask", {}) if era == "modern" else peer.call("ask"))
    # Notifications are still on their way.
    await anyio.sleep(0.1)


def _arguments(c: Canaries) -> dict[str, Any]:
    return {
        "note": c["tool argument"],
        "password": c["password among arguments"],
        "headers": [["x-api-key", c["header list among arguments"]]],
        "document": json.dumps({"outer": json.dumps({"accessToken": c["JSON text among arguments"]})}),
        "link": f"https://host.example/a?sig={c['token in a URL among arguments']}&page=1",
        "dsn": f"postgres://user:{c['user info of a URL among arguments']}@db.example/main",
    }


async def _call_with_meta(peer: sdk.Peer, meta: dict[str, Any]) -> None:
    if sdk.SDK2:
        await peer.session.call_tool("notify", {}, meta=meta)
    else:
        await peer.request("tools/call", {"name": "notify", "arguments": {}, "_meta": meta})


@contextmanager
def _baggage(c: Canaries) -> Iterator[None]:
    current = otel_context.get_current()
    for name, place in (
        ("app.note", "baggage"),
        ("app.password", "password in the baggage"),
        ("other", "baggage that is not allowed"),
    ):
        current = baggage.set_baggage(name, c[place], current)
    token = otel_context.attach(current)
    try:
        yield
    finally:
        otel_context.detach(token)


# ----- transports


class _Front:
    """ASGI middleware in front of a server: authenticates everybody, and keeps what came."""

    def __init__(self, app: Any, log: WireLog, user: Any) -> None:
        self.app = WireLogASGI(app, log)
        self.user = user
        self.seen: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            self.seen.append(repr((scope["query_string"], scope["headers"])))
            scope = {**scope, "user": self.user}
        await self.app(scope, receive, send)


def _user(c: Canaries) -> Any:
    """Who the SDK's own middleware would say a request is from."""
    from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
    from mcp.server.auth.provider import AccessToken

    token: dict[str, Any] = {"token": c["OAuth token"], "client_id": c["OAuth client"], "scopes": ["read"]}
    if has_claims():
        claims = {"email": f"{c['e-mail of the user']}@host.example", "note": c["claim of the user"]}
        token |= {"subject": c["subject of the user"], "claims": claims}
    return AuthenticatedUser(AccessToken(**token))


def _as_it_is(request: Any) -> Any:
    """Keeps the HTTP client from making an Authorization header of its own out of the URL's user info."""
    return request


@asynccontextmanager
async def _http_streams(url: str, transport: str, headers: dict[str, str]) -> AsyncIterator[Any]:
    options: dict[str, Any] = {"headers": headers, "auth": _as_it_is}
    async with AsyncExitStack() as stack:
        if transport == "sse":
            from mcp.client.sse import sse_client

            yield await stack.enter_async_context(sse_client(url, **options))
            return
        from mcp.client import streamable_http

        newer = getattr(streamable_http, "streamable_http_client", None)
        if newer is None:
            yield await stack.enter_async_context(streamable_http.streamablehttp_client(url, **options))
            return
        from mcp.shared._httpx_utils import create_mcp_http_client

        client = await stack.enter_async_context(create_mcp_http_client(**options))
        yield await stack.enter_async_context(newer(url, http_client=client))


async def _over_http(c: Canaries, transport: str, era: str) -> bytes:
    log = WireLog()
    front = _Front(sdk.http_app(build_server(c), transport), log, _user(c))
    headers = {
        # The test server's sockets wait for acknowledgements: on a kept connection 40 ms for each request.
        "Connection": "close",
        "Authorization": f"Bearer {c['Authorization header']}",
        "Cookie": f"theme=dark; id={c['Cookie header']}",
        "X-Note": c["custom header"],
    }
    async with sdk.serve(front) as base_url:
        host = base_url.replace("//", f"//user:{c[USER_INFO]}@")
        url = f"{host}/{'sse' if transport == 'sse' else 'mcp'}?access_token={c[QUERY]}"
        async with (
            _http_streams(url, transport, headers) as streams,
            sdk._session(streams, PlantingCallbacks(c), era) as peer,
        ):
            await exercise(peer, c, transport, era)
    return wire_text(log) + repr(front.seen).encode()


async def run_workload(c: Canaries, transport: str, era: str) -> bytes:
    """Plant ``c`` over a transport of this process, and give what was really on the wire."""
    if transport in sdk.HTTP_TRANSPORTS:
        return await _over_http(c, transport, era)
    log = WireLog()
    server = build_server(c)
    if transport == "direct":
        from mcp import Client

        callbacks = PlantingCallbacks(c)
        async with Client(server, **callbacks.keywords()) as client:
            await exercise(sdk.Peer(client.session, callbacks, client), c, transport, era)
        return b""
    async with (
        sdk.memory_streams(server) as streams,
        sdk._session(tap_streams(log, *streams), PlantingCallbacks(c), era) as peer,
    ):
        await exercise(peer, c, transport, era)
    return wire_text(log)


def wire_text(log: WireLog) -> bytes:
    """All messages of a log, to look for canaries in."""
    return "\n".join(repr((message.raw, message.headers)) for message in log).encode()


def on_the_wire(c: Canaries, transport: str, era: str) -> set[str]:
    """The places whose canaries must have been on the wire, if the workload does what it says."""
    # Not all SDKs tell a client of an exception they do not expect.
    elsewhere = {*PROCESS, *USER, USER_INFO, *(place for place in c.texts if "exception of" in place)}
    if transport not in ("memory", "stdio") or era == "modern":
        elsewhere |= NOTIFIED
    return set(c.texts) - elsewhere


# ----- whole processes


def stdio_log(path: Path) -> bytes:
    """What was on the wire between two processes, from the file of ``stdio_tee.py``."""
    return wire_text(read_stdio_log(path))


def _log_to(path: str) -> None:
    """Write what our loggers say, tracebacks included, to a file: stderr has what others say, too."""
    handler = logging.FileHandler(path)
    logger = logging.getLogger("opentelemetry_instrumentation_mcp")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)


async def _stdio_client(c: Canaries, era: str, command: list[str]) -> None:
    from mcp.client.stdio import stdio_client

    env = {key: value for key, value in os.environ.items() if key.startswith(("OTEL_", "PYTHON", "PATH", "VENDOR"))}
    parameters = sdk.stdio_parameters(*command, env={**env, "OTEL_SERVICE_NAME": "server"})
    async with (
        stdio_client(parameters) as streams,
        sdk._session(streams, PlantingCallbacks(c), era) as peer,
    ):
        await exercise(peer, c, "stdio", era)
        if sdk.VERSION < (1, 10):
            # It kills its server: let that export first.
            await anyio.sleep(0.3)
    print("done")


def main(role: str, plan: str, *rest: str) -> None:
    c = Canaries.load(plan)
    _log_to(f"{plan}.{role}.log")
    if role == "server":
        build_server(c).run("stdio")
    else:
        era, *command = rest
        anyio.run(_stdio_client, c, era, command)


if __name__ == "__main__":
    main(*sys.argv[1:])
