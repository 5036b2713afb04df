"""One way to plug things in: a decorator here, an entry point in other people's packages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from lucidlm.core.errors import InputError

T = TypeVar("T")


class Registry(Generic[T]):
    """Named plug-ins of one kind: tasks, sources, …

    Other packages add to the registry called "task" by declaring an entry point in the group `lucidlm.task`; it is
    imported only when its name is asked for.

    Parameters
    ----------
    kind: what the plug-ins are called, in messages and in the group's name.
    built_in: plug-ins of ours that are imported only when asked for, since they need what is not always installed:
        "module:attribute" by name.
    """

    def __init__(self, kind: str, built_in: Mapping[str, str] | None = None) -> None:
        self.kind = kind
        self._built_in = {name: EntryPoint(name, place, f"lucidlm.{kind}") for name, place in (built_in or {}).items()}
        self._items: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that files what it decorates under `name`."""

        def add(item: T) -> T:
            if name in self._items:
                raise ValueError(f"two {self.kind}s are called {name!r}")
            self._items[name] = item
            return item

        return add

    def get(self, name: str) -> T:
        """Return the plug-in called `name`.

        Raises
        ------
        InputError: there is none; the message lists those there are.
        """
        if name not in self._items:
            if (point := self._points().get(name)) is None:
                raise InputError(f"there is no {self.kind} called {name!r}", fix=f"Choose one of: {', '.join(self)}.")
            self._items[name] = point.load()
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the known names, in order, other packages' included."""
        return iter(sorted({*self._items, *self._points()}))

    def _points(self) -> dict[str, EntryPoint]:
        """Return what can be imported by name; of two with one name ours."""
        found = {point.name: point for point in entry_points(group=f"lucidlm.{self.kind}")}
        return {**found, **self._built_in}
