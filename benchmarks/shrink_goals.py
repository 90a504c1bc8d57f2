"""Nets shrunk to goals by one call, their files timed again: `shrink` as a user meets it.

    python -m benchmarks.shrink_goals [--nets resnet20,mobilenet] [--goals half,third]
        [--seeds 0,1,2] [--images FOLDER] [--resume FILE]

Each run is `shrink(net, data, <goal>)` with no other option but the seed. The file that it ships is
then timed against the net's own float32 file by `paretune bench`, three times, each in a process
of its own; the median of the three ratios is held against the goal. Only the first goal is run with
every seed. Nets: ResNet-20 from benchmarks/nets, MobileNetV2 at 64 x 64 pixels,
families of repair_nets.py, and the nets of any_model.py with several inputs or outputs. A front's
figures are those of all its files. Shares of a time are of the machine that ran the row.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks._common import Benchmark, Mean, seed_list, table
from benchmarks._stored import ROOT, Stored
from benchmarks.resnet20 import load_fashion
from compress.core.errors import FeasibleError, build_unknown_name_error
from compress.data import Dataset, Split, load_data
from compress.plan import TrainSettings

if TYPE_CHECKING:
    import keras

    from compress.train import EpochRecord

GOALS: dict[str, dict[str, Any]] = {
    "half": {"latency": "0.5x", "max_drop": 0.5},
    "third": {"latency": "0.33x"},
    "size": {"size": "60KB"},
    "macs": {"macs": "0.25x", "no_train": True},
    "front": {},
}
FIRST = "half"
"""The goal that is run with every seed."""
FAMILIES = ("mobilenet", "densenet", "lstm")
SEVERAL = ("unet", "heads")
RECIPE = TrainSettings(
    epochs=7, optimizer="momentum", learning_rate=0.1, weight_decay=5e-3, augment=("flip",)
)
"""As the smaller net of its family in repair_nets.py is trained."""
MOBILENETS = {
    "mobilenet64": (64, 1, RECIPE),
    "mobilenet96": (96, 3, replace(RECIPE, epochs=30, augment=("flip", "shift"))),
}
"""Pixels of a side, channels of an image, and the recipe, of MobileNetV2s by name."""
NETS = ("resnet20", *MOBILENETS, *FAMILIES, *SEVERAL)
BENCHES = 3
MOMENTUM = 0.99
"""Of the batch normalizations; 0.999, Keras's here, does not follow a training as short as this."""
AT_ONCE = 5000


class Given(NamedTuple):
    """The arguments of `shrink`.

    Attributes:
        model: A net, or a file.
        data: As it takes them.
        parts: Validation and test part, where these are apart.
    """

    model: Any
    data: Any
    parts: dict[str, Any]


def net_of(name: str, images: Path | None) -> Given:
    """Return a trained net and its data.

    Args:
        name: Of `NETS`.
        images: The folder of CIFAR-10's images: `train` and `test`, with a folder per class.

    Raises:
        InputError: There is no such net, or no such folder.
    """
    # data are split as the nets were trained on them, whatever the seed
    if name == "resnet20":
        return Given(ROOT / "benchmarks" / "nets" / "resnet20.keras", load_fashion(), {})
    if name in MOBILENETS:
        return Given(*train_mobilenet(name, images), {})
    if name in FAMILIES:
        from benchmarks.repair_nets import trained

        return Given(trained(name).model, load_fashion(), {})
    if name in SEVERAL:
        from benchmarks import any_model

        recipe = any_model.RECIPES[name]
        parts = recipe.data()
        model = any_model.trained(name, recipe, parts, 0)
        return Given(model, parts.train, {"val": parts.val, "test": parts.test})
    raise build_unknown_name_error("net", name, NETS)


def reached(name: str, goal: str, seed: int, images: Path | None) -> dict[str, Any]:
    """Shrink a net to a goal, and time the shipped file again.

    Returns:
        What came of it; "refused" alone where no choice comes to the goal.
    """
    from compress import shrink

    given = net_of(name, images)
    with tempfile.TemporaryDirectory() as folder:
        try:
            result = shrink(
                given.model, given.data, seed=seed, out=Path(folder) / "out", **given.parts,
                **GOALS[goal],
            )  # fmt: skip
        except FeasibleError as error:
            return {"refused": str(error)}
        rows = {row.artifact.id: row for row in result.report.rows}
        chosen = rows[result.outcome.chosen].artifact
        (dense,) = (
            row.artifact
            for row in rows.values()
            if row.artifact.variant == "dense" and row.artifact.format == "float32"
        )
        quality = result.report.main
        again = [
            timed_again(result.folder / dense.file, result.folder / chosen.file, place)
            for place in range(BENCHES)
        ]
        (record,) = result.report.compressed
        return {
            # notes name the model's file: not where it lies on this machine
            "outcome": json.loads(
                json.dumps(result.outcome.to_json())
                .replace(f"{ROOT}/", "")
                .replace(f"{result.folder}/", "")
            ),
            "quality": quality,
            "seconds": record.seconds,
            "dense": _facts(dense, quality),
            "small": _facts(chosen, quality),
            "again": again,
            "files": [
                {**_facts(row.artifact, quality), "id": key,
                 "ratio": row.latency.ratio if row.latency else None}
                for key, row in rows.items()
            ],
        }  # fmt: skip


def _facts(item: Any, quality: str) -> dict[str, Any]:
    return {
        "format": item.format, "test": item.test[quality], "val": item.val[quality],
        "macs": item.macs, "params": item.params, "bytes": item.size_bytes,
    }  # fmt: skip


def timed_again(dense: Path, small: Path, place: int) -> dict[str, Any]:
    """Time a file against the dense one by `paretune bench`, in a process of its own."""
    if dense == small:
        return {"ratio": 1.0, "instances": 0}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "bench"
        words = ["bench", str(dense), str(small), "--precision", "0.01", "--budget", "60"]
        words += ["--seed", str(place), "--out", str(out)]
        subprocess.run([sys.executable, "-m", "paretune", *words], check=True, capture_output=True)
        timed = json.loads((out / "bench.json").read_text())["timed"]
    latency = timed[-1]["latency"]
    return {key: latency[key] for key in ("ratio", "ratio_low", "ratio_high", "instances")}


def arguments(parser: argparse.ArgumentParser) -> None:
    def among(known: tuple[str, ...], what: str) -> Any:
        def names(text: str) -> tuple[str, ...]:
            given = tuple(text.split(","))
            for name in given:
                if name not in known:
                    raise argparse.ArgumentTypeError(
                        str(build_unknown_name_error(what, name, known))
                    )
            return given

        return names

    parser.add_argument("--nets", type=among(NETS, "net"), default=NETS)
    parser.add_argument("--goals", type=among(tuple(GOALS), "goal"), default=tuple(GOALS))
    parser.add_argument("--images", type=Path, help="a folder of the images of CIFAR-10")
    seed_list(parser)


def run(given: argparse.Namespace, stored: Stored) -> None:
    """Measure what is missing."""
    runs = stored.result.setdefault("runs", {})
    for name in given.nets:
        if name == "mobilenet96" and given.images is None:
            print(f"{name}: not run: no --images", flush=True)
            continue
        for goal in given.goals:
            for seed in given.seeds if goal == FIRST else given.seeds[:1]:
                key = f"{name}, {goal}, seed {seed}"
                if key in runs:
                    continue
                runs[key] = reached(name, goal, seed, given.images)
                made = runs[key]
                told = made.get("refused") or "; ".join(made["outcome"]["lines"])
                print(key, told, flush=True)
                stored.save()


def again(row: dict[str, Any]) -> float:
    """Return the time that is left, new/old: the inverse of the median ratio of the benches."""
    return 1.0 / float(np.median([item["ratio"] for item in row["again"]]))


def goals(result: dict[str, Any]) -> str | None:
    """Return the table of goals, results and the ratios that were measured again."""
    rows = []
    for name in NETS:
        for goal, asked in GOALS.items():
            start = f"{name}, {goal}, "
            found = [row for key, row in result["runs"].items() if key.startswith(start)]
            if not found or goal == "front":
                continue
            words = ", ".join(f"{key} {value}" for key, value in asked.items())
            if refused := [row["refused"] for row in found if "refused" in row]:
                told = refused[0].partition("Received: ")[2].partition(", where")[0]
                rows.append([name, words, f"refused: {told}", *[""] * 6])
                found = [row for row in found if "refused" not in row]
                if not found:
                    continue
            left = [again(row) for row in found]
            drop = Mean.of([100 * (row["dense"]["test"] - row["small"]["test"]) for row in found])
            rows.append([
                name, words, f"{sum(row['outcome']['met'] for row in found)} of {len(found)}",
                ", ".join(f"{value:.3f}x" for value in left),
                f"{np.median([row['small']['bytes'] for row in found]) / 1000:.0f} kB",
                f"{np.median([row['small']['macs'] / row['dense']['macs'] for row in found]):.2f}x",
                drop.number(2), ", ".join(sorted({row["small"]["format"] for row in found})),
                f"{np.median([row['seconds'] for row in found]) / 60:.1f} min",
            ])  # fmt: skip
    head = ["model", "asked for", "met", "time left, timed again", "file", "MACs left",
            "pp lost, test", "format", "took"]  # fmt: skip
    return table(head, rows) if rows else None


def fronts(result: dict[str, Any]) -> str | None:
    """Return the table of a front's files: time, bytes, MACs and quality beside the original's."""
    rows = []
    for key, run_ in result["runs"].items():
        if ", front, " not in key or "refused" in run_:
            continue
        dense = run_["dense"]
        for file in sorted(run_["files"], key=lambda item: -(item["ratio"] or 0)):
            rows.append([
                key.partition(",")[0], file["id"],
                f"{1 / file['ratio']:.3f}x" if file["ratio"] else "not timed",
                f"{file['bytes'] / 1000:.0f} kB", f"{file['macs'] / dense['macs']:.3f}x",
                f"{100 * file['test']:.2f} %",
            ])  # fmt: skip
    head = ["model", "file", "time left", "size", "MACs left", "test quality"]
    return table(head, rows) if rows else None


def enlarged(data: Dataset, side: int) -> Dataset:
    """Return the data with images of `side` pixels, interpolated bilinearly; bytes stay bytes."""
    parts = {
        name: Split(_resized(part.x, side), part.y)
        for name, part in (("train", data.train), ("val", data.val), ("test", data.test))
    }
    return replace(data, **parts)


def _resized(x: Any, side: int) -> Any:
    import tensorflow as tf

    made = np.empty((len(x), side, side, x.shape[-1]), np.uint8)
    for start in range(0, len(x), AT_ONCE):
        larger = tf.image.resize(x[start : start + AT_ONCE], (side, side))
        made[start : start + AT_ONCE] = np.rint(larger.numpy())
    return made


def build(name: str, classes: int = 10) -> keras.Model:
    """Build `keras.applications.MobileNetV2(alpha=0.5)` for the images of a name, untrained.

    Reference:
        Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks", table 2.
    """
    import keras

    side, channels, _ = MOBILENETS[name]
    model = keras.applications.MobileNetV2(
        (side, side, channels), alpha=0.5, weights=None, classes=classes, name=name
    )
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = MOMENTUM
    return model


def name_file(name: str) -> str:
    """Return the name of the file of a MobileNetV2, which its recipe determines."""
    side, _, recipe = MOBILENETS[name]
    how = hashlib.sha256(f"{recipe!r} {MOMENTUM} {side}".encode()).hexdigest()[:10]
    return f"{name}-{how}.keras"


def train_mobilenet(name: str, images: Path | None) -> tuple[keras.Model, Dataset]:
    """Return a MobileNetV2 and its data; it is trained where no file has it.

    Args:
        name: Of `MOBILENETS`.
        images: See `net_of`.
    """
    import keras

    from compress.core.device import setup_device
    from compress.model.io import load_model, save_model
    from compress.train import train

    side, channels, recipe = MOBILENETS[name]
    if channels == 1:
        data = enlarged(load_fashion(), side)
    else:
        data = load_data(str(images), resize=(side, side))
    kept = ROOT / "benchmarks" / "nets" / name_file(name)
    file = kept if kept.exists() else ROOT / "runs" / "benchmarks" / kept.name
    if not file.exists():

        def told(epoch: int, epochs: int, record: EpochRecord) -> None:
            print(
                f"{name}: epoch {epoch} of {epochs}, {record.seconds:.0f} s", record.val, flush=True
            )

        keras.utils.set_random_seed(0)
        model = build(name)
        train(model, data, recipe, device=setup_device("cpu"), on_epoch=told)
        file.parent.mkdir(parents=True, exist_ok=True)
        save_model(model, file)
    return load_model(file), data


BENCHMARK = Benchmark(
    "shrink_goals", __doc__, run, {"goals": goals, "fronts": fronts}, arguments, resumable=True,
    grows=("seeds", "nets", "goals", "images"), anywhere=True,
)  # fmt: skip


def main() -> None:
    BENCHMARK.run()


if __name__ == "__main__":
    main()
