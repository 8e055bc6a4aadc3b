"""stdio servers: those this process starts get an environment in which they join the traces; those it is keep stdout.

Both SDK generations start a server with ``mcp.client.stdio._create_platform_compatible_process(command=, args=, env=,
...)``, and so do all stdio transports of FastMCP, which use ``stdio_client``. ``env`` is complete there.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

from .. import console_exporters
from ..guard import contained, report_once
from ..launch_command import recognise
from ..stdio_children import child_environment
from ..telemetry import Telemetry
from . import transports
from .arguments import argument

# `#!/path/python`, `#!/usr/bin/env -S python`; or `#!/bin/sh` with `exec` below it, where the path is long.
_SHEBANG = re.compile(rb"#![^\n]*python|#!/bin/sh\n'''exec' [^\n]*python")
_LONGEST_SHEBANG = 512
_ENV = "env"


def start_process(telemetry: Telemetry) -> Any:
    """``_create_platform_compatible_process``: the child's environment, made anew; the caller's is not changed."""
    setting = telemetry.config.stdio_children

    def wrapper(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        changed = environment_for(setting, args, kwargs)
        if changed is None:
            return wrapped(*args, **kwargs)
        if _ENV in kwargs:
            return wrapped(*args, **{**kwargs, _ENV: changed})
        return wrapped(*args[:2], changed, *args[3:], **kwargs)

    return wrapper


@contained("prepare the environment of a stdio server")
def environment_for(setting: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, str] | None:
    """What to start a child with in place of the ``env`` among the arguments; None if that stays."""
    command, arguments = argument(args, kwargs, 0, "command"), argument(args, kwargs, 1, "args")
    given, cwd = argument(args, kwargs, 2, _ENV), argument(args, kwargs, 4, "cwd")
    # Without an environment of its own a child inherits all of this process's.
    if given is None:
        return None
    launch = recognise(command, arguments, lambda script: is_python_script(script, given.get("PATH"), cwd))
    handover = child_environment(os.environ, given, launch, setting, str(Path.cwd()))
    if handover is None:
        return None
    if handover.console:
        report_once(
            "console exporter of a child",
            "%s: 'console' is not handed to stdio MCP servers, whose stdout is their protocol stream; "
            "'mcp_tree' would print to stderr",
            ", ".join(handover.console),
        )
    return handover.environment


def is_python_script(command: str, path: str | None, cwd: Any) -> bool:
    """Whether the file behind ``command`` is started by a Python interpreter: a console script of an environment.

    Args:
        command: as given to the operating system.
        path: the child's ``PATH``.
        cwd: the child's working directory, None for that of this process.
    """
    has_folder = any(separator in command for separator in (os.sep, os.altsep) if separator)
    found = Path(cwd or "", command) if has_folder else shutil.which(command, path=path)
    if found is None or not Path(found).is_file():
        return False
    with Path(found).open("rb") as file:
        start = file.read(_LONGEST_SHEBANG)
    if start.startswith(b"#!"):
        return _SHEBANG.match(start) is not None
    # On Windows a console script is a program, in the folder of its environment's interpreter or in one below.
    folder = Path(found).parent
    return start.startswith(b"MZ") and any((place / "python.exe").is_file() for place in (folder, folder.parent))


def observe_server(telemetry: Telemetry) -> Any:
    """``stdio_server``: a pipe, and from now on nothing else may write to stdout."""
    observe_pipe = transports.observe_pipe(telemetry)

    def observe(streams: Any, generator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if argument(args, kwargs, 1, "stdout") is None:
            console_exporters.redirect(lambda: telemetry.active)
        observe_pipe(streams, generator, args, kwargs)

    return observe
