"""The ContextForge gateway under test: the real one, in a process of its own, with real servers behind it.

By hand, for development (it ends with Ctrl+C; a tree is printed for every request that it served):

    PYTHONPATH=tests python -m support.gateway --native --env OTEL_INSTRUMENTATION_MCP_IDENTITY=on

in an environment that has `mcp-contextforge-gateway` and the group `test`.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import hmac
import http.client
import importlib.util
import json
import os
import queue
import secrets
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from support.gateway_plugins import configuration
from support.http_join import INSTRUMENT, Answer, Ids, Server, free_port, post
from support.sink import OtlpSink

TESTS = Path(__file__).resolve().parent.parent
ADMIN = "admin@example.com"
PROTOCOL = "2025-06-18"
ENTRIES = ("/rpc", "/mcp", "/servers/{id}/mcp", "/sse", "/servers/{id}/sse", "/ws")
"""Where a client may send a message to the gateway, and get an answer."""

# One set for all gateways of a run: they share a database that was prepared once.
SECRETS = {
    name: f"{secrets.token_urlsafe(32)}-Aa1!"
    for name in (
        "JWT_SECRET_KEY",
        "AUTH_ENCRYPTION_SECRET",
        "PLATFORM_ADMIN_PASSWORD",
        "BASIC_AUTH_PASSWORD",
        "DEFAULT_USER_PASSWORD",
    )
}


def need_gateway() -> None:
    """Skip what needs the gateway where it is not installed."""
    if importlib.util.find_spec("mcpgateway") is None:
        pytest.skip("mcp-contextforge-gateway is not installed in this environment", allow_module_level=True)


def version() -> tuple[int, ...]:
    """The gateway's: 1.0.7.post20260921 is (1, 0, 7)."""
    return tuple(int(part) for part in metadata.version("mcp-contextforge-gateway").split(".")[:3])


def token(**claims: Any) -> str:
    """A JSON Web Token of the administrator, as the gateway's own command makes it."""
    now = int(time.time())
    user = {"email": ADMIN, "full_name": "CLI User", "is_admin": True, "auth_provider": "cli"}
    payload = {"sub": ADMIN, "iat": now, "exp": now + 36000, "iss": "mcpgateway", "aud": "mcpgateway-api"}
    payload |= {
        "jti": secrets.token_hex(8),
        "user": user,
        **({"teams": None} if version() >= (1, 0, 0) else {}),
        **claims,
    }

    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    signed = ".".join(part(json.dumps(one).encode()) for one in ({"alg": "HS256", "typ": "JWT"}, payload))
    digest = hmac.new(SECRETS["JWT_SECRET_KEY"].encode(), signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{part(digest)}"


# ----- processes


def _base_environment() -> dict[str, str]:
    """What is common to all gateways; nothing of the caller's telemetry."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "LANGFUSE_"))}
    env |= {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost", "PYTHONPATH": str(TESTS)}
    return (
        env
        | SECRETS
        | {
            "ENVIRONMENT": "development",
            "PLATFORM_ADMIN_EMAIL": ADMIN,
            "HOST": "127.0.0.1",
            "REDIS_URL": "",
            "CACHE_TYPE": "database",
            "SSRF_ALLOW_LOCALHOST": "true",
            "SSRF_ALLOW_PRIVATE_NETWORKS": "true",
            "MCPGATEWAY_UI_ENABLED": "false",
            "MCPGATEWAY_ADMIN_API_ENABLED": "false",
            "MCPGATEWAY_WS_RELAY_ENABLED": "true",
            "MCPGATEWAY_DIRECT_PROXY_ENABLED": "true",
            "LOG_LEVEL": "INFO",
            "LOG_TO_FILE": "false",
            # Nothing goes on in the background while a test looks.
            "HEALTH_CHECK_INTERVAL": "36000",
            # Off is not the default in all releases.
            "OTEL_ENABLE_OBSERVABILITY": "false",
            "RATE_LIMITING_ENABLED": "false",
            # Messages of SSE sessions wait in the database until they are looked for.
            "POLL_INTERVAL": "0.05",
            "MAX_INTERVAL": "0.1",
            # A call that cannot work is tried once, and none lasts long.
            "RETRY_MAX_ATTEMPTS": "1",
            "TOOL_TIMEOUT": "6",
            # That of the plugins' configuration file does not count.
            "PLUGINS_PLUGIN_TIMEOUT": "3",
        }
    )


def prepare_database(folder: Path) -> Path:
    """A database with its tables: to make them takes longer than all the rest of the gateway's start."""
    database = folder / "prepared.db"
    log = folder / "prepared.log"
    env = _base_environment() | {"DATABASE_URL": f"sqlite:///{database}"}
    with log.open("wb") as output:
        subprocess.run(
            [sys.executable, "-m", "mcpgateway.bootstrap_db"],
            check=False,
            env=env,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            timeout=300,
        )
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        tables = connection.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'").fetchone()[0]
    assert tables > 20, f"the database was not made:\n{log.read_text(errors='replace')}"
    return database


def _otel(sink: OtlpSink, service_name: str) -> dict[str, str]:
    return sink.environment(service_name) | {
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        # What other instrumentations of the environment add is for a test to ask for.
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "httpx,asgi,starlette,fastapi",
    }


class Upstream(Server):
    """A server behind the gateway, which writes down what arrives; with a sink it is instrumented."""

    def __init__(self, folder: Path, name: str, sink: OtlpSink | None = None, *, sse: bool = False) -> None:
        self.name, self.sse = name, sse
        self.received = folder / f"{name}.jsonl"
        self.instrumented = sink is not None
        port = free_port()
        command = [sys.executable, str(TESTS / "support/gateway_upstream.py")]
        command += ["--name", name, "--port", str(port), "--record", str(self.received), *(["--sse"] if sse else [])]
        env = _base_environment()
        if sink is not None:
            command, env = [INSTRUMENT, *command], env | _otel(sink, name)
        super().__init__(command, port, env, folder / f"{name}.log")

    def __enter__(self) -> Upstream:
        super().__enter__()
        return self

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{'/sse' if self.sse else '/mcp'}"

    def requests(self, since: int = 0) -> list[dict[str, Any]]:
        """What arrived, oldest first, without the first ``since``."""
        if not self.received.exists():
            return []
        return [json.loads(line) for line in self.received.read_text().splitlines()[since:]]

    def flush(self) -> None:
        """Have the spans exported that ended so far."""
        assert post(self.port, b"", {}, "/flush").status == 200


@dataclass(frozen=True)
class Reply:
    """What a client got for one message, and the trace it asked to be in."""

    status: int
    message: dict[str, Any] | None
    ids: Ids
    headers: Mapping[str, str]

    @property
    def result(self) -> dict[str, Any]:
        assert self.message is not None and "result" in self.message, self
        return self.message["result"]

    @property
    def text(self) -> str:
        """The text that a tool returned."""
        return self.result["content"][0]["text"]


class Gateway(Server):
    """One gateway; a client of it as well."""

    def __init__(
        self,
        folder: Path,
        database: Path,
        sink: OtlpSink | None,
        *,
        service_name: str = "gateway",
        plugins: bool = True,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.service_name, self.token = service_name, token()
        self.folder, self.sink = folder, sink
        self._connection = http.client.HTTPConnection("127.0.0.1", timeout=60)
        self.ids: dict[str, str] = {}
        """Of what was registered, by name."""
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(database, folder / "mcp.db")
        port = free_port()
        settings = _base_environment() | {"PORT": str(port), "DATABASE_URL": f"sqlite:///{folder / 'mcp.db'}"}
        settings["PLUGINS_ENABLED"] = str(plugins).lower()
        if plugins:
            path = folder / "plugins.yaml"
            path.write_text(configuration(legacy=version() < (1, 0, 1)))
            settings |= {"PLUGINS_CONFIG_FILE": str(path), "PLUGIN_CONFIG_FILE": str(path)}
        command = [sys.executable, "-m", "mcpgateway"]
        if version() < (1, 0, 2):
            command = [sys.executable, "-m", "uvicorn", "mcpgateway.main:app", "--host", "127.0.0.1"]
            command += ["--port", str(port)]
        if sink is not None:
            command, settings = [INSTRUMENT, *command], settings | _otel(sink, service_name)
        self._connection.port = port
        super().__init__(command, port, settings | dict(env or {}), folder / f"{service_name}.log")

    def __enter__(self) -> Gateway:
        super().__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._connection.close()
        super().__exit__(*exc_info)

    def _wait_until_it_listens(self, limit: float = 120.0) -> None:
        super()._wait_until_it_listens(limit)

    # What is registered.

    def api(self, method: str, path: str, content: Any = None) -> Any:
        """One request to the administrative interface; its answer."""
        body = b"" if content is None else json.dumps(content).encode()
        answer = post(self.port, body, self._headers() | {"content-type": "application/json"}, path, method)
        assert answer.status < 300, f"{method} {path}: {answer}"
        return json.loads(answer.body) if answer.body else None

    def listing(self, path: str) -> list[dict[str, Any]]:
        found = self.api("GET", path)
        return found if isinstance(found, list) else found["data"]

    def register(self, upstream: Upstream, **more: Any) -> None:
        """Make it a peer under its name."""
        content = {"name": upstream.name, "url": upstream.url, "visibility": "public", **more}
        content["transport"] = "SSE" if upstream.sse else "STREAMABLEHTTP"
        self.ids[content["name"]] = self.api("POST", "/gateways", content)["id"]

    def register_rest(self, upstream: Upstream, name: str, path: str) -> None:
        tool = {
            "name": name,
            "url": f"http://127.0.0.1:{upstream.port}{path}",
            "integration_type": "REST",
            "request_type": "POST",
            "description": "d",
            "visibility": "public",
            "input_schema": {"type": "object", "properties": {"q": {"type": "string"}}},
        }
        self.ids[name] = self.api("POST", "/tools", {"tool": tool})["id"]

    def register_a2a(self, upstream: Upstream, name: str) -> None:
        agent = {
            "name": name,
            "endpoint_url": f"http://127.0.0.1:{upstream.port}/a2a",
            "agent_type": "generic",
            "protocol_version": "1.0",
            "visibility": "public",
        }
        self.ids[name] = self.api("POST", "/a2a", {"agent": agent, "visibility": "public"})["id"]

    def make_server(self, name: str = "vs1") -> None:
        """A virtual server with all that is registered."""
        tools, resources, prompts = (self.listing(path) for path in ("/tools?limit=0", "/resources", "/prompts"))
        server = {
            "name": name,
            "description": "virtual",
            "visibility": "public",
            "associated_tools": [tool["id"] for tool in tools],
            "associated_resources": [str(resource["id"]) for resource in resources],
            "associated_prompts": [str(prompt["id"]) for prompt in prompts],
        }
        self.ids |= {tool["name"]: tool["id"] for tool in tools}
        self.ids[name] = self.api("POST", "/servers", {"server": server})["id"]

    # A client.

    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"}

    def path(self, entry: str) -> str:
        return entry.replace("{id}", self.ids.get("vs1", ""))

    def post(
        self, entry: str, content: Any, headers: Mapping[str, str] | None = None, *, ids: Ids | None = None
    ) -> Reply:
        """One HTTP request with a message, in a trace of its own unless ``ids`` are given."""
        ids = ids or Ids.new()
        sent = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
        sent |= {"traceparent": ids.traceparent, **self._headers(), **(headers or {})}
        sent = {name: value for name, value in sent.items() if value}
        answer = self._send("POST", self.path(entry), json.dumps(content).encode(), sent)
        return Reply(answer.status, _message(answer), ids, answer.headers)

    def _send(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """One request over the connection that stays open: FastAPI calls it an error when a client leaves at once."""
        try:
            self._connection.request(method, path, body, dict(headers))
            response = self._connection.getresponse()
        except (http.client.RemoteDisconnected, ConnectionError, http.client.CannotSendRequest):
            self._connection.close()  # it was idle for too long, or the last answer was not read
            self._connection.request(method, path, body, dict(headers))
            response = self._connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        if response.status == 307 and not path.endswith("/"):
            response.read()
            return self._send(method, f"{path}/", body, headers)
        content_type = found.get("content-type", "").split(";")[0]
        answer = Answer(response.status, content_type, found, response.read().decode())
        # What comes before the server has ended this request begins in its context, also FastAPI's span.
        time.sleep(0.005)
        return answer

    def call(
        self,
        entry: str,
        method: str,
        params: dict[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        ids: Ids | None = None,
    ) -> Reply:
        """Send one request over ``entry`` and wait for its answer."""
        if entry.endswith("/sse"):
            with Events(self, entry) as events:
                return events.call(method, params, headers, ids=ids)
        if entry == "/ws":
            return self.call_over_websocket(method, params, headers, ids=ids)
        return self.post(entry, request(method, params), headers, ids=ids)

    def call_tool(self, entry: str, name: str, arguments: Mapping[str, Any], **more: Any) -> Reply:
        return self.call(entry, "tools/call", {"name": name, "arguments": dict(arguments)}, **more)

    def call_over_websocket(
        self, method: str, params: Any, headers: Mapping[str, str] | None = None, *, ids: Ids | None = None
    ) -> Reply:
        from websockets.sync.client import connect

        ids = ids or Ids.new()
        sent = {"traceparent": ids.traceparent, **self._headers(), **(headers or {})}
        with connect(f"ws://127.0.0.1:{self.port}/ws", additional_headers=sent) as socket:
            socket.send(json.dumps(request(method, params)))
            return Reply(200, json.loads(socket.recv(timeout=60)), ids, {})

    def open_session(self, entry: str = "/mcp") -> dict[str, str]:
        """The handshake; the headers of the session's further requests."""
        opened = self.post(entry, initialize())
        headers = {"mcp-protocol-version": PROTOCOL}
        if "mcp-session-id" in opened.headers:
            headers["mcp-session-id"] = opened.headers["mcp-session-id"]
        self.post(entry, INITIALIZED, headers)
        return headers


def _message(answer: Answer) -> dict[str, Any] | None:
    return answer.message if answer.body.strip() else None


def request(method: str, params: Any = None, request_id: str | int | None = None) -> dict[str, Any]:
    """A JSON-RPC request; its id tells it from all others unless one is given."""
    message = {"jsonrpc": "2.0", "id": request_id or f"r-{secrets.token_hex(6)}", "method": method}
    return message if params is None else {**message, "params": params}


def initialize() -> dict[str, Any]:
    client = {"protocolVersion": PROTOCOL, "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}
    return request("initialize", client)


INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}


class Events:
    """A session over SSE: a stream of events, and a path to which messages are posted."""

    def __init__(self, gateway: Gateway, entry: str = "/sse", headers: Mapping[str, str] | None = None) -> None:
        self._gateway, self._path, self._given = gateway, gateway.path(entry), dict(headers or {})
        self.ids = Ids.new()
        """The trace of the stream itself."""
        self._messages: queue.Queue[dict[str, Any]] = queue.Queue()
        self._endpoint: queue.Queue[str] = queue.Queue()

    def __enter__(self) -> Events:
        self._connection = http.client.HTTPConnection("127.0.0.1", self._gateway.port, timeout=60)
        headers = {"accept": "text/event-stream", "traceparent": self.ids.traceparent, **self._gateway._headers()}
        self._connection.request("GET", self._path, headers=headers | self._given)
        self._response = self._connection.getresponse()
        assert self._response.status == 200, (self._response.status, self._response.read())
        self._socket = self._connection.sock
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        self._post_to = self._endpoint.get(timeout=30).split(str(self._gateway.port), 1)[-1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._response.fp.raw._sock.shutdown(2)
        self._thread.join(10)
        self._response.close()
        self._connection.close()

    def _read(self) -> None:
        event = ""
        with contextlib.suppress(OSError, ValueError, AttributeError, http.client.HTTPException):
            while line := self._response.readline():
                name, _, value = line.decode().rstrip("\r\n").partition(": ")
                if name == "event":
                    event = value
                elif name == "data" and event == "endpoint":
                    self._endpoint.put(value)
                elif name == "data" and event == "message":
                    self._messages.put(json.loads(value))

    def post(self, content: Any, headers: Mapping[str, str] | None = None, *, ids: Ids | None = None) -> Reply:
        """Post a message, without waiting for the answer on the stream."""
        return self._gateway.post(self._post_to, content, headers, ids=ids)

    def call(
        self, method: str, params: Any = None, headers: Mapping[str, str] | None = None, *, ids: Ids | None = None
    ) -> Reply:
        content = request(method, params)
        posted = self.post(content, headers, ids=ids)
        if posted.status >= 300:
            return posted
        while (message := self._messages.get(timeout=60)).get("id") != content["id"]:
            pass
        return Reply(posted.status, message, posted.ids, posted.headers)


# ----- all of it


@dataclass
class Upstreams:
    """What stands behind every gateway of a run."""

    up: Upstream
    """Streamable HTTP, instrumented."""
    bare: Upstream
    """Streamable HTTP, not instrumented; REST and A2A as well."""
    events: Upstream
    """SSE, instrumented."""
    proxied: Upstream
    """Streamable HTTP, not instrumented, for direct proxy: one server cannot well be two peers."""

    @property
    def all(self) -> tuple[Upstream, ...]:
        return (self.up, self.bare, self.events, self.proxied)


@contextmanager
def upstreams(folder: Path, sink: OtlpSink | None) -> Iterator[Upstreams]:
    with ExitStack() as stack:
        up = stack.enter_context(Upstream(folder, "up", sink))
        bare = stack.enter_context(Upstream(folder, "bare"))
        events = stack.enter_context(Upstream(folder, "events", sink, sse=True))
        proxied = stack.enter_context(Upstream(folder, "proxied"))
        yield Upstreams(up, bare, events, proxied)


@contextmanager
def furnished(gateway: Gateway, behind: Upstreams) -> Iterator[Gateway]:
    """The gateway, running, with everything registered, and one peer `down` that is not there any more."""
    with gateway, Upstream(gateway.folder, "down") as down:
        gateway.register(behind.up)
        gateway.register(behind.bare)
        gateway.register(behind.events)
        gateway.register(down)
        if version() >= (1, 0, 0):
            gateway.register(behind.proxied, gateway_mode="direct_proxy")
        gateway.register_rest(behind.bare, "rest-ok", "/rest/ok")
        gateway.register_rest(behind.bare, "rest-broken", "/rest/broken")
        gateway.register_rest(behind.bare, "rest-flaky", "/rest/flaky")
        gateway.register_a2a(behind.bare, "ag1")
        gateway.make_server()
        down.stop(signal.SIGKILL)
        yield gateway


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one by hand."""
    from support.gateway_trees import draw

    parser = argparse.ArgumentParser(description="a gateway to try things on")
    parser.add_argument("--native", action="store_true", help="switch the gateway's own OTEL on")
    parser.add_argument("--stateful", action="store_true")
    parser.add_argument("--no-plugins", action="store_true")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--call", action="append", default=[], metavar="ENTRY", help="call up-add over it")
    options = parser.parse_args(arguments)
    env = dict(one.split("=", 1) for one in options.env)
    with tempfile.TemporaryDirectory() as name, OtlpSink() as sink, upstreams(Path(name), sink) as behind:
        folder = Path(name)
        if options.native:
            env |= native(sink)
        if options.stateful:
            env["USE_STATEFUL_SESSIONS"] = "true"
        gateway = Gateway(folder, prepare_database(folder), sink, plugins=not options.no_plugins, env=env)
        try:
            with furnished(gateway, behind):
                show = f'-H "Authorization: Bearer {gateway.token}" http://127.0.0.1:{gateway.port}/rpc'
                print(f"curl {show}\nlog: {folder}/gateway.log, peers: {gateway.ids}", file=sys.stderr)
                shown: set[int] = {span.context.trace_id for span in sink.spans()}
                for entry in options.call:
                    gateway.call_tool(entry, "up-add", {"a": 1, "b": 2})
                while True:
                    time.sleep(2)
                    spans = [span for span in sink.spans() if span.context.trace_id not in shown]
                    for trace_id in dict.fromkeys(span.context.trace_id for span in spans):
                        tree = draw([span for span in spans if span.context.trace_id == trace_id])
                        print(f"{trace_id:032x}\n{tree}\n", file=sys.stderr)
                        shown.add(trace_id)
                    if options.call:
                        return
        except KeyboardInterrupt:
            pass


def native(sink: OtlpSink) -> dict[str, str]:
    """The variables that switch on the gateway's own spans."""
    return {
        "OTEL_ENABLE_OBSERVABILITY": "true",
        "OTEL_TRACES_EXPORTER": "otlp",
        # The gateway takes this one as it is, so ours gets one of its own.
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"{sink.endpoint}/v1/traces",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{sink.endpoint}/v1/traces",
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{sink.endpoint}/v1/metrics",
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": f"{sink.endpoint}/v1/logs",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    }


if __name__ == "__main__":
    main()
