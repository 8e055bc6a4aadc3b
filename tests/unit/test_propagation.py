"""Context in `_meta` and headers: what a peer writes there is untrusted, what a sender left there is stale."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry import baggage, context, propagate, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import Getter, TextMapPropagator, default_getter, default_setter
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from opentelemetry_instrumentation_mcp import propagation, w3c
from opentelemetry_instrumentation_mcp.connection import HttpRequest
from opentelemetry_instrumentation_mcp.propagation import IGNORE, LINK, PARENT
from support.health import SLOW

POLICIES = (PARENT, LINK, IGNORE)
REMOTE, HTTP, HEADER, AMBIENT = (0xA1, 0xB1), (0xA2, 0xB2), (0xA3, 0xB3), (0xA4, 0xB4)

stable = settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=60,
    suppress_health_check=SLOW,
)


def traceparent(where: tuple[int, int]) -> str:
    return f"00-{where[0]:032x}-{where[1]:016x}-01"


def in_span(where: tuple[int, int], base: Context | None = None, **state: str) -> Context:
    trace_state = TraceState(list(state.items())) if state else None
    span = NonRecordingSpan(SpanContext(*where, is_remote=False, trace_flags=TraceFlags(1), trace_state=trace_state))
    return trace.set_span_in_context(span, base if base is not None else Context())


def span_of(found: Context) -> tuple[int, int] | None:
    span_context = trace.get_current_span(found).get_span_context()
    return (span_context.trace_id, span_context.span_id) if span_context.is_valid else None


def targets_of(links: list[trace.Link] | None) -> list[tuple[int, int]]:
    return [(link.context.trace_id, link.context.span_id) for link in links or ()]


def http(where: tuple[int, int] | None = HTTP, **headers: str) -> HttpRequest:
    """An HTTP request, with a live span of its own unless ``where`` is None."""
    pairs = tuple((name.encode(), value.encode()) for name, value in headers.items())
    return HttpRequest(in_span(where) if where else Context(), headers=pairs)


@pytest.fixture(autouse=True)
def stale_ambient_span() -> Iterator[None]:
    """Something is always current in the receiving task, and it is never the right parent."""
    token = context.attach(in_span(AMBIENT, baggage.set_baggage("opened", "long ago", Context())))
    yield
    context.detach(token)


@pytest.fixture
def nothing_current() -> Iterator[None]:
    token = context.attach(Context())
    yield
    context.detach(token)


META = {"traceparent": traceparent(REMOTE)}


# --- the parent-and-link rules ------------------------------------------------------------------------------


def test_rule_1_meta_is_the_parent() -> None:
    found, links = propagation.receive({**META, "tracestate": "v=1", "baggage": "user.tier=gold"}, None)
    assert span_of(found) == REMOTE
    assert trace.get_current_span(found).get_span_context().trace_state == {"v": "1"}
    assert baggage.get_baggage("user.tier", found) == "gold"
    assert links is None


def test_rule_1_meta_is_extracted_onto_the_ambient_context() -> None:
    key = context.create_key("mine")
    ambient = context.set_value(key, "kept", in_span(HTTP, baggage.set_baggage("tenant", "7", Context())))
    found, _ = propagation.receive({**META, "baggage": "user.tier=gold"}, HttpRequest(ambient))
    assert context.get_value(key, found) == "kept"
    assert baggage.get_all(found) == {"tenant": "7", "user.tier": "gold"}
    token = context.attach(context.set_value(key, "current", context.get_current()))
    try:
        assert context.get_value(key, propagation.receive(META, None)[0]) == "current"
    finally:
        context.detach(token)


def test_rule_1_baggage_travels_without_a_span() -> None:
    found, links = propagation.receive({"baggage": "user.tier=gold"}, None)
    assert (span_of(found), links) == (None, None)
    assert baggage.get_baggage("user.tier", found) == "gold"


def test_rule_2_the_http_span_of_this_message_is_the_parent() -> None:
    for meta in (None, {}, {"progressToken": 1}, {"traceparent": "nonsense"}):
        found, links = propagation.receive(meta, http(HTTP, traceparent=traceparent(HEADER)))
        assert (span_of(found), links) == (HTTP, None)


def test_rule_2_without_an_http_span_its_headers_are() -> None:
    request = http(None, traceparent=traceparent(HEADER), baggage="user.tier=gold", cookie="x=y")
    found, links = propagation.receive(None, request)
    assert (span_of(found), links) == (HEADER, None)
    assert baggage.get_baggage("user.tier", found) == "gold"


def test_rule_2_header_names_are_compared_without_case() -> None:
    request = HttpRequest(Context(), headers=((b"TraceParent", traceparent(HEADER).encode()), (b"x-\xff", b"\xff\x00")))
    assert span_of(propagation.receive(None, request)[0]) == HEADER


@pytest.mark.parametrize(
    "request_of_message", [None, http(None), http(None, traceparent="nonsense"), HttpRequest(None)]
)
def test_rule_2_else_a_new_trace_begins(request_of_message: HttpRequest | None) -> None:
    found, links = propagation.receive(None, request_of_message)
    assert (span_of(found), links) == (None, None), "what is current belongs to another message (rule 4)"


def test_rule_3_a_live_http_span_is_linked() -> None:
    found, links = propagation.receive(META, http(HTTP, traceparent=traceparent(HEADER)))
    assert span_of(found) == REMOTE
    assert targets_of(links) == [HTTP]


def test_rule_3_a_dead_or_absent_http_span_is_not() -> None:
    for request in (None, http(None), http(None, traceparent=traceparent(HEADER)), HttpRequest(None)):
        found, links = propagation.receive(META, request)
        assert (span_of(found), links) == (REMOTE, None)


def test_rule_3_no_span_is_linked_with_itself() -> None:
    assert propagation.receive(META, http(REMOTE))[1] is None


HOSTILE_VALUES: dict[str, Any] = {
    "number": 123,
    "float": 1.5,
    "list": [traceparent(REMOTE)],
    "dict": {"traceparent": traceparent(REMOTE)},
    "null": None,
    "true": True,
    "empty": "",
    "1 MB": "0" * 1_000_000,
    "long and valid": traceparent(REMOTE) + "-" + "x" * 9000,
    "lone surrogate": "00-\ud800-\udfff-01",
    "trailing surrogate": traceparent(REMOTE) + "\ud800",
    "control characters": "\x00\r\n" + traceparent(REMOTE) + "\x1b",
    "zeros": traceparent((0, 0)),
    "version ff": "ff" + traceparent(REMOTE)[2:],
    "upper case": traceparent(REMOTE).upper(),
    "other digits": traceparent(REMOTE).replace("0", "\N{ARABIC-INDIC DIGIT ZERO}"),
    "bytes": traceparent(REMOTE).encode(),
    "object": object(),
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("value", HOSTILE_VALUES.values(), ids=HOSTILE_VALUES)
def test_rule_7_a_traceparent_that_is_none_is_ignored(value: Any, policy: str) -> None:
    meta = {"traceparent": value}
    assert span_of(propagation.receive(meta, http(HTTP), policy)[0]) == HTTP
    assert propagation.receive(meta, None, policy)[1] is None
    assert span_of(propagation.receive(meta, None, policy)[0]) is None


@pytest.mark.parametrize(
    "value", [*HOSTILE_VALUES.values(), "=", "a=1,a=2", "a=b\r\nc", "A=1", ",".join(["a=1"] * 999)]
)
def test_rule_7_a_malformed_tracestate_costs_nothing_else(value: Any) -> None:
    found, _ = propagation.receive({**META, "tracestate": value, "baggage": "k=v"}, None)
    assert span_of(found) == REMOTE
    assert baggage.get_baggage("k", found) == "v"


MALFORMED_BAGGAGE = [
    *HOSTILE_VALUES.values(),
    "=",
    ";;;,,,===",
    "k=\ud800",
    "\ud800=v",
    "k=%ED%A0%80,%=%,%zz=%zz",
    "k=\x00\r\nx: y",
    ",".join(f"k{number}=v" for number in range(500)),
    "k=" + "v" * 8000,
]


@pytest.mark.parametrize("value", MALFORMED_BAGGAGE, ids=range(len(MALFORMED_BAGGAGE)))
def test_rule_7_malformed_baggage_costs_nothing_else(value: Any) -> None:
    found, _ = propagation.receive({**META, "baggage": value}, None)
    assert span_of(found) == REMOTE
    carrier: dict[str, Any] = {}
    propagate.inject(carrier, found)
    assert carrier["traceparent"] == traceparent(REMOTE)
    "".join(carrier.values()).encode("ascii")


def test_rule_7_a_hostile_meta_of_any_shape_is_no_context() -> None:
    for meta in (None, 7, "traceparent", ["traceparent"], [META], b"", object(), True, {}, {1: 2, None: 3}):
        found, links = propagation.receive(meta, None)
        assert (span_of(found), links) == (None, None)


def test_rule_7_ten_thousand_keys() -> None:
    meta = {f"key{number}": "x" * 10 for number in range(10_000)}
    assert span_of(propagation.receive(meta, http())[0]) == HTTP
    assert span_of(propagation.receive({**meta, **META}, http())[0]) == REMOTE
    assert span_of(propagation.receive({**META, **meta}, http())[0]) == REMOTE


# --- REMOTE_PARENT ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "request_of_message", "parent", "links"),
    [
        (PARENT, None, REMOTE, []),
        (PARENT, http(HTTP), REMOTE, [HTTP]),
        (LINK, None, None, [REMOTE]),
        (LINK, http(HTTP), HTTP, [REMOTE]),
        (LINK, http(None), None, [REMOTE]),
        (IGNORE, None, None, []),
        (IGNORE, http(HTTP), HTTP, []),
        (IGNORE, http(None, traceparent=traceparent(HEADER)), None, []),
    ],
)
def test_what_a_remote_context_may_be(
    policy: str, request_of_message: HttpRequest | None, parent: tuple[int, int] | None, links: list[tuple[int, int]]
) -> None:
    found, found_links = propagation.receive({**META, "baggage": "k=v"}, request_of_message, policy)
    assert span_of(found) == parent
    assert targets_of(found_links) == links
    assert baggage.get_baggage("k", found) == ("v" if policy == PARENT else None), "a stranger's baggage is not ours"


def test_a_header_is_as_remote_as_meta() -> None:
    request = http(None, traceparent=traceparent(HEADER), baggage="k=v")
    found, links = propagation.receive(None, request, LINK)
    assert (span_of(found), targets_of(links)) == (None, [HEADER])
    assert baggage.get_baggage("k", found) is None
    found, links = propagation.receive(None, request, IGNORE)
    assert (span_of(found), links) == (None, None)


# --- anything at all ----------------------------------------------------------------------------------------

any_text = st.text(st.characters(codec=None, categories=None), max_size=40)
propagated = st.sampled_from(["traceparent", "tracestate", "baggage", "progressToken"])
plausible = st.sampled_from([traceparent(REMOTE), "a=1,b=2", "k=v,k2=%20;p=1", "k=\ud800", "", "=", "00-", ","])
scalars = st.none() | st.booleans() | st.integers() | st.floats() | any_text | plausible
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(propagated | any_text, inner), max_leaves=10
)
metas = st.dictionaries(propagated | any_text, values, max_size=8) | values
requests = st.sampled_from([None, http(), http(None), http(None, traceparent=traceparent(HEADER)), HttpRequest(None)])


@given(metas, requests, st.sampled_from(POLICIES))
@example({"baggage": "k=\ud800"}, None, PARENT)
@example({"traceparent": traceparent(REMOTE), "baggage": "\udfff"}, http(), LINK)
@stable
def test_receive_takes_anything_and_changes_nothing(meta: Any, request: HttpRequest | None, policy: str) -> None:
    before = copy.deepcopy(meta)
    current = context.get_current()
    found, links = propagation.receive(meta, request, policy)
    assert repr(meta) == repr(before)
    assert context.get_current() is current
    assert isinstance(found, Context)
    assert span_of(found) != AMBIENT
    assert all(link.context.is_valid for link in links or ())
    outbound: dict[str, Any] = {}
    propagate.inject(outbound, found)
    "".join(outbound.values()).encode("ascii")


@given(metas)
@example({"baggage": "k=\ud800"})
@stable
def test_extract_takes_anything_and_changes_nothing(meta: Any) -> None:
    before = copy.deepcopy(meta)
    base = in_span(HTTP, baggage.set_baggage("tenant", "7", Context()))
    found, remote = propagation.extract(meta if isinstance(meta, Mapping) else None, base)
    assert repr(meta) == repr(before)
    if not isinstance(meta, Mapping) or not {"traceparent", "tracestate", "baggage"} & meta.keys():
        assert baggage.get_all(found) == {"tenant": "7"}
        assert not remote.is_valid
    assert span_of(found) == ((remote.trace_id, remote.span_id) if remote.is_valid else None)
    assert span_of(base) == HTTP


digits = st.text("0123456789abcdef", min_size=1, max_size=32)
headers = st.builds(
    lambda version, trace_id, span_id, flags, rest: f"{version}-{trace_id}-{span_id}-{flags}{rest}",
    st.sampled_from(["00", "01", "ff", "0", "00 "]),
    digits.map(lambda text: text.zfill(32)) | st.sampled_from(["0" * 32, "A" * 32, "1" * 31, "\u0661" * 32]),
    digits.map(lambda text: text[:16].zfill(16)) | st.sampled_from(["0" * 16, "1" * 17]),
    st.sampled_from(["00", "01", "02", "03", "ff", "1", "0x"]),
    st.sampled_from(["", "-", "-more", " ", "\t"]),
)


@given(
    st.fixed_dictionaries(
        {"traceparent": headers},
        optional={"tracestate": st.sampled_from(["a=1", "", "nonsense"]), "baggage": st.sampled_from(["k=v", ""])},
    )
)
@example({"traceparent": traceparent(REMOTE)})
@example({"traceparent": f" {traceparent(REMOTE)}"})
@settings(stable, max_examples=400)
def test_what_is_read_is_what_the_configured_propagators_read(meta: dict[str, str]) -> None:
    base = baggage.set_baggage("tenant", "7", Context())
    expected = propagate.extract(meta, base)
    found, remote = propagation.extract(meta, base)
    assert remote == trace.get_current_span(expected).get_span_context()
    assert trace.get_current_span(found).get_span_context() == remote
    assert baggage.get_all(found) == baggage.get_all(expected)


@given(
    st.integers(0, 2**128 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(0, 255),
    st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from(["1", "x"]), max_size=2),
    st.dictionaries(st.sampled_from(["k", "l"]), st.sampled_from(["v", "w x"]), max_size=2),
)
@example(0, 0, 0, {}, {})
@example(1, 1, 1, {}, {})
@example(1, 1, 1, {}, {"k": "v"})
@settings(stable, max_examples=200)
def test_what_is_written_is_what_the_configured_propagators_write(
    trace_id: int, span_id: int, flags: int, state: dict[str, str], entries: dict[str, str]
) -> None:
    here = SpanContext(trace_id, span_id, False, TraceFlags(flags), TraceState(list(state.items())))
    current = Context()
    for name, value in entries.items():
        current = baggage.set_baggage(name, value, current)
    current = trace.set_span_in_context(NonRecordingSpan(here), current)
    expected: dict[str, str] = {}
    propagate.inject(expected, current)
    written: dict[str, Any] = {}
    assert propagation.inject(written, current) == bool(expected)
    assert written == expected


@given(st.none() | st.dictionaries(st.sampled_from(["_meta", "name", "arguments"]) | any_text, metas, max_size=4))
@example({"_meta": None})
@example({"_meta": {"traceparent": 7}})
@example({"_meta": [1]})
@stable
def test_injecting_into_params_copies_and_changes_nothing_else(params: dict[str, Any] | None) -> None:
    before = copy.deepcopy(params)
    injected = propagation.with_injected_meta(params, in_span(REMOTE))
    assert repr(params) == repr(before)
    meta = params.get("_meta") if params else None
    if meta is not None and not isinstance(meta, dict):
        assert injected is None, "a `_meta` that is none is the caller's mistake to make"
        return
    assert injected is not None
    assert injected is not params
    assert injected["_meta"] is not meta
    assert injected["_meta"]["traceparent"] == traceparent(REMOTE)
    assert _without_context(injected["_meta"]) == repr({k: v for k, v in (meta or {}).items() if k not in W3C_KEYS})
    assert repr({k: v for k, v in injected.items() if k != "_meta"}) == repr(
        {k: v for k, v in (params or {}).items() if k != "_meta"}
    )


W3C_KEYS = ("traceparent", "tracestate", "baggage")


def _without_context(meta: dict[str, Any]) -> str:
    return repr({key: value for key, value in meta.items() if key not in W3C_KEYS})


@given(st.dictionaries(propagated | any_text, values, max_size=8), st.booleans(), st.booleans())
@stable
def test_inject_writes_its_own_keys_only(carrier: dict[str, Any], with_span: bool, with_baggage: bool) -> None:
    current = Context()
    if with_baggage:
        current = baggage.set_baggage("k", "v", current)
    if with_span:
        current = in_span(REMOTE, current)
    before = copy.deepcopy(carrier)
    assert propagation.inject(carrier, current) is (with_span or with_baggage)
    assert _without_context(carrier) == _without_context(before)
    if with_span:
        expected = {"traceparent": traceparent(REMOTE), **({"baggage": "k=v"} if with_baggage else {})}
        assert {key: carrier[key] for key in W3C_KEYS if key in carrier} == expected
    elif not with_baggage:
        assert repr(carrier) == repr(before)


# --- rule 6: what is forwarded ------------------------------------------------------------------------------

FORWARDED = {
    "traceparent": traceparent(HEADER),
    "tracestate": "stale=1",
    "baggage": "stale=yes",
    "progressToken": 7,
    "com.example/mine": {"kept": [1]},
}


def test_rule_6_a_current_span_replaces_all_of_a_forwarded_context() -> None:
    meta = dict(FORWARDED)
    sent = propagation.with_injected_meta({"name": "add", "_meta": meta}, in_span(REMOTE))
    assert sent == {
        "name": "add",
        "_meta": {"traceparent": traceparent(REMOTE), "progressToken": 7, "com.example/mine": {"kept": [1]}},
    }
    assert meta == FORWARDED
    own = in_span(REMOTE, baggage.set_baggage("k", "v", Context()), own="2")
    sent = propagation.with_injected_meta({"_meta": meta}, own)
    assert sent is not None
    assert (sent["_meta"]["tracestate"], sent["_meta"]["baggage"]) == ("own=2", "k=v")


def test_rule_6_a_forwarded_context_stays_if_nothing_is_current(nothing_current: None) -> None:
    assert propagation.with_injected_meta({"_meta": dict(FORWARDED)}) is None
    carrier: dict[str, Any] = dict(FORWARDED)
    assert propagation.inject(carrier) is False
    assert carrier == FORWARDED


def test_rule_6_baggage_alone_replaces_only_baggage() -> None:
    carrier: dict[str, Any] = dict(FORWARDED)
    assert propagation.inject(carrier, baggage.set_baggage("k", "v", Context()))
    assert carrier == {**FORWARDED, "baggage": "k=v"}


def test_the_current_context_is_injected_by_default() -> None:
    token = context.attach(in_span(REMOTE))
    try:
        assert propagation.with_injected_meta(None) == {"_meta": {"traceparent": traceparent(REMOTE)}}
        assert propagation.with_injected_meta({}) == {"_meta": {"traceparent": traceparent(REMOTE)}}
    finally:
        context.detach(token)


# --- other propagators --------------------------------------------------------------------------------------


class VendorPropagator(TextMapPropagator):
    def inject(self, carrier: Any, context: Context | None = None, setter: Any = default_setter) -> None:
        setter.set(carrier, "x-vendor", "mine")

    def extract(self, carrier: Any, context: Context | None = None, getter: Getter[Any] = default_getter) -> Context:
        found = [key for key in getter.keys(carrier) if key.startswith("x-vendor")]
        values = [value for key in found for value in getter.get(carrier, key) or ()]
        return baggage.set_baggage("vendor", ",".join(values), context)

    @property
    def fields(self) -> set[str]:
        return {"x-vendor"}


@pytest.fixture
def vendor_propagator() -> Iterator[None]:
    before = propagate.get_global_textmap()
    propagate.set_global_textmap(
        CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator(), VendorPropagator()])
    )
    yield
    propagate.set_global_textmap(before)


class Rewriting(TraceContextTextMapPropagator):
    def inject(self, carrier: Any, context: Context | None = None, setter: Any = default_setter) -> None:
        carrier["traceparent"] = "mine"

    def extract(self, carrier: Any, context: Context | None = None, getter: Getter[Any] = default_getter) -> Context:
        return in_span(HEADER, context)


@pytest.mark.parametrize(
    "propagator",
    [
        Rewriting(),
        CompositePropagator([Rewriting(), W3CBaggagePropagator()]),
        CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator(), Rewriting()]),
    ],
)
def test_the_short_way_is_for_the_default_propagators_only(
    vendor_propagator: None, propagator: TextMapPropagator
) -> None:
    propagate.set_global_textmap(propagator)
    assert span_of(propagation.receive(META, None)[0]) == HEADER
    written: dict[str, Any] = {}
    assert propagation.inject(written, in_span(HTTP))
    assert written == {"traceparent": "mine"}


def test_opentelemetry_configures_the_default_propagators() -> None:
    assert w3c.is_default(propagate.get_global_textmap())


def test_the_configured_propagators_are_asked_anew(vendor_propagator: None) -> None:
    assert propagation.propagation_fields() == {"traceparent", "tracestate", "baggage", "x-vendor"}
    propagate.set_global_textmap(W3CBaggagePropagator())
    assert propagation.propagation_fields() == {"baggage"}
    carrier: dict[str, Any] = {"traceparent": "left alone"}
    assert propagation.inject(carrier, in_span(REMOTE)) is False
    assert carrier == {"traceparent": "left alone"}


def test_keys_of_other_propagators_are_read_and_replaced(vendor_propagator: None) -> None:
    found, _ = propagation.receive({"x-vendor": "theirs", "x-vendor-2": 7, 3: 4}, None)
    assert baggage.get_baggage("vendor", found) == "theirs"
    sent = propagation.with_injected_meta({"_meta": {"x-vendor": "theirs"}}, in_span(REMOTE))
    assert sent == {"_meta": {"traceparent": traceparent(REMOTE), "x-vendor": "mine"}}
