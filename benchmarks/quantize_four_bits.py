"""Kernels of four bits on Fashion-MNIST: rounded to the nearest values, and so that outputs stay.

    python -m benchmarks.quantize_four_bits [--nets separable,resnet20,mobilenet,vit]
        [--seeds 0,1,2] [--resume FILE]

Nothing is trained. Of each trained net (repair_nets.py) the format int4-weights is made by the
nearest values (64 training examples calibrate, too few for more), with 200 examples (the default)
and with 1,000; beside it LiteRT Quantizer's own ways to the same file: steps of the least squared
error (its MSE) and its GPTQ, which rounds fully connected layers alone. The 10,000 test images
judge the files. A seed draws the examples.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
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
from compress.core.errors import one_line
from compress.data import Dataset
from compress.exporting.mixed.units import INT4_WEIGHTS
from compress.plan import ExportOptions

NETS = ("separable", "resnet20", "mobilenet", "vit")
FLOATS, NEAREST = "float32", "nearest values"
OURS = {NEAREST: 64, "outputs kept, 200 examples": 200, "outputs kept, 1,000 examples": 1000}
"""Way -> examples that calibrate."""
THEIRS = {"LiteRT Quantizer's MSE": "MSE", "LiteRT Quantizer's GPTQ": "GPTQ"}
"""Way -> algorithm."""
ONCE = (FLOATS, NEAREST, "LiteRT Quantizer's MSE")
"""No example decides anything there."""


def theirs(source: Path, path: Path, algorithm: str, examples: Sequence[Any]) -> None:
    """Writes the same file by LiteRT Quantizer's other algorithms."""
    last = len(INT4_WEIGHTS) - 1
    recipe = [
        {**entry, "algorithm_key": algorithm} if place == last else entry
        for place, entry in enumerate(INT4_WEIGHTS)
    ]
    by_quantizer(source, path, recipe, examples)


def made(
    model: Any, data: Dataset, way: str, seed: int, source: Path, path: Path
) -> tuple[str, ...]:
    """Makes one file; returns what is told of it."""
    from compress import export

    if way in THEIRS:
        theirs(source, path, THEIRS[way], drawn(data, seed))
        return ()
    if way == FLOATS:
        path.write_bytes(source.read_bytes())
        return ()
    options = ExportOptions(formats=("int4-weights",), calibration=OURS[way])
    (item,) = export(model, path, options=options, data=data, seed=seed)
    return item.notes


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
            path = Path(place) / "made.tflite"
            (whole,) = export(model, Path(place) / "f.tflite", format=FLOATS, data=data)
            for seed in given.seeds:
                for way in (FLOATS, *OURS, *THEIRS):
                    key = f"{name}, {way}, seed {seed}"
                    if key in runs or (way in ONCE and seed != given.seeds[0]):
                        continue
                    try:
                        notes = made(model, data, way, seed, whole.path, path)
                        runs[key] = {
                            "quality": judged(model, path, data, labelled),
                            "bytes": path.stat().st_size, "notes": list(notes),
                        }  # fmt: skip
                    except (ValueError, RuntimeError, KeyError) as error:  # not every algorithm
                        runs[key] = {"not run": one_line(error)}  # knows every operation
                    print(key, json.dumps(runs[key]), flush=True)
                    stored.save(runs=runs, params=params)


def qualities(result: dict[str, Any]) -> str:
    """Test quality and size by net and way."""
    rows: list[list[object]] = []
    for name, params in result["params"].items():
        for way in (FLOATS, *OURS, *THEIRS):
            start = f"{name}, {way}, seed "
            found = [record for key, record in result["runs"].items() if key.startswith(start)]
            if not found:
                continue
            if "not run" in found[0]:
                rows.append([f"{name} ({params:,})", way, "-", f"not run: {found[0]['not run']}"])
                continue
            size = np.mean([record["bytes"] for record in found]) / 1e3
            quality = Mean.of([100 * record["quality"] for record in found]).number(2)
            rows.append([f"{name} ({params:,})", way, f"{size:.1f} kB", quality])
    return table(["net (parameters)", "weights", "size", "test accuracy, %"], rows)


BENCHMARK = Benchmark(
    "quantize_four_bits", __doc__, run, {"qualities": qualities}, arguments,
    resumable=True, grows=("seeds", "nets"),
)  # fmt: skip


def main() -> None:
    BENCHMARK.run()


if __name__ == "__main__":
    main()
