"""Pieces of all benchmarks: command line, peers, tables, paired ratios, means and ties.

Every module here with a `main` is a `Benchmark`:

    python -m benchmarks.NAME [its options]                     measures into a new file
    python -m benchmarks.NAME --resume FILE                     continues, where it can
    python -m benchmarks.NAME --show FILE [--write DOC.md]      prints a stored result, as stored
    python -m benchmarks.NAME --show FILE --picture OUT.svg     draws it, where there is a picture

What it prints are the Markdown tables that docs show; `--write` puts them between a document's
markers (see `_docs`), so no table is typed by hand.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import _docs, _stored
from benchmarks._stored import Stored
from compress.core.atomic_files import replace_file
from compress.core.errors import InputError
from compress.core.statistics import CONFIDENCE_LEVEL, Difference
from compress.measure.latency_record import RANGE, compute_median_spread

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SEEDS = (0, 1, 2)
"""Wherever accuracies are compared."""
_OURS = ("resume", "show", "write", "picture")


@dataclass(frozen=True)
class Benchmark:
    """One script with stored results and the tables that are rendered from them.

    Attributes:
        name: Its module's.
        doc: Its module's docstring: the help.
        measure: (options, stored): measures and saves; called with an empty result or, after
            --resume, with one to go on from.
        tables: Makes Markdown tables of a result; `result` -> text, by name; None where the
            result is of another kind.
        arguments: Adds its options. One named `seeds` is the seeds; `dest`s starting with an
            underscore are of its own subprocesses and are not recorded.
        peers: Names in `PEERS`.
        resumable: Whether `measure` can go on from a part.
        grows: Options that may differ when it continues.
        anywhere: Whether another processor may go on: no time is shown, or each row is one's own.
        picture: Draws a result.
        seeds: Where no option says.
    """

    name: str
    doc: str | None
    measure: Callable[[argparse.Namespace, Stored], None]
    tables: Mapping[str, Callable[[dict[str, Any]], str | None]]
    arguments: Callable[[argparse.ArgumentParser], Any] = lambda parser: None
    peers: tuple[str, ...] = ()
    resumable: bool = False
    grows: tuple[str, ...] = ("seeds",)
    anywhere: bool = False
    picture: Callable[[dict[str, Any]], Figure] | None = None
    seeds: tuple[int, ...] = (0,)

    def run(self, words: Sequence[str] | None = None) -> None:
        """Obey the command line; bad input ends with one line and exit code 2."""
        parser = self._parser()
        given = parser.parse_args(words)
        try:
            drawn = getattr(given, "picture", None)
            if (given.write or drawn) and not given.show:
                raise InputError("--write and --picture must have a stored result: --show FILE.")
            if given.show:
                self._show(given.show, given.write, drawn)
            else:
                self._measure(given)
        except InputError as error:
            parser.exit(2, f"{parser.prog}: {error}\n")

    def _parser(self) -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser(
            prog=f"python -m benchmarks.{self.name}", description=self.doc,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        self.arguments(parser)
        if self.resumable:
            parser.add_argument("--resume", type=Path, metavar="FILE", help="go on from a result")
        parser.add_argument(
            "--show", type=Path, metavar="FILE", help="print a stored result; nothing is measured"
        )
        parser.add_argument(
            "--write", type=Path, metavar="DOC", help="put its tables into a document's markers"
        )
        if self.picture:
            parser.add_argument(
                "--picture", type=Path, metavar="SVG", help="draw the stored result into a file"
            )
        return parser

    def _show(self, file: Path, document: Path | None, drawn: Path | None) -> None:
        stored = _stored.read(file, self.name)
        print(f"stored, of {stored.origin()}: {stored.provenance['command']}")
        self._print(stored)
        if document:
            _docs.write(document, self, stored)
            print(f"written to {document}")
        if drawn and self.picture:
            with replace_file(drawn) as part:
                self.picture(stored.result).savefig(part, format="svg", metadata={"Date": None})
            print(f"drawn to {drawn}")

    def _measure(self, given: argparse.Namespace) -> None:
        settings = {
            name: _stored.shown_path(str(value)) if isinstance(value, Path) else value
            for name, value in vars(given).items()
            if name not in _OURS and not name.startswith("_")
        }
        seeds = tuple(settings.get("seeds", self.seeds))
        path = getattr(given, "resume", None)
        if path:
            stored = _stored.resume(path, self.name, settings, seeds, self.grows, self.anywhere)
        else:
            stored = _stored.begin(self.name, settings, seeds)
        peers = stored.provenance["peers"]
        for name in self.peers:
            peers[name] = _stored.kept_peer(peers.get(name), PEERS[name].state())
            if not _stored.was_run(peers[name]):
                print(f"{name}: {peers[name]}", flush=True)
        self.measure(given, stored)
        stored.provenance["complete"] = True
        stored.save()
        print(f"\nmeasured, {stored.origin()}:")
        self._print(stored)
        print(f"\nstored in {stored.path}")

    def _print(self, stored: Stored) -> None:
        for made in (table(stored.result) for table in self.tables.values()):
            if made is not None:
                print(f"\n{made}")


def seed_list(parser: argparse.ArgumentParser, default: Sequence[int] = SEEDS) -> None:
    """Add `--seeds 0,1,2`."""

    def numbers(text: str) -> tuple[int, ...]:
        return tuple(int(word) for word in text.split(","))

    parser.add_argument(
        "--seeds", type=numbers, default=tuple(default), metavar="0,1,2", help="with commas"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def ratio(old: Sequence[float], new: Sequence[float]) -> dict[str, Any]:
    """Return the median of old/new paired by round, with its 95 % interval.

    Below ten rounds with their range, which is no interval: `spread` says which.
    """
    found = compute_median_spread(np.asarray(old) / np.asarray(new), np.random.default_rng(0))
    return {
        "ratio": found.median,
        "low": found.low,
        "high": found.high,
        "rounds": len(old),
        "spread": found.kind,
    }


def told_ratio(row: Mapping[str, Any] | None) -> str:
    """Return "1.41x [1.38, 1.43]", a tie where the interval holds 1; or why there is none.

    A range is called one: "1.41x [range 1.38 to 1.43]". Older records of fewer than ten rounds hold
    intervals that cover less than they say, and no rounds: "1.41x (7 rounds)".
    """
    if row is None:
        return ""
    if not _stored.was_run(row):
        return f"not run: {row['not run']}"
    if "spread" not in row and row["rounds"] < 10:
        return f"{row['ratio']:.2f}x ({row['rounds']} rounds)"
    low, high = row["low"], row["high"]
    text = f"{row['ratio']:.2f}x {bounds(row, f'{low:.2f}', f'{high:.2f}')}"
    return text + (" (a tie)" if low <= 1.0 <= high else "")


def compare_means(
    new: float, new_error: float, new_count: int, old: float, old_error: float, old_count: int
) -> Difference:
    """Compare two means over seeds, using their standard errors.

    Args:
        new, old: The means.
        new_error, old_error: Their standard errors, at least 0.
        new_count, old_count: Numbers of seeds, at least 2. With an `old_count` of 0, `old` is a
            constant without an error.

    Reference:
        Welch 1947, "The generalization of 'Student's' problem when several different population
        variances are involved".
    """
    from scipy import stats

    parts = [(new_error**2, new_count), (old_error**2, old_count)]
    variance = sum(error for error, _ in parts)
    below = sum(error**2 / (count - 1) for error, count in parts if count > 1)
    freedom = variance**2 / below if below > 0 else max(new_count - 1, old_count - 1, 1)
    half = float(stats.t.ppf((1 + CONFIDENCE_LEVEL) / 2, freedom)) * math.sqrt(variance)
    return Difference(new - old, new - old - half, new - old + half)


@dataclass(frozen=True)
class Mean:
    """The mean of one figure over seeds.

    Attributes:
        mean: Of the values.
        error: Its standard error (standard deviation / sqrt(n)); None of a single value.
        count: Number of values.
    """

    mean: float
    error: float | None
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
        """Return the mean of at least one value."""
        count = len(values)
        error = float(np.std(values, ddof=1)) / math.sqrt(count) if count > 1 else None
        return cls(float(np.mean(values)), error, count)

    def compare(self, old: Mean | None = None) -> Difference | None:
        """Compare with another mean, or with zero; None where one is of a single value."""
        if self.error is None or (old is not None and old.error is None):
            return None
        if old is None or old.error is None:
            return compare_means(self.mean, self.error, self.count, 0.0, 0.0, 0)
        return compare_means(self.mean, self.error, self.count, old.mean, old.error, old.count)

    def percent(self) -> str:
        """Return "91.09 +- 0.01 %", or "91.09 % (one seed)"."""
        if self.error is None:
            return f"{100 * self.mean:.2f} % (one seed)"
        return f"{100 * self.mean:.2f} +- {100 * self.error:.2f} %"

    def number(self, digits: int = 3) -> str:
        """Return "0.604 +- 0.012", or "0.604 (one seed)"."""
        if self.error is None:
            return f"{self.mean:.{digits}f} (one seed)"
        return f"{self.mean:.{digits}f} +- {self.error:.{digits}f}"


def verdict(new: Mean, old: Mean) -> str:
    """Return by how many points `new` differs from `old`, and whether that is a tie.

    A tie is a difference whose 95 % interval, by Welch's t test over the seeds, holds zero; of
    single values no verdict is given.
    """
    points, found = 100 * (new.mean - old.mean), new.compare(old)
    if found is None:
        return f"{points:+.2f}, one seed"
    return f"{points:+.2f}" + (", a tie" if found.is_tie else "")


def told_latency(latency: Mapping[str, Any] | None) -> list[str]:
    """Return the cells "202 us" and "2.56x [2.55, 2.58]", empty where nothing was timed.

    Records without "spread" are older: their intervals are too narrow and are not shown.
    """
    if latency is None:
        return ["", ""]
    time = _time(latency["median_ms"])
    ratio = latency.get("ratio")
    if ratio is None:
        return [time, ""]
    text = f"{ratio:.2f}x"
    if "spread" in latency:
        low, high = latency["ratio_low"], latency["ratio_high"]
        if ratio == low == high == 1.0:  # it is what the others are compared with
            return [time, "1"]
        text += f" {bounds(latency, f'{low:.2f}', f'{high:.2f}')}"
        text += " (a tie)" if low <= 1.0 <= high else ""
    return [time, text]


def bounds(row: Mapping[str, Any], low: str, high: str) -> str:
    """Return the ends of an interval as "[1, 2]"; of a range as "[range 1 to 2]"."""
    return f"[range {low} to {high}]" if row.get("spread") == RANGE else f"[{low}, {high}]"


def _time(median: float) -> str:
    return f"{1e3 * median:.3g} us" if median < 1 else f"{median:.3g} ms"


_LOOK = """
import importlib.metadata, importlib.util, json, sys
names = sys.argv[1:]
missing = [name for name in names[1:] if importlib.util.find_spec(name) is None]
version = None if missing else importlib.metadata.version(names[0])
print(json.dumps({"missing": missing, "version": version}))
"""


@dataclass(frozen=True)
class Peer:
    """Another tool, which benchmarks measure beside paretune.

    Attributes:
        name: As rows call it.
        package: The distribution whose version is recorded.
        modules: What must be importable.
        variable: Names the Python of its environment; None: it lives in ours.
        install: How to get it.
    """

    name: str
    package: str
    modules: tuple[str, ...]
    variable: str | None
    install: str

    def python(self) -> str:
        """Return the interpreter that should have it."""
        return (self.variable and os.environ.get(self.variable)) or sys.executable

    def state(self) -> str:
        """Return its version, or "not run: <reason>"."""
        command = [self.python(), "-c", _LOOK, self.package, *self.modules]
        try:
            done = subprocess.run(command, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            where = f"{self.variable}={self.python()}" if self.variable else self.python()
            return f"not run: {where} does not start ({type(error).__name__})"
        found: dict[str, Any] = json.loads(done.stdout)
        if found["missing"]:
            return f"not run: {', '.join(found['missing'])} not installed ({self.install})"
        return f"{self.package} {found['version']}"


PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            "torch-pruning",
            "torch-pruning",
            ("torch", "torchvision", "torch_pruning"),
            "TORCH_PRUNING_PYTHON",
            "TORCH_PRUNING_PYTHON names a Python with torch, torchvision and torch-pruning",
        ),
        Peer(
            "tfmot",
            "tensorflow-model-optimization",
            ("tensorflow_model_optimization", "tf_keras"),
            None,
            "pip install tensorflow-model-optimization tf_keras",
        ),
        Peer("keras-hub", "keras-hub", ("keras_hub",), None, "pip install keras-hub"),
        *(
            Peer(
                name,
                package,
                modules,
                "SAMPLERS_PYTHON",
                f"SAMPLERS_PYTHON names a Python with {' and '.join(modules)}",
            )
            for name, package, modules in (
                ("optuna-gp", "optuna", ("optuna", "torch")),
                ("smac", "smac", ("smac", "ConfigSpace")),
                ("ax", "ax-platform", ("ax",)),
                ("syne-tune", "syne-tune", ("syne_tune",)),
            )
        ),
    )
}


def not_run(state: str) -> dict[str, str]:
    """Return the row of a missing peer, by its `Peer.state`."""
    return {"not run": state.removeprefix("not run: ")}
