"""Plugins of the gateway under test: what they do depends on words in the arguments."""

from __future__ import annotations

import asyncio
import importlib
from typing import Any

try:
    framework: Any = importlib.import_module("cpex.framework")
except ImportError:  # gateways up to 1.0.0 have it inside
    framework = importlib.import_module("mcpgateway.plugins.framework")

DENY, CRASH, HANG = "forbidden", "explosive", "endless"
FLAKY = "rest-flaky"


class Guard(framework.Plugin):
    """Denies, crashes or hangs before the call."""

    async def _look(self, text: str, result: Any) -> Any:
        if CRASH in text:
            raise LookupError(f"the plugin cannot cope with {text}")
        if HANG in text:
            await asyncio.Event().wait()
        if DENY not in text:
            return result(continue_processing=True)
        violation = framework.PluginViolation(
            reason="Denied word", description=f"in {text}", code="deny", details={"text": text}
        )
        return result(continue_processing=False, violation=violation)

    async def tool_pre_invoke(self, payload: Any, context: Any) -> Any:
        return await self._look(str(payload.args), framework.ToolPreInvokeResult)

    async def prompt_pre_fetch(self, payload: Any, context: Any) -> Any:
        return await self._look(str(payload.args), framework.PromptPrehookResult)


class Marker(framework.Plugin):
    """Replaces a word in the arguments; has the flaky tool called again when it failed."""

    async def tool_pre_invoke(self, payload: Any, context: Any) -> Any:
        args = {key: _marked(value) for key, value in (payload.args or {}).items()}
        if args == payload.args:
            return framework.ToolPreInvokeResult(continue_processing=True)
        changed = payload.model_copy(update={"args": args})
        return framework.ToolPreInvokeResult(continue_processing=True, modified_payload=changed)

    async def tool_post_invoke(self, payload: Any, context: Any) -> Any:
        if payload.name == FLAKY and payload.result.get("isError"):
            return framework.ToolPostInvokeResult(continue_processing=True, retry_delay_ms=1)
        return framework.ToolPostInvokeResult(continue_processing=True)


def _marked(value: Any) -> Any:
    return value.replace("white", "black") if isinstance(value, str) else value


def configuration(*, legacy: bool) -> str:
    """The configuration file; gateways up to 1.0.0 have other names for the modes."""
    if not legacy:
        return _CONFIGURATION
    return _CONFIGURATION.replace("mode: sequential", "mode: enforce").replace("mode: transform", "mode: permissive")


_CONFIGURATION = """\
plugins:
  - {name: Guard, kind: support.gateway_plugins.Guard, description: d, version: "0.1", author: x, tags: [],
     hooks: [tool_pre_invoke, prompt_pre_fetch], mode: sequential, priority: 10, conditions: [], config: {}}
  - {name: Marker, kind: support.gateway_plugins.Marker, description: d, version: "0.1", author: x, tags: [],
     hooks: [tool_pre_invoke, tool_post_invoke], mode: transform, priority: 50, conditions: [], config: {}}
plugin_dirs: []
plugin_settings: {parallel_execution_within_band: true, plugin_timeout: 3, fail_on_plugin_error: false,
                  enable_plugin_api: true, plugin_health_check_interval: 3600}
"""
