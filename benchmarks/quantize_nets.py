"""Nets in whole numbers on Fashion-MNIST: calibrated, and trained for two epochs.

    python -m benchmarks.quantize_nets [--nets separable,resnet20,...] [--seeds 0,1,2]
        [--epochs 2] [--resume FILE]

Of each trained net (repair_nets.py, and the stored ResNet-20) five files are judged by the 10,000
test images: float32; int8 by TensorFlow's converter (200 examples calibrate it); int8 with our
ranges and no training; the net trained on for two epochs in floats; and trained for two epochs as
its file of whole numbers computes. Both trainings have the net itself as teacher, the same recipe
and the same batches. A seed draws what calibrates and the order of the batches. The autoencoder is
judged by the share of the inputs' variance that it explains.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks._common import Benchmark, Mean, seed_list, table
from benchmarks._stored import ROOT, Stored
from benchmarks.repair_models import explained
from benchmarks.repair_nets import RECIPES, trained
from benchmarks.resnet20 import load_fashion
from compress.core.device import Device, quiet_tensorflow, setup
from compress.core.errors import ParetuneError
from compress.data import Dataset
from compress.data.parts import Split
from compress.plan import QuantizeOptions, TrainSettings

NETS = ("separable", "resnet20", "mobilenet", "vit", "lstm", "autoencoder")
RESNET = ROOT / "benchmarks" / "nets" / "resnet20.keras"
WAYS = {
    "float32": "float32",
    "int8": "int8, the converter's",
    "calibrated": "int8, our ranges",
    "float32-2": "float32 after two more epochs",
    "int8-qat": "int8-qat after two epochs",
}


def net_of(name: str) -> tuple[Any, bool]:
    """Returns a trained net, and whether labels trained it."""
    from compress.model.io import load_model

    if name == "resnet20":
        return load_model(RESNET), True
    return trained(name).model, RECIPES[name].labelled


def returned(data: Dataset) -> Dataset:
    """Returns the same examples as a task of giving them back."""
    parts = {name: Split.unlabelled(data.split(name).x) for name in ("train", "val", "test")}
    return replace(data, kind="reconstruction", class_names=("0",), **parts)


def judged(model: Any, path: Path, data: Dataset, labelled: bool) -> float:
    """Returns the quality of a file on the test part."""
    from compress.exporting.files import answered_part
    from compress.measure.quality import sessions_for

    made = answered_part(model, sessions_for(path, 2), data, "test")
    if labelled:
        return float((made.argmax(-1) == data.test.y).mean())
    return explained(data.inputs("test"), made)


def _tuned(model: Any, data: Dataset, epochs: int, seed: int, device: Device) -> Any:
    """Trains a copy in floats, taught by the net itself."""
    from compress.distillation import distill
    from compress.model.copies import copy_model

    student = copy_model(model)
    recipe = TrainSettings(epochs=epochs, learning_rate=QuantizeOptions().learning_rate)
    distill(student, model, data, finetune=recipe, device=device, seed=seed)
    return student


def files_of(
    model: Any, data: Dataset, epochs: int, seed: int, device: Device, folder: Path
) -> dict[str, Callable[[], Path]]:
    """Returns what makes each file of a seed."""
    from compress import export, quantize

    def plain(kind: str, of: Any) -> Path:
        return export(of, folder / f"{kind}.tflite", format=kind, data=data, seed=seed)[0].path

    def whole(count: int) -> Path:
        made = quantize(model, data, epochs=count, device=device, seed=seed)
        return made.export(folder / f"whole{count}.tflite")[0].path

    return {
        "int8": lambda: plain("int8", model),
        "calibrated": lambda: whole(0),
        "float32-2": lambda: plain("float32", _tuned(model, data, epochs, seed, device)),
        "int8-qat": lambda: whole(epochs),
    }


def examine(name: str, given: argparse.Namespace, stored: Stored, data: Dataset) -> None:
    """Makes and judges the files of one net that are missing."""
    from compress import export

    model, labelled = net_of(name)
    data = data if labelled else returned(data)
    device = setup("cpu")
    runs = stored.result.setdefault("runs", {})
    for seed in given.seeds:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            makers = files_of(model, data, given.epochs, seed, device, folder)
            if seed == given.seeds[0]:
                makers["float32"] = lambda folder=folder: (
                    export(model, folder / "f.tflite", format="float32", data=data)[0].path
                )
            for way, make in makers.items():
                key = f"{name}, {way}, seed {seed}"
                if key in runs:
                    continue
                try:
                    path = make()
                    runs[key] = {
                        "quality": judged(model, path, data, labelled),
                        "bytes": path.stat().st_size,
                    }
                except ParetuneError as error:
                    runs[key] = {"not run": str(error)}
                print(key, json.dumps(runs[key]), flush=True)
                stored.save(runs=runs, params={**stored.result.get("params", {}),
                                               name: model.count_params()})  # fmt: skip


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nets", default=",".join(NETS), help="with commas")
    parser.add_argument("--epochs", type=int, default=2, help="of both trainings")
    seed_list(parser)


def run(given: argparse.Namespace, stored: Stored) -> None:
    """Examines one net after the other."""
    quiet_tensorflow()
    data = load_fashion()
    for name in given.nets.split(","):
        examine(name, given, stored, data)


def _runs(result: dict[str, Any], name: str, way: str) -> dict[str, dict[str, Any]]:
    start = f"{name}, {way}, seed "
    return {key.removeprefix(start): record for key, record in result["runs"].items()
            if key.startswith(start)}  # fmt: skip


def qualities(result: dict[str, Any]) -> str:
    """Test qualities by net and way, and the paired difference of both trainings."""
    rows = []
    for name, params in result["params"].items():
        cells: list[object] = [name, f"{params:,}"]
        for way in WAYS:
            found = _runs(result, name, way)
            made = [100 * one["quality"] for one in found.values() if "quality" in one]
            reason = next((one["not run"] for one in found.values() if "not run" in one), "")
            cells.append(Mean.of(made).number(2) if made else reason.split(":")[0] or "-")
        pairs = [
            100 * (one["quality"] - _runs(result, name, "float32-2")[seed]["quality"])
            for seed, one in _runs(result, name, "int8-qat").items()
            if "quality" in one and "quality" in _runs(result, name, "float32-2").get(seed, {})
        ]
        cells.append(Mean.of(pairs).number(2) if pairs else "-")
        rows.append(cells)
    head = ["net", "parameters", *WAYS.values(), "int8-qat less float32, both trained"]
    return table(head, rows)


def sizes(result: dict[str, Any]) -> str:
    """Bytes of the files of the first seed."""
    rows = []
    for name in result["params"]:
        cells: list[object] = [name]
        for way in WAYS:
            found = [one["bytes"] for one in _runs(result, name, way).values() if "bytes" in one]
            cells.append(f"{found[0] / 1e3:.1f} kB" if found else "-")
        rows.append(cells)
    return table(["net", *WAYS.values()], rows)


BENCHMARK = Benchmark(
    "quantize_nets", __doc__, run, {"qualities": qualities, "sizes": sizes}, arguments,
    resumable=True, grows=("seeds", "nets"), anywhere=True,
)  # fmt: skip


def main() -> None:
    BENCHMARK.run()


if __name__ == "__main__":
    main()
