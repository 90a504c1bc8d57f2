"""Type checks of the arguments of public functions, before any work.

The annotations of a function say what its arguments may be. `check_arguments` refuses everything
else with one clear error, and understands two shorter calls: labels behind examples, and one
number in place of a record. `conform` checks JSON against declared types.
"""

from __future__ import annotations

import builtins
import collections.abc
import functools
import inspect
import math
import numbers
import os
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar

from compress.core.errors import InputError, one_line
from compress.core.lazy_modules import LazyModule
from compress.core.quantities import MOST_SEED, SEED_BITS, parse_whole_number, show_received

ParamT = ParamSpec("ParamT")
ReturnT = TypeVar("ReturnT")


class _KnownByName(type):
    def __instancecheck__(cls, value: object) -> bool:
        bases = type(value).__mro__
        return any(b.__name__ == "Model" and b.__module__.startswith("keras.") for b in bases)


class _Model(metaclass=_KnownByName):
    """Stands for `keras.Model`, as Keras is not imported for checks.

    Where a path may stand for a model, whoever loads it checks both.
    """


_WORDS: dict[Any, str] = {
    str: "a text", Path: "a path", bool: "true or false", int: "a whole number",
    float: "a number", dict: "a dictionary", list: "a list", tuple: "a tuple",
    _Model: "a Keras model", collections.abc.Sequence: "a list", collections.abc.Iterable: "a list",
}  # fmt: skip


@dataclass(frozen=True)
class _Function:
    """The type of functions that can be called with so many arguments."""

    arguments: int

    @property
    def __name__(self) -> str:
        return f"function of {self.arguments} argument{'' if self.arguments == 1 else 's'}"

    def fits(self, value: object) -> bool:
        """Tell whether a value can be called so, as far as its signature is known."""
        if not callable(value):
            return False
        try:
            signature = inspect.signature(value)
        except (TypeError, ValueError):  # of some built-in functions
            return not isinstance(value, type)
        try:
            signature.bind(*range(self.arguments))
        except TypeError:
            return False
        return True


@dataclass(frozen=True)
class _Dictionary:
    """The type of mappings whose values are of some types; (): of any."""

    values: tuple[Any, ...]

    @property
    def __name__(self) -> str:
        kinds = " or ".join(map(_name_type, self.values))
        return f"dictionary of {kinds}" if kinds else "dictionary"

    def fits(self, value: object) -> bool:
        """Tell whether a value is such a mapping."""
        return isinstance(value, Mapping) and (
            not self.values
            or all(any(_fits(item, kind) for kind in self.values) for item in value.values())
        )


class Options(Protocol):
    """The names of keywords that a function takes beside its arguments."""

    def require_known(self, names: Iterable[str], own: Iterable[str]) -> None:
        """Refuse names that the function does not take; `own` are its arguments by name."""


def check_arguments(
    *,
    keywords: Sequence[str] = (),
    labels: str = "",
    number: Mapping[str, str] | None = None,
    options: Options | None = None,
) -> Callable[[Callable[ParamT, ReturnT]], Callable[ParamT, ReturnT]]:
    """Return a decorator that refuses arguments of a type that no annotation allows.

    Types that a module imports for type checkers alone are not checked.

    Args:
        keywords: Which of the function's keywords a bare number in place of a record may mean.
        labels: Argument behind `data` in which labels are taken: `f(model, x, y)` is
            `f(model, (x, y))`.
        number: Argument -> keyword that a number in it stands for: `f(model, 0.8)` is
            `f(model, sparsity=0.8)`.
        options: Checks the names of further keywords.

    Example:
        >>> @check_arguments()
        ... def scale(factor: float, name: str | None = None) -> float:
        ...     return factor
        >>> scale("2")
        Traceback (most recent call last):
        compress.core.errors.InputError: factor must be a number. Received: '2'.
    """

    def decorate(function: Callable[ParamT, ReturnT]) -> Callable[ParamT, ReturnT]:
        signature = inspect.signature(function)
        own = [
            parameter.name
            for parameter in signature.parameters.values()
            if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        ]
        further = next(
            (p.name for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD), ""
        )
        # read when it is first needed: annotations may name what a module defines further down
        allowed: dict[str, tuple[Any, ...] | None] = {}

        @functools.wraps(function)
        def call_checked(*args: ParamT.args, **kwargs: ParamT.kwargs) -> ReturnT:
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError:
                return function(*args, **kwargs)  # Python's own error names the function
            values = bound.arguments
            if labels and is_examples(values.get(labels)) and is_examples(values.get("data")):
                values["data"] = (values["data"], values.pop(labels))
            for argument, keyword in (number or {}).items():
                _name_number(values, further, argument, keyword)
            if options is not None:
                options.require_known(values.get(further, {}), own)
            for name in filter(values.__contains__, own):
                if name not in allowed:
                    annotation = signature.parameters[name].annotation
                    allowed[name] = _read_annotation(annotation, function.__globals__)
                kinds = allowed[name]
                if kinds is not None and not any(_fits(values[name], kind) for kind in kinds):
                    raise _build_error(name, values[name], kinds, keywords)
                if name == "seed":
                    parse_whole_number(values[name], name, least=0, most=MOST_SEED, why=SEED_BITS)
            return function(*bound.args, **bound.kwargs)

        return call_checked

    return decorate


def describe(value: object) -> str:
    """Show any value as errors do: numbers and texts as they are, others by their type."""
    if isinstance(value, str):
        return show_received(value)
    if value is None or isinstance(value, (bool, bytes, numbers.Number)):
        return one_line(repr(value))
    shape = getattr(value, "shape", None)
    kind = type(value).__name__
    if isinstance(shape, tuple):
        return f"{_with_article(kind)} of shape {shape}"
    if isinstance(value, (list, tuple, dict, set)):
        return one_line(repr(value), 100)
    return _with_article(kind)


def is_examples(value: object) -> bool:
    """Tell whether a value holds examples or labels: an array, tensor, column or list.

    Of several inputs or outputs a dictionary of these.
    """
    if isinstance(value, list):
        return True
    if isinstance(value, dict):
        return bool(value) and all(map(is_examples, value.values()))
    return hasattr(value, "shape") and (hasattr(value, "__array__") or hasattr(value, "__len__"))


def _name_number(values: dict[str, Any], further: str, argument: str, keyword: str) -> None:
    """Give a number that stands in another argument's place to the keyword that it means.

    Args:
        values: Of the arguments by name; changed.
        further: The argument that takes further keywords.
        argument, keyword: Where the number stands, and what it means.
    """
    value = values.get(argument)
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return
    given = values.setdefault(further, {})
    if keyword in given:
        raise InputError(
            f"{keyword} must be given once. Received: {value} and {keyword}={given[keyword]}."
        )
    given[keyword] = values.pop(argument)


def _read_annotation(annotation: Any, names: Mapping[str, Any]) -> tuple[Any, ...] | None:
    """Read from an annotation which types it allows; None: any.

    Args:
        annotation: As written, a text.
        names: Of the function's module.
    """
    if annotation is inspect.Parameter.empty:
        return None
    try:
        kinds = _list_classes(eval(str(annotation), {}, _Names(names)))
    except (AttributeError, TypeError):  # a module or an alias that type checkers alone see
        return None
    unknown = any(it is Any or isinstance(it, (str, typing.ForwardRef, TypeVar)) for it in kinds)
    return None if unknown or {_Model, str} <= set(kinds) else tuple(dict.fromkeys(kinds))


class _Names(dict[str, Any]):
    """The names of a module; those that are imported for type checkers alone stand for any type."""

    def __init__(self, names: Mapping[str, Any]) -> None:
        # what is not imported yet is imported by no check
        known = {name: it for name, it in names.items() if not isinstance(it, LazyModule)}
        super().__init__(vars(builtins) | known | {"keras": types.SimpleNamespace(Model=_Model)})

    def __missing__(self, name: str) -> Any:
        return Any


def _list_classes(kind: Any) -> tuple[Any, ...]:
    """List the classes behind a type: of a union its members, of a generic its origin."""
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        return tuple(part for member in typing.get_args(kind) for part in _list_classes(member))
    if origin is collections.abc.Callable and isinstance(typing.get_args(kind)[0], list):
        return (_Function(len(typing.get_args(kind)[0])),)
    if origin is collections.abc.Mapping and len(typing.get_args(kind)) == 2:
        values = _list_classes(typing.get_args(kind)[1])
        are_classes = all(isinstance(item, type) for item in values)
        return (_Dictionary(values if are_classes else ()),)
    if origin is not None:
        return (origin,)
    if kind is None or kind is types.NoneType:
        return (types.NoneType,)
    if isinstance(kind, type) and Protocol in kind.__mro__:
        return (Any,)  # whatever has its methods
    return (kind,)


def _fits(value: object, kind: Any) -> bool:
    """Tell whether a value is of a type, as Python's callers mean it."""
    if kind is bool:
        return isinstance(value, bool) or type(value).__name__ in ("bool_", "bool")
    if kind in (int, float):
        number = numbers.Integral if kind is int else numbers.Real
        return isinstance(value, number) and not isinstance(value, bool)
    if kind is Path:
        return isinstance(value, os.PathLike)
    if isinstance(kind, (_Function, _Dictionary)):
        return kind.fits(value)
    return isinstance(value, kind)


def _build_error(
    name: str, value: object, kinds: tuple[Any, ...], keywords: Sequence[str]
) -> InputError:
    """Build the error of an argument whose value fits none of the types.

    Args:
        name, value: Of the argument.
        kinds: The types.
        keywords: Which keywords of the function a bare number may mean.
    """
    words = list(dict.fromkeys(_name_type(kind) for kind in kinds if kind is not types.NoneType))
    rule = " or ".join(words) if words else "left out"
    if types.NoneType in kinds and words:
        rule += ", or left out"
    remedy = ""
    record = any(isinstance(kind, type) and hasattr(kind, "__dataclass_fields__") for kind in kinds)
    number = isinstance(value, (numbers.Real, str)) and not isinstance(value, bool)
    if record and keywords and number:
        choices = ", ".join(f"{keyword}=" for keyword in keywords[:-1])
        choices += f" or {keywords[-1]}=" if choices else f"{keywords[-1]}="
        remedy = f" Say by a keyword what it is of: {choices}."
    elif record:
        remedy = " Its fields can be given as keywords, too."
    return InputError(f"{name} must be {rule}. Received: {describe(value)}.{remedy}")


def _name_type(kind: Any) -> str:
    return _WORDS.get(kind) or _with_article(kind.__name__)


def _with_article(name: str) -> str:
    return f"{'an' if name[:1] in 'AEIOUaeiou' else 'a'} {name}"


# -- JSON ------------------------------------------------------------------------------------


def conform(value: Any, hint: Any, name: str) -> Any:
    """Return a value as the type that is declared for it.

    Lists become tuples where a tuple is declared, whole numbers become floats where a float is.

    Args:
        value: As `json` gives it.
        hint: The type: int, float, str, bool, None, Any, a union with None, tuple[X, ...],
            tuple[X, X], list[X], dict[str, X], a TypedDict, whose further keys stay as they
            are, or a class with a `from_json` of its own.
        name: What errors call the value.

    Raises:
        InputError: It is of another type, not finite, or beyond 63 bits; or a key is missing.
    """
    if hint is Any:
        return value
    if typing.is_typeddict(hint):
        return _conform_keys(value, hint, name)
    if hasattr(hint, "from_json"):
        return hint.from_json(value, name)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        (kind,) = (item for item in arguments if item is not types.NoneType)
        return None if value is None else conform(value, kind, name)
    if origin in (tuple, list):
        _require(isinstance(value, (list, tuple)), name, "a list", value)
        if origin is tuple and arguments[-1] is not Ellipsis:
            length = len(arguments)
            _require(len(value) == length, name, f"a list of {length} values", value)
        return origin(
            conform(item, arguments[0], f"{name}[{place}]") for place, item in enumerate(value)
        )
    if origin is dict or hint is dict:
        _require(isinstance(value, Mapping), name, "a table", value)
        kind = arguments[1] if arguments else Any
        return {key: conform(item, kind, f"{name}.{key}") for key, item in value.items()}
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and isinstance(value, int) and abs(value) >= 2**63:
        raise InputError(
            f"{name} must be a number of at most 63 bits. Received: {one_line(value)}."
        )
    if hint is float:
        _require(number and math.isfinite(value), name, _WORDS[float], value)
        return float(value)
    _require(isinstance(value, hint) and (hint is not int or number), name, _WORDS[hint], value)
    return value


def _conform_keys(value: Any, hint: Any, name: str) -> dict[str, Any]:
    _require(isinstance(value, Mapping), name, "a table", value)
    hints, needed = _keys_of(hint)
    missing = [key for key in needed if key not in value]
    if missing:
        raise InputError(
            f"{name} must have the keys {', '.join(hints)}. Received: none called '{missing[0]}'."
        )
    return {
        key: conform(item, hints[key], f"{name}.{key}") if key in hints else item
        for key, item in value.items()
    }


@cache
def _keys_of(hint: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return a TypedDict's types by key, and its required keys."""
    hints = typing.get_type_hints(hint)
    # __required_keys__ does not see what postponed annotations say
    marked = typing.get_type_hints(hint, include_extras=True)
    needed = [key for key in hints if typing.get_origin(marked[key]) is not typing.NotRequired]
    return hints, tuple(needed) if hint.__total__ else ()


def _require(holds: bool, name: str, kind: str, value: object) -> None:
    if not holds:
        shown = one_line(repr(value) if isinstance(value, str) else value)
        raise InputError(f"{one_line(name)} must be {kind}. Received: {shown}.")
