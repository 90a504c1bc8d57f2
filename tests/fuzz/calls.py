"""Wrong values for every argument of every public function: `python -m tests.fuzz.calls`.

    python -m tests.fuzz.calls --calls 1000 --seed 0 [--function shrink] [--results FILE]

A call must end in a result or in an error of paretune's own; anything else is an internal
traceback. Each call differs from one that works in one argument.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import paretune as pt
from compress.plan import keywords
from search import plan as search_keywords

SECONDS = 120
"""A call that takes longer is given up and counted as slow."""
WRONG: dict[str, Callable[[], Any]] = {
    "None": lambda: None, "0": lambda: 0, "-1": lambda: -1, "3": lambda: 3, "0.5": lambda: 0.5,
    "-0.5": lambda: -0.5, "1e9": lambda: 1e9, "nan": lambda: float("nan"),
    "inf": lambda: float("inf"), "10**30": lambda: 10**30, "True": lambda: True,
    "empty text": lambda: "", "text": lambda: "nonsense", "share": lambda: "0.5x",
    "latency": lambda: "3ms", "size": lambda: "200KB", "NUL": lambda: "a\0b",
    "bytes": lambda: b"x", "empty list": list, "numbers": lambda: [1, 2], "texts": lambda: ["a"],
    "nested": lambda: [[1], "a"], "tuple": lambda: (1, 2, 3, 4), "empty dict": dict,
    "dict": lambda: {"a": 1}, "set": lambda: {1}, "object": object,
    "function": lambda: lambda: None,
    "array": lambda: np.zeros(3), "matrix": lambda: np.ones((2, 3)),
    "NaN array": lambda: np.full(4, np.nan), "path": lambda: Path("/nowhere/at/all"),
    "complex": lambda: 1j, "range": lambda: range(3), "class": lambda: dict,
    "generator": lambda: (number for number in range(3)), "numpy nan": lambda: np.float32("nan"),
}  # fmt: skip
"""By name: what no call takes, or takes by chance."""


@dataclass(frozen=True)
class Target:
    """A public function and a call of it that works.

    Attributes:
        function: By name.
        good: Keyword arguments of the call.
        arguments: Further arguments that may be given.
    """

    function: str
    good: dict[str, Any]
    arguments: tuple[str, ...] = ()

    def call(self, argument: str, value: Any) -> None:
        """Call the function with one argument replaced."""
        given = {**self.good, argument: value}
        models = given.pop("*models", None)
        function = getattr(pt, self.function)
        function(*([] if models is None else [models]), **given)


@dataclass(frozen=True)
class Called:
    """What came of a call; `outcome` is "returned", "refused", "slow" or "traceback"."""

    function: str
    argument: str
    value: str
    outcome: str
    detail: str = ""


@dataclass
class Things:
    """Models, data and files that good calls are made of."""

    folder: Path
    x: Any = field(init=False)
    y: Any = field(init=False)
    model: Any = field(init=False)
    small: Any = field(init=False)

    def __post_init__(self) -> None:
        import keras

        rng = np.random.default_rng(0)
        self.x = rng.normal(size=(240, 6)).astype(np.float32)
        self.y = (self.x[:, 0] > 0).astype(int) + (self.x[:, 1] > 0)

        def net(width: int) -> Any:
            keras.utils.set_random_seed(0)
            layers = [
                keras.Input((6,)),
                keras.layers.Dense(width, activation="relu"),
                keras.layers.Dense(width, activation="relu"),
                keras.layers.Dense(3, activation="softmax"),
            ]
            model = keras.Sequential(layers, name=f"net{width}")
            model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy")
            model.fit(self.x, self.y, 60, 15, verbose=0)
            return model

        self.model, self.small = net(16), net(8)
        self.model.save(self.folder / "net.keras")
        pt.export(self.model, self.folder / "net.tflite", data=self.x)

    def targets(self) -> list[Target]:
        """Return the public functions, each with a call that works and takes little time."""
        data = (self.x, self.y)
        model, small = self.model, self.small
        fast: dict[str, Any] = {"latency_budget": 0.2, "device": "cpu", "formats": ["float32"]}
        short: dict[str, Any] = {"epochs": 1, "batch_size": 32, "device": "cpu"}

        def options(of: keywords.Keywords) -> tuple[str, ...]:
            return tuple(of.list_options())

        parts = ("val", "test", "groups", "time")
        searched: dict[str, Any] = {
            "data": data, "space": "mlp", "trials": 2, "epochs": 1, "workers": 1, "out": "run",
            "finetune_epochs": 0, **fast,
        }  # fmt: skip
        return [
            Target("shrink", {"model": model, "data": data, "macs": 0.6, "no_train": True,
                              "round_to": 2, "out": "shrunk", **fast},
                   ("plan", "recipe", "workers", "on_progress", *parts, *options(keywords.SHRINK))),
            Target("compress_model", {"model": model, "data": data, "finetune_epochs": 0,
                                      "sparsity": 0.5, "out": "compressed", **fast},
                   ("plan", "on_progress", *parts, *options(keywords.COMPRESS_MODEL))),
            Target("run", searched, ("plan", "display", *parts, *options(search_keywords.RUN))),
            Target("run_search", searched,
                   ("plan", "display", *parts, *options(search_keywords.RUN_SEARCH))),
            Target("prune_channels", {"model": model, "macs": 0.6},
                   ("options", "params", "cost", "share", "criterion", "data",
                    "sensitivity", "seed", "repair", "input_shape", "on_choice",
                    "on_progress", *options(keywords.PRUNE_CHANNELS))),
            Target("prune_weights", {"model": model, "data": data, **short},
                   ("options", "val", "groups", "time", "task", "schedule", "repair", "finetune",
                    "seed", *options(keywords.PRUNE_WEIGHTS))),
            Target("distill", {"student": small, "teacher": model, "data": data, **short},
                   ("options", "val", "groups", "time", "task", "finetune", "seed", "select_by",
                    "teacher_classes", "cache_folder", "checkpoint", "on_epoch",
                    *options(keywords.DISTILL))),
            Target("quantize", {"model": model, "data": data, "epochs": 0, "device": "cpu"},
                   ("options", "format", "val", "groups", "time", "task", "distill", "finetune",
                    "memory", "seed", *options(keywords.QUANTIZE))),
            Target("export", {"model": model, "path": "net.tflite"},
                   ("format", "data", "options", "seed", "on_refusal", "on_progress",
                    *options(keywords.EXPORT))),
            Target("bench", {"*models": [self.folder / "net.tflite"], "budget": 0.2},
                   ("plan", "on_progress", *options(keywords.BENCH))),
            Target("count_macs", {"model": model}, ("input_shape",)),
            Target("coupled_groups", {"model": model}, ("input_shape",)),
            Target("channel_times", {"model": model, "budget": 0.5, "round_to": 8},
                   ("options", "format", "threads", "seed", "input_shape", "on_progress",
                    *options(keywords.PRUNE_CHANNELS))),
            Target("export_latency_table", {"model": model, "folder": "table", "round_to": 8},
                   ("formats", "threads", "min_kept", "input_shape", "seed", "on_progress")),
            Target("import_latency_table", {"folder": "table", "device": "phone"}, ("out",)),
            Target("load_data", {"source": "digits"},
                   ("label", "normalize", "val_fraction", "test_fraction", "task", "group_column",
                    "time_column", "seed", "preprocess")),
            Target("as_dataset", {"data": data},
                   ("model", "label", "normalize", "val_fraction", "test_fraction", "task",
                    "metric", "group_column", "time_column", "seed", "testing", *parts)),
            Target("load_model", {"path": self.folder / "net.keras"}),
            Target("measure_latency", {"files": {"net": self.folder / "net.tflite"}},
                   ("options", "baselines", "runtime", "seed", "on_progress")),
            Target("recalibrate", {"model": small, "data": self.x, "batches": 1}, ("seed",)),
            Target("repair", {"pruned": model, "dense": model, "x": self.x},
                   ("kept", "masks", "grids", "examples", "samples", "joint", "seed",
                    "on_progress")),
            Target("resume_pruning", {"path": "pruning"}, ("schedule", "custom_objects")),
            Target("save_pruning", {"model": model, "pruner": pt.WeightPruner(), "path": "p"}),
            Target("sensitivity_map", {"model": model, "data": data},
                   ("criterion", "blocks", "seed", "on_progress")),
            Target("WeightPruner", {},
                   ("options", "schedule", *options(keywords.WEIGHT_PRUNER))),
            Target("Workers", {"count": 1},
                   ("engine", "cpus_per_worker", "gpus_per_worker")),
        ]  # fmt: skip


def try_calls(
    calls: int, seed: int, functions: tuple[str, ...] = (), first: int = 0
) -> Iterator[Called]:
    """Call functions with wrong values.

    Args:
        calls: How many.
        seed: Draws the functions, arguments and values.
        functions: By name; none: all.
        first: Index of the first call: with the seed it makes a call again.
    """
    with tempfile.TemporaryDirectory(prefix="calls-") as place:
        things = Things(Path(place))
        targets = [
            target for target in things.targets() if not functions or target.function in functions
        ]
        for index in range(first, first + calls):
            rng = np.random.default_rng([seed, index])
            target = targets[rng.integers(len(targets))]
            arguments = tuple(dict.fromkeys((*target.good, *target.arguments)))
            argument = arguments[rng.integers(len(arguments))]
            name = tuple(WRONG)[rng.integers(len(WRONG))]
            with tempfile.TemporaryDirectory(prefix="call-") as folder:
                yield _try_call(target, argument, name, Path(folder))


def _try_call(target: Target, argument: str, name: str, folder: Path) -> Called:
    """Make one call in a folder of its own."""

    def give_up(*_: Any) -> None:
        raise TimeoutError

    before = Path.cwd()
    os.chdir(folder)
    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(SECONDS)
    outcome, detail = "returned", ""
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            target.call(argument, WRONG[name]())
    except pt.ParetuneError as error:
        outcome, detail = "refused", str(error)
    except TimeoutError:
        outcome = "slow"
    except BaseException as error:  # whatever it is, it is what the driver looks for
        if isinstance(error, KeyboardInterrupt):
            raise
        frames = traceback.extract_tb(error.__traceback__)
        place = next((f for f in reversed(frames) if "site-packages" not in f.filename), frames[-1])
        detail = f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
        outcome = "traceback"
    finally:
        signal.alarm(0)
        os.chdir(before)
    return Called(target.function, argument, name, outcome, " ".join(detail.split())[:300])


def main() -> int:
    """Try the calls; the exit code tells whether there was no traceback."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="index of the first call")
    parser.add_argument("--function", action="append", default=[], help="only this one")
    parser.add_argument("--results", type=Path, help="JSON: counts, and what failed")
    given = parser.parse_args()
    counts: Counter[str] = Counter()
    bad: list[Called] = []
    for called in try_calls(given.calls, given.seed, tuple(given.function), given.first):
        counts[called.outcome] += 1
        if called.outcome in ("traceback", "slow"):
            bad.append(called)
            print(
                f"{called.function}({called.argument}={called.value}): {called.outcome}: "
                f"{called.detail}", flush=True,
            )  # fmt: skip
    print(f"{sum(counts.values())} calls: {dict(counts)}")
    if given.results:
        record = {
            "command": " ".join(["python -m tests.fuzz.calls", *sys.argv[1:]]),
            "counts": dict(counts), "bad": [vars(called) for called in bad],
        }  # fmt: skip
        given.results.write_text(json.dumps(record, indent=2) + "\n")
    return 1 if any(called.outcome == "traceback" for called in bad) else 0


if __name__ == "__main__":
    sys.exit(main())
