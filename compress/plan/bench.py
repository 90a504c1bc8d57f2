"""The plan of `paretune bench`: what is timed, how, and until when."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from compress.core.errors import InputError
from compress.core.interpreter import import_plugins
from compress.core.plugins import RUNTIMES
from compress.core.quantities import MORE_THREADS, MOST_SEED, MOST_THREADS, SEED_BITS
from compress.plan.fields import option, require, require_choice, settle
from compress.plan.forms import Given, Names, Place
from compress.plan.input_shape import InputShape

BENCH_FORMATS = ("float32", "float16", "dynamic", "int8")


@dataclass(frozen=True)
class BenchPlan:
    """What `paretune bench` and `compress.bench` do."""

    runtimes: Names = option(("litert",), "--runtimes", "with commas: " + ", ".join(RUNTIMES))
    formats: Names = option(
        ("float32",),
        "--formats",
        "formats of Keras models, where the runtime has them: " + ", ".join(BENCH_FORMATS),
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
        import_plugins(self.plugins)
        require(bool(self.runtimes), "runtimes", "name at least one runtime", self.runtimes)
        require(bool(self.formats), "formats", "name at least one format", self.formats)
        for name in self.runtimes:
            RUNTIMES.require(name)
        for name in self.formats:
            require_choice("format", name, BENCH_FORMATS)
        require(bool(self.threads), "threads", "name at least one number", self.threads)
        require(self.precision > 0, "precision", "be above 0", self.precision)
        require(self.budget > 0, "budget", "be above 0", self.budget)
        if self.compare and len(self.compare) != 2:
            raise InputError(f"compare must name two models. Received: {', '.join(self.compare)}.")
