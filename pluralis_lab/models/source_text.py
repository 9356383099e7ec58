"""The source text of a function that was written in a notebook, with everything of the notebook that it needs."""

import ast
import builtins
import inspect
import linecache
import math
import symtable
import textwrap
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

from pluralis_lab.errors import RunSpecError

PLAIN = (bool, int, float, str, bytes, type(None))


def source_of(function: Callable[..., Any]) -> str:
    """Return a text that defines `function` when it is executed alone.

    What the function names and the same notebook or module defines comes along: classes, functions, plain values, and the
    imports of what other modules define. Parts are in the order in which they need each other.

    Raises RunSpecError, naming it, for what cannot be written down: a value captured from an enclosing function, an object,
    or a definition whose text is not to be had.
    """
    if not isinstance(function, FunctionType):
        raise RunSpecError(f"{function!r} is no function; give one that is written with def")
    if function.__name__ == "<lambda>":
        raise RunSpecError("a lambda has no text of its own; write the factory with def")
    return "\n\n".join(_Collector(function).parts) + "\n"


class _Collector:
    """Follows names from one function, and writes down each of them once, after those that it needs itself."""

    def __init__(self, function: FunctionType) -> None:
        self.home, self.known = function.__module__, function.__globals__
        self.parts: list[str] = []
        self._seen: set[str] = set()
        self._definition(function.__name__, function)

    def _definition(self, name: str, item: FunctionType | type) -> None:
        self._seen.add(name)
        if isinstance(item, FunctionType) and item.__code__.co_freevars:
            captured = ", ".join(item.__code__.co_freevars)
            raise RunSpecError(f"{name} uses {captured} of the function around it; pass it as one of the factory's options")
        text = _text_of(item)
        for needed in _names_in(text):
            if needed not in self._seen:
                self._name(needed, name)
        self.parts.append(text)

    def _name(self, name: str, user: str) -> None:
        if name not in self.known:
            self._seen.add(name)
            if not hasattr(builtins, name):
                raise RunSpecError(f"{user} uses {name}, which is not defined; run the cell that defines it first")
            return
        value = self.known[name]
        if isinstance(value, FunctionType | type) and value.__module__ == self.home:
            if value.__name__ != name:
                raise RunSpecError(f"{user} uses {name}, another name of {value.__name__}; use {value.__name__}")
            self._definition(name, value)
            return
        self._seen.add(name)
        self.parts.append(_line(name, value, user))


def _line(name: str, value: Any, user: str) -> str:
    """Return the import or the assignment that gives `name` its value."""
    if isinstance(value, ModuleType):
        return f"import {name}" if value.__name__ == name else f"import {value.__name__} as {name}"
    if (text := _plain(value)) is not None:
        return f"{name} = {text}"
    home, own_name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if isinstance(home, str) and isinstance(own_name, str) and "." not in own_name and home != "__main__":
        return f"from {home} import {own_name}" + ("" if own_name == name else f" as {name}")
    raise RunSpecError(
        f"{user} uses {name}, which has no text (it is of type {type(value).__name__}); make it in the factory, or pass plain "
        "values as options"
    )


def _plain(value: Any) -> str | None:
    """Return an expression for a plain value or a tuple of such; None for another, whose `repr` may be no expression.

    Exact types alone: a subclass's `repr` (NumPy's floats, enumerations, named tuples) uses names that the text does not define.
    """
    if type(value) is tuple:
        items = [_plain(item) if type(item) in PLAIN else None for item in value]
        known = [item for item in items if item is not None]
        return None if len(known) < len(items) else f"({', '.join(known)}{',' if len(known) == 1 else ''})"
    if type(value) not in PLAIN:
        return None
    # What `repr` calls them, inf and nan, are no names of Python.
    return f"float('{value}')" if type(value) is float and not math.isfinite(value) else repr(value)


def _text_of(item: FunctionType | type) -> str:
    """Return the text that defines a function or class, also one of a notebook's cell."""
    if isinstance(item, FunctionType):
        try:
            return textwrap.dedent(inspect.getsource(item)).rstrip()
        except OSError:
            raise RunSpecError(f"the text of {item.__name__} is not to be had; define it in a cell or a file") from None
    # A class of a notebook belongs to no file that `inspect` knows, but its methods know the cell that they are from.
    methods = (member for member in vars(item).values() if isinstance(member, FunctionType))
    for method in methods:
        lines = linecache.getlines(method.__code__.co_filename)
        for node in ast.walk(ast.parse("".join(lines))):
            if isinstance(node, ast.ClassDef) and node.name == item.__name__ and _holds(node, method.__code__.co_firstlineno):
                first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                return textwrap.dedent("".join(lines[first - 1 : node.end_lineno])).rstrip()
    raise RunSpecError(f"the text of class {item.__name__} is not to be had; define it, with a method, in a cell or a file")


def _holds(node: ast.ClassDef, line: int) -> bool:
    return node.end_lineno is not None and node.lineno <= line <= node.end_lineno


def _names_in(text: str) -> list[str]:
    """Return the names that `text` reads and does not define itself, in alphabetical order."""
    tables = [symtable.symtable(text, "source", "exec")]
    found: set[str] = set()
    while tables:
        table = tables.pop()
        tables += table.get_children()
        for symbol in table.get_symbols():
            is_outside = symbol.is_global() or table.get_type() == "module"
            if symbol.is_referenced() and is_outside and not symbol.is_assigned():
                found.add(symbol.get_name())
    return sorted(found)
