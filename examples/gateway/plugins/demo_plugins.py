"""Two plugins for ContextForge 1.0.1 or newer. Nothing in here knows about OpenTelemetry."""

from cpex.framework import Plugin, PluginContext, PluginViolation, ToolPreInvokePayload, ToolPreInvokeResult


class TidyArguments(Plugin):
    """Changes what the tool gets: `"  lisbon"` becomes `"Lisbon"`."""

    async def tool_pre_invoke(self, payload: ToolPreInvokePayload, context: PluginContext) -> ToolPreInvokeResult:
        tidied = {
            name: value.strip().capitalize() if isinstance(value, str) else value
            for name, value in (payload.args or {}).items()
        }
        return ToolPreInvokeResult(modified_payload=payload.model_copy(update={"args": tidied}))


class BlockWords(Plugin):
    """Lets no call through that has one of the words of its configuration in an argument."""

    async def tool_pre_invoke(self, payload: ToolPreInvokePayload, context: PluginContext) -> ToolPreInvokeResult:
        words = (self._config.config or {}).get("words", [])
        if not any(word in str(value).lower() for word in words for value in (payload.args or {}).values()):
            return ToolPreInvokeResult()
        violation = PluginViolation(
            reason="Blocked word", description="an argument holds a blocked word", code="BLOCKED_WORD"
        )
        return ToolPreInvokeResult(continue_processing=False, violation=violation)
