"""The four metrics of the MCP conventions: how long messages and sessions last, by attributes of bounded cardinality.

One of the few rooms that touch OpenTelemetry.
"""

from __future__ import annotations

from opentelemetry.metrics import Meter

from . import semconv
from .cardinality import Admission
from .connection import Attributes, Connection, View
from .guard import contained
from .message import SUCCESS, Outcome, as_mapping
from .operation import Operation

_MAX_NAMES = 1000
_MAX_METHODS = 100
_MAX_CODES = 100


class Measures:
    """The histograms of one ``instrument()``, and the names that may appear on them."""

    def __init__(self, meter: Meter) -> None:
        self.of_client, self.of_server, self._client_session, self._server_session = (
            meter.create_histogram(
                name,
                unit="s",
                description=description,
                explicit_bucket_boundaries_advisory=list(semconv.OPERATION_BUCKETS),
            )
            for name, description in (
                (
                    semconv.CLIENT_OPERATION_DURATION,
                    "From sending a message until its response or acknowledgement.",
                ),
                (semconv.SERVER_OPERATION_DURATION, "From receiving a message until its result is sent."),
                (semconv.CLIENT_SESSION_DURATION, "The time an MCP session was open, seen by the client."),
                (semconv.SERVER_SESSION_DURATION, "The time an MCP session was open, seen by the server."),
            )
        )
        self._methods = Admission(_MAX_METHODS, semconv.WELL_KNOWN_METHODS)
        self._targets = Admission(_MAX_NAMES)
        self._codes = Admission(_MAX_CODES, semconv.CALLERS_FAULT | {"-32603", "-32000", "-32001", "0"})

    def attributes(self, operation: Operation, view: View, error_type: str | None, outcome: Outcome) -> Attributes:
        """The attributes of a duration, with only such names as have proved to exist.

        Args:
            view: what is known of the connection at the end.
            error_type: that of this side; None if it is no error here.
        """
        message, status_code = operation.message, outcome.status_code
        # A notification proves nothing: nobody says whether its method exists.
        succeeded = error_type is None and status_code is None and message.is_request
        method, target = semconv.clean(message.method), message.target and semconv.clean(message.target)
        if not self._methods.accepts(method, proven=succeeded):
            method = semconv.OTHER
        if target is not None and not self._targets.accepts(target, proven=succeeded):
            target = None
        if status_code is not None and not self._codes.accepts(status_code, proven=True):
            error_type = semconv.OTHER if error_type == status_code else error_type
            status_code = semconv.OTHER
        key = (method, target, error_type, status_code)
        attributes = view.metric_cache.get(key)
        if attributes is None:
            attributes = _attributes(view, *key)
            if len(view.metric_cache) < _MAX_METHODS:
                view.metric_cache[key] = attributes
        prepared = operation.prepared
        # Once the version is negotiated, nothing else becomes known of a connection while a message is under way.
        is_settled = semconv.PROTOCOL_VERSION in view.attributes and view.attributes is operation.known_attributes
        if outcome is SUCCESS and succeeded and is_settled and prepared is not None:
            prepared.success = attributes
        return attributes

    @contained("learn the names of tools and prompts")
    def admit_names(self, method: str, result: object) -> None:
        """Let the tools or prompts of a listing (a raw ``tools/list`` or ``prompts/list`` result) appear on metrics."""
        key = "tools" if method == "tools/list" else "prompts"
        listing = as_mapping(result) or {}
        for entry in listing.get(key) or ():
            name = (as_mapping(entry) or {}).get("name")
            if isinstance(name, str) and not self._targets.accepts(semconv.clean(name), proven=True):
                return

    @contained("record the duration of a session")
    def end_session(self, connection: Connection, seconds: float, error_type: str | None) -> None:
        """Record that a session of ``connection`` ended after ``seconds``, with an error if ``error_type`` is given."""
        wanted = (
            semconv.PROTOCOL_VERSION,
            semconv.NETWORK_PROTOCOL_NAME,
            semconv.SERVER_ADDRESS,
            semconv.SERVER_PORT,
        )
        shared = connection.view(connection.server).metric_attributes
        attributes: Attributes = {key: shared[key] for key in wanted if key in shared}
        if error_type is not None:
            attributes[semconv.ERROR_TYPE] = semconv.clean(error_type)
        (self._server_session if connection.server else self._client_session).record(seconds, attributes)


def _attributes(
    view: View, method: str, target: str | None, error_type: str | None, status_code: str | None
) -> Attributes:
    attributes: Attributes = {semconv.METHOD: method, **view.metric_attributes}
    if method == "tools/call":
        attributes[semconv.OPERATION_NAME] = semconv.EXECUTE_TOOL
    if target is not None:
        attributes[semconv.TOOL_NAME if method == "tools/call" else semconv.PROMPT_NAME] = target
    if status_code is not None:
        attributes[semconv.STATUS_CODE] = status_code
    if error_type is not None:
        attributes[semconv.ERROR_TYPE] = error_type
    return attributes
