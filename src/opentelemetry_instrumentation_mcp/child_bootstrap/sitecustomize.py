"""Instruments the Python process that finds this on its ``PYTHONPATH``: a stdio server of an instrumented client.

The interpreter may be any from 3.6 on, of any environment. Where OpenTelemetry or this package is not installed,
nothing happens; where something fails, the server starts all the same. A ``sitecustomize`` of the user is run as it
would be without this one. Nothing is ever written to stdout, which is the server's protocol stream.
"""

import os
import sys
from collections.abc import Callable

_NAME = "sitecustomize"
# Of this file in any copy of the package, and of the one that `opentelemetry-instrument` puts on the path.
_OURS, _OTEL = "opentelemetry_instrumentation_mcp/child_bootstrap", "opentelemetry/instrumentation/auto_instrumentation"
_LAUNCHER, _LAUNCHER_MODULE = "opentelemetry-instrument", "opentelemetry.instrumentation.auto_instrumentation"


def _with_slashes(path: str) -> str:
    return path.replace("\\", "/").rstrip("/")


def _is_ours(folder: str) -> bool:
    return _with_slashes(folder).endswith(_OURS)


def _is_otel(folder: str) -> bool:
    return _with_slashes(folder).endswith(_OTEL)


def _is_launcher() -> bool:
    """Whether this process only becomes another one, which instruments itself."""
    words = getattr(sys, "orig_argv", [])[1:3]
    script = _with_slashes(words[0]).rpartition("/")[2] if words else ""
    return script in (_LAUNCHER, _LAUNCHER + ".exe") or words == ["-m", _LAUNCHER_MODULE]


def _is_installed() -> bool:
    from importlib.util import find_spec

    names = ("opentelemetry.sdk", _LAUNCHER_MODULE, "opentelemetry_instrumentation_mcp.console_exporters")
    try:
        return all(find_spec(name) is not None for name in names)
    except Exception:  # what is found is imported on the way: a broken installation may raise anything
        return False


def _run_next(is_passed_over: "Callable[[str], bool]") -> None:
    """Run the ``sitecustomize`` that this one hides; what it raises is for the interpreter to report."""
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    spec = PathFinder.find_spec(_NAME, [folder for folder in sys.path if not is_passed_over(folder)])
    if spec is not None and spec.loader is not None:
        module = module_from_spec(spec)
        sys.modules[_NAME] = module
        spec.loader.exec_module(module)


def _instrument() -> None:
    from importlib import import_module

    path = os.environ.get("PYTHONPATH", "")
    try:
        # What is started while this goes on must not do the same again.
        os.environ["PYTHONPATH"] = os.pathsep.join(
            folder for folder in path.split(os.pathsep) if not _is_ours(folder) and not _is_otel(folder)
        )
        import_module(_LAUNCHER_MODULE).initialize()
    finally:
        os.environ["PYTHONPATH"] = path
    import_module("opentelemetry_instrumentation_mcp.console_exporters").redirect()


def _start() -> None:
    sys.path[:] = [folder for folder in sys.path if not _is_ours(folder)]
    instruments = not _is_launcher() and _is_installed()
    try:
        _run_next(_is_otel if instruments else lambda folder: False)
    finally:
        if instruments:
            try:
                _instrument()
            except Exception as error:
                name = type(error).__name__
                sys.stderr.write(f"OpenTelemetry could not be set up in this MCP server ({name})\n")


_start()
