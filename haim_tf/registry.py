"""Kinds of parts by name: what a configuration calls them, and how they are made of it."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

# Keeps the type of what a decorator is put on.
Maker = TypeVar("Maker", bound=Callable[..., Any])


class Registry:
    """Names for the kinds of one part, in the package and from outside.

    Args:
        what: the part, as messages call it.

    Example:
        >>> kinds = Registry("drawing")
        >>> @kinds.register("circle")
        ... def circle(radius=1):
        ...     return radius * 2
        >>> kinds.make("the drawing", {"kind": "circle", "radius": 3})
        6
    """

    def __init__(self, what: str):
        self.what = what
        self._makers = {}

    def register(self, kind: str) -> Callable[[Maker], Maker]:
        """A decorator that gives a class, or a function that makes one of them, its name.

        Raises:
            ValueError: the name is taken.

        Example:
            >>> kinds = Registry("drawing")
            >>> @kinds.register("circle")
            ... def circle(radius=1):
            ...     return radius * 2
            >>> kinds.kinds
            ['circle']
        """

        def decorate(maker):
            if self._makers.get(kind, maker) is not maker:
                raise ValueError(f"the kind of {self.what} {kind!r} is taken by {self._makers[kind]!r}")
            self._makers[kind] = maker
            return maker

        return decorate

    @property
    def kinds(self) -> list[str]:
        """The names, in the order that they were registered in."""
        return list(self._makers)

    def make(
        self, where: str, configuration: dict[str, Any], default: str | None = None, **fixed: Any
    ) -> Any:
        """One of the parts.

        Args:
            where: what it is for, as messages call it.
            configuration: a dict of its `kind` (`default` where it has none) and its arguments.
            fixed: further arguments, which a configuration cannot set.

        Raises:
            ValueError: an unknown kind; unknown or wrong arguments.

        Example:
            >>> kinds = Registry("drawing")
            >>> @kinds.register("circle")
            ... def circle(radius=1):
            ...     return radius * 2
            >>> kinds.make("the drawing", {"kind": "circle"})
            2
        """
        if not isinstance(configuration, Mapping):
            raise ValueError(f"{where} must be a dict of its kind and arguments, got {configuration!r:.60}")
        arguments = dict(configuration)
        kind = arguments.pop("kind", default)
        if kind not in self._makers:
            raise ValueError(f"{where}: the kind of {self.what} must be one of {self.kinds}, got {kind!r}")
        maker = self._makers[kind]
        accepted = _parameters(maker) - {"self", "kwargs", *fixed}
        if unknown := sorted(set(arguments) - accepted):
            raise ValueError(f"{where} takes the arguments {sorted(accepted)}, got unknown ones: {unknown}")
        try:
            return maker(**arguments, **fixed)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where} has a wrong argument in {arguments}: {error}") from None


def _parameters(maker):
    """The names of a function's arguments; of a class also those that it hands on to its bases."""
    if not inspect.isclass(maker):
        return set(inspect.signature(maker).parameters)
    ours = [cls for cls in maker.__mro__ if cls.__module__.split(".")[0] not in ("keras", "builtins")]
    return {
        name for cls in ours if "__init__" in vars(cls) for name in inspect.signature(cls.__init__).parameters
    }
