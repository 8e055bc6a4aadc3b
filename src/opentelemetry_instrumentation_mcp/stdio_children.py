"""The environment of a stdio server that is to join its client's traces. Pure: nothing is read, nothing is started.

The SDK gives a spawned server a handful of variables (``PATH``, ``HOME``, ...) and what its caller says in ``env``:
neither ``OTEL_*`` nor ``PYTHONPATH``. What is added here never replaces what the caller said.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

from .environment_variables import OTEL_INSTRUMENTATION_MCP_STDIO_CHILDREN as SETTING
from .launch_command import Launch

OFF, ON, ON_WITH_HEADERS = "off", "on", "on+headers"

BOOTSTRAP = Path(__file__).with_name("child_bootstrap")
"""The folder on a child's ``PYTHONPATH``: nothing is in it but a ``sitecustomize`` that instruments the child."""

_SERVICE_NAME, _RESOURCE, _PYTHONPATH = "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", "PYTHONPATH"
# What tells one service or process from another; the rest (namespace, environment, host) is true of a child as well.
_OWN_ATTRIBUTES = re.compile(r"service\.(?:name|version|instance\.id)$|process\.")
_EXPORTERS = re.compile(r"OTEL_(?:TRACES|METRICS|LOGS)_EXPORTER")
# Secrets by the last word of their names. `..._CLIENT_KEY` is the path of a file.
_SECRETS = re.compile(
    r".*_(?:HEADERS|PASSWORD|PASSWD|SECRET|TOKEN|CREDENTIALS?|AUTH|AUTHORIZATION|API_?KEY|(?<!_CLIENT_)KEY)"
)
_FILES = re.compile(r".*_(?:CERTIFICATE|CLIENT_KEY)|OTEL_(?:EXPERIMENTAL_)?CONFIG_FILE")
_ENDPOINT = re.compile(r"OTEL_EXPORTER_.*_ENDPOINT")
_OTLP_OF_SIGNAL = re.compile(r"OTEL_EXPORTER_OTLP_(?:TRACES|METRICS|LOGS)_(.*)")
_CONSOLE = "console"


class Handover(NamedTuple):
    """The environment of a child, and which exporter variables named the console, which a child must not use."""

    environment: dict[str, str]
    console: tuple[str, ...]


def child_environment(
    parent: Mapping[str, str], given: Mapping[str, str], launch: Launch, setting: str, cwd: str
) -> Handover | None:
    """What a child is started with in place of ``given``; None if ``given`` stays as it is.

    Args:
        parent: the environment of this process.
        given: the environment the child would have: a default of the SDK and what the caller says.
        launch: what is started.
        setting: ``on`` or ``on+headers``. A value of the same variable in ``given`` counts for this child: ``off``
            leaves it alone, ``on`` includes it although it does not look like Python.
        cwd: the working directory of this process, which relative paths are meant to start from.
    """
    # Some callers hand on all they have: what they say is then no word about this child.
    copied = parent.keys() <= given.keys()

    def inherited(name: str) -> bool:
        return name not in given or (copied and given[name] == parent.get(name))

    asked = "" if inherited(SETTING) else given[SETTING].strip().lower()
    if asked == OFF or not (launch.is_python or asked in (ON, ON_WITH_HEADERS)):
        return None
    setting = asked or setting
    environment = {**_handed_over(parent, given, setting == ON_WITH_HEADERS, cwd), **given}
    environment.setdefault(SETTING, setting)

    if inherited(_RESOURCE) and _RESOURCE in parent:
        environment[_RESOURCE] = _shared_attributes(parent[_RESOURCE])
    named = not inherited(_SERVICE_NAME) or "service.name" in _attribute_names(environment.get(_RESOURCE, ""))
    if launch.name and not named:
        environment[_SERVICE_NAME] = launch.name

    exporters = [name for name in parent if _EXPORTERS.fullmatch(name) and inherited(name)]
    console = tuple(name for name in exporters if _CONSOLE in _listed(parent[name]))
    for name in console:
        environment[name] = ",".join(one for one in _listed(parent[name]) if one != _CONSOLE) or "none"
    return Handover({**environment, **_python_path(given)}, console)


def _handed_over(parent: Mapping[str, str], given: Mapping[str, str], secrets: bool, cwd: str) -> dict[str, str]:
    # A service name is not handed over; credentials are not for an endpoint that somebody else chose.
    own_endpoint = any(_ENDPOINT.fullmatch(name) and given[name] != parent.get(name) for name in given)
    found: dict[str, str] = {}
    for name, value in parent.items():
        if not name.startswith("OTEL_") or name in (_SERVICE_NAME, _RESOURCE):
            continue
        if _SECRETS.fullmatch(name) and (not secrets or (own_endpoint and name.endswith("_HEADERS"))):
            continue
        # The variable of a signal would win over the caller's for all signals.
        of_signal = _OTLP_OF_SIGNAL.fullmatch(name)
        if of_signal and f"OTEL_EXPORTER_OTLP_{of_signal[1]}" in given:
            continue
        if _FILES.fullmatch(name) and value:
            found[name] = str(Path(cwd, value))
        else:
            found[name] = value if secrets else _without_credentials(value)
    return found


def _without_credentials(value: str) -> str:
    """``value``; if it is a URL, without its user info, query and fragment."""
    if "://" not in value:
        return value
    try:
        parts = urlsplit(value)
    except ValueError:
        return value
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _attribute_names(text: str) -> set[str]:
    return {entry.partition("=")[0].strip() for entry in text.split(",")}


def _shared_attributes(text: str) -> str:
    return ",".join(entry for entry in text.split(",") if not _OWN_ATTRIBUTES.match(entry.partition("=")[0].strip()))


def _listed(text: str) -> list[str]:
    return [stripped for part in text.split(",") if (stripped := part.strip())]


def _python_path(given: Mapping[str, str]) -> dict[str, str]:
    ours, before = str(BOOTSTRAP), given.get(_PYTHONPATH)
    if os.pathsep in ours:
        return {}
    theirs = [entry for entry in before.split(os.pathsep) if entry != ours] if before else []
    return {_PYTHONPATH: os.pathsep.join([ours, *theirs])}
