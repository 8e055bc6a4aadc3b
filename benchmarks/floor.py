"""The floor: what an application's author would write by hand, in the plain way, to get the same telemetry.

Two spans with the attributes ours have, as context managers; inject and extract; two histogram records. Nothing is
cached, nothing is shared, nothing is clever. It knows ``tools/call`` only and no error but ``isError``, so it does less
than any instrumentation must. ``measure.py`` checks that its spans and metrics are those of ours.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

from opentelemetry import propagate
from opentelemetry.trace import SpanKind, Status, StatusCode

from support import sdk

BUCKETS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0]


class Floor:
    """Hand-written telemetry of one application."""

    def __init__(self, tracer_provider: Any, meter_provider: Any) -> None:
        self.tracer = tracer_provider.get_tracer("handwritten")
        meter = meter_provider.get_meter("handwritten")
        self.client_duration, self.server_duration = (
            meter.create_histogram(
                f"mcp.{side}.operation.duration", unit="s", explicit_bucket_boundaries_advisory=BUCKETS
            )
            for side in ("client", "server")
        )

    def trace_server(self, server: Any) -> None:
        """Put the server's half around the handler of ``tools/call``."""
        if sdk.SDK2:
            sdk.lowlevel(server).middleware.insert(0, self._middleware)
        else:
            handlers = sdk.lowlevel(server).request_handlers
            handlers[sdk.types.CallToolRequest] = self._handler(
                sdk.lowlevel(server), handlers[sdk.types.CallToolRequest]
            )

    def trace_client(self, session: Any, version: str) -> None:
        """Put the client's half around what sends the requests of ``session``."""
        if sdk.SDK2:
            dispatcher = session._dispatcher
            dispatcher.send_raw_request = self._raw_sender(dispatcher, dispatcher.send_raw_request, version)
        else:
            session.send_request = self._sender(session, session.send_request, version)

    # ----- SDK 2.x

    def _raw_sender(self, dispatcher: Any, send: Any, version: str) -> Any:
        async def send_raw_request(method: str, params: Any, opts: Any = None, **options: Any) -> Any:
            if method != "tools/call":
                return await send(method, params, opts, **options)
            peer = getattr(dispatcher, "_peer", None)  # in process, ids are given out by the receiver
            started = perf_counter()
            with self.tracer.start_as_current_span(
                f"{method} {params['name']}",
                kind=SpanKind.CLIENT,
                attributes={
                    "mcp.method.name": method,
                    "mcp.protocol.version": version,
                    "jsonrpc.request.id": str((peer or dispatcher)._next_id + 1),
                    "gen_ai.operation.name": "execute_tool",
                    "gen_ai.tool.name": params["name"],
                },
            ) as span:
                meta = dict(params.get("_meta") or {})
                propagate.inject(meta)
                result = await send(method, {**params, "_meta": meta}, opts, **options)
                metric_attributes = {
                    "mcp.method.name": method,
                    "mcp.protocol.version": version,
                    "gen_ai.operation.name": "execute_tool",
                    "gen_ai.tool.name": params["name"],
                }
                if result.get("isError"):
                    span.set_attribute("error.type", "tool_error")
                    span.set_status(Status(StatusCode.ERROR))
                    metric_attributes["error.type"] = "tool_error"
                self.client_duration.record(perf_counter() - started, metric_attributes)
                return result

        return send_raw_request

    async def _middleware(self, ctx: Any, call_next: Any) -> Any:
        if ctx.method != "tools/call":
            return await call_next(ctx)
        started = perf_counter()
        with self.tracer.start_as_current_span(
            f"{ctx.method} {ctx.params['name']}",
            context=propagate.extract(ctx.meta or {}),
            kind=SpanKind.SERVER,
            attributes={
                "mcp.method.name": ctx.method,
                "mcp.protocol.version": ctx.protocol_version,
                "jsonrpc.request.id": str(ctx.request_id),
                "gen_ai.operation.name": "execute_tool",
                "gen_ai.tool.name": ctx.params["name"],
            },
        ) as span:
            result = await call_next(ctx)
            metric_attributes = {
                "mcp.method.name": ctx.method,
                "mcp.protocol.version": ctx.protocol_version,
                "gen_ai.operation.name": "execute_tool",
                "gen_ai.tool.name": ctx.params["name"],
            }
            if result.get("isError"):
                span.set_attribute("error.type", "tool_error")
                span.set_status(Status(StatusCode.ERROR))
                metric_attributes["error.type"] = "tool_error"
            self.server_duration.record(perf_counter() - started, metric_attributes)
            return result

    # ----- SDK 1.x

    def _sender(self, session: Any, send: Any, version: str) -> Any:
        async def send_request(request: Any, *args: Any, **options: Any) -> Any:
            call = request.root
            if call.method != "tools/call":
                return await send(request, *args, **options)
            started = perf_counter()
            with self.tracer.start_as_current_span(
                f"{call.method} {call.params.name}",
                kind=SpanKind.CLIENT,
                attributes={
                    "mcp.method.name": call.method,
                    "mcp.protocol.version": version,
                    "jsonrpc.request.id": str(session._request_id),
                    "gen_ai.operation.name": "execute_tool",
                    "gen_ai.tool.name": call.params.name,
                },
            ) as span:
                meta: dict[str, Any] = {}
                propagate.inject(meta)
                call.params.meta = sdk.types.RequestParams.Meta(**meta)
                result = await send(request, *args, **options)
                metric_attributes = {
                    "mcp.method.name": call.method,
                    "mcp.protocol.version": version,
                    "gen_ai.operation.name": "execute_tool",
                    "gen_ai.tool.name": call.params.name,
                }
                if result.isError:
                    span.set_attribute("error.type", "tool_error")
                    span.set_status(Status(StatusCode.ERROR))
                    metric_attributes["error.type"] = "tool_error"
                self.client_duration.record(perf_counter() - started, metric_attributes)
                return result

        return send_request

    def _handler(self, server: Any, handle: Any) -> Any:
        async def handle_call(request: Any) -> Any:
            started = perf_counter()
            context = server.request_context
            version = context.session.client_params.protocolVersion
            with self.tracer.start_as_current_span(
                f"{request.method} {request.params.name}",
                context=propagate.extract((context.meta and context.meta.model_extra) or {}),
                kind=SpanKind.SERVER,
                attributes={
                    "mcp.method.name": request.method,
                    "mcp.protocol.version": version,
                    "jsonrpc.request.id": str(context.request_id),
                    "gen_ai.operation.name": "execute_tool",
                    "gen_ai.tool.name": request.params.name,
                },
            ) as span:
                result = await handle(request)
                metric_attributes = {
                    "mcp.method.name": request.method,
                    "mcp.protocol.version": version,
                    "gen_ai.operation.name": "execute_tool",
                    "gen_ai.tool.name": request.params.name,
                }
                if result.root.isError:
                    span.set_attribute("error.type", "tool_error")
                    span.set_status(Status(StatusCode.ERROR))
                    metric_attributes["error.type"] = "tool_error"
                self.server_duration.record(perf_counter() - started, metric_attributes)
                return result

        return handle_call
