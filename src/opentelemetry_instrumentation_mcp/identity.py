"""Who a message is from, as span attributes: not at all, as it is, or as a keyed hash. Pure.

Attribute names: OpenTelemetry semantic conventions (``user.*``, ``enduser.*``, ``session.id``) and, where those have
none, the ContextForge gateway's (``team.*``, ``auth.method``).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, cast

from . import semconv
from .guard import report_once
from .message import as_mapping

OFF: Final = "off"
ON: Final = "on"
HASHED: Final = "hashed"
MODES: Final = (OFF, ON, HASHED)

USER_ID: Final = "user.id"
USER_EMAIL: Final = "user.email"
SESSION_ID: Final = "session.id"
TEAM_IDS: Final = "team.ids"
TEAM_NAME: Final = "team.name"
AUTH_METHOD: Final = "auth.method"
ENDUSER_ID: Final = "enduser.id"
ENDUSER_ROLE: Final = "enduser.role"
ENDUSER_SCOPE: Final = "enduser.scope"

HASH_LENGTH: Final = 32
"""Hexadecimal digits that are kept of a hash: 128 bits, more than enough to tell users apart."""
MIN_KEY_LENGTH: Final = 16
"""Characters or bytes; a key that can be guessed is as good as none."""
MAX_TEAMS: Final = 20

# Say what somebody may do and how they logged in, not who they are: told as they are also where the rest is hashed.
_NOT_NAMING: Final = frozenset({AUTH_METHOD, ENDUSER_ROLE, ENDUSER_SCOPE, "user.is_admin", "user.roles"})
_EXACT: Final = frozenset({"user", SESSION_ID, AUTH_METHOD, "langfuse.user.id", "langfuse.session.id"})
_PREFIXES: Final = ("user.", "enduser.", "team.")

Attributes = dict[str, Any]


class Identity(NamedTuple):
    """What a host knows of the sender of a message; what it does not know is None (or empty).

    ``enduser_scope`` is a space-separated list as in OAuth; ``client_id`` is the OAuth client, which stands in for an
    unknown ``enduser_id`` (FastMCP does the same).
    """

    user_id: str | None = None
    user_email: str | None = None
    session_id: str | None = None
    team_ids: tuple[str, ...] = ()
    team_name: str | None = None
    auth_method: str | None = None
    enduser_id: str | None = None
    enduser_scope: str | None = None
    enduser_role: str | None = None
    client_id: str | None = None


def identity_of(user: object, session_id: str | None = None) -> Identity:
    """What the user of an HTTP request says of itself; the token as such is not read.

    Args:
        user: ``scope["user"]`` of ASGI. That of the MCP SDK and FastMCP has an ``access_token`` with the OAuth client,
            scopes, subject (RFC 7662) and claims (RFC 7519).
        session_id: the session the request belongs to.
    """
    token = getattr(user, "access_token", None)
    if token is None:
        return Identity(session_id=session_id)
    claims = as_mapping(getattr(token, "claims", None)) or {}
    subject = _text(getattr(token, "subject", None)) or _text(claims.get("sub"))
    return Identity(
        user_id=subject,
        user_email=_text(claims.get("email")),
        session_id=session_id,
        auth_method="oauth",
        enduser_id=subject,
        enduser_scope=_joined(getattr(token, "scopes", None)),
        client_id=_text(getattr(token, "client_id", None)),
    )


def _joined(scopes: Any) -> str | None:
    if not isinstance(scopes, (list, tuple)):
        return None
    return " ".join(scope for scope in cast("list[Any]", scopes) if isinstance(scope, str))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


@dataclass(frozen=True)
class IdentityPolicy:
    """How much of an identity leaves the process; made by :func:`identity_policy`."""

    mode: str = OFF
    key: bytes = field(default=b"", repr=False)

    def attributes(self, identity: Identity) -> Attributes:
        """The span attributes of ``identity``: none if off; texts are cleaned and at most 256 characters long."""
        if self.mode == OFF:
            return {}
        values = {
            USER_ID: identity.user_id,
            USER_EMAIL: identity.user_email,
            SESSION_ID: identity.session_id,
            TEAM_IDS: tuple(identity.team_ids[:MAX_TEAMS]) or None,
            TEAM_NAME: identity.team_name,
            AUTH_METHOD: identity.auth_method,
            ENDUSER_ID: identity.enduser_id or identity.client_id,
            ENDUSER_ROLE: identity.enduser_role,
            ENDUSER_SCOPE: identity.enduser_scope,
        }
        return {key: self._shown(key, value) for key, value in values.items() if value}

    def attribute(self, key: str, value: Any) -> Any:
        """``value`` of an attribute of a foreign span as this policy shows it; None if it must not be shown.

        Attributes that say nothing of a user are returned as they are.
        """
        if not is_identity(key):
            return value
        return None if self.mode == OFF else self._shown(key, value)

    def _shown(self, key: str, value: Any) -> Any:
        show = semconv.clean if self.mode == ON or key in _NOT_NAMING else self._digest
        return _map_texts(show, value)

    def _digest(self, text: str) -> str:
        return pseudonym(text, self.key)


def identity_policy(mode: str, key: str | bytes | None = None) -> IdentityPolicy:
    """The policy for ``mode`` (``off``, ``on`` or ``hashed``); ``hashed`` without a usable ``key`` is ``off``.

    Args:
        mode: anything else than the three counts as ``off``.
        key: the secret of the keyed hash, at least 16 characters or bytes; a text is taken as UTF-8.
    """
    if mode != HASHED:
        return IdentityPolicy(ON if mode == ON else OFF)
    raw = key.strip().encode("utf-8", "surrogatepass") if isinstance(key, str) else key or b""
    if len(raw) < MIN_KEY_LENGTH:
        # An unkeyed hash of an e-mail address is found by trying addresses.
        report_once(
            "identity key",
            "Identities are not recorded: hashing them needs a secret key of at least %d characters.",
            MIN_KEY_LENGTH,
        )
        return IdentityPolicy(OFF)
    return IdentityPolicy(HASHED, raw)


def pseudonym(text: str, key: bytes) -> str:
    """The first 32 hexadecimal digits of HMAC-SHA256 of ``text`` in UTF-8 (RFC 2104).

    E-mail addresses are hashed in lower case without surrounding blanks, so that one person has one pseudonym.
    """
    normal = text.strip()
    if "@" in normal:
        normal = normal.lower()
    return hmac.new(key, normal.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:HASH_LENGTH]


def is_identity(key: str) -> bool:
    """Whether an attribute of this name says who a user is, what they belong to or how they logged in."""
    return key in _EXACT or key.startswith(_PREFIXES)


def _map_texts(show: Callable[[str], str], value: Any) -> Any:
    if isinstance(value, str):
        return show(value)
    if isinstance(value, (tuple, list)):
        return tuple(_map_texts(show, item) for item in cast("list[Any]", value))
    # Booleans are flags (``user.is_admin``); any other value may be an account number.
    return value if isinstance(value, bool) else show(str(value)) if isinstance(value, (int, float)) else None
