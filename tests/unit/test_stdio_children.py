"""The environment of a stdio server: what it gets, what it does not, and who wins."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from opentelemetry_instrumentation_mcp.launch_command import Launch
from opentelemetry_instrumentation_mcp.stdio_children import BOOTSTRAP, Handover, child_environment

PYTHON, OTHER = Launch(True, "weather"), Launch(False, "weather")
SETTING = "OTEL_INSTRUMENTATION_MCP_STDIO_CHILDREN"
BASE = {"PATH": "/bin", "HOME": "/home/me"}
PARENT = {
    **BASE,
    "SECRET_OF_THE_CLIENT": "s",
    "PYTHONPATH": "/of/the/client",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318",
    SETTING: "on",
}


def handover(
    parent: Mapping[str, str] = PARENT,
    given: Mapping[str, str] = BASE,
    launch: Launch = PYTHON,
    setting: str = "on",
    cwd: str = "/srv",
) -> Handover:
    found = child_environment(parent, given, launch, setting, cwd)
    assert found is not None
    return found


def environment(
    more: Mapping[str, str] | None = None, given: Mapping[str, str] | None = None, setting: str = "on"
) -> dict[str, str]:
    """The child's environment where the client has ``more`` variables, and ``given`` is what it says in ``env``."""
    return handover({**PARENT, **(more or {})}, {**BASE, **(given or {})}, setting=setting).environment


def test_what_a_child_gets() -> None:
    assert environment() == {
        **BASE,
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318",
        SETTING: "on",
        "OTEL_SERVICE_NAME": "weather",
        "PYTHONPATH": str(BOOTSTRAP),
    }


def test_nothing_else_is_in_the_folder_on_the_path() -> None:
    assert [entry.name for entry in BOOTSTRAP.iterdir() if entry.name != "__pycache__"] == ["sitecustomize.py"]


def test_the_arguments_are_not_changed() -> None:
    parent, given = dict(PARENT), {**BASE, "OTEL_LOGS_EXPORTER": "none"}
    before = dict(parent), dict(given)
    handover(parent, given)
    assert (parent, given) == before


@pytest.mark.parametrize(
    "name",
    [
        "OTEL_EXPORTER_OTLP_HEADERS",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
        "OTEL_EXPORTER_OTLP_METRICS_HEADERS",
        "OTEL_EXPORTER_OTLP_LOGS_HEADERS",
        "OTEL_EXPORTER_ZIPKIN_HEADERS",
        "OTEL_INSTRUMENTATION_MCP_IDENTITY_KEY",
        "OTEL_EXPORTER_JAEGER_PASSWORD",
        "OTEL_SOME_API_KEY",
        "OTEL_SOME_TOKEN",
        "OTEL_SOME_SECRET",
        "OTEL_VENDOR_AUTHORIZATION",
        "OTEL_VENDOR_APIKEY",
        "OTEL_VENDOR_PASSWD",
    ],
)
def test_credentials(name: str) -> None:
    assert name not in environment({name: "canary"})
    assert "canary" not in str(environment({name: "canary"}))
    assert environment({name: "canary"}, setting="on+headers")[name] == "canary"


@pytest.mark.parametrize(
    "name",
    [
        "OTEL_INSTRUMENTATION_MCP_REDACT_KEYS",
        "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST",
        "OTEL_TRACES_SAMPLER",
        "OTEL_PROPAGATORS",
        "OTEL_SDK_DISABLED",
    ],
)
def test_what_is_no_credential(name: str) -> None:
    assert environment({name: "value"})[name] == "value"


def test_credentials_in_urls() -> None:
    endpoints = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://me:canary@collector:4318/v1?api_key=canary#x"}
    assert environment(endpoints)["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] == "https://collector:4318/v1"
    proxy = {"OTEL_EXPORTER_OTLP_PROXY": "http://me:canary@proxy"}
    assert environment(proxy)["OTEL_EXPORTER_OTLP_PROXY"] == "http://proxy"
    assert endpoints.items() <= environment(endpoints, setting="on+headers").items()
    odd = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://[::1"}
    assert odd.items() <= environment(odd).items()


def test_files_are_found_from_another_working_directory() -> None:
    files = {
        "OTEL_EXPORTER_OTLP_CERTIFICATE": "certs/ca.pem",
        "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY": "client.key",
        "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": "/etc/client.pem",
        "OTEL_CONFIG_FILE": "otel.yaml",
        "OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE": "",
    }
    found = environment(files)
    assert found["OTEL_EXPORTER_OTLP_CERTIFICATE"] == str(Path("/srv/certs/ca.pem"))
    assert found["OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY"] == str(Path("/srv/client.key"))
    assert found["OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"] == str(Path("/etc/client.pem"))
    assert found["OTEL_CONFIG_FILE"] == str(Path("/srv/otel.yaml"))
    assert found["OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE"] == ""


def test_who_it_is() -> None:
    client = {
        "OTEL_SERVICE_NAME": "client",
        "OTEL_RESOURCE_ATTRIBUTES": "service.name=client, service.version=1,service.instance.id=7,"
        "service.namespace=shop,deployment.environment.name=test,process.pid=1",
    }
    found = environment(client)
    assert found["OTEL_SERVICE_NAME"] == "weather"
    assert found["OTEL_RESOURCE_ATTRIBUTES"] == "service.namespace=shop,deployment.environment.name=test"
    assert "OTEL_SERVICE_NAME" not in handover({**PARENT, **client}, launch=Launch(True, None)).environment

    assert environment(client, {"OTEL_SERVICE_NAME": "mine"})["OTEL_SERVICE_NAME"] == "mine"
    attributes = {"OTEL_RESOURCE_ATTRIBUTES": "a=b, service.name = mine"}
    found = environment(client, attributes)
    assert attributes.items() <= found.items()
    assert "OTEL_SERVICE_NAME" not in found
    assert environment(client, {"OTEL_RESOURCE_ATTRIBUTES": "a=b"})["OTEL_SERVICE_NAME"] == "weather"


def test_the_caller_wins() -> None:
    given = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://other:1", "OTEL_LOGS_EXPORTER": "", "OTEL_PROPAGATORS": "b3"}
    found = environment({"OTEL_LOGS_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://mine:1"}, given)
    assert given.items() <= found.items()
    assert "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" not in found


def test_credentials_are_for_the_endpoint_they_were_said_for() -> None:
    headers = {"OTEL_EXPORTER_OTLP_HEADERS": "canary", "OTEL_INSTRUMENTATION_MCP_IDENTITY_KEY": "key"}
    elsewhere = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://other:1"}
    found = environment(headers, elsewhere, setting="on+headers")
    assert "canary" not in str(found)
    assert found["OTEL_INSTRUMENTATION_MCP_IDENTITY_KEY"] == "key"
    same = {"OTEL_EXPORTER_OTLP_ENDPOINT": PARENT["OTEL_EXPORTER_OTLP_ENDPOINT"]}
    assert headers.items() <= environment(headers, same, setting="on+headers").items()


def test_python_path() -> None:
    ours = str(BOOTSTRAP)
    assert environment(given={"PYTHONPATH": "/a"})["PYTHONPATH"] == os.pathsep.join([ours, "/a"])
    assert environment(given={"PYTHONPATH": ""})["PYTHONPATH"] == ours
    twice = os.pathsep.join(["/a", ours])
    assert environment(given={"PYTHONPATH": twice})["PYTHONPATH"] == os.pathsep.join([ours, "/a"])


@pytest.mark.parametrize("setting", ["on", "on+headers"])
def test_other_children(setting: str) -> None:
    assert child_environment(PARENT, BASE, OTHER, setting, "/srv") is None


@pytest.mark.parametrize("word", ["off", " OFF "])
def test_a_child_is_left_alone(word: str) -> None:
    assert child_environment(PARENT, {**BASE, SETTING: word}, PYTHON, "on", "/srv") is None


def test_a_child_is_included() -> None:
    headers = {"OTEL_EXPORTER_OTLP_HEADERS": "canary"}
    parent = {**PARENT, **headers}
    found = handover(parent, {**BASE, SETTING: "on"}, OTHER)
    assert found.environment["PYTHONPATH"] == str(BOOTSTRAP)
    assert "canary" not in str(found)
    assert headers.items() <= handover(parent, {**BASE, SETTING: "on+headers"}, OTHER).environment.items()
    assert "canary" not in str(handover(parent, {**BASE, SETTING: "on"}, PYTHON, "on+headers"))


def test_the_setting_travels() -> None:
    """A server that is a client itself goes on, also if the setting was an argument of ``instrument()``."""
    parent = {name: value for name, value in PARENT.items() if name != SETTING}
    assert handover(parent, setting="on").environment[SETTING] == "on"
    assert handover(parent, setting="on+headers").environment[SETTING] == "on+headers"


@pytest.mark.parametrize(
    ("exporters", "left"),
    [("console", "none"), (" console ", "none"), ("otlp,console", "otlp"), ("otlp, mcp_tree,console", "otlp,mcp_tree")],
)
@pytest.mark.parametrize("signal", ["TRACES", "METRICS", "LOGS"])
def test_console_is_no_exporter_of_a_stdio_server(signal: str, exporters: str, left: str) -> None:
    name = f"OTEL_{signal}_EXPORTER"
    found = handover({**PARENT, name: exporters})
    assert found.environment[name] == left
    assert found.console == (name,)
    # In a server of ours it goes to stderr.
    found = handover({**PARENT, name: exporters}, {**BASE, name: "console"})
    assert (found.environment[name], found.console) == ("console", ())


def test_a_copied_environment_says_nothing_about_the_child() -> None:
    """``env=dict(os.environ)``, as FastMCP does it for ``uv`` and ``npx`` with variables of their own."""
    client = {
        "OTEL_SERVICE_NAME": "client",
        "OTEL_TRACES_EXPORTER": "console",
        "OTEL_RESOURCE_ATTRIBUTES": "service.name=x",
    }
    parent = {**PARENT, **client}
    found = handover(parent, {**parent, "MORE": "1"}).environment
    assert found["OTEL_SERVICE_NAME"] == "weather"
    assert found["OTEL_RESOURCE_ATTRIBUTES"] == ""
    assert found["OTEL_TRACES_EXPORTER"] == "none"
    assert found["MORE"] == "1"
    assert found["SECRET_OF_THE_CLIENT"] == "s"
    assert handover(parent, {**parent, "OTEL_SERVICE_NAME": "mine"}).environment["OTEL_SERVICE_NAME"] == "mine"
    assert child_environment(parent, parent, OTHER, "on", "/srv") is None
    assert child_environment(parent, {**parent, SETTING: "off"}, PYTHON, "on", "/srv") is None


def test_a_folder_that_cannot_be_on_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    odd = Path(f"/odd{os.pathsep}folder")
    monkeypatch.setattr("opentelemetry_instrumentation_mcp.stdio_children.BOOTSTRAP", odd)
    assert "PYTHONPATH" not in environment()
    assert environment(given={"PYTHONPATH": "/a"})["PYTHONPATH"] == "/a"
