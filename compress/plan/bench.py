"""The plan of `paretune bench`: what is timed, how, and until when."""

from __future__ import annotations

from dataclasses import dataclass

from compress.core.counts import MORE_THREADS, MOST_SEED, MOST_THREADS, SEED_BITS, whole
from compress.core.errors import InputError
from compress.core.plugins import RUNTIMES
from compress.plan.fields import option, require, require_choice, settle

BENCH_FORMATS = ("float32", "float16", "dynamic", "int8")


@dataclass(frozen=True)
class BenchPlan:
    """What `paretune bench` and `compress.bench` do."""

    runtimes: tuple[str, ...] = option(
        ("litert",), "--runtimes", "with commas: " + ", ".join(RUNTIMES)
    )
    formats: tuple[str, ...] = option(
        ("float32",),
        "--formats",
        "of Keras models, where the runtime has them: " + ", ".join(BENCH_FORMATS),
    )
    threads: tuple[str, ...] = option(("1",), "--threads", "CPU threads, with commas: 1,2")
    compare: tuple[str, ...] = option(
        (), "--compare", "two of the models, A,B: is B faster than A, and by how much"
    )
    input_shape: str = option(
        "", "--input-shape", "of one example, where a model's sizes are open: 224,224,3"
    )
    precision: float = option(
        0.02, "--precision", "stop when each ratio's 95 % half-width is below this share"
    )
    budget: float = option(120.0, "--budget", "seconds after which timing stops anyway")
    seed: int = option(
        0, "--seed", "seeds inputs, order and bootstrap", least=0, most=MOST_SEED, why=SEED_BITS
    )
    out: str = option(
        "", "--out", "folder for the converted files, bench.json, bench.csv and bench.png"
    )

    def __post_init__(self) -> None:
        settle(self)
        require(bool(self.runtimes), "runtimes", "name at least one runtime", self.runtimes)
        require(bool(self.formats), "formats", "name at least one format", self.formats)
        for name in self.runtimes:
            RUNTIMES.require(name)
        for name in self.formats:
            require_choice("format", name, BENCH_FORMATS)
        require(bool(self.parsed_threads()), "threads", "name at least one number", self.threads)
        require(self.precision > 0, "precision", "be above 0", self.precision)
        require(self.budget > 0, "budget", "be above 0", self.budget)
        if self.compare and len(self.compare) != 2:
            raise InputError(f"compare must name two models. Received: {', '.join(self.compare)}.")
        self.parsed_shape()

    def parsed_threads(self) -> list[int]:
        """Returns the thread counts.

        Raises:
            InputError: One is no whole number in [1, 1024].
        """
        return [
            whole(text, "threads", least=1, most=MOST_THREADS, why=MORE_THREADS)
            for text in self.threads
        ]

    def parsed_shape(self) -> tuple[int, ...] | None:
        """Returns the input shape, or None.

        Raises:
            InputError: A size is no whole number of at least 1.
        """
        if not self.input_shape:
            return None
        sizes = [text.strip() for text in self.input_shape.split(",")]
        good = all(text.isascii() and text.isdigit() and len(text) <= 100 for text in sizes)
        good = good and all(int(text) >= 1 for text in sizes)
        require(good, "input_shape", "be sizes with commas, like 224,224,3", self.input_shape)
        return tuple(int(text) for text in sizes)
