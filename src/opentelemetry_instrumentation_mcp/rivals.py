"""Other instrumentations of the same calls: found, and reported once; two of them mean two spans per message."""

from __future__ import annotations

import sys

from .guard import contained, report_once
from .hooks import Target, attribute_of, find_attribute, is_ours

# Modules that exist only while the instrumentation behind them is in use.
_KNOWN_MODULES = {
    "opentelemetry.instrumentation.mcp.instrumentation": "opentelemetry-instrumentation-mcp",
    "openinference.instrumentation.mcp": "openinference-instrumentation-mcp",
    "logfire._internal.integrations.mcp": "logfire",
    "amazon.opentelemetry.distro.instrumentation.mcp": "aws-opentelemetry-distro",
}


@contained("look for other instrumentations")
def report_rivals(targets: tuple[Target, ...]) -> None:
    """Log one warning that names every other instrumentation of MCP active in this process."""
    found = {name for module, name in _KNOWN_MODULES.items() if module in sys.modules}
    for target in targets:
        found |= _foreign_wrappers(target)
    if found:
        report_once(
            "rivals",
            "MCP calls are also traced by another instrumentation (%s): expect a second set of spans. "
            "Uninstall it, or disable one of the two with OTEL_PYTHON_DISABLED_INSTRUMENTATIONS.",
            ", ".join(sorted(found)),
        )


def _foreign_wrappers(target: Target) -> set[str]:
    """The modules of wrapt wrappers around a target, above and below ours."""
    module = sys.modules.get(target.module)
    found = find_attribute(module, target.attribute) if module is not None else None
    modules: set[str] = set()
    function = attribute_of(*found) if found is not None else None
    while function is not None:
        wrapper = getattr(function, "_self_wrapper", None)
        if wrapper is not None and not is_ours(function):
            modules.add(str(getattr(wrapper, "__module__", "unknown")))
        function = getattr(function, "__wrapped__", None)
    return modules
