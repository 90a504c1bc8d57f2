"""Quality by kilobyte of LiteRT files on Fashion-MNIST: one precision, and a precision a layer.

    python -m benchmarks.quantize_mixed [--nets separable,mobilenet,vit,lstm] [--seeds 0,1,2]
        [--resume FILE]

Nothing is trained. Of each trained net (repair_nets.py) files are judged by the 10,000 test images
and timed against its float32 file: of one precision by TensorFlow's converter (int8, int16x8) and
by LiteRT Quantizer (its own recipe static_wi8_ai8), int4-weights, and int8-mixed: with its
defaults, and with four bits too, at most 0.8 times as large as the converter's int8 file.
A seed draws the 200 training examples that set ranges, the first 64 of which choose precisions.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks._common import Benchmark, Mean, seed_list, table
from benchmarks._quantized_files import by_quantizer, drawn
from benchmarks._stored import Stored
from benchmarks.quantize_nets import judged, net_of
from benchmarks.resnet20 import load_fashion
from compress.core.device import quiet_tensorflow
from compress.core.errors import ParetuneError
from compress.data import Dataset
from compress.plan import ExportOptions, LatencyOptions

NETS = ("separable", "mobilenet", "vit", "lstm")
STATIC = "static_wi8_ai8"
CONVERTED, SMALLER = "int8, the converter's", "int8-mixed, four bits too"
FOUR = ("int4", "dynamic4", "int8", "dynamic", "float16")
SHARE = 0.8
TIMING = LatencyOptions(precision=0.02, budget=5.0)
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "float32": ("float32", {}),
    CONVERTED: ("int8", {}),
    "int16x8, the converter's": ("int16x8", {}),
    STATIC: ("", {}),
    "int8-mixed": ("int8-mixed", {}),
    "int4-weights": ("int4-weights", {}),
    SMALLER: ("int8-mixed", {"mixed_levels": FOUR, "mixed_loss": 0.0}),
}  # fmt: skip


def stock(source: Path, data: Dataset, seed: int, path: Path) -> None:
    """Writes LiteRT Quantizer's own file of whole numbers, with ranges of its own."""
    from litert_quantizer import recipe

    by_quantizer(source, path, recipe.static_wi8_ai8(), drawn(data, seed))


def made(
    model: Any, data: Dataset, way: str, seed: int, whole: Path, folder: Path, most: float
) -> tuple[Path, dict[str, int]]:
    """Makes one file; returns it, and how many layers have which precision.

    Args:
        whole: The float32 file.
        most: Bytes of a file that has a limit.
    """
    from compress import export

    format, settings = WAYS[way]
    if way == SMALLER:
        settings = {**settings, "mixed_size": f"{most:.0f}B"}
    path = folder / f"{list(WAYS).index(way)}.tflite"
    if way == STATIC:
        stock(whole, data, seed, path)
        return path, {}
    options = ExportOptions(formats=(format,), **settings)
    (item,) = export(model, path, options=options, data=data, seed=seed)
    return item.path, dict(Counter(layer.precision for layer in item.layers))


def record_of(
    model: Any, data: Dataset, way: str, seed: int, whole: Path, labelled: bool, most: float
) -> dict[str, Any]:
    """Makes, judges and times one file; or says why there is none."""
    from compress.measure.latency import measure_latency

    if way == SMALLER and not most:
        return {"not run": "no int8 file of the converter that sets its limit"}
    with tempfile.TemporaryDirectory() as place:
        try:
            path, levels = made(model, data, way, seed, whole, Path(place), most)
        except (ParetuneError, ValueError, RuntimeError) as error:  # LiteRT Quantizer's, too
            return {"not run": str(error).replace(f"{place}/", "")}
        times = measure_latency({"float32": whole, "way": path}, TIMING, seed=seed)
        return {
            "quality": judged(model, path, data, labelled), "bytes": path.stat().st_size,
            "levels": levels, "ratio": times["way"].ratio, "ms": times["way"].median_ms,
        }  # fmt: skip


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nets", default=",".join(NETS), help="with commas")
    seed_list(parser)


def run(given: argparse.Namespace, stored: Stored) -> None:
    """Examines one net after the other."""
    from compress import export

    quiet_tensorflow()
    data = load_fashion()
    runs = stored.result.setdefault("runs", {})
    for name in given.nets.split(","):
        model, labelled = net_of(name)
        params = {**stored.result.get("params", {}), name: model.count_params()}
        with tempfile.TemporaryDirectory() as place:
            (whole,) = export(model, Path(place) / "f.tflite", format="float32", data=data)
            for seed in given.seeds:
                for way in WAYS:
                    key = f"{name}, {way}, seed {seed}"
                    again = way == "float32" and seed != given.seeds[0]
                    if key in runs or again:
                        continue
                    int8 = runs.get(f"{name}, {CONVERTED}, seed {seed}", {})
                    most = SHARE * int8.get("bytes", 0)
                    runs[key] = record_of(model, data, way, seed, whole.path, labelled, most)
                    print(key, json.dumps(runs[key]), flush=True)
                    stored.save(runs=runs, params=params)


def qualities(result: dict[str, Any]) -> str:
    """Test quality, size and time by net and way."""
    rows: list[list[object]] = []
    for name, params in result["params"].items():
        for way in WAYS:
            start = f"{name}, {way}, seed "
            found = [record for key, record in result["runs"].items() if key.startswith(start)]
            good = [record for record in found if "quality" in record]
            if not good:
                why = found[0]["not run"].split(":")[0] if found else "-"
                rows.append([f"{name} ({params:,})", way, "-", why, "-", "-"])
                continue
            levels = sorted(good[0]["levels"].items())
            rows.append(
                [
                    f"{name} ({params:,})",
                    way,
                    f"{np.mean([record['bytes'] for record in good]) / 1e3:.1f} kB",
                    Mean.of([100 * record["quality"] for record in good]).number(2),
                    Mean.of([record["ratio"] for record in good]).number(2) + "x",
                    ", ".join(f"{count} {level}" for level, count in levels),
                ]
            )
    head = ["net (parameters)", "file", "size", "test accuracy, %", "time, float32's by its",
            "layers, seed 0"]  # fmt: skip
    return table(head, rows)


BENCHMARK = Benchmark(
    "quantize_mixed", __doc__, run, {"qualities": qualities}, arguments,
    resumable=True, grows=("seeds", "nets"),
)  # fmt: skip


def main() -> None:
    BENCHMARK.run()


if __name__ == "__main__":
    main()
