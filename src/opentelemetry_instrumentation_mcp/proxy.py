"""wrapt's transparent proxies, with one set of types for its generations 1 and 2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:

    class ObjectProxy:
        """Looks and behaves like the object it wraps; attributes of its own begin with ``_self_``."""

        __wrapped__: Any

        def __init__(self, wrapped: Any) -> None: ...

    class FunctionWrapper(ObjectProxy):
        """A function, method or class method with ``wrapper`` around it, as long as ``enabled()`` is true."""

        def __init__(self, wrapped: Any, wrapper: Any, enabled: Any = None) -> None: ...

else:
    from wrapt import FunctionWrapper, ObjectProxy

__all__ = ["FunctionWrapper", "ObjectProxy"]
