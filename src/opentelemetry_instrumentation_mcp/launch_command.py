"""What the command line of a stdio server starts: whether it is Python, and what to call it. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

# Of interpreters, also with a version, free-threaded or for debugging; `py` is the launcher of Windows.
_PYTHON = re.compile(r"(?:pythonw?|pypy|graalpy)[0-9.]*[td]?|pyw?")
_SUFFIX = re.compile(r"\.(?:exe|cmd|bat|com)$")
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_MAX_NAME = 64


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What takes the next argument as its value, of those that stand between a launcher and what it starts.
_VALUES_OF_ENV = frozenset({"-u", "--unset", "-C", "--chdir", "-a", "--argv0"})
_VALUES_OF_UV = _words(
    "--allow-insecure-host --build-constraints --cache-dir --color --config-file --config-setting --constraints "
    "--default-index --directory --env-file --exclude-newer --extra --extra-index-url --find-links --fork-strategy "
    "--from --group --index --index-strategy --index-url --keyring-provider --link-mode --no-binary-package "
    "--no-build-isolation-package --no-build-package --no-extra --no-group --only-group --overrides --package "
    "--prerelease --project --python --python-platform --refresh-package --reinstall-package --resolution --spec "
    "--upgrade-package --with --with-editable --with-requirements -C -P -b -c -f -i -p -w"
)
_VALUES_OF_FASTMCP = _words(
    "--host --log-level --name --path --port --project --python --transport --with --with-editable "
    "--with-requirements -e -l -p -t"
)
_PROJECT_TOOLS = frozenset({"hatch", "pdm", "poetry", "rye"})
_MCP_COMMANDS = frozenset({"fastmcp", "mcp"})
# Not Python, whatever starts them.
_OTHERS = _words("ash bash bun bunx cmd dash deno docker fish node npm npx podman powershell pwsh sh tsx zsh")
_INSTRUMENT = "opentelemetry-instrument"
_INSTRUMENT_MODULE = "opentelemetry.instrumentation.auto_instrumentation"


class Launch(NamedTuple):
    """What a command starts: whether a Python interpreter runs it, and a name for it, None if nothing names it."""

    is_python: bool
    name: str | None


def recognise(command: str, args: Sequence[str], is_python_script: Callable[[str], bool]) -> Launch:
    """What ``command`` with ``args`` starts.

    ``is_python_script(command)`` looks at the file behind a command that no rule knows; it is asked for such a
    command only, which may be one behind launchers.
    """
    program = _program_of(command)
    if program == "env":
        inner = _after_env(args)
        return recognise(inner[0], inner[1:], is_python_script) if inner else Launch(False, None)
    if _PYTHON.fullmatch(program):
        return Launch(True, _name(_of_python(args)))
    inner = _behind_launcher(program, args)
    if inner is not None:
        is_other = bool(inner) and _program_of(inner[0]) in _OTHERS
        return Launch(not is_other, _name(_of_inner(inner)))
    if program in _MCP_COMMANDS:
        return Launch(program == "fastmcp" or is_python_script(command), _name(_of_mcp_command(args)))
    return Launch(is_python_script(command), _name(program))


def _program_of(command: str) -> str:
    """``C:\\Tools\\UV.EXE`` is ``uv``."""
    return _SUFFIX.sub("", re.split(r"[/\\]", command)[-1].lower())


def _behind_launcher(program: str, args: Sequence[str]) -> Sequence[str] | None:
    """The command line that a launcher of Python programs is to start; None if ``program`` is none."""
    if program == "uvx":
        return _without_options(args, _VALUES_OF_UV)
    if program == "uv":
        rest = _without_options(args, _VALUES_OF_UV)
        if rest[:2] == ["tool", "run"]:
            return _without_options(rest[2:], _VALUES_OF_UV)
        return _without_options(rest[1:], _VALUES_OF_UV) if rest[:1] == ["run"] else None
    if program == "pipx" or program in _PROJECT_TOOLS:
        rest = _without_options(args, _VALUES_OF_UV)
        return _without_options(rest[1:], _VALUES_OF_UV) if rest[:1] == ["run"] else None
    return _after_instrument(args) if program == _INSTRUMENT else None


def _of_inner(args: Sequence[str]) -> str | None:
    if not args:
        return None
    command, *rest = args
    if command in ("-m", "--module"):
        return _of_module(rest)
    program = _program_of(command)
    if program.endswith((".py", ".pyw")):
        return _of_script(command)
    if _PYTHON.fullmatch(program):
        return _of_python(rest)
    inner = _behind_launcher(program, rest)
    if inner is not None:
        return _of_inner(inner)
    return _of_mcp_command(rest) if program in _MCP_COMMANDS else _of_requirement(command)


def _without_options(args: Sequence[str], with_values: frozenset[str]) -> list[str]:
    """``args`` from the first that is neither an option nor the value of one; from ``-m`` on, which is what it is."""
    rest = list(args)
    while rest and rest[0].startswith("-") and rest[0] not in ("-m", "--module"):
        option = rest.pop(0)
        if option == "--":
            break
        if option in with_values:
            del rest[:1]
    return rest


def _after_env(args: Sequence[str]) -> list[str]:
    rest = list(args)
    while rest and (rest[0].startswith("-") or _ASSIGNMENT.match(rest[0])):
        option = rest.pop(0)
        if option in ("-S", "--split-string"):
            rest[:1] = rest[0].split() if rest else []
        elif option in _VALUES_OF_ENV:
            del rest[:1]
    return rest


def _after_instrument(args: Sequence[str]) -> list[str]:
    rest = list(args)
    while rest and rest[0].startswith("-"):
        if "=" not in rest.pop(0):
            del rest[:1]
    return rest


def _of_python(args: Sequence[str]) -> str | None:
    """What the arguments of an interpreter name: its single letters may stand together, ``-Im package``."""
    rest = list(args)
    while rest and rest[0].startswith("-"):
        letters = rest.pop(0)[1:]
        found = re.search("[cmWX]", letters) if not letters.startswith("-") else None
        value = letters[found.end() :] if found else ""
        if not letters or (found and found[0] == "c"):
            return None
        if found and found[0] == "m":
            return _of_module([value, *rest] if value else rest)
        if (found and not value) or letters == "-check-hash-based-pycs":
            del rest[:1]
    return _of_script(rest[0]) if rest else None


def _of_module(args: Sequence[str]) -> str | None:
    if not args:
        return None
    module, *rest = args
    if module == _INSTRUMENT_MODULE:
        return _of_inner(_after_instrument(rest))
    if module.partition(".")[0] in _MCP_COMMANDS and rest:
        return _of_mcp_command(rest)
    return module.removesuffix(".__main__")


def _of_script(path: str) -> str | None:
    *folders, file = [part for part in re.split(r"[/\\]", path) if part not in ("", ".")] or [""]
    stem = re.sub(r"\.(?:pyw?|pyz|zip)$", "", file)
    if stem == "__main__":
        return folders[-1] if folders else None
    return stem


def _of_mcp_command(args: Sequence[str]) -> str | None:
    """``fastmcp run server.py:app`` is ``server``."""
    rest = _without_options(args, _VALUES_OF_FASTMCP)
    if rest[:1] != ["run"]:
        return None
    target = (_without_options(rest[1:], _VALUES_OF_FASTMCP) or [""])[0]
    path = re.match(r"(.*\.py)(?::[A-Za-z_.]+)?$", target)
    return _of_script(path[1]) if path else None


def _of_requirement(text: str) -> str | None:
    """``weather-mcp@1.2`` and ``git+https://host/weather-mcp`` are ``weather-mcp``."""
    if "://" in text:
        # Of a URL, the path only: the rest may hold credentials.
        path = re.split(r"[?#]", text.partition("://")[2])[0].rstrip("/").partition("/")[2]
        text = path.rpartition("/")[2].removesuffix(".git")
    return re.split(r"[@=<>!~\[;\s]", _program_of(text))[0]


def _name(text: str | None) -> str | None:
    """``text`` as a service name: bounded, and of letters, digits, ``_``, ``.`` and ``-`` only."""
    return re.sub(r"[^\w.-]+", "-", text or "").strip("-.")[:_MAX_NAME] or None
