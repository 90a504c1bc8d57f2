"""Type checks of the arguments of public functions.

The annotations of a function define the allowed types. `check_arguments` rejects other values with
one clear error before any work. It also accepts two shorter calls: labels after examples, and a
number in place of a record. `convert_json` checks JSON against declared types.
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

from compress.core.errors import InputError, to_one_line
from compress.core.lazy_modules import LazyModule
from compress.core.quantities import MAX_SEED, MAX_SEED_REASON, format_received, parse_integer

ParamT = ParamSpec("ParamT")
ReturnT = TypeVar("ReturnT")


class _MatchedByName(type):
    def __instancecheck__(cls, value: object) -> bool:
        bases = type(value).__mro__
        return any(b.__name__ == "Model" and b.__module__.startswith("keras.") for b in bases)


class _Model(metaclass=_MatchedByName):
    """Placeholder for `keras.Model`, so that type checks do not import Keras.

    A parameter that also accepts a path is not checked here, because loading checks it.
    """


_TYPE_NAMES: dict[Any, str] = {
    str: "a text", Path: "a path", bool: "true or false", int: "an integer",
    float: "a number", dict: "a dictionary", list: "a list", tuple: "a tuple",
    _Model: "a Keras model", collections.abc.Sequence: "a list", collections.abc.Iterable: "a list",
    collections.abc.Mapping: "a dictionary",
}  # fmt: skip


@dataclass(frozen=True)
class _Function:
    """Type of functions that accept a number of arguments."""

    argument_count: int

    @property
    def __name__(self) -> str:
        return (
            f"function of {self.argument_count} argument{'' if self.argument_count == 1 else 's'}"
        )

    def is_instance(self, value: Any) -> bool:
        """Return whether a value accepts these arguments, as far as its signature is known."""
        try:
            inspect.signature(value).bind(*range(self.argument_count))
        except TypeError:  # it is no function, or one of other arguments
            return False
        except ValueError:  # some built-in functions have no signature
            return not isinstance(value, type)
        return True


@dataclass(frozen=True)
class _Dictionary:
    """Type of mappings with values of given types."""

    value_types: tuple[Any, ...]

    @property
    def __name__(self) -> str:
        return f"dictionary of {' or '.join(map(_format_type, self.value_types))}"

    def is_instance(self, value: object) -> bool:
        """Return whether a value is such a mapping."""
        return isinstance(value, Mapping) and all(
            any(_is_of_type(item, kind) for kind in self.value_types) for item in value.values()
        )


class KeywordOptions(Protocol):
    """Names of the additional keywords of a function."""

    def require_known(self, names: Iterable[str], argument_names: Iterable[str]) -> None:
        """Raise an error for names that the function does not accept.

        Args:
            names: Received keywords.
            argument_names: Names of the function's other arguments.
        """


def check_arguments(
    *,
    keywords: Sequence[str] = (),
    label_argument: str = "",
    number_keywords: Mapping[str, str] | None = None,
    options: KeywordOptions | None = None,
) -> Callable[[Callable[ParamT, ReturnT]], Callable[ParamT, ReturnT]]:
    """Return a decorator that rejects arguments of types that the annotations do not allow.

    Types that a module imports only for type checkers are not checked.

    Args:
        keywords: Keywords that the error suggests for a number given in place of a record.
        label_argument: Argument after `data` that accepts labels: `f(model, x, y)` is
            `f(model, (x, y))`.
        number_keywords: Keyword by argument. A number in the argument is passed as the keyword:
            `f(model, 0.8)` is `f(model, sparsity=0.8)`.
        options: Checks the names of additional keywords.

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
        argument_names = [
            parameter.name
            for parameter in signature.parameters.values()
            if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        ]
        extra_argument = next(
            (p.name for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD), ""
        )
        # read at the first call, because annotations may name later definitions of the module
        allowed: dict[str, tuple[Any, ...] | None] = {}

        @functools.wraps(function)
        def call_checked(*args: ParamT.args, **kwargs: ParamT.kwargs) -> ReturnT:
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError:
                return function(*args, **kwargs)  # Python's own error names the function
            values = bound.arguments
            if (
                label_argument
                and is_examples(values.get(label_argument))
                and is_examples(values.get("data"))
            ):
                values["data"] = (values["data"], values.pop(label_argument))
            for argument, keyword in (number_keywords or {}).items():
                _assign_number(values, extra_argument, argument, keyword)
            if options is not None:
                options.require_known(values.get(extra_argument, {}), argument_names)
            for name in filter(values.__contains__, argument_names):
                if name not in allowed:
                    annotation = signature.parameters[name].annotation
                    allowed[name] = _read_annotation(annotation, function.__globals__)
                kinds = allowed[name]
                if kinds is not None and not any(_is_of_type(values[name], kind) for kind in kinds):
                    raise _build_error(name, values[name], kinds, keywords)
                if name == "seed":
                    parse_integer(values[name], name, least=0, most=MAX_SEED, why=MAX_SEED_REASON)
            return function(*bound.args, **bound.kwargs)

        return call_checked

    return decorate


def describe_value(value: object) -> str:
    """Return a value as shown in errors: numbers and strings as they are, others by their type."""
    if isinstance(value, str):
        return format_received(value)
    if value is None or isinstance(value, (bool, bytes, numbers.Number)):
        return to_one_line(repr(value))
    shape = getattr(value, "shape", None)
    kind = type(value).__name__
    if isinstance(shape, tuple):
        return f"{_with_article(kind)} of shape {shape}"
    if isinstance(value, (list, tuple, dict, set)):
        return to_one_line(repr(value), 100)
    return _with_article(kind)


def is_examples(value: object) -> bool:
    """Return whether a value holds examples or labels: an array, tensor, column or list.

    A dictionary of these holds several inputs or outputs.
    """
    if isinstance(value, list):
        return True
    if isinstance(value, dict):
        return bool(value) and all(map(is_examples, value.values()))
    return hasattr(value, "shape") and (hasattr(value, "__array__") or hasattr(value, "__len__"))


def _assign_number(
    values: dict[str, Any], extra_argument: str, argument: str, keyword: str
) -> None:
    """Move a number from an argument to the keyword that it means.

    Args:
        values: Values of the arguments by name; changed in place.
        extra_argument: The argument that collects additional keywords.
        argument: The argument that may hold the number.
        keyword: The keyword that receives it.
    """
    value = values.get(argument)
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return
    extra_values = values.setdefault(extra_argument, {})
    if keyword in extra_values:
        raise InputError(
            f"{keyword} must be given once. Received: {value} and "
            f"{keyword}={extra_values[keyword]}."
        )
    extra_values[keyword] = values.pop(argument)


def _read_annotation(annotation: Any, names: Mapping[str, Any]) -> tuple[Any, ...] | None:
    """Return the types that an annotation allows, or None if it allows any type.

    Args:
        annotation: The annotation as a string.
        names: Names of the function's module.
    """
    if annotation is inspect.Parameter.empty:
        return None
    try:
        kinds = _list_classes(eval(str(annotation), {}, _Namespace(names)))
    except (AttributeError, TypeError):  # a module or alias that only type checkers see
        return None
    unknown = any(it is Any or isinstance(it, (str, typing.ForwardRef, TypeVar)) for it in kinds)
    return None if unknown or {_Model, str} <= set(kinds) else tuple(dict.fromkeys(kinds))


class _Namespace(dict[str, Any]):
    """Names of a module, where names imported only for type checkers stand for any type."""

    def __init__(self, names: Mapping[str, Any]) -> None:
        # a check must not trigger lazy imports
        imported = {name: it for name, it in names.items() if not isinstance(it, LazyModule)}
        super().__init__(vars(builtins) | imported | {"keras": types.SimpleNamespace(Model=_Model)})

    def __missing__(self, name: str) -> Any:
        return Any


def _list_classes(kind: Any) -> tuple[Any, ...]:
    """Return the classes of a type: the members of a union, or the origin of a generic type."""
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        return tuple(part for member in typing.get_args(kind) for part in _list_classes(member))
    if origin is collections.abc.Callable and isinstance(typing.get_args(kind)[0], list):
        return (_Function(len(typing.get_args(kind)[0])),)
    if origin is collections.abc.Mapping and len(typing.get_args(kind)) == 2:
        values = _list_classes(typing.get_args(kind)[1])
        if all(isinstance(item, type) for item in values):
            return (_Dictionary(values),)
    if origin is not None:
        return (origin,)
    if kind is None or kind is types.NoneType:
        return (types.NoneType,)
    if isinstance(kind, type) and Protocol in kind.__mro__:
        return (Any,)  # any class with its methods
    return (kind,)


def _is_of_type(value: object, kind: Any) -> bool:
    """Return whether a value is of a type in the sense of a Python caller."""
    if kind is bool:
        return isinstance(value, bool) or type(value).__name__ in ("bool_", "bool")
    if kind in (int, float):
        number = numbers.Integral if kind is int else numbers.Real
        return isinstance(value, number) and not isinstance(value, bool)
    if kind is Path:
        return isinstance(value, os.PathLike)
    if isinstance(kind, (_Function, _Dictionary)):
        return kind.is_instance(value)
    return isinstance(value, kind)


def _build_error(
    name: str, value: object, kinds: tuple[Any, ...], keywords: Sequence[str]
) -> InputError:
    """Build the error for an argument whose value has none of the types.

    Args:
        name: Name of the argument.
        value: Its value.
        kinds: The types.
        keywords: Keywords of the function that a number may mean.
    """
    words = list(dict.fromkeys(_format_type(kind) for kind in kinds if kind is not types.NoneType))
    rule = " or ".join(words) if words else "left out"
    if types.NoneType in kinds and words:
        rule += ", or left out"
    remedy = ""
    is_record = any(
        isinstance(kind, type) and hasattr(kind, "__dataclass_fields__") for kind in kinds
    )
    is_number = isinstance(value, (numbers.Real, str)) and not isinstance(value, bool)
    if is_record and keywords and is_number:
        choices = ", ".join(f"{keyword}=" for keyword in keywords[:-1])
        choices += f" or {keywords[-1]}=" if choices else f"{keywords[-1]}="
        remedy = f" Say by a keyword what it is of: {choices}."
    elif is_record:
        remedy = " Its fields can be given as keywords, too."
    return InputError(f"{name} must be {rule}. Received: {describe_value(value)}.{remedy}")


def _format_type(kind: Any) -> str:
    return _TYPE_NAMES.get(kind) or _with_article(kind.__name__)


def _with_article(name: str) -> str:
    return f"{'an' if name[:1] in 'AEIOUaeiou' else 'a'} {name}"


# -- JSON ------------------------------------------------------------------------------------


def convert_json(value: Any, hint: Any, name: str) -> Any:
    """Return a value converted to its declared type.

    Lists become tuples and integers become floats where the type requires it.

    Args:
        value: A value from `json`.
        hint: The type: int, float, str, bool, None, Any, a union with None, tuple[X, ...], tuple[X,
            X], list[X], dict[str, X], a TypedDict (whose additional keys are unchanged), or a class
            with a `from_json` method.
        name: Name of the value in errors.

    Raises:
        InputError: The value has another type, is not finite or exceeds 63 bits, or a key is
            missing.
    """
    if hint is Any:
        return value
    if typing.is_typeddict(hint):
        return _convert_typed_dict(value, hint, name)
    if hasattr(hint, "from_json"):
        return hint.from_json(value, name)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        (kind,) = (item for item in arguments if item is not types.NoneType)
        return None if value is None else convert_json(value, kind, name)
    if origin in (tuple, list):
        _require(isinstance(value, (list, tuple)), name, "a list", value)
        if origin is tuple and arguments[-1] is not Ellipsis:
            length = len(arguments)
            _require(len(value) == length, name, f"a list of {length} values", value)
        return origin(
            convert_json(item, arguments[0], f"{name}[{index}]") for index, item in enumerate(value)
        )
    if origin is dict or hint is dict:
        _require(isinstance(value, Mapping), name, "a table", value)
        kind = arguments[1] if arguments else Any
        return {key: convert_json(item, kind, f"{name}.{key}") for key, item in value.items()}
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if is_number and isinstance(value, int) and abs(value) >= 2**63:
        raise InputError(
            f"{name} must be a number of at most 63 bits. Received: {to_one_line(value)}."
        )
    if hint is float:
        _require(is_number and math.isfinite(value), name, _TYPE_NAMES[float], value)
        return float(value)
    _require(
        isinstance(value, hint) and (hint is not int or is_number), name, _TYPE_NAMES[hint], value
    )
    return value


def _convert_typed_dict(value: Any, hint: Any, name: str) -> dict[str, Any]:
    """Return a table converted by a TypedDict; unknown keys pass, a missing one raises."""
    _require(isinstance(value, Mapping), name, "a table", value)
    hints, required = _read_typed_dict(hint)
    missing = [key for key in required if key not in value]
    if missing:
        raise InputError(
            f"{name} must have the keys {', '.join(hints)}. Received: none called '{missing[0]}'."
        )
    return {
        key: convert_json(item, hints[key], f"{name}.{key}") if key in hints else item
        for key, item in value.items()
    }


@cache
def _read_typed_dict(hint: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the types of a TypedDict by key, and its required keys."""
    hints = typing.get_type_hints(hint)
    # __required_keys__ ignores postponed annotations
    marked = typing.get_type_hints(hint, include_extras=True)
    required = [key for key in hints if typing.get_origin(marked[key]) is not typing.NotRequired]
    return hints, tuple(required) if hint.__total__ else ()


def _require(condition: bool, name: str, kind: str, value: object) -> None:
    if not condition:
        shown = to_one_line(repr(value) if isinstance(value, str) else value)
        raise InputError(f"{to_one_line(name)} must be {kind}. Received: {shown}.")
