"""Six small nets on Fashion-MNIST without part of their channels, with and without repair.

    python -m benchmarks.repair_models [--nets mobilenet,vit] [--targets 0.7,0.5] [--seeds 0,1,2]
        [--resume FILE]

The nets of repair_nets.py, each trained once. Channels leave at once, down to a share of the MACs,
chosen by l2 over all layers together, or by the criterion reconstruction with channel counts by
output error; then the same net is judged as it is, and repaired. 1,000 unlabelled training images
are all that is looked at; a seed draws them and what is held back. Judged by the 10,000 test
images: accuracy, the worst class's, and accuracy on the same images brighter, blurred and noisy
(`shifted`, the middle level). The autoencoder, which has no classes, is evaluated with its error:
the squares of what it does not give back over the squares of images about their mean, of each
class about the class's mean."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import numpy.typing as npt

from benchmarks._common import Benchmark, Mean, seed_list, table
from benchmarks._repair import EXAMPLES, macs_of
from benchmarks._stored import Stored
from benchmarks.repair_nets import RECIPES, REPAIRED, trained
from benchmarks.resnet20 import load_fashion
from compress.core.device import silence_tensorflow
from compress.core.errors import InputError, ParetuneError, build_unknown_name_error
from compress.data import Dataset, sample_inputs
from compress.plan import ChannelOptions

LEVEL = 2
BATCH = 1000
ROUND_TO = 4
CHOICES = {
    "l2": ("l2", "global"),
    "reconstruction, damage": ("reconstruction", "output_error"),
}
"""Criterion and scope."""
LABELS = {
    "l2": "l2 over all layers",
    "reconstruction, damage": "`reconstruction`, channel counts by output error",
}
SIDES = ("not reconstructed", "reconstructed")
PARAMETERS = {
    "brightness": (25.0, 50.0, 75.0),
    "blur": (0.5, 1.0, 1.5),
    "noise": (10.0, 20.0, 40.0),
}
"""Of levels 1, 2, 3. Brightness: what is added to every value, of 255 (of gray images, whose value
in HSV is their own, that is ImageNet-C's). Blur: the Gaussian's standard deviation in pixels.
Noise: the Gaussian's standard deviation, of 255."""


class Judged(NamedTuple):
    """Quality of a net: accuracies, or 1 - relative error of an autoencoder.

    Attributes:
        quality: Of the test images.
        classes: Of the images of each class.
        shifted: Of the test images after each shift.
    """

    quality: float
    classes: list[float]
    shifted: dict[str, float]


def explained(x: npt.NDArray[Any], made: npt.NDArray[Any]) -> float:
    """Return 1 - the squared error over the squares of images about their mean image."""
    x, made = x.astype(np.float64), made.astype(np.float64)
    return float(1 - np.square(made - x).sum() / np.square(x - x.mean(0)).sum())


def qualities(
    x: npt.NDArray[Any], y: npt.NDArray[Any], made: npt.NDArray[Any], labelled: bool
) -> tuple[float, list[float]]:
    """Return the quality of all images and of each class's.

    Args:
        x: What the net was fed.
        y: Classes.
        made: What it made of it: probabilities, or images.
        labelled: Which of both.
    """
    parts = [y == label for label in np.unique(y)]
    if labelled:
        right = made.argmax(-1) == y
        return float(right.mean()), [float(right[part].mean()) for part in parts]
    return explained(x, made), [explained(x[part], made[part]) for part in parts]


def judge(model: Any, data: Dataset, labelled: bool) -> Judged:
    """Evaluate a net on the test part, as it is and shifted."""
    run, y = _compiled(model), data.test.y

    def found(raw: npt.NDArray[Any]) -> tuple[float, list[float]]:
        x = data.preprocess(raw)
        parts = [run(x[start : start + BATCH]) for start in range(0, len(x), BATCH)]
        return qualities(x, y, np.concatenate(parts), labelled)

    moved = {kind: found(shifted(data.test.x, kind, LEVEL))[0] for kind in PARAMETERS}
    return Judged(*found(data.test.x), moved)


def _compiled(model: Any) -> Any:
    import tensorflow as tf

    function = tf.function(lambda x: model(x, training=False), autograph=False)
    return lambda x: function(tf.convert_to_tensor(x)).numpy()


def examine(name: str, given: argparse.Namespace, stored: Stored, data: Dataset) -> None:
    """Prune, reconstruct and evaluate one net in all missing ways."""
    net, labelled = trained(name), RECIPES[name].labelled
    runs = stored.result.setdefault("runs", {})
    dense = stored.result.setdefault("dense", {})
    if name not in dense:
        dense[name] = {
            **judge(net.model, data, labelled)._asdict(), "macs": macs_of(net.model),
            "sha256": net.sha256,
        }  # fmt: skip
        print(name, dense[name]["quality"], flush=True)
    for seed in given.seeds:
        x = sample_inputs(data, given.examples, seed)
        for target in given.targets:
            for choice in CHOICES:
                key = f"{name}, {choice}, {target:g}, seed {seed}"
                if key in runs:
                    continue
                try:
                    runs[key] = _both(net.model, choice, target, x, seed, data, labelled)
                except ParetuneError as error:
                    runs[key] = {"not run": str(error)}
                print(key, json.dumps(_short(runs[key])), flush=True)
                stored.save(runs=runs, dense=dense)


def _short(record: Mapping[str, Any]) -> dict[str, Any]:
    if "not run" in record:
        return dict(record)
    return {
        **{side: record[side]["quality"] for side in ("before", "after")},
        "seconds": record["seconds"], "left": record["left"],
    }  # fmt: skip


def _both(
    dense: Any, choice: str, target: float, x: Any, seed: int, data: Dataset, labelled: bool
) -> dict[str, Any]:
    """Prune one net and return its quality before and after the repair."""
    from compress.prune.channels import prune_channels
    from compress.reconstruction import repair

    criterion, scope = CHOICES[choice]
    options = ChannelOptions(criterion=criterion, scope=scope, round_to=ROUND_TO)
    began = time.perf_counter()
    result = prune_channels(dense, options, macs=target, data=x, repair=False, seed=seed)
    chosen = time.perf_counter()
    before = judge(result.model, data, labelled)
    report = repair(result.model, dense, x, kept=result.kept, examples=len(x), seed=seed)
    return {
        "before": before._asdict(), "after": judge(result.model, data, labelled)._asdict(),
        "macs": macs_of(result.model), "repaired": report.repaired,
        "left": [f"{row.name}: {row.reason}" for row in report.layers if row.reason],
        "seconds": {"prune": chosen - began, "repair": report.seconds},
    }  # fmt: skip


def arguments(parser: argparse.ArgumentParser) -> None:
    def numbers(text: str) -> tuple[float, ...]:
        return tuple(float(word) for word in text.split(","))

    parser.add_argument("--nets", default=",".join(REPAIRED), help="with commas")
    parser.add_argument("--targets", type=numbers, default=(0.7, 0.5), help="shares of the MACs")
    parser.add_argument("--examples", type=int, default=EXAMPLES, help="unlabelled images")
    seed_list(parser)


def run(given: argparse.Namespace, stored: Stored) -> None:
    """Examine one net after the other."""
    silence_tensorflow()
    data = load_fashion()
    for name in given.nets.split(","):
        examine(name, given, stored, data)


def _found(result: dict[str, Any], name: str, choice: str, target: str) -> list[dict[str, Any]]:
    """Return the runs of all seeds that were made."""
    start = f"{name}, {choice}, {target}, seed "
    return [record for key, record in result["runs"].items()
            if key.startswith(start) and "not run" not in record]  # fmt: skip


def _targets(result: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(key.split(", ")[-2] for key in result["runs"]))


def losses(result: dict[str, Any]) -> str:
    """Return the table of points lost without and with repair, by net, choice and target."""
    rows = []
    for name, dense in result["dense"].items():
        for choice, label in LABELS.items():
            cells: list[object] = [name if choice == "l2" else "", label]
            for target in _targets(result):
                found = _found(result, name, choice, target)
                for side in ("before", "after"):
                    lost = [100 * (dense["quality"] - record[side]["quality"]) for record in found]
                    cells.append(Mean.of(lost).number(2) if lost else _reason(
                        result, name, choice, target))  # fmt: skip
            rows.append(cells)
    head = [f"pp lost at {target}x MACs, {side}" for target in _targets(result) for side in SIDES]
    return table(["model", "chosen", *head], rows)


def _reason(result: dict[str, Any], name: str, choice: str, target: str) -> str:
    start = f"{name}, {choice}, {target}, seed "
    reasons = [record.get("not run", "") for key, record in result["runs"].items()
               if key.startswith(start)]  # fmt: skip
    return f"not run: {reasons[0]}" if reasons else ""


def worst(result: dict[str, Any]) -> str:
    """Return the table of the worst class's drop and of points lost on shifted images."""
    target, choice = _targets(result)[-1], "reconstruction, damage"
    rows = []
    for name, dense in result["dense"].items():
        found = _found(result, name, choice, target)
        if not found:
            continue
        cells: list[object] = [name]
        for side in ("before", "after"):
            drops = [100 * float(np.max(np.subtract(dense["classes"], record[side]["classes"])))
                     for record in found]  # fmt: skip
            cells.append(Mean.of(drops).number(1))
        for kind in PARAMETERS:
            for side in ("before", "after"):
                lost = [100 * (dense["shifted"][kind] - record[side]["shifted"][kind])
                        for record in found]  # fmt: skip
                cells.append(Mean.of(lost).number(2))
        rows.append(cells)
    head = [f"model at {target}x MACs, {LABELS[choice]}"]
    head += [f"worst class's drop in pp, {side}" for side in SIDES]
    head += [f"pp lost, {kind}, {side}" for kind in PARAMETERS for side in SIDES]
    return table(head, rows)


def qualities_of_dense(result: dict[str, Any]) -> str:
    """Return the table of the unpruned nets."""
    rows = [
        [name, f"{dense['macs'] / 1e6:.2f} M", _told(name, dense["quality"]),
         _told(name, min(dense["classes"])),
         *(_told(name, dense["shifted"][kind]) for kind in PARAMETERS)]
        for name, dense in result["dense"].items()
    ]  # fmt: skip
    return table(["model", "MACs", "test accuracy", "of the worst class", *PARAMETERS], rows)


def _told(name: str, value: float) -> str:
    if RECIPES[name].labelled:
        return f"{100 * value:.2f} %"
    return f"relative error {100 * (1 - value):.2f} %"


def shifted(
    x: npt.NDArray[np.uint8], kind: str, level: int, seed: int = 0
) -> npt.NDArray[np.uint8]:
    """Return shifted copies of images.

    Args:
        x: Raw images, (n, height, width, channels), uint8.
        kind: "brightness", "blur" (each channel for itself; edge pixels go on beyond the edge) or
            "noise" (of every value for itself).
        level: 1, 2 or 3: see `PARAMETERS`.
        seed: Of the noise, at least 0. The noise of an image is the same however many follow, and
            grows by level alone; the other kinds draw nothing.

    Returns:
        Images of the same shape, rounded and cut to 0 to 255.

    Raises:
        InputError: Other arrays, or no such kind or level.

    Reference:
        Hendrycks & Dietterich 2019, "Benchmarking Neural Network Robustness to Common Corruptions
        and Perturbations" (ImageNet-C). Parameters are our own, for images of 28 x 28 pixels.
    """
    from scipy import ndimage

    if kind not in PARAMETERS:
        raise build_unknown_name_error("shift", kind, PARAMETERS)
    levels = PARAMETERS[kind]
    if level not in range(1, len(levels) + 1):
        raise InputError(f"level must be 1 to {len(levels)}. Received: {level}.")
    if x.dtype != np.uint8 or x.ndim != 4:
        raise InputError(
            "Images must be uint8 of shape (n, height, width, channels). Received: "
            f"{x.dtype} of shape {x.shape}."
        )
    amount, values = levels[level - 1], x.astype(np.float64)
    if kind == "brightness":
        values += amount
    elif kind == "blur":
        values = ndimage.gaussian_filter(values, (0, amount, amount, 0), mode="nearest")
    else:
        values += np.random.default_rng(seed).normal(scale=amount, size=x.shape)
    result: npt.NDArray[np.uint8] = np.rint(values).clip(0, 255).astype(np.uint8)
    return result


BENCHMARK = Benchmark(
    "repair_models", __doc__, run,
    {"dense": qualities_of_dense, "losses": losses, "worst": worst}, arguments,
    resumable=True, grows=("seeds", "nets"), anywhere=True,
)  # fmt: skip


def main() -> None:
    BENCHMARK.run()


if __name__ == "__main__":
    main()
