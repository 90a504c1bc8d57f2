"""Nets in integers on Fashion-MNIST: calibrated, and trained for two epochs.

    python -m benchmarks.quantize_nets [--nets separable,resnet20,...] [--seeds 0,1,2]
        [--epochs 2] [--resume FILE]

Of each trained net (repair_nets.py, and the stored ResNet-20) five files are evaluated with the
10,000
test images: float32; int8 by TensorFlow's converter (200 examples calibrate it); int8 with our
ranges and no training; the net trained on for two epochs in floats; and trained for two epochs as
its file of integers computes. Both trainings have the net itself as teacher, the same recipe
and the same batches. A seed draws what calibrates and the order of the batches. The autoencoder is
evaluated with the share of the inputs' variance that it explains. Files of the first seed are timed
against float32, those of a runtime together, on one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks._common import Benchmark, Mean, seed_list, table, told_latency
from benchmarks._stored import ROOT, Stored
from benchmarks.repair_models import explained
from benchmarks.repair_nets import RECIPES, trained
from benchmarks.resnet20 import load_fashion
from compress.core.device import Device, setup_device, silence_tensorflow
from compress.core.errors import ParetuneError
from compress.data import Dataset
from compress.data.parts import Split
from compress.plan import LatencyOptions, QuantizeOptions, TrainSettings
from compress.plan.output import ONNX_QAT, QAT

NETS = ("separable", "resnet20", "mobilenet", "vit", "lstm", "autoencoder")
WAYS = {
    "float32": "float32",
    "int8": "int8, the converter's",
    "calibrated": "int8, our ranges",
    "float32-2": "float32 after two more epochs",
    "int8-qat": "int8-qat after two epochs",
}
BUDGET = 30.0
"""Seconds of timing a net and runtime."""
RESNET = ROOT / "benchmarks" / "nets" / "resnet20.keras"
TIMED = {
    "litert": {"float32": "float32", "int8": "int8", "int8-qat": "int8-qat"},
    "onnx": {"float32": "onnx", "int8": "onnx_int8", "int8-qat": "onnx_int8-qat"},
    "openvino": {"float32": "onnx", "int8": "onnx_int8", "int8-qat": "onnx_int8-qat"},
}
"""By runtime, the format of each way."""


def net_of(name: str) -> tuple[Any, bool]:
    """Return a trained net, and whether labels trained it."""
    from compress.model.io import load_model

    if name == "resnet20":
        return load_model(RESNET), True
    return trained(name).model, RECIPES[name].labelled


def returned(data: Dataset) -> Dataset:
    """Return the same examples as a task of giving them back."""
    parts = {name: Split.unlabelled(data.split(name).x) for name in ("train", "val", "test")}
    return replace(data, kind="reconstruction", class_names=("0",), **parts)


def judged(model: Any, path: Path, data: Dataset, labelled: bool) -> float:
    """Return the quality of a file on the test part."""
    from compress.exporting.file_checks import predict_examples
    from compress.measure.file_agreement import prepare_sessions

    made = predict_examples(model, prepare_sessions(path, 2), data.test.x, data.preprocess)
    if labelled:
        return float((made.argmax(-1) == data.test.y).mean())
    return explained(data.inputs("test"), made)


def examine(name: str, given: argparse.Namespace, stored: Stored, data: Dataset) -> None:
    """Make, evaluate and time the missing files of one net."""
    model, labelled = net_of(name)
    data = data if labelled else returned(data)
    runs = stored.result.setdefault("runs", {})
    stored.save(params={**stored.result.get("params", {}), name: model.count_params()})
    for seed in given.seeds:
        with tempfile.TemporaryDirectory() as folder:
            files = Files(model, data, given.epochs, seed, Path(folder))
            for way in WAYS:
                key = f"{name}, {way}, seed {seed}"
                if key in runs or (way == "float32" and seed != given.seeds[0]):
                    continue
                try:
                    path = files.of(way)
                    runs[key] = {
                        "quality": judged(model, path, data, labelled),
                        "bytes": path.stat().st_size,
                    }
                except ParetuneError as error:
                    runs[key] = {"not run": str(error)}
                print(key, json.dumps(runs[key]), flush=True)
                stored.save(runs=runs)
            times = stored.result.setdefault("times", {})
            if seed == given.seeds[0] and name not in times:
                times[name] = {runtime: timed(files, runtime) for runtime in TIMED}
                stored.save(times=times)


def timed(files: Files, runtime: str) -> dict[str, Any]:
    """Time the files of a runtime against float32; by way, the latency or why there is none."""
    from compress.measure import measure_latency

    found: dict[str, Any] = {}
    paths: dict[str, Path] = {}
    for way, format in TIMED[runtime].items():
        try:
            path = files.timed(format)
            measure_latency({way: path}, LatencyOptions(budget=0.2), runtime=runtime)
            paths[way] = path
        except ParetuneError as error:
            found[way] = {"not run": str(error).replace(f"{files.folder}/", "")}
    if paths:
        options = LatencyOptions(budget=BUDGET)
        made = measure_latency(paths, options, precision=0.01, runtime=runtime)
        found |= {way: latency.to_json() for way, latency in made.items()}
    print(runtime, {way: item.get("median_ms") for way, item in found.items()}, flush=True)
    return found


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nets", default=",".join(NETS), help="with commas")
    parser.add_argument("--epochs", type=int, default=2, help="of both trainings")
    seed_list(parser)


def run(given: argparse.Namespace, stored: Stored) -> None:
    """Examine one net after the other."""
    silence_tensorflow()
    data = load_fashion()
    for name in given.nets.split(","):
        examine(name, given, stored, data)


def _runs(result: dict[str, Any], name: str, way: str) -> dict[str, dict[str, Any]]:
    start = f"{name}, {way}, seed "
    return {key.removeprefix(start): record for key, record in result["runs"].items()
            if key.startswith(start)}  # fmt: skip


def qualities(result: dict[str, Any]) -> str:
    """Return the table of test qualities, with the paired difference of both trainings."""
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
    head = ["model", "parameters", *WAYS.values(), "int8-qat less float32, both trained"]
    return table(head, rows)


def sizes(result: dict[str, Any]) -> str:
    """Return the table of the file sizes of the first seed."""
    rows = []
    for name in result["params"]:
        cells: list[object] = [name]
        for way in WAYS:
            found = [one["bytes"] for one in _runs(result, name, way).values() if "bytes" in one]
            cells.append(f"{found[0] / 1e3:.1f} kB" if found else "-")
        rows.append(cells)
    return table(["model", *WAYS.values()], rows)


def times(result: dict[str, Any]) -> str | None:
    """Return the table of inference times of the first seed's files, by runtime."""
    rows = []
    for name, runtimes in result.get("times", {}).items():
        for found in runtimes.values():
            cells = [cell for way in TIMED["litert"] for cell in _timed_cells(found[way], way)]
            described = next((one["runtime"] for one in found.values() if "runtime" in one), "")
            rows.append([name, described, *cells])
    head = ["model", "runtime", "float32", "int8, the converter's", "faster", "int8-qat", "faster"]
    return table(head, rows) if rows else None


def _timed_cells(latency: dict[str, Any], way: str) -> list[str]:
    if "not run" in latency:
        made = [f"not run: {latency['not run'].split(':')[0].split('. ')[0]}", ""]
    else:
        made = told_latency(latency)
    return made[:1] if way == "float32" else made


def suffix(format: str) -> str:
    """Return the suffix of a format's files."""
    return ".onnx" if format.startswith("onnx") else ".tflite"


@dataclass
class Files:
    """The files of one net and seed, each made at its first use.

    Attributes:
        model: The net.
        data: What calibrates, trains and judges.
        epochs: Of both trainings.
        seed: Draws what calibrates, and the order of the batches.
        folder: Where they lie.
    """

    model: Any
    data: Dataset
    epochs: int
    seed: int
    folder: Path
    device: Device = field(default_factory=lambda: setup_device("cpu"))
    _whole: dict[str, Any] = field(default_factory=dict)

    def of(self, way: str) -> Path:
        """Return the LiteRT file of a way."""
        if way in ("float32", "int8"):
            return self.plain(way, self.model)
        if way == "float32-2":
            return self.plain("float32", self.tuned, "tuned")
        return self.whole(way).export(self.folder / f"{way}.tflite")[0].path

    def timed(self, format: str) -> Path:
        """Return the file of a format for timing."""
        path = self.folder / f"{format}{suffix(format)}"
        if format == ONNX_QAT:
            return self.whole(QAT).export(path)[0].path
        return self.of(format) if format in WAYS else self.plain(format, self.model)

    def plain(self, format: str, model: Any, name: str = "") -> Path:
        """Return a file that is exported as it is."""
        from compress import export

        path = self.folder / f"{name or format}{suffix(format)}"
        if not path.exists():
            export(model, path, format=format, data=self.data, seed=self.seed)
        return path

    @cached_property
    def tuned(self) -> Any:
        """The net fine-tuned in float32, distilled from itself."""
        from compress.distillation import distill
        from compress.model.copies import copy_model

        student = copy_model(self.model)
        recipe = TrainSettings(epochs=self.epochs, learning_rate=QuantizeOptions().learning_rate)
        distill(student, self.model, self.data, finetune=recipe, device=self.device, seed=self.seed)
        return student

    def whole(self, way: str) -> Any:
        """Return the net in integers: trained so, or calibrated, by the way's name."""
        from compress import quantize

        if way not in self._whole:
            self._whole[way] = quantize(
                self.model, self.data, epochs=self.epochs if way == QAT else 0,
                device=self.device, seed=self.seed,
            )  # fmt: skip
        return self._whole[way]


BENCHMARK = Benchmark(
    "quantize_nets", __doc__, run, {"qualities": qualities, "sizes": sizes, "times": times},
    arguments, resumable=True, grows=("seeds", "nets"), anywhere=True,
)  # fmt: skip


def main() -> None:
    BENCHMARK.run()


if __name__ == "__main__":
    main()
