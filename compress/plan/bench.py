"""The plan of `paretune bench`, and sizes of a model's inputs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from compress.core.errors import InputError, one_line
from compress.core.quantities import (
    MORE_THREADS,
    MOST_SEED,
    MOST_THREADS,
    SEED_BITS,
    parse_whole_number,
)
from compress.plan.fields import Choices, option, require, settle
from compress.plan.forms import Given, Names, Place, Written
from compress.plugins import RUNTIMES

BENCH_FORMATS = ("float32", "float16", "dynamic", "int8")
MOST_SIZE = 2**31 - 1
LIKE = "sizes with commas, like 224,224,3; of several inputs by name, like image=96,96,3,table=12"
_BETWEEN = re.compile(r"[,;\s]+")


@dataclass(frozen=True)
class InputShape(Written):
    """Values for the open sizes of a model's inputs.

    Attributes:
        sizes: (name of the input, sizes of one example), in the order in which they were given;
            the name is empty where the sizes stand alone.

    Example:
        >>> InputShape.parse("image=96,96,3,table=12").given
        {'image': (96, 96, 3), 'table': (12,)}
        >>> InputShape.parse("224,224,3").given
        (224, 224, 3)
    """

    sizes: tuple[tuple[str, tuple[int, ...]], ...]

    @classmethod
    def parse(cls, text: str, name: str = "input_shape") -> Self:
        """Read sizes with commas; a name with "=" begins the sizes of another input.

        Semicolons and spaces may stand in place of commas.

        Raises:
            InputError: It is no such text, or an input stands there twice.
        """
        found: list[tuple[str, list[str]]] = []
        for item in filter(None, _BETWEEN.split(text.strip())):
            before, sign, size = item.rpartition("=")
            if sign and not before:
                raise _refused(name, text)
            if sign or not found:
                found.append((before, []))
            if size:
                found[-1][1].append(size)
        return cls._made(found, name, text)

    @classmethod
    def of(cls, value: object, name: str = "input_shape") -> Self:
        """Take sizes, or a mapping from names of inputs to sizes, too."""
        if isinstance(value, (cls, str)):
            return super().of(value, name)
        if isinstance(value, Mapping):
            parts = [(str(key), _listed(sizes, name)) for key, sizes in value.items()]
            if any(not key for key, _ in parts):
                raise _refused(name, value)
            return cls._made(parts, name, value)
        return cls._made([("", _listed(value, name))], name, value)

    @classmethod
    def _made(
        cls, parts: Iterable[tuple[str, Iterable[object]]], name: str, received: object
    ) -> Self:
        found: dict[str, tuple[int, ...]] = {}
        for key, sizes in parts:
            if key in found:
                raise InputError(
                    f"{name} must name an input once. Received: {one_line(key)} twice."
                )
            found[key] = tuple(
                parse_whole_number(
                    size, name, least=1, most=MOST_SIZE, why="arrays have no longer axes", like=LIKE
                )
                for size in sizes
            )
        if not found or ("" in found and len(found) > 1):
            raise _refused(name, received)
        return cls(tuple(found.items()))

    @property
    def given(self) -> tuple[int, ...] | dict[str, tuple[int, ...]]:
        """The sizes, or sizes by the inputs' names, as functions take them."""
        if self.sizes[0][0]:
            return dict(self.sizes)
        return self.sizes[0][1]

    def plain(self) -> Any:
        """Return a list, or a table of lists."""
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

    runtimes: Names = option(
        ("litert",),
        "--runtimes",
        "with commas: " + ", ".join(RUNTIMES),
        choices=RUNTIMES,
    )
    formats: Names = option(
        ("float32",),
        "--formats",
        "formats of Keras models, where the runtime has them: " + ", ".join(BENCH_FORMATS),
        choices=Choices("format", BENCH_FORMATS),
    )
    threads: Given[tuple[int, ...], Iterable[int] | int | str] = option(
        (1,), "--threads", "numbers of CPU threads, with commas: 1,2", least=1, most=MOST_THREADS,
        why=MORE_THREADS,
    )  # fmt: skip
    compare: Names = option(
        (), "--compare", "two of the models, A,B: is B faster than A, and by how much"
    )
    input_shape: Given[
        InputShape | None, Mapping[str, Iterable[int]] | Iterable[int] | str | None
    ] = option(
        None, "--input-shape", "sizes of one example, where a model leaves them open: 224,224,3; "
        "of several inputs by name: image=96,96,3,table=12",
    )  # fmt: skip
    signature: str = option(
        "", "--signature", "of SavedModels that have several: the one that is timed"
    )
    precision: float = option(
        0.02,
        "--precision",
        "stop when each ratio's 95 % half-width is below this share",
        unit="share",
    )
    budget: Given[float, float | str] = option(
        120.0, "--budget", "seconds (or 2m) after which timing stops in any case", unit="seconds"
    )
    seed: int = option(
        0,
        "--seed",
        "seeds inputs, order and bootstrap",
        least=0,
        most=MOST_SEED,
        why=SEED_BITS,
        like="a whole number, like 0",
    )
    out: Place = option(
        None, "--out", "folder for the converted files, bench.json, bench.csv and bench.png"
    )
    plugins: Names = option(
        (), "--plugins", "modules to import first, with commas: they register plug-ins of yours"
    )

    def __post_init__(self) -> None:
        settle(self)
        require(bool(self.runtimes), "runtimes", "name at least one runtime", self.runtimes)
        require(bool(self.formats), "formats", "name at least one format", self.formats)
        require(bool(self.threads), "threads", "name at least one number", self.threads)
        require(self.precision > 0, "precision", "be above 0", self.precision)
        require(self.budget > 0, "budget", "be above 0", self.budget)
        if self.compare and len(self.compare) != 2:
            raise InputError(f"compare must name two models. Received: {', '.join(self.compare)}.")


def given(shape: InputShape | None) -> tuple[int, ...] | dict[str, tuple[int, ...]] | None:
    """Return a shape as functions take `input_shape`; None: nothing was given."""
    return None if shape is None else shape.given


def _listed(value: object, name: str) -> list[object]:
    if isinstance(value, str):
        return [size for size in _BETWEEN.split(value.strip()) if size]
    if isinstance(value, Iterable) and not isinstance(value, Mapping):
        return list(value)
    if hasattr(value, "__index__"):
        return [value]
    raise _refused(name, value)


def _refused(name: str, received: object) -> InputError:
    shown = one_line(repr(received) if isinstance(received, str) else received)
    return InputError(f"{name} must be {LIKE}. Received: {shown}.")
