"""Front per minute: `paretune search` against plain Optuna (TPE, two objectives, default `fit`).

Both search one space (`cnn`, or `own`: a function as users write one, `net` below) with the same
optimizer settings, on 10,000 training and 5,000 validation images of Fashion-MNIST, up to 8 epochs
a trial, one core each, at the same time, for the same wall time from the start of their processes.
Both are given the same first trials and differ in the trials after them. Shown: hypervolume of
validation accuracy in [0.5, 1] and log10 MACs in [4, 8] over time, and when ours reaches the
other's last value.

    python -m benchmarks.search_front [--minutes 12] [--seeds 0,1,2] [--space own]
        [--sampler pareto] [--own-first] [--resume FILE]

With `--own-first` the other side begins with the baseline alone, as its user would: this adds what
our first trials are worth.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import numpy.typing as npt

from benchmarks._common import Benchmark, Mean, seed_list, table
from benchmarks._stored import Stored
from compress.core.atomic_files import read_json, write_json
from compress.core.pareto import measure_hypervolume
from compress.data import Dataset

EPOCHS = 8
SPACES = {"cnn": "cnn", "own": "benchmarks.search_front:net"}

Point = tuple[float, float, float]
"""(seconds since the start, accuracy, MACs) of a finished trial."""


LOWEST, REFERENCE = np.array([-1.0, 4.0]), np.array([-0.5, 8.0])


def volume(losses: Sequence[tuple[float, float]] | npt.NDArray[np.float64]) -> float:
    """Return the normalised hypervolume of (-accuracy, MACs) pairs."""
    points = np.asarray(losses, float).reshape(-1, 2).copy()
    points[:, 1] = np.log10(points[:, 1])
    points = np.maximum(points, LOWEST)
    return measure_hypervolume(points, REFERENCE) / float(np.prod(REFERENCE - LOWEST))


def ours(seed: int, minutes: float, core: int = 0, *more: str, space: str = "cnn") -> list[Point]:
    """Run `paretune search` with more options in a process on a core of its own."""
    import optuna

    folder = Path(tempfile.mkdtemp()) / "run"
    began = time.time()
    subprocess.run(
        ["taskset", "-c", str(core), sys.executable, "-c", "from search.cli import main; main()",
         "search", "--data", "benchmarks.resnet20:load_small", "--space", SPACES[space], "--trials",
         "100000", "--max-minutes", str(minutes), "--epochs", str(EPOCHS), "--workers", "1",
         "--threads", "1", "--seed", str(seed), "--out", str(folder), *more],
        check=True, capture_output=True,
    )  # fmt: skip
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "study.journal"))
    study = optuna.load_study(
        study_name="paretune", storage=optuna.storages.JournalStorage(backend)
    )
    found = [
        (trial.datetime_complete.timestamp() - began, *trial.values)
        for trial in study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
        if trial.datetime_complete is not None
    ]
    shutil.rmtree(folder.parent)
    return found  # type: ignore[return-value]


def plain(seed: int, minutes: float, file: Path, same_first: bool, space: str) -> None:
    """Plain Optuna: every trial trained by `fit` to its end; writes its points to a file.

    Args:
        seed: Of the sampler.
        minutes: Wall time.
        file: Where points go.
        same_first: Whether it tries all of our first trials, or the baseline alone.
        space: One of `SPACES`.
    """
    began = time.time()
    import keras
    import optuna

    from benchmarks.resnet20 import load_small
    from compress.core.device import setup_device, silence_tensorflow
    from compress.measure import count_macs
    from compress.plan.nesting import from_nested
    from compress.train.objective import build_optimizer
    from search.plan import SearchPlan
    from search.study import optimizers
    from search.study.study import list_first_choices

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    silence_tensorflow()
    setup_device("cpu", 1)
    data = load_small()
    plan = from_nested(SearchPlan, {"search": {"epochs": EPOCHS, "space": SPACES[space]}})
    train, val = data.inputs("train"), data.inputs("val")
    targets = {part: keras.utils.to_categorical(data.split(part).y) for part in ("train", "val")}
    points: list[Point] = []

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        keras.backend.clear_session()
        model = plan.search.resolved_space.build(trial, data)
        settings = optimizers.sample_settings(trial, plan, data)
        steps = -(-len(train) // settings.batch_size) * EPOCHS
        model.compile(
            build_optimizer(settings, steps, model.trainable_variables),
            keras.losses.CategoricalCrossentropy(label_smoothing=settings.label_smoothing),
            metrics=["accuracy"],
        )
        history = model.fit(
            train, targets["train"], batch_size=settings.batch_size, epochs=EPOCHS, verbose=0,
            validation_data=(val, targets["val"]),
        )  # fmt: skip
        return max(history.history["val_accuracy"]), float(count_macs(model).macs)

    def keep(_: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        if time.time() - began <= 60 * minutes:
            points.append((time.time() - began, *trial.values))  # type: ignore[arg-type]
            write_json(file, {"points": points})

    study = optuna.create_study(
        directions=["maximize", "minimize"], sampler=optuna.samplers.TPESampler(seed=seed)
    )
    # the space's baseline comes first
    for choices in list_first_choices(plan, data)[: None if same_first else 1]:
        study.enqueue_trial(choices)
    study.optimize(objective, timeout=60 * minutes - (time.time() - began), callbacks=[keep])


def together(
    seed: int, minutes: float, same_first: bool, space: str, sampler: str
) -> dict[str, list[Point]]:
    """Run both at the same time, a core each."""
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "plain.json"
        other = subprocess.Popen(
            ["taskset", "-c", "1", sys.executable, "-c",
             "from pathlib import Path; from benchmarks.search_front import plain; "
             f"plain({seed}, {minutes}, Path({str(file)!r}), {same_first}, {space!r})"],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        found = ours(seed, minutes, 0, *(("--sampler", sampler) if sampler else ()), space=space)
        _, errors = other.communicate()
        if other.returncode:
            raise RuntimeError(f"plain Optuna ended with {other.returncode}: {errors[-2000:]}")
        return {"ours": found, "optuna": [tuple(p) for p in read_json(file)["points"]]}


def over_time(points: list[Point], seconds: float) -> list[float]:
    """Return the hypervolume at the ends of 120 equal parts of the time."""
    marks = np.linspace(0, seconds, 121)[1:]
    return [volume([(-a, m) for t, a, m in points if t <= mark]) for mark in marks]


def summary(runs: dict[str, Any], minutes: float) -> list[dict[str, Any]]:
    """Return last values, and when ours reached the other's last, by seed."""
    rows = []
    for run in runs.values():
        mine, other = (over_time(run[name], 60 * minutes) for name in ("ours", "optuna"))
        reached = next((k for k, value in enumerate(mine, 1) if value >= other[-1]), None)
        rows.append(
            {
                "ours": mine[-1],
                "optuna": other[-1],
                "share_of_time": None if reached is None else reached / len(mine),
                "trials": {name: len(run[name]) for name in ("ours", "optuna")},
                "curves": {"ours": mine, "optuna": other},
            }
        )
    return rows


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--minutes", type=float, default=12)
    seed_list(parser)
    parser.add_argument("--space", choices=SPACES, default="cnn")
    parser.add_argument("--sampler", default="", help="of our side; default: the search's")
    parser.add_argument(
        "--own-first", action="store_true", help="the other side begins with the baseline alone"
    )


def run(given: argparse.Namespace, stored: Stored) -> None:
    """Run the seeds that are missing."""
    runs = stored.result.setdefault("runs", {})
    for seed in given.seeds:
        if str(seed) not in runs:
            runs[str(seed)] = together(
                seed, given.minutes, not given.own_first, given.space, given.sampler
            )
            rows = summary(runs, given.minutes)
            stored.save(
                same_first=not given.own_first,
                minutes=given.minutes,
                space=given.space,
                sampler=given.sampler,
                seeds=rows,
            )
            print(f"seed {seed}: ours {rows[-1]['ours']:.3f}, Optuna {rows[-1]['optuna']:.3f}")


def front(result: dict[str, Any]) -> str:
    """Return the table of both hypervolumes, by seed and in the mean."""
    minutes = f"{result['minutes']:g} min"
    sides = ("ours", "optuna")
    rows = [
        [f"seed {seed}", *(f"{row[side]:.3f}" for side in sides),
         "never" if row["share_of_time"] is None else f"{row['share_of_time']:.2f} of the time",
         ", ".join(str(row["trials"][side]) for side in sides)]
        for seed, row in zip(result["runs"], result["seeds"], strict=True)
    ]  # fmt: skip
    means = [Mean.of([row[side] for row in result["seeds"]]) for side in sides]
    rows.append(["mean", *(mean.number() for mean in means), difference(*means), ""])
    head = ["", f"paretune at {minutes}", f"Optuna at {minutes}", "paretune reaches it after",
            "trials to the end"]  # fmt: skip
    return table(head, rows)


def difference(ours: Mean, other: Mean) -> str:
    """Return the difference of two means, and whether it is a tie."""
    found = ours.compare(other)
    if found is None:
        return "no verdict of one seed"
    return f"difference {found.estimate:+.3f}" + (", a tie" if found.is_tie else "")


def same_first(result: dict[str, Any]) -> str | None:
    """Return the table of the like-for-like comparison."""
    return front(result) if result["same_first"] and result.get("space", "cnn") == "cnn" else None


def same_first_own(result: dict[str, Any]) -> str | None:
    """Return the table of the like-for-like comparison in a user's own space."""
    return front(result) if result["same_first"] and result.get("space") == "own" else None


def own_first(result: dict[str, Any]) -> str | None:
    """Return the table of the comparison where each side has its own first trials."""
    return None if result["same_first"] else front(result)


WIDTHS = (8, 16, 24, 32, 48)

baseline = {
    "stem": 16, "blocks": 3, "global_pool": False, "units": 64,
    **{f"{name}{block}": value for block in range(3)
       for name, value in {"filters": 24, "kernel": 3, "separable": False,
                           "pool": block < 2}.items()},
}  # fmt: skip


def net(trial: Any, data: Dataset) -> Any:
    """Build a candidate as a user's own space does: nothing is known of it before it is built.

    Convolutions, some separable, some pooled; then a dense layer or global pooling.
    """
    import keras

    layers = keras.layers
    inputs = keras.Input(data.input_shape)
    x = layers.Conv2D(trial.suggest_categorical("stem", WIDTHS), 3, padding="same")(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    for block in range(trial.suggest_int("blocks", 1, 4)):
        filters = trial.suggest_categorical(f"filters{block}", WIDTHS)
        kernel = trial.suggest_categorical(f"kernel{block}", (3, 5))
        separable = trial.suggest_categorical(f"separable{block}", (False, True))
        kind = layers.SeparableConv2D if separable else layers.Conv2D
        x = kind(filters, kernel, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        if trial.suggest_categorical(f"pool{block}", (False, True)):
            x = layers.MaxPooling2D(padding="same")(x)
    if trial.suggest_categorical("global_pool", (False, True)):
        x = layers.GlobalAveragePooling2D()(x)
    else:
        x = layers.Flatten()(x)
        units = trial.suggest_categorical("units", (16, 32, 64, 128))
        x = layers.Dense(units, activation="relu")(x)
    logits = layers.Dense(data.task.outputs, dtype="float32")(x)
    return keras.Model(inputs, layers.Softmax(dtype="float32")(logits))


BENCHMARK = Benchmark(
    "search_front", __doc__, run,
    {"same_first": same_first, "same_first_own": same_first_own, "own_first": own_first}, arguments,
    resumable=True,
)  # fmt: skip


def main() -> None:
    BENCHMARK.run()


if __name__ == "__main__":
    main()
