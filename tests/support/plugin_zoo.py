"""One plugin that behaves as its configuration says; loaded by the plugin framework that is installed."""

import asyncio
import json
from typing import Any

from support.plugin_framework import framework

# What a plugin waits for, and what it tells: set by the test.
gates: dict[str, asyncio.Event] = {}
seen: list[tuple[str, Any]] = []
tracers: list[Any] = []


class CrashError(Exception):
    """What a plugin dies of."""


class Zoo(framework.Plugin):
    """``config`` says what to ``do`` and with which values."""

    async def tool_pre_invoke(self, payload: Any, context: Any) -> Any:
        return await self._behave(payload, context, framework.ToolPreInvokeResult)

    async def tool_post_invoke(self, payload: Any, context: Any) -> Any:
        return await self._behave(payload, context, framework.ToolPostInvokeResult)

    async def _behave(self, payload: Any, context: Any, result: Any) -> Any:
        config = self._config.config or {}
        seen.append((self._config.name, dict(context.metadata)))
        if "wait_for" in config:
            await gates[config["wait_for"]].wait()
        try:
            return await getattr(self, f"_{config.get('do', 'pass')}")(config, payload, context, result)
        finally:
            if "then_open" in config:
                gates[config["then_open"]].set()

    async def _pass(self, config: Any, payload: Any, context: Any, result: Any) -> Any:
        return result(continue_processing=True)

    async def _modify(self, config: Any, payload: Any, context: Any, result: Any) -> Any:
        changed = type(payload)(name=payload.name, args={**(payload.args or {}), "added": self._config.name})
        return result(continue_processing=True, modified_payload=changed)

    async def _reveal(self, config: Any, payload: Any, context: Any, result: Any) -> Any:
        """Tell all that the plugin was given."""
        given = json.dumps([payload.model_dump(mode="json"), context.model_dump(mode="json")])
        return result(continue_processing=True, metadata={"given": given})

    async def _deny(self, config: Any, payload: Any, context: Any, result: Any) -> Any:
        return result(continue_processing=False, violation=self._violation(config))

    async def _warn(self, config: Any, payload: Any, context: Any, result: Any) -> Any:
        return result(continue_processing=True, violation=self._violation(config))

    async def _deny_in_silence(self, config: Any, payload: Any, context: Any, result: Any) -> Any:
        return result(continue_processing=False)

    async def _raise_violation(self, config: Any, payload: Any, context: Any, result: Any) -> Any:
        raise framework.PluginViolationError("raised by the plugin", violation=self._violation(config))

    async def _crash(self, config: Any, payload: Any, context: Any, result: Any) -> Any:
        raise CrashError(config.get("text", "the plugin crashed"))

    async def _hang(self, config: Any, payload: Any, context: Any, result: Any) -> Any:
        await asyncio.Event().wait()

    async def _span(self, config: Any, payload: Any, context: Any, result: Any) -> Any:
        with tracers[0].start_as_current_span("in plugin"):
            return result(continue_processing=True)

    async def _nest(self, config: Any, payload: Any, context: Any, result: Any) -> Any:
        """Invoke a hook from inside a plugin, as some gateways' plugins do."""
        manager = framework.PluginManager()
        await manager.invoke_hook("tool_post_invoke", post_payload(), context.global_context)
        return result(continue_processing=True)

    async def _call_another(self, config: Any, payload: Any, context: Any, result: Any) -> Any:
        manager = framework.PluginManager()
        return await manager.invoke_hook_for_plugin(config["other"], "tool_pre_invoke", payload, context)

    def _violation(self, config: Any) -> Any:
        return framework.PluginViolation(
            reason=config.get("reason", "a reason"),
            description=config.get("description", "a description"),
            code=config.get("code", "DENIED"),
            details=config.get("details", {}),
        )


def post_payload() -> Any:
    return framework.ToolPostInvokePayload(name="t", result={"answer": 42})
