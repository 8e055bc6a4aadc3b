"""Where in a URL, or in a query string, the secrets are."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from urllib.parse import unquote_plus

from .data import load
from .keys import Names

Span = tuple[int, int]

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.:-]{0,63}")
_SEPARATOR = re.compile(r"[&;]")
# Also as JSON encoders write them that escape what means something in HTML.
_ESCAPED_SEPARATOR, _ESCAPED_EQUALS = re.compile(r"[&;]|\\{1,9}u0026"), re.compile(r"=|\\{1,9}u003[dD]")
_END_OF_AUTHORITY = re.compile(r"[/?#\\]")
_UNFIT = re.compile(r"[\x00-\x20\x7f<>\"`{}|^]")
_PORT = re.compile(r"\d{0,5}")
_LONG_SEGMENT = 12
_LARGEST_PORT = 65_535
_KNOWN_NAMES = 1_024
_LONGEST_KNOWN = 32


class Urls:
    """Finds secrets in URLs of any scheme.

    Args:
        names: decides about names of parameters.
        is_secret: whether a decoded value of a parameter contains a secret.
    """

    def __init__(self, names: Names, is_secret: Callable[[str, int], bool]) -> None:
        url = load()["url"]
        self._names = names
        self._is_secret = is_secret
        self._known_names: dict[str, bool] = {}
        self._parameters = frozenset(url["parameters"])
        self._plain_users = frozenset(url["plain_users"])
        self._segments = frozenset(url["secret_segments"])
        self._segment = re.compile("/(?:" + "|".join(map(re.escape, sorted(self._segments))) + ")/", re.IGNORECASE)
        self._hosts = tuple(host for host, _ in url["secret_paths"])
        self._paths: list[tuple[str, str]] = [(host, path) for host, path in url["secret_paths"]]

    def spans(self, url: str, depth: int = 0) -> list[Span]:
        """The secret parts of ``url`` (user info, parameters, segments of the path), in order.

        A text without a scheme is taken for a relative URL, or for a query string if it has no ``?`` but a ``=``.
        """
        start, end = self._authority(url)
        found = self._user_info(url, start, end) if start else []
        query = url.find("?", end)
        fragment = url.find("#", end)
        if fragment < 0:
            fragment = len(url)
        if query < 0 or query > fragment:
            query = fragment
        if start or url[:1] in "/?#" or query < fragment or "=" not in url:
            found += self._path(url, url[start:end].rpartition("@")[2].lower(), end, query)
            found += self._parameter_spans(url, query + 1, fragment, depth)
        else:
            found += self._parameter_spans(url, end, fragment, depth)
        if fragment == len(url):
            return found
        inner = url.find("?", fragment)
        found += self._parameter_spans(url, inner + 1 if inner >= 0 else fragment + 1, len(url), depth)
        return found

    @staticmethod
    def is_parseable(url: str) -> bool:
        """Whether ``url`` is what a URL parser accepts: no blanks, balanced brackets, a possible port."""
        if _UNFIT.search(url):
            return False
        start, end = Urls._authority(url)
        host = url[start:end].rpartition("@")[2]
        if not start:
            return ":" not in url.partition("/")[0] or bool(_SCHEME.match(url))
        if host.startswith("["):
            inside, bracket, port = host[1:].partition("]")
            if not bracket or not re.fullmatch(r"[0-9A-Fa-f:.%A-Za-z_-]*:[0-9A-Fa-f:.%A-Za-z_-]*", inside):
                return False
            if port and not port.startswith(":"):
                return False
            port = port[1:]
        else:
            if "[" in host or "]" in host:
                return False
            port = host.partition(":")[2]
        return bool(_PORT.fullmatch(port)) and int(port or 0) <= _LARGEST_PORT

    @staticmethod
    def _authority(url: str) -> Span:
        """Start and end of user info, host and port; (0, 0) if there are none."""
        slashes = url.find("//", 0, 80)
        if slashes < 0 or (slashes and not (url[slashes - 1] == ":" and _SCHEME.fullmatch(url, 0, slashes - 1))):
            return 0, 0
        start = slashes + 2
        found = _END_OF_AUTHORITY.search(url, start)
        end = found.start() if found else len(url)
        host = url[start:end]
        # A password with a slash in it: what follows the colon is no port, and an @ comes later.
        if "@" not in host and ":" in host and not host.startswith("["):
            port = host.rpartition(":")[2]
            later = url.rfind("@", end)
            if port and not port.isdigit() and later > 0:
                found = _END_OF_AUTHORITY.search(url, later)
                end = found.start() if found else len(url)
        return start, end

    def _user_info(self, url: str, start: int, end: int) -> list[Span]:
        at = url.rfind("@", start, end)
        return [(start, at)] if at > start and url[start:at] not in self._plain_users else []

    def _path(self, url: str, host: str, start: int, end: int) -> Iterator[Span]:
        path = url[start:end]
        if host.endswith(self._hosts):
            for suffix, prefix in self._paths:
                if host.endswith(suffix) and path.startswith(prefix) and len(path) > len(prefix):
                    yield start + len(prefix), end
                    return
        if ";" not in path and not self._segment.search(path):
            return
        previous, position = "", start
        for segment in path.split("/"):
            name, equals, value = segment.partition(";")[2].partition("=")
            if equals and value and self._is_name(name):
                yield position + len(segment) - len(value), position + len(segment)
            elif previous in self._segments and len(segment) >= _LONG_SEGMENT and _is_random(segment):
                yield position, position + len(segment)
            previous, position = segment.lower(), position + len(segment) + 1

    def _parameter_spans(self, url: str, start: int, end: int, depth: int) -> Iterator[Span]:
        if "\\" in url:
            yield from self._escaped_parameter_spans(url, start, end, depth)
            return
        for parameter in _SEPARATOR.split(url[start:end]):
            stop = start + len(parameter)
            name, _, value = parameter.partition("=")
            if name and value and self._is_secret_parameter(name, value, depth):
                yield stop - len(value), stop
            start = stop + 1

    def _escaped_parameter_spans(self, url: str, start: int, end: int, depth: int) -> Iterator[Span]:
        while start < end:
            separator = _ESCAPED_SEPARATOR.search(url, start, end)
            stop = separator.start() if separator else end
            equals = _ESCAPED_EQUALS.search(url, start, stop)
            if (
                equals
                and start < equals.start()
                and equals.end() < stop
                and self._is_secret_parameter(url[start : equals.start()], url[equals.end() : stop], depth)
            ):
                yield equals.end(), stop
            start = separator.end() if separator else stop

    def _is_secret_parameter(self, name: str, value: str, depth: int) -> bool:
        if self._is_name(name):
            return True
        if depth >= load()["limits"]["url_nesting"]:
            return "%" in value or "://" in value
        if "%" not in value and "://" not in value:
            return False
        decoded = unquote_plus(value)
        return bool(("=" in decoded or "@" in decoded) and self.spans(decoded, depth + 1)) or (
            decoded != value and self._is_secret(decoded, depth + 1)
        )

    def _is_name(self, name: str) -> bool:
        known = self._known_names.get(name)
        if known is None:
            known = self._decide(name)
            if len(name) <= _LONGEST_KNOWN and len(self._known_names) < _KNOWN_NAMES:
                self._known_names[name] = known
        return known

    def _decide(self, name: str) -> bool:
        decoded = unquote_plus(unquote_plus(name[:256])) if "%" in name else name
        if self._names.grade(decoded):
            return True
        return decoded.strip().lower().rpartition("[")[2].rstrip("]") in self._parameters and not self._names.keeps(
            decoded
        )


def _is_random(segment: str) -> bool:
    return any(character.isdigit() for character in segment) and segment.strip("*") != ""
