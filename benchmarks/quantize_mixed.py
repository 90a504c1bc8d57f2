"""Quality by kilobyte of LiteRT files on Fashion-MNIST: one precision, and a precision a layer.

    python -m benchmarks.quantize_mixed [--nets separable,mobilenet,vit] [--seeds 0,1,2]
        [--resume FILE]

Nothing is trained. Of each trained net (repair_nets.py) files are judged by the 10,000 test images:
of one precision by TensorFlow's converter (int8, int16x8) and by LiteRT Quantizer (its recipe
static_wi8_ai8, and int4-weights), and int8-mixed: with its defaults, and among four and eight bits
and float32 at most as large as a share of the float32 file. A seed draws the 200 training examples
that set ranges, the first 64 of which choose precisions.
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

from benchmarks._common import Benchmark, Mean, seed_list, table
from benchmarks._stored import Stored
from benchmarks.quantize_nets import judged, net_of
from benchmarks.resnet20 import load_fashion
from compress.core.device import quiet_tensorflow
from compress.core.errors import ParetuneError
from compress.data import Dataset
from compress.plan import ExportOptions

NETS = ("separable", "mobilenet", "vit")
STATIC = "static_wi8_ai8"
FOUR = ("int4", "int8", "float32")
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "float32": ("float32", {}),
    "int8, the converter's": ("int8", {}),
    "int16x8, the converter's": ("int16x8", {}),
    STATIC: (STATIC, {}),
    "int8-mixed": ("int8-mixed", {}),
    "int4-weights": ("int4-weights", {}),
    "mixed of 4 and 8 bits, 0.2x": (
        "int8-mixed", {"mixed_levels": FOUR, "mixed_loss": 0.0, "mixed_size": "0.2x"},
    ),
    "mixed of 4 and 8 bits, 0.24x": (
        "int8-mixed", {"mixed_levels": FOUR, "mixed_loss": 0.0, "mixed_size": "0.24x"},
    ),
}  # fmt: skip


def made(model: Any, data: Dataset, way: str, seed: int, folder: Path) -> dict[str, Any]:
    """Makes one file; returns its record."""
    from compress import export

    format, settings = WAYS[way]
    path = folder / f"{way.replace(' ', '_')}.tflite"
    if format == STATIC:
        levels = uniform(model, data, seed, path)
    else:
        options = ExportOptions(formats=(format,), **settings)
        (item,) = export(model, path, options=options, data=data, seed=seed)
        levels = dict(Counter(layer.precision for layer in item.layers))
    return {"path": path, "levels": levels}


def uniform(model: Any, data: Dataset, seed: int, path: Path) -> dict[str, int]:
    """Writes LiteRT Quantizer's own file of whole numbers: every operation that it knows."""
    import numpy as np

    from compress.exporting.conversions import convert
    from compress.exporting.litert import plain_file
    from compress.exporting.mixed.levels import everywhere
    from compress.exporting.traced import Traced, write_examples
    from compress.model.ports import listed

    picks = np.random.default_rng(seed).permutation(len(data.train))[: ExportOptions().calibration]
    inputs = listed(model, data.preprocess(data.train.x[picks]))
    with Traced(model) as traced:
        source, examples = plain_file(traced), traced.place / "ranges.npz"
        ranges, recipe = traced.place / "ranges.json", everywhere("int8")
        write_examples(examples, inputs, traced.ports)
        convert("mixed_ranges", source=str(source), path=str(ranges), examples=str(examples),
                recipe=recipe)  # fmt: skip
        convert("mixed", source=str(source), path=str(path), ranges=str(ranges), recipe=recipe)
    return {}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nets", default=",".join(NETS), help="with commas")
    seed_list(parser)


def run(given: argparse.Namespace, stored: Stored) -> None:
    """Examines one net after the other."""
    quiet_tensorflow()
    data = load_fashion()
    runs = stored.result.setdefault("runs", {})
    for name in given.nets.split(","):
        model, labelled = net_of(name)
        for seed in given.seeds:
            for way in WAYS:
                key = f"{name}, {way}, seed {seed}"
                again = way in ("float32", "int4-weights") and seed != given.seeds[0]
                if key in runs or again:  # no example decides anything there
                    continue
                with tempfile.TemporaryDirectory() as place:
                    try:
                        found = made(model, data, way, seed, Path(place))
                        runs[key] = {
                            "quality": judged(model, found["path"], data, labelled),
                            "bytes": found["path"].stat().st_size,
                            "levels": found["levels"],
                        }
                    except ParetuneError as error:
                        runs[key] = {"not run": str(error)}
                print(key, json.dumps(runs[key]), flush=True)
                stored.save(runs=runs, params={**stored.result.get("params", {}),
                                               name: model.count_params()})  # fmt: skip


def qualities(result: dict[str, Any]) -> str:
    """Test quality and kilobytes by net and way."""
    rows = []
    for name, params in result["params"].items():
        for way in WAYS:
            start = f"{name}, {way}, seed "
            found = [record for key, record in result["runs"].items() if key.startswith(start)]
            if not found:
                continue
            good = [record for record in found if "quality" in record]
            if not good:
                rows.append([name, way, "-", found[0]["not run"].split(":")[0], "-"])
                continue
            quality = Mean.of([100 * record["quality"] for record in good])
            size = sum(record["bytes"] for record in good) / len(good) / 1e3
            levels = good[0]["levels"]
            told = ", ".join(f"{count} {level}" for level, count in sorted(levels.items()))
            rows.append([f"{name} ({params:,})", way, f"{size:.1f} kB", quality.number(2), told])
    return table(["net (parameters)", "file", "size", "test accuracy, %", "layers, seed 0"], rows)


BENCHMARK = Benchmark(
    "quantize_mixed", __doc__, run, {"qualities": qualities}, arguments,
    resumable=True, grows=("seeds", "nets"), anywhere=True,
)  # fmt: skip


def main() -> None:
    BENCHMARK.run()


if __name__ == "__main__":
    main()
