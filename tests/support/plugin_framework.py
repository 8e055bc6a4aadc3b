"""The plugin framework that is installed: `cpex`, or the one in gateways up to 1.0.0. Versions differ here."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

IS_CPEX = importlib.util.find_spec("cpex") is not None
# Plugin servers on this machine are refused otherwise; read when the framework is imported.
os.environ.setdefault("PLUGINS_SSRF_PROTECTION_ENABLED", "false")

PACKAGE = "cpex.framework" if IS_CPEX else "mcpgateway.plugins.framework"
VERSION = metadata.version("cpex" if IS_CPEX else "mcp-contextforge-gateway")
framework: Any = importlib.import_module(PACKAGE)
manager_module: Any = importlib.import_module(f"{PACKAGE}.manager")

# The framework of gateway 1.0.0 has spans of its own.
HAS_NATIVE_SPANS = hasattr(manager_module, "create_span")
HAS_TRANSPORTS = importlib.util.find_spec(f"{PACKAGE}.external.unix") is not None

# That of gateway 0.9.0 takes the failure of a plugin for one of its own telemetry, and calls the plugin once more.
CALLS_FAILURES_AGAIN = not IS_CPEX and VERSION.startswith("0.9.")

# Before 0.1.3, a violation that is raised leaves the plugins that run at the same time running.
LEAVES_OTHERS_RUNNING = IS_CPEX and VERSION in ("0.1.0", "0.1.1", "0.1.2")

# What a plugin is configured with to be allowed to block; to have its failures ignored; to only look on.
BLOCKS: dict[str, Any] = {"mode": "sequential"} if IS_CPEX else {"mode": "enforce"}
IS_IGNORED: dict[str, Any] = {**BLOCKS, "on_error": "ignore"} if IS_CPEX else {"mode": "enforce_ignore_error"}
LOOKS_ON: dict[str, Any] = {"mode": "audit"} if IS_CPEX else {"mode": "permissive"}

PRE, POST = "tool_pre_invoke", "tool_post_invoke"
ZOO = "support.plugin_zoo.Zoo"


def plugin(name: str, do: str = "pass", **settings: Any) -> dict[str, Any]:
    """An entry of a configuration; what is not a setting of the framework goes to the plugin."""
    known = {"mode", "on_error", "priority", "conditions", "hooks", "kind", "mcp", "grpc", "unix_socket"}
    entry: dict[str, Any] = {
        "name": name,
        "kind": ZOO,
        "description": "d",
        "version": "0.1",
        "author": "x",
        "tags": [],
        "hooks": [PRE, POST],
        "conditions": [],
        **BLOCKS,
        **{key: value for key, value in settings.items() if key in known},
    }
    entry["config"] = {"do": do, **{key: value for key, value in settings.items() if key not in known}}
    return entry


def external(name: str, **settings: Any) -> dict[str, Any]:
    """An entry for a plugin in another process, as its own configuration there describes it."""
    return {"name": name, "kind": "external", "hooks": [PRE, POST], **BLOCKS, **settings}


def numbered(*plugins: dict[str, Any]) -> list[dict[str, Any]]:
    """In the order in which they are given."""
    return [{"priority": 10 * at, **one} for at, one in enumerate(plugins, 1)]


def configuration(folder: Path, plugins: list[dict[str, Any]], *, fail_on_plugin_error: bool = False) -> Path:
    path = folder / "plugins.yaml"
    settings = {"plugin_timeout": 30, "fail_on_plugin_error": fail_on_plugin_error}
    path.write_text(yaml.safe_dump({"plugins": plugins, "plugin_dirs": [], "plugin_settings": settings}))
    return path


def reset() -> None:
    """The managers of one process share everything."""
    if hasattr(framework.PluginManager, "reset"):
        framework.PluginManager.reset()
        return
    framework.PluginManager._PluginManager__shared_state.clear()
    registry = importlib.import_module(f"{PACKAGE}.registry")
    framework.PluginManager._registry = registry.PluginInstanceRegistry()
    framework.PluginManager._config = None
    framework.PluginManager._initialized = False


@asynccontextmanager
async def managing(folder: Path, *plugins: dict[str, Any], timeout: float = 20, **settings: Any) -> AsyncIterator[Any]:
    """A manager of these plugins, which are run in the order in which they are given if their modes allow it."""
    reset()
    manager = framework.PluginManager(str(configuration(folder, numbered(*plugins), **settings)), timeout=timeout)
    executor = manager._executor
    assert executor.timeout == timeout
    await manager.initialize()
    assert manager.plugin_count == len([one for one in plugins if one["mode"] != "disabled"])
    try:
        yield manager
    finally:
        await manager.shutdown()
        reset()


def payload(**arguments: Any) -> Any:
    return framework.ToolPreInvokePayload(name="t", args=arguments or {"x": "fine"})


def global_context(**settings: Any) -> Any:
    return framework.GlobalContext(request_id="r1", **settings)


async def invoke(manager: Any, *, raising: bool = False, hook: str = PRE, **arguments: Any) -> Any:
    result, _ = await manager.invoke_hook(
        hook, payload(**arguments), global_context(server_id="s1"), violations_as_exceptions=raising
    )
    return result
