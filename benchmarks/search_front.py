"""Front per minute: `paretune search` against plain Optuna (TPE, two objectives, Keras `fit`).

Both search the space `cnn` with the same optimizer settings, on 10,000 training and 5,000
validation images of Fashion-MNIST, up to 8 epochs a trial, one core each, at the same time on
cores of their own, for the same wall time from the start of their processes. Shown: hypervolume
of validation accuracy in [0.5, 1] and log10 MACs in [4, 8] over time, and when ours reaches
the other's last value. Goes on where it was interrupted, seed by seed.

    python -m benchmarks.search_front [--minutes 12] [--seeds 3] [--same-first]

With `--same-first` the other side is given all first trials of ours, not the baseline alone: what
is left of the difference comes from faster and stopped trials. It has a file of its own.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks._common import RESULTS, environment
from benchmarks.search_stopping import volume
from compress.files import read_json, write_json

FILES = {
    False: RESULTS / "search_front.json",
    True: RESULTS / "search_front_same_first.json",
}
"""By whether both sides have the same first trials."""
EPOCHS = 8

Point = tuple[float, float, float]
"""(seconds since the start, accuracy, MACs) of a finished trial."""


def ours(seed: int, minutes: float, core: int = 0, *more: str) -> list[Point]:
    """Runs the command, with more options, in a process on a core of its own."""
    import optuna

    folder = Path(tempfile.mkdtemp()) / "run"
    began = time.time()
    subprocess.run(
        ["taskset", "-c", str(core), sys.executable, "-c", "from search.cli import main; main()",
         "search", "--data", "benchmarks.fashion_small:load", "--space", "cnn", "--trials",
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


def plain(seed: int, minutes: float, file: Path, same_first: bool) -> None:
    """Plain Optuna: every trial trained by `fit` to its end; writes its points to a file.

    Args:
        seed: Of the sampler.
        minutes: Wall time.
        file: Where points go.
        same_first: Whether it tries all of our first trials, or the baseline alone.
    """
    began = time.time()
    import keras
    import optuna

    from benchmarks.fashion_small import load
    from compress.device import quiet_tensorflow, setup
    from compress.measure import count_macs
    from compress.optimizers import build_optimizer
    from compress.options import from_nested
    from search import optimizers
    from search.plan import SearchPlan
    from search.spaces import SPACES
    from search.study import first_choices

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    quiet_tensorflow()
    setup("cpu", 1)
    data = load()
    plan = from_nested(SearchPlan, {"search": {"epochs": EPOCHS}})
    train, val = data.inputs("train"), data.inputs("val")
    targets = {part: keras.utils.to_categorical(data.split(part).y) for part in ("train", "val")}
    points: list[Point] = []

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        keras.backend.clear_session()
        model = SPACES["cnn"].build(trial, data)
        settings = optimizers.sample(trial, plan, data)
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
    for choices in first_choices(plan, data)[: None if same_first else 1]:
        study.enqueue_trial(choices)
    study.optimize(objective, timeout=60 * minutes - (time.time() - began), callbacks=[keep])


def together(seed: int, minutes: float, same_first: bool) -> dict[str, list[Point]]:
    """Runs both at the same time, a core each."""
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "plain.json"
        other = subprocess.Popen(
            ["taskset", "-c", "1", sys.executable, "-m", "benchmarks.search_front", "--plain",
             str(seed), "--minutes", str(minutes), "--file", str(file),
             *(["--same-first"] if same_first else [])],
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        found = ours(seed, minutes)
        other.wait()
        return {"ours": found, "optuna": [tuple(p) for p in read_json(file)["points"]]}


def over_time(points: list[Point], seconds: float) -> list[float]:
    """Returns the hypervolume at the ends of 120 equal parts of the time."""
    marks = np.linspace(0, seconds, 121)[1:]
    return [volume([(-a, m) for t, a, m in points if t <= mark]) for mark in marks]


def summary(runs: dict[str, Any], minutes: float) -> dict[str, Any]:
    """Returns last values and when ours reached the other's last."""
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
    return {"minutes": minutes, "seeds": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--same-first", action="store_true")
    parser.add_argument("--plain", type=int)
    parser.add_argument("--file", type=Path)
    given = parser.parse_args()
    if given.plain is not None:
        plain(given.plain, given.minutes, given.file, given.same_first)
        return
    results = FILES[given.same_first]
    runs: dict[str, Any] = read_json(results)["runs"] if results.exists() else {}
    for seed in range(given.seeds):
        if str(seed) not in runs:
            runs[str(seed)] = together(seed, given.minutes, given.same_first)
            write_json(
                results,
                {"environment": environment(), **summary(runs, given.minutes), "runs": runs},
            )
    for seed, row in enumerate(summary(runs, given.minutes)["seeds"]):
        print(
            f"seed {seed}: hypervolume ours {row['ours']:.4f}, Optuna {row['optuna']:.4f}; "
            f"reached after {row['share_of_time']} of the time; trials to the end {row['trials']}"
        )


if __name__ == "__main__":
    main()
