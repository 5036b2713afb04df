"""One way to plug things in: a decorator here, an entry point in other people's packages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from lucidlm.core.errors import InputError

T = TypeVar("T")


class Registry(Generic[T]):
    """Named plug-ins of one kind: tasks, sources, …

    Other packages add to the registry called "task" by declaring an entry point in the group `lucidlm.task`; it is
    imported only when its name is asked for.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
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
            for point in entry_points(group=f"lucidlm.{self.kind}", name=name):
                self._items[name] = point.load()
        if name not in self._items:
            raise InputError(f"there is no {self.kind} called {name!r}", fix=f"Choose one of: {', '.join(self)}.")
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the known names, in order, other packages' included."""
        return iter(sorted({*self._items, *(point.name for point in entry_points(group=f"lucidlm.{self.kind}"))}))
