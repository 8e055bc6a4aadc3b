"""What a message says of its connection: computed once, anew when something became known."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from opentelemetry.context import Context

from opentelemetry_instrumentation_mcp.connection import (
    Connection,
    Endpoint,
    HttpRequest,
    View,
    http_request_of,
)
from support.health import SLOW

stable = settings(derandomize=True, deadline=None, database=None, max_examples=60, suppress_health_check=SLOW)
any_text = st.text(st.characters(codec=None, categories=None), max_size=300)


class Session:
    def __init__(self, session_id: str | None = None) -> None:
        self.session_id = session_id


@pytest.mark.parametrize(
    ("url", "address", "port"),
    [
        ("http://example.com/mcp", "example.com", 80),
        ("https://example.com/mcp", "example.com", 443),
        ("wss://example.com", "example.com", 443),
        ("http://example.com:8080", "example.com", 8080),
        ("http://me:hunter2@example.com/secret?token=hunter2", "example.com", 80),
        ("http://[::1]:9000/mcp", "::1", 9000),
        ("http://example.com:99999/mcp", "example.com", None),
        ("http://example.com:port/mcp", "example.com", None),
        ("/relative", None, None),
        ("", None, None),
    ],
)
def test_endpoint_of_a_url(url: str, address: str | None, port: int | None) -> None:
    endpoint = Endpoint.of_url(url, "http")
    assert (endpoint.transport, endpoint.protocol, endpoint.address, endpoint.port) == ("tcp", "http", address, port)


@given(any_text | any_text.map(lambda text: f"http://{text.translate({0x5B: None, 0x5D: None})}"))
@stable
def test_an_endpoint_of_any_url(url: str) -> None:
    try:
        urlsplit(url)
    except ValueError:
        reject()
    endpoint = Endpoint.of_url(url, "http")
    assert endpoint.port is None or (endpoint.address and 0 <= endpoint.port < 65536)


def test_in_process_says_nothing_and_a_pipe_says_so() -> None:
    assert Connection(server=False, endpoint=Endpoint()).view(inbound=False).attributes == {}
    assert Connection(server=True, endpoint=Endpoint("pipe")).view(inbound=True).attributes == {
        "network.transport": "pipe"
    }


def test_a_client_knows_the_server() -> None:
    session = Session()
    endpoint = Endpoint.of_url("http://example.com:8080/mcp", "http", session)
    connection = Connection(server=False, endpoint=endpoint)
    network = {"network.transport": "tcp", "network.protocol.name": "http"}
    server = {"server.address": "example.com", "server.port": 8080}
    assert connection.view(inbound=False).attributes == {**network, **server}
    assert connection.view(inbound=True).attributes == network, "a message against the roles has no addresses"

    session.session_id = "s-1"
    endpoint.http_version = "1.1"
    connection.protocol_version = "2025-06-18"
    view = connection.view(inbound=False)
    known = {**network, **server, "network.protocol.version": "1.1", "mcp.protocol.version": "2025-06-18"}
    assert view.attributes == {**known, "mcp.session.id": "s-1"}
    assert view.metric_attributes == known, "a session id on a metric would be a time series for each session"


def test_a_server_knows_the_client() -> None:
    request = HttpRequest(Context(), "s-1", "192.0.2.1", 5000, "1.1")
    connection = Connection(server=True)
    network = {"network.transport": "tcp", "network.protocol.name": "http", "network.protocol.version": "1.1"}
    view = connection.view(inbound=True, http=request)
    assert view.attributes == {
        **network, "mcp.session.id": "s-1", "client.address": "192.0.2.1", "client.port": 5000
    }  # fmt: skip
    assert view.metric_attributes == network, "no address of a client on a metric"
    assert connection.view(inbound=False).attributes == {**network, "mcp.session.id": "s-1"}, "as the last request"


def test_sessionless_revisions_have_no_session_id() -> None:
    connection = Connection(server=True)
    request = HttpRequest(None, "s-1")
    modern = connection.view(inbound=True, http=request, protocol_version="2026-07-28").attributes
    assert "mcp.session.id" not in modern
    assert modern["mcp.protocol.version"] == "2026-07-28"
    assert connection.view(inbound=True, http=request).attributes["mcp.session.id"] == "s-1"
    assert connection.protocol_version is None, "a claim of one message is not a negotiation"


def test_a_view_is_computed_once() -> None:
    connection = Connection(server=True, endpoint=Endpoint("pipe"))
    connection.protocol_version = "2025-06-18"
    first = connection.view(inbound=True)
    attributes, metric_attributes = first.attributes, first.metric_attributes
    first.metric_cache["key",] = {}
    again = connection.view(inbound=True)
    assert again.attributes is attributes
    assert again.metric_attributes is metric_attributes
    assert again.metric_cache
    assert isinstance(again, View)
    connection.protocol_version = "2025-11-25"
    changed = connection.view(inbound=True)
    assert changed.attributes is not attributes
    assert not changed.metric_cache, "computed for attributes that are no longer true"
    assert attributes["mcp.protocol.version"] == "2025-06-18", "what was handed out does not change"


@given(any_text, any_text, any_text)
@stable
def test_attributes_are_short_and_printable(session_id: str, version: str, address: str) -> None:
    connection = Connection(server=True)
    request = HttpRequest(None, session_id, address, 1, "1.1")
    for view in (
        connection.view(inbound=True, http=request, protocol_version=version),
        connection.view(inbound=False, protocol_version=version),
    ):
        for value in (*view.attributes.values(), *view.metric_attributes.values()):
            assert type(value) in (str, int)
            if isinstance(value, str):
                assert len(value) <= 256
                assert value.isprintable()


# --- ASGI scopes --------------------------------------------------------------------------------------------

SCOPE: dict[str, Any] = {
    "type": "http",
    "http_version": "1.1",
    "client": ("192.0.2.1", 5000),
    "headers": [(b"host", b"example.com")],
}


def test_request_of_a_scope() -> None:
    ambient = Context()
    request = http_request_of(SCOPE, ambient, "s-1", "the transport")
    assert request.context is ambient
    assert (request.client_address, request.client_port) == ("192.0.2.1", 5000)
    assert (request.session_id, request.http_version, request.transport) == ("s-1", "1.1", "the transport")
    assert list(request.headers) == [(b"host", b"example.com")]


@pytest.mark.parametrize(
    ("client", "address", "port"),
    [
        (None, None, None),
        (("", 0), "", None),
        (("192.0.2.1", None), "192.0.2.1", None),
        ((None, None), None, None),
        (["192.0.2.1", 5000], "192.0.2.1", 5000),
        ((b"/run/socket", "port"), None, None),
    ],
)
def test_clients_of_a_scope(client: Any, address: str | None, port: int | None) -> None:
    request = http_request_of({**SCOPE, "client": client}, None, None)
    assert (request.client_address, request.client_port) == (address, port)
    attributes = Connection(server=True).view(inbound=True, http=request).attributes
    assert ("client.port" in attributes) <= ("client.address" in attributes)


def test_a_scope_need_not_say_anything() -> None:
    assert http_request_of({}, None, None) == HttpRequest(None)
