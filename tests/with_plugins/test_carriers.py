"""How the trace context gets onto a call of a plugin in another process, and what a peer may do to it."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import baggage
from opentelemetry import context as otel_context

from conftest import Recorder
from opentelemetry_instrumentation_mcp.targets import plugins_external
from support import plugin_framework as pf
from support.breaking import instrumented as instrumented_with
from support.plugin_framework import framework

if not pf.HAS_TRANSPORTS or importlib.util.find_spec("grpc") is None:
    pytest.skip("needs a framework with gRPC and Unix sockets, and grpcio", allow_module_level=True)

messages: Any = importlib.import_module(f"{pf.PACKAGE}.external.grpc.proto.plugin_service_pb2")
GrpcPlugin: Any = importlib.import_module(f"{pf.PACKAGE}.external.grpc.client").GrpcExternalPlugin
UnixPlugin: Any = importlib.import_module(f"{pf.PACKAGE}.external.unix.client").UnixSocketExternalPlugin
UnixServer: Any = importlib.import_module(f"{pf.PACKAGE}.external.unix.server.server").UnixSocketPluginServer


class Stub:
    """A connection that remembers the metadata of its calls."""

    def __init__(self) -> None:
        self.metadata: list[Any] = []

    async def InvokeHook(self, request: Any, *, metadata: Any = None) -> Any:  # noqa: N802
        self.metadata.append(metadata)
        return messages.InvokeHookResponse(plugin_name="far", result={"continue_processing": True})


async def call(plugin: Any, recorder: Recorder) -> int:
    """Call it within a span; the id of that span."""
    context = framework.PluginContext(global_context=pf.global_context())
    with recorder.tracer().start_as_current_span("above") as above:
        await plugin.invoke_hook(pf.PRE, pf.payload(), context)
    return above.get_span_context().span_id


@pytest.mark.anyio
async def test_a_stub_that_is_older_than_the_instrumentation(recorder: Recorder) -> None:
    plugin = GrpcPlugin(framework.PluginConfig(**pf.external("far", grpc={"target": "127.0.0.1:1"})))
    plugin._stub = stub = Stub()
    await call(plugin, recorder)
    for _ in range(2):
        with instrumented_with(tracer_provider=recorder.tracer_provider):
            for _ in range(2):
                span_id = await call(plugin, recorder)
                [(key, value)] = stub.metadata[-1]
                assert key == "traceparent" and f"{span_id:016x}" in value
        await call(plugin, recorder)
    assert [metadata is None for metadata in stub.metadata] == [True, False, False, True, False, False, True]


@pytest.mark.anyio
async def test_metadata_that_is_there_already_is_left(recorder: Recorder) -> None:
    plugin = GrpcPlugin(framework.PluginConfig(**pf.external("far", grpc={"target": "127.0.0.1:1"})))
    with instrumented_with(tracer_provider=recorder.tracer_provider):
        plugin._stub = stub = Stub()
        await call(plugin, recorder)
        for there, expected in (
            ((("x", "y"),), ["x", "traceparent"]),
            ((("Traceparent", "theirs"),), ["Traceparent"]),
            ((), ["traceparent"]),
            (None, ["traceparent"]),
        ):
            with recorder.tracer().start_as_current_span("above"):
                await stub.InvokeHook(None, metadata=there)
            assert [key for key, _ in stub.metadata[-1]] == expected


@pytest.mark.anyio
async def test_only_baggage_that_may_leave(recorder: Recorder) -> None:
    plugin = GrpcPlugin(framework.PluginConfig(**pf.external("far", grpc={"target": "127.0.0.1:1"})))
    plugin._stub = stub = Stub()
    token = otel_context.attach(baggage.set_baggage("tenant", "t1", baggage.set_baggage("secret", "s3")))
    try:
        with instrumented_with(tracer_provider=recorder.tracer_provider, baggage_outbound="tenant"):
            await call(plugin, recorder)
    finally:
        otel_context.detach(token)
    assert dict(stub.metadata[0])["baggage"] == "tenant=t1"


@pytest.mark.anyio
@pytest.mark.parametrize("size", [10, 16 * 1024 * 1024])
async def test_a_message_that_is_almost_too_long_goes_without(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    sent: list[bytes] = []

    async def send(self: Any, request: Any) -> Any:
        sent.append(request.SerializeToString())

    monkeypatch.setattr(UnixPlugin, "_send_request", send)
    request = messages.InvokeHookRequest(hook_type=pf.PRE, plugin_name="x" * size)
    before = request.SerializeToString()
    with (
        instrumented_with(tracer_provider=recorder.tracer_provider),
        recorder.tracer().start_as_current_span("above"),
    ):
        await UnixPlugin._send_request(object(), request=request)
    assert request.SerializeToString() == before
    assert sent[0].startswith(before)
    assert (b"traceparent" in sent[0]) is (size == 10)


# ----- the wire format, and what a peer may send

TEXTS = st.text(max_size=20)
REQUESTS = st.builds(
    lambda hook, name, text: messages.InvokeHookRequest(hook_type=hook, plugin_name=name, payload={"x": text}),
    *(TEXTS, TEXTS, TEXTS),
)


@given(request=REQUESTS, value=st.binary(max_size=300))
def test_the_field_is_found_and_nothing_else_changes(request: Any, value: bytes) -> None:
    marked = type(request)()
    marked.CopyFrom(request)
    marked.MergeFromString(plugins_external._field(plugins_external.CONTEXT_FIELD, value))
    data = marked.SerializeToString()
    assert plugins_external._find_field(data, plugins_external.CONTEXT_FIELD) == value
    assert plugins_external._find_field(request.SerializeToString(), plugins_external.CONTEXT_FIELD) is None
    read = type(request)()
    read.ParseFromString(data)
    assert (read.hook_type, read.plugin_name, read.payload) == (request.hook_type, request.plugin_name, request.payload)


@given(data=st.binary(max_size=200), prefix=st.booleans())
@settings(max_examples=500)
def test_whatever_a_peer_sends(data: bytes, prefix: bool) -> None:
    start = plugins_external._varint(plugins_external.CONTEXT_FIELD << 3 | 2) if prefix else b""
    assert isinstance(plugins_external._carrier_in(start + data), dict)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"[" * 10000,
        b'{"traceparent": 7}',
        b'{"traceparent": ["x"]}',
        b'{"traceparent": "00-' + b"0" * 32 + b'-0000000000000000-01"}',
        b'{"traceparent": "' + b"x" * 20000 + b'"}',
    ],
    ids=repr,
)
async def test_a_peer_sends_nonsense(
    recorder: Recorder, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, text: bytes
) -> None:
    contexts: list[Any] = []

    async def handle(self: Any, data: bytes) -> bytes:
        contexts.append(otel_context.get_current())
        return data

    monkeypatch.setattr(UnixServer, "_handle_message", handle)
    data = plugins_external._field(plugins_external.CONTEXT_FIELD, text)
    with instrumented_with(tracer_provider=recorder.tracer_provider):
        assert await UnixServer._handle_message(object(), data) == data
    assert contexts == [otel_context.get_current()]
    assert not caplog.records
