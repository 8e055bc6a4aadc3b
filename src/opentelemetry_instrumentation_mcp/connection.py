"""What is known of a connection: transport, addresses, session, negotiated version; as attributes, computed once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from . import semconv

Attributes = dict[str, str | int]


class SessionSource(Protocol):
    """Whatever holds a transport's session id, read anew for each message: it is assigned after connecting."""

    @property
    def session_id(self) -> str | None: ...


class Endpoint:
    """A transport as the conventions describe it.

    ``transport`` is ``tcp`` or ``pipe`` (None: in process, or unknown); ``protocol`` ``http`` or ``websocket``;
    ``address`` and ``port`` (a TCP port number) are the server's and known on the client only.
    """

    __slots__ = ("address", "http_version", "port", "protocol", "session_source", "transport")

    def __init__(
        self,
        transport: str | None = None,
        protocol: str | None = None,
        address: str | None = None,
        port: int | None = None,
        session_source: SessionSource | None = None,
    ) -> None:
        self.transport = transport
        self.protocol = protocol
        self.address = address
        self.port = port
        self.http_version: str | None = None
        self.session_source = session_source

    @classmethod
    def of_url(cls, url: str, protocol: str, session_source: SessionSource | None = None) -> Endpoint:
        """The endpoint behind ``url``; user info, path and query are not kept."""
        parts = urlsplit(url)
        default_port = 443 if parts.scheme in ("https", "wss") else 80
        address = parts.hostname
        try:
            port = parts.port or default_port
        except ValueError:
            port = None
        return cls("tcp", protocol, address, port if address else None, session_source)

    def become(self, other: Endpoint) -> None:
        """Turn into ``other``: a session may ask for its transport before the transport shows itself."""
        for name in self.__slots__:
            setattr(self, name, getattr(other, name))


class HttpRequest(NamedTuple):
    """The HTTP request that carried a message to a server.

    ``context`` is the OpenTelemetry context of the task that serves this request, None if it is unknown;
    ``headers`` are the ASGI pairs, lower-case names; ``transport`` is the library's object that answers the request;
    ``user`` is who an authentication middleware found it to be from.
    """

    context: Any
    session_id: str | None = None
    client_address: str | None = None
    client_port: int | None = None
    http_version: str | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()
    protocol: str = "http"
    transport: Any = None
    user: Any = None


class Prepared:
    """What all messages of one method and target that go one way have in common.

    ``success`` are the metric attributes of a successful one, None until there was one.
    """

    __slots__ = ("attributes", "span_name", "success")

    def __init__(self, span_name: str, attributes: Attributes) -> None:
        self.span_name = span_name
        self.attributes = attributes
        self.success: Attributes | None = None


_MAX_PREPARED = 256
_MAX_PREPARED_NAME = 256


class View:
    """The attributes of the messages that go one way, valid as long as ``known`` is what is known."""

    __slots__ = ("attributes", "known", "metric_attributes", "metric_cache", "prepared", "prepared_by")

    def __init__(self) -> None:
        self.known: tuple[Any, ...] = ()
        self.attributes: Attributes = {}
        self.metric_attributes: Attributes = {}
        self.metric_cache: dict[tuple[Any, ...], Attributes] = {}
        self.prepared: dict[tuple[str, str | None, str | None], Prepared] = {}
        self.prepared_by: object = None
        """Whose configuration ``prepared`` follows."""

    def prepare(self, key: tuple[str, str | None, str | None], prepared: Prepared) -> None:
        """Keep ``prepared`` for the messages of ``key`` (method, target, URI); bounded, whatever a peer sends."""
        if sum(len(part) for part in key if part) <= _MAX_PREPARED_NAME:
            if len(self.prepared) >= _MAX_PREPARED:
                self.prepared.clear()
            self.prepared[key] = prepared


def _network(endpoint: Endpoint, http: HttpRequest | None) -> Attributes:
    if http is not None:
        values = ("tcp", http.protocol, http.http_version)
    else:
        values = (endpoint.transport, endpoint.protocol, endpoint.http_version)
    keys = (semconv.NETWORK_TRANSPORT, semconv.NETWORK_PROTOCOL_NAME, semconv.NETWORK_PROTOCOL_VERSION)
    return {key: value for key, value in zip(keys, values, strict=True) if value}


class Connection:
    """One MCP connection of one side (``server`` tells which); its messages share their attributes."""

    __slots__ = ("_inbound", "_outbound", "claimed_version", "endpoint", "last_http", "protocol_version", "server")

    def __init__(self, *, server: bool, endpoint: Endpoint | None = None) -> None:
        self.server = server
        self.endpoint = endpoint if endpoint is not None else Endpoint()
        self.protocol_version: str | None = None
        self.claimed_version: str | None = None
        """A revision we do not know, as a server answered it; what it is worth is up to the client's SDK."""
        self.last_http: HttpRequest | None = None
        self._inbound = View()
        self._outbound = View()

    def view(self, inbound: bool, http: HttpRequest | None = None, protocol_version: str | None = None) -> View:
        """What to say about a message of this connection.

        Args:
            inbound: whether it is received here. Addresses are those of a client span's server and a server span's
                client, so a message that runs against the roles of the connection has none.
            http: the HTTP request that carried it here.
            protocol_version: the revision the message itself claims.
        """
        if http is not None:
            self.last_http = http
        elif self.server:
            http = self.last_http
        view = self._inbound if inbound else self._outbound
        version = protocol_version or self.protocol_version
        endpoint = self.endpoint
        if http is None:
            source = endpoint.session_source
            known = (
                version,
                source.session_id if source is not None else None,
                endpoint.http_version,
                endpoint.transport,
                endpoint.address,
            )
        elif inbound:
            known = (version, http.session_id, http.http_version, http.client_address, http.client_port)
        else:
            known = (version, http.session_id, http.http_version)
        if known != view.known:
            self._describe(view, version, known[1], http, inbound)
            view.known = known
        return view

    def _describe(
        self, view: View, version: str | None, session_id: str | None, http: HttpRequest | None, inbound: bool
    ) -> None:
        endpoint = self.endpoint
        shared: Attributes = {}
        if version:
            shared[semconv.PROTOCOL_VERSION] = semconv.clean(version)
        shared.update(_network(endpoint, http))
        if endpoint.address and not self.server and not inbound:
            shared[semconv.SERVER_ADDRESS] = semconv.clean(endpoint.address)
            if endpoint.port is not None:
                shared[semconv.SERVER_PORT] = endpoint.port
        attributes = dict(shared)
        if session_id and version not in semconv.SESSIONLESS_PROTOCOL_VERSIONS:
            attributes[semconv.SESSION_ID] = semconv.clean(session_id)
        if http is not None and self.server and inbound and http.client_address:
            attributes[semconv.CLIENT_ADDRESS] = semconv.clean(http.client_address)
            if http.client_port is not None:
                attributes[semconv.CLIENT_PORT] = http.client_port
        if shared != view.metric_attributes:
            view.metric_attributes, view.metric_cache = shared, {}
        view.attributes = attributes
        view.prepared = {}


def http_request_of(
    scope: Mapping[str, Any], context: Any, session_id: str | None, transport: Any = None
) -> HttpRequest:
    """Describe the request of an ASGI ``scope``."""
    client = scope.get("client") or (None, None)
    return HttpRequest(
        context,
        session_id,
        client[0] if isinstance(client[0], str) else None,
        client[1] if isinstance(client[1], int) and client[1] else None,
        scope.get("http_version"),
        scope.get("headers") or (),
        "http",
        transport,
        scope.get("user"),
    )
