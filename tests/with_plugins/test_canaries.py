"""Nothing of what plugins see and say leaves the process but what is documented: searched in the exported bytes."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from support import plugin_framework as pf
from support.breaking import instrumented
from support.canary_table import Row
from support.plugin_framework import IS_CPEX, IS_IGNORED, LOOKS_ON, framework, invoke, managing, plugin
from support.sink import OtlpSink

pytestmark = pytest.mark.anyio

PLACES = ("argument", "reason", "description", "detail", "exception", "setting", "secret", "metadata")


def canaries() -> dict[str, str]:
    return {place: f"canary{secrets.token_hex(8)}" for place in PLACES}


async def run(folder: Path, planted: dict[str, str]) -> None:
    """Every way in which a plugin says something, in a chain of its own."""
    texts: dict[str, Any] = {
        "reason": f"{planted['reason']} password={planted['secret']}",
        "description": f"{planted['description']}\nAuthorization: Bearer {planted['secret']}",
        "details": {"word": planted["detail"], "api_key": planted["secret"]},
        "code": "A_CODE",
        "text": f"{planted['exception']} password={planted['secret']}",
        "hint": planted["setting"],
    }
    everything = [
        *([plugin("says", do, **texts)] for do in ("deny", "warn", "raise_violation", "crash", "modify", "reveal")),
        *([plugin("says", do, **{**texts, **mode})] for do in ("deny", "crash") for mode in (IS_IGNORED, LOOKS_ON)),
    ]
    if IS_CPEX:
        modes = ("transform", "concurrent", "fire_and_forget")
        everything += [[plugin("says", do, mode=mode, **texts)] for do in ("deny", "crash") for mode in modes]
    for plugins in everything:
        async with managing(folder, *plugins) as manager:
            for raising in (False, True):
                context = pf.global_context(metadata={"note": planted["metadata"]}, user=planted["metadata"])
                try:
                    result, _ = await manager.invoke_hook(
                        pf.PRE, pf.payload(x=planted["argument"]), context, violations_as_exceptions=raising
                    )
                    await asyncio.gather(*getattr(result, "background_tasks", ()))
                except (framework.PluginError, framework.PluginViolationError):
                    continue


async def exported(folder: Path, planted: dict[str, str], **options: Any) -> tuple[set[str], int]:
    """The canaries that were found in what was exported, and how much that was, in bytes."""
    with OtlpSink() as sink:
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{sink.endpoint}/v1/traces")))
        with instrumented(tracer_provider=provider, **options):
            await run(folder, planted)
        provider.shutdown()
        assert len(sink.spans()) >= 40 and sink.contains("A_CODE") and sink.contains("plugin_zoo.CrashError")
        found = {place for place, canary in planted.items() if sink.contains(canary)}
        return found, sum(len(body.raw) for body in sink.bodies)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"error_text": "off"}, set()),
        ({}, {"reason", "description"}),
        ({"stacktraces": True}, {"reason", "description", "exception"}),
        ({"stacktraces": True, "error_text": "off"}, set()),
        ({"capture_content": "SPAN_ONLY"}, {"reason", "description", "detail"}),
        ({"capture_content": "EVENT_ONLY"}, {"reason", "description"}),
        ({"capture_content": "SPAN_ONLY", "error_text": "off"}, {"detail"}),
    ],
    ids=lambda value: " ".join(map(str, value)) or "-",
)
async def test_only_what_is_documented_leaves(
    tmp_path: Path, table: list[Row], options: Any, expected: set[str]
) -> None:
    found, size = await exported(tmp_path, canaries(), **options)
    setting = ", ".join(f"{name}={value}" for name, value in options.items()).lower() or "defaults"
    table.append(Row("plugins", setting, size, len(PLACES), len(found - expected)))
    assert found == expected


async def test_a_plugin_of_an_odd_name(tmp_path: Path) -> None:
    planted = canaries()
    with OtlpSink() as sink:
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{sink.endpoint}/v1/traces")))
        with instrumented(tracer_provider=provider):
            async with managing(tmp_path, plugin("n" * 5000)) as manager:
                await invoke(manager, x=planted["argument"])
        provider.shutdown()
        names = {span.attributes.get("plugin.name") for span in sink.spans()}
    assert names == {None, "n" * 256}
