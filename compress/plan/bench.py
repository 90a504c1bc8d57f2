"""Plan of `paretune bench`, and sizes of a model's inputs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from compress.core.errors import InputError, to_one_line
from compress.core.quantities import (
    MAX_SEED,
    MAX_SEED_REASON,
    MAX_THREADS,
    MAX_THREADS_REASON,
    parse_integer,
)
from compress.plan.conversion import ConvertedField, NameList, OptionalPath, TextValue
from compress.plan.fields import Choices, option, require, validate_fields
from compress.plugins import RUNTIMES

BENCH_FORMATS = ("float32", "float16", "dynamic", "int8")
MAX_AXIS_SIZE = 2**31 - 1
INPUT_SHAPE_HINT = (
    "sizes with commas, like 224,224,3; of several inputs by name, like image=96,96,3,table=12"
)
_SEPARATORS = re.compile(r"[,;\s]+")


@dataclass(frozen=True)
class InputShape(TextValue):
    """Values for the open sizes of a model's inputs.

    Attributes:
        sizes: Pairs of input name and sizes of one example, in the given order. The name is
            empty if sizes were given without a name.

    Example:
        >>> InputShape.parse("image=96,96,3,table=12").value
        {'image': (96, 96, 3), 'table': (12,)}
        >>> InputShape.parse("224,224,3").value
        (224, 224, 3)
    """

    sizes: tuple[tuple[str, tuple[int, ...]], ...]

    @classmethod
    def parse(cls, text: str, name: str = "input_shape") -> Self:
        """Return the input shape of a text like "224,224,3" or "image=96,96,3,table=12".

        Semicolons and spaces may be used in place of commas.

        Args:
            text: Comma-separated sizes; a name with "=" begins the sizes of another input.
            name: Name of the value in errors.

        Raises:
            InputError: The text has another form, or names an input twice.
        """
        parts: list[tuple[str, list[str]]] = []
        for item in filter(None, _SEPARATORS.split(text.strip())):
            before, sign, size = item.rpartition("=")
            if sign and not before:
                raise _build_error(name, text)
            if sign or not parts:
                parts.append((before, []))
            if size:
                parts[-1][1].append(size)
        return cls._from_parts(parts, name, text)

    @classmethod
    def from_value(cls, value: object, name: str = "input_shape") -> Self:
        """Return the input shape of a text, of sizes, or of a mapping from input names to sizes.

        Args:
            value: The text, sizes or mapping.
            name: Name of the value in errors.

        Raises:
            InputError: The value has another form.
        """
        if isinstance(value, (cls, str)):
            return super().from_value(value, name)
        if isinstance(value, Mapping):
            parts = [(str(key), _list_sizes(sizes, name)) for key, sizes in value.items()]
            if any(not key for key, _ in parts):
                raise _build_error(name, value)
            return cls._from_parts(parts, name, value)
        return cls._from_parts([("", _list_sizes(value, name))], name, value)

    @classmethod
    def _from_parts(
        cls, parts: Iterable[tuple[str, Iterable[object]]], name: str, received: object
    ) -> Self:
        """Return the shape of (input name, sizes) pairs; refuse repeated names and mixed forms."""
        sizes_by_name: dict[str, tuple[int, ...]] = {}
        for key, sizes in parts:
            if key in sizes_by_name:
                raise InputError(
                    f"{name} must name an input once. Received: {to_one_line(key)} twice."
                )
            sizes_by_name[key] = tuple(
                parse_integer(
                    size,
                    name,
                    least=1,
                    most=MAX_AXIS_SIZE,
                    why="arrays have no longer axes",
                    like=INPUT_SHAPE_HINT,
                )
                for size in sizes
            )
        if not sizes_by_name or ("" in sizes_by_name and len(sizes_by_name) > 1):
            raise _build_error(name, received)
        return cls(tuple(sizes_by_name.items()))

    @property
    def value(self) -> tuple[int, ...] | dict[str, tuple[int, ...]]:
        """Sizes, or a dictionary of sizes by input name, for arguments of functions."""
        name, shape = self.sizes[0]
        return dict(self.sizes) if name else shape

    def to_plain(self) -> Any:
        """Return a list of sizes, or a dictionary of lists."""
        if self.sizes[0][0]:
            return {name: list(sizes) for name, sizes in self.sizes}
        return list(self.sizes[0][1])

    def __str__(self) -> str:
        return ",".join(
            (f"{name}=" if name else "") + ",".join(map(str, sizes)) for name, sizes in self.sizes
        )


@dataclass(frozen=True)
class BenchPlan:
    """Options of `paretune bench` and `compress.bench`."""

    runtimes: NameList = option(
        ("litert",),
        "runtimes to time, with commas",
        choices=RUNTIMES,
    )
    formats: NameList = option(
        ("float32",),
        "formats that Keras models are converted to, with commas",
        choices=Choices("format", BENCH_FORMATS),
    )
    threads: ConvertedField[tuple[int, ...], Iterable[int] | int | str] = option(
        (1,),
        "numbers of CPU threads, with commas: 1,2",
        least=1,
        most=MAX_THREADS,
        why=MAX_THREADS_REASON,
    )
    compare: NameList = option(
        (),
        "names of two models (model.tflite: model), A,B: whether B is faster than A; "
        "default: ratios to the first model",
    )
    input_shape: ConvertedField[
        InputShape | None, Mapping[str, Iterable[int]] | Iterable[int] | str | None
    ] = option(
        None,
        "sizes of input axes that a model leaves open (else an error): 224,224,3; several"
        " inputs: image=96,96,3,table=12",
    )
    signature: str = option("", "signature of SavedModels to time")
    precision: float = option(
        0.02,
        "stop when the 95 % interval of each latency ratio is within +- this share, above 0",
        unit="share",
    )
    budget: ConvertedField[float, float | str] = option(
        120.0, "time limit of the measurement, in seconds (or 2m), above 0", unit="seconds"
    )
    seed: int = option(
        0,
        "random seed of splits, weights, shuffling and sampling",
        least=0,
        most=MAX_SEED,
        why=MAX_SEED_REASON,
        like="an integer, like 0",
    )
    out: OptionalPath = option(
        None, "folder for the report and the converted files; default: none is written"
    )
    plugins: NameList = option((), "modules with plug-ins to import first, with commas")

    def __post_init__(self) -> None:
        validate_fields(self)
        require(bool(self.runtimes), "runtimes", "name at least one runtime", self.runtimes)
        require(bool(self.formats), "formats", "name at least one format", self.formats)
        require(bool(self.threads), "threads", "name at least one number", self.threads)
        require(self.precision > 0, "precision", "be above 0", self.precision)
        require(self.budget > 0, "budget", "be above 0", self.budget)
        if self.compare and len(self.compare) != 2:
            raise InputError(f"compare must name two models. Received: {', '.join(self.compare)}.")


def unwrap_input_shape(
    shape: InputShape | None,
) -> tuple[int, ...] | dict[str, tuple[int, ...]] | None:
    """Return a shape in the form of function arguments `input_shape`, or None if it is None."""
    return None if shape is None else shape.value


def _list_sizes(value: object, name: str) -> list[object]:
    if isinstance(value, str):
        return [size for size in _SEPARATORS.split(value.strip()) if size]
    if isinstance(value, Iterable) and not isinstance(value, Mapping):
        return list(value)
    if hasattr(value, "__index__"):
        return [value]
    raise _build_error(name, value)


def _build_error(name: str, received: object) -> InputError:
    shown = to_one_line(repr(received) if isinstance(received, str) else received)
    return InputError(f"{name} must be {INPUT_SHAPE_HINT}. Received: {shown}.")
