"""Where chat templates run: Jinja programs that came with somebody's model, which reach nothing and end soon.

Jinja's own sandbox keeps a template from Python's inside and from changing what it is given. It does not keep it from
looping or growing without end: here all that a template makes, and every round of a loop, is paid for from one budget,
and what could grow otherwise (`format`, `center`, `indent` …) is not there. All else that transformers gives to templates is
there.

MiniJinja, whose instructions are limited too, was tried in its place (3.1): a namespace that holds itself ends the
process when it is written, templates change the messages they are given, and it knows neither `{% generation %}` nor
all of Python's methods of strings.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from functools import wraps
from itertools import chain
from threading import Lock
from time import monotonic
from typing import Any, NoReturn

from jinja2 import TemplateError, TemplateSyntaxError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import FILTERS
from jinja2.parser import Parser
from jinja2.runtime import LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

BUDGET = 20_000_000
"""What a template may make, in characters; a conversation adds its own length, `TIMES` over."""

TIMES = 200
STEP = 20
"""What a round of a loop and a call cost."""

SECONDS = 10.0
"""How long it may take."""

GREATEST = 2**63
"""Beyond it, numbers take memory too."""

LONGEST_SOURCE = 1_000_000

KEPT_FILTERS = (
    *("abs", "capitalize", "count", "d", "default", "dictsort", "first", "float", "int", "items", "last", "length"),
    *(
        "list",
        "lower",
        "map",
        "max",
        "min",
        "reject",
        "rejectattr",
        "reverse",
        "select",
        "selectattr",
        "sort",
        "string",
    ),
    *("title", "trim", "unique", "upper"),
)
"""Jinja's filters that make no more than they are given; `join`, `replace` and `tojson` are below."""

STRING_METHODS = (
    *("capitalize", "count", "endswith", "find", "index", "isalnum", "isalpha", "isdigit", "islower", "isspace"),
    *("isupper", "join", "lower", "lstrip", "partition", "removeprefix", "removesuffix", "replace", "rfind"),
    *("rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "title", "upper"),
)
METHODS: dict[type, tuple[str, ...]] = {
    str: STRING_METHODS,
    dict: ("get", "items", "keys", "values"),
    list: ("count", "index"),
    tuple: ("count", "index"),
}
"""Likewise the methods of values; numbers have none."""

SIZED = (str, list, tuple, range)


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja with a budget, for one template."""

    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(self, source: str) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation], finalize=self._written
        )
        own = {"tojson": self._tojson, "join": self._join, "replace": self._replace, "safe": self._written}
        # No template can name the last ones: `_Meter` puts them where something is made.
        inner = {" round": self._rounds, " sliced": self._sliced, " made": self._made, " joined": self._joined}
        self.filters = {name: self._paying(FILTERS[name]) for name in KEPT_FILTERS} | own | inner
        self.globals = {
            "range": range,
            "dict": dict,
            "namespace": Namespace,
            "raise_exception": _raise,
            "strftime_now": lambda form: datetime.now().strftime(form),
        }
        self.concat = self._concat  # type: ignore[method-assign]
        self._lock = Lock()
        self._left, self._until = BUDGET, monotonic() + SECONDS
        if len(source) > LONGEST_SOURCE:
            raise SecurityError(f"it is longer than {LONGEST_SOURCE:,} characters")
        self._source, self._template = source, self.from_string(source)

    def render(self, size: int, variables: Mapping[str, Any]) -> str:
        """Return what the template writes.

        Parameters
        ----------
        size: characters of the conversation, by which it may make more.

        Raises
        ------
        Exception: whatever went wrong, as a template can raise everything.
        """
        with self._lock:
            self._left, self._until = BUDGET + TIMES * size, monotonic() + SECONDS
            return self._template.render(variables)

    def literals(self) -> list[str]:
        """Return the text outside of the template's code, and what is quoted in it, but for the names of fields."""
        tree = self.parse(self._source)
        fields = {id(node.arg) for node in tree.find_all(nodes.Getitem)}
        quoted = [node.value for node in tree.find_all(nodes.Const) if id(node) not in fields]
        return [*(node.data for node in tree.find_all(nodes.TemplateData)), *(x for x in quoted if isinstance(x, str))]

    # ------------------------------------------------------------------ what Jinja asks

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        return _Meter().visit(super()._parse(source, name, filename))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Return whether a template may see an attribute: methods by `METHODS`, and what belongs to Jinja."""
        kept = attr in METHODS.get(type(obj), ()) or isinstance(obj, Namespace | LoopContext | Macro)
        return kept and super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """Return nothing: strings have no `format`, which pads as far as it is told."""

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a function, a macro or a method."""
        self._spend(STEP)
        owner, name = getattr(obj, "__self__", None), getattr(obj, "__name__", "")
        if isinstance(owner, str) and name == "join":
            (values,) = args
            return self._join(values, owner)
        if isinstance(owner, str) and name == "replace":
            return self._replace(owner, *args)
        return self._made(super().call(context, obj, *args, **kwargs))  # type: ignore[call-arg]

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Add, multiply, raise to a power or take the remainder."""
        sized = [value for value in (left, right) if isinstance(value, SIZED)]
        if operator == "+":
            self._spend(sum(map(len, sized)))
        elif operator == "*" and sized:
            times = right if sized[0] is left else left
            self._spend(self._size(sized[0]) * (times if isinstance(times, int) and times > 0 else 1))
        elif sized or (operator == "**" and (abs(right) > 64 or abs(left) > GREATEST)):
            raise SecurityError(f"{operator} is not for such values")
        found = super().call_binop(context, operator, left, right)
        if isinstance(found, int) and abs(found) > GREATEST:
            raise SecurityError("a number is too large")
        return found

    # ------------------------------------------------------------------ what is paid for

    def _spend(self, amount: int) -> None:
        self._left -= amount
        if self._left < 0 or monotonic() > self._until:
            raise SecurityError("it loops or grows without end")

    def _size(self, value: Any) -> int:
        """Return how much a value holds, what is in it several times counted as often; looking costs as much."""
        size, inner = STEP, ()
        if isinstance(value, str | range):
            size += len(value)
        elif isinstance(value, Mapping):
            inner = chain(value.keys(), value.values())
        elif isinstance(value, list | tuple):
            inner = value
        elif isinstance(value, Namespace):
            inner = object.__getattribute__(value, "_Namespace__attrs").values()
        self._spend(size)
        return size + sum(map(self._size, inner))

    def _made(self, value: Any) -> Any:
        self._size(value)
        return value

    def _written(self, value: Any) -> str:
        """Return what `{{ value }}` writes."""
        return str(self._made(value))

    def _sliced(self, value: Any) -> Any:
        # Not what the elements hold: they are the same ones.
        self._spend(len(value) if isinstance(value, SIZED) else STEP)
        return value

    def _rounds(self, values: Iterable[Any]) -> Iterator[Any]:
        for value in values:
            self._spend(STEP)
            yield value

    def _concat(self, parts: Iterable[str]) -> str:
        parts = list(parts)
        self._spend(sum(map(len, parts)))
        return "".join(parts)

    def _joined(self, parts: Iterable[Any]) -> str:
        return "".join(map(self._written, parts))

    def _paying(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a filter that pays for what it returns."""

        @wraps(function)
        def paying(*args: Any, **kwargs: Any) -> Any:
            if function in (FILTERS["string"], FILTERS["trim"], FILTERS["upper"], FILTERS["lower"]):
                self._size(args[0])  # it becomes a string first
            return self._sliced(function(*args, **kwargs))

        return paying

    # ------------------------------------------------------------------ filters that are not Jinja's

    def _join(self, values: Iterable[Any], between: str = "", attribute: str | None = None) -> str:
        if attribute is not None:
            values = [self.getitem(value, attribute) for value in values]
        parts = [self._written(value) for value in values]
        self._spend(len(between) * len(parts))
        return between.join(parts)

    def _replace(self, text: Any, old: str, new: str, count: int | None = None) -> str:
        text, most = self._written(text), -1 if count is None else count
        found = text.count(old)
        self._spend(len(new) * (found if most < 0 else min(found, most)))
        return text.replace(old, new, most)

    def _tojson(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        width = 6 + (indent or 0) + sum(map(len, separators or ()))
        self._spend(self._size(value) * width)
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


class _Generation(Extension):
    """`{% generation %}`, which says that the assistant speaks; the block writes what stands in it."""

    tags = {"generation"}  # noqa: RUF012 (as Jinja has it)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


class _Meter(NodeTransformer):
    """Puts a filter that pays around everything in a template that makes something by itself."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        if node.recursive:
            raise TemplateSyntaxError("loops that call themselves are not for chat templates", node.lineno)
        self.generic_visit(node)
        node.iter = _through(" round", node.iter)  # type: ignore[arg-type]
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _through(" joined", nodes.List(node.nodes, lineno=node.lineno))

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        return _through(" sliced", node) if isinstance(node.arg, nodes.Slice) else node

    def visit_List(self, node: nodes.List) -> nodes.Node:
        self.generic_visit(node)
        return _through(" made", node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        self.generic_visit(node)
        return _through(" made", node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return _through(" made", node) if node.ctx == "load" else node


def _through(name: str, node: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)
