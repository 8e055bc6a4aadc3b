"""One gateway with its defaults for the whole run, others for one file each; the same servers behind all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.gateway import Gateway, Upstreams, furnished, need_gateway, prepare_database, upstreams
from support.gateway_trees import Trees
from support.sink import OtlpSink

need_gateway()

Start = Callable[..., Gateway]


@pytest.fixture(scope="session")
def sink() -> Iterator[OtlpSink]:
    with OtlpSink() as sink:
        yield sink
        assert not sink.rejected


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_database(tmp_path_factory.mktemp("database"))


@pytest.fixture(scope="session")
def behind(sink: OtlpSink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstreams]:
    with upstreams(tmp_path_factory.mktemp("upstreams"), sink) as behind:
        yield behind


@pytest.fixture(scope="module")
def start(
    sink: OtlpSink, database: Path, behind: Upstreams, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Start]:
    """Starts gateways that live until the end of the file."""
    with ExitStack() as stack:

        def start(
            name: str, *, instrumented: bool = True, plugins: bool = True, env: Mapping[str, str] | None = None
        ) -> Gateway:
            folder, used = tmp_path_factory.mktemp(name), sink if instrumented else None
            gateway = Gateway(folder, database, used, service_name=name, plugins=plugins, env=env)
            return stack.enter_context(furnished(gateway, behind))

        yield start


@pytest.fixture(scope="session")
def gateway(
    sink: OtlpSink, database: Path, behind: Upstreams, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """With its defaults: stateless, plugins, its own OTEL off."""
    one = Gateway(tmp_path_factory.mktemp("gateway"), database, sink)
    with furnished(one, behind):
        yield one


@pytest.fixture(scope="session")
def trees(sink: OtlpSink, gateway: Gateway, behind: Upstreams) -> Trees:
    return Trees(sink, gateway, behind)
