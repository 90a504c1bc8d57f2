"""Three networks on every runtime that is installed: one `paretune bench`, everything in one run.

    python -m benchmarks.latency_runtimes [--budget 170]

ResNet-20 at 28 x 28 x 1, MobileNetV2 at 224 x 224 x 3 with alpha 0.5 and 1.0, untrained: time does
not depend on weights. float32 and int8, one and two threads.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks._common import Benchmark, table
from benchmarks._latency import told_time
from benchmarks._stored import Stored
from benchmarks.resnet20 import build
from compress.core.device import quiet_tensorflow

RUNTIMES = ("litert", "onnx", "openvino", "tensorflow", "mnn")
NETWORKS = ("resnet20", "mobilenetv2_0.5", "mobilenetv2_1.0")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--budget", type=float, default=170.0, help="seconds of timing")


def run(given: argparse.Namespace, stored: Stored) -> None:
    """Builds, converts and times all."""
    import keras

    from compress.benchmarking import bench
    from compress.model.io import save_model
    from compress.plan.bench import BenchPlan

    quiet_tensorflow()
    makers = {
        "resnet20": build,
        "mobilenetv2_0.5": lambda: keras.applications.MobileNetV2(weights=None, alpha=0.5),
        "mobilenetv2_1.0": lambda: keras.applications.MobileNetV2(weights=None),
    }
    plan = BenchPlan(
        runtimes=RUNTIMES, formats=("float32", "int8"), threads=("1", "2"), budget=given.budget
    )
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{name}.keras" for name in NETWORKS]
        for file in files:
            save_model(makers[file.stem](), file)
        found = bench(files, plan)
    stored.save(
        macs={item.name: item.macs for item in found.models},
        skipped=[f"{item.runtime} {item.format}: {item.reason}" for item in found.skipped],
        timed=[
            {"model": row.model, "runtime": row.runtime, "format": row.format,
             "latency": row.latency.to_json()}
            for row in found.timed
        ],
    )  # fmt: skip


def runtimes(result: dict[str, Any]) -> str:
    """A row for each runtime, format and number of threads."""
    rows: dict[tuple[str, str, int], dict[str, str]] = {}
    for item in result["timed"]:
        latency = item["latency"]
        key = (item["runtime"], item["format"], latency["threads"])
        rows.setdefault(key, {})[item["model"]] = told_time(latency)
    return table(
        ["runtime", "format", "threads",
         *(f"{name}, {macs / 1e6:.1f} M MACs" for name, macs in result["macs"].items())],
        [[*key, *(row.get(name, "") for name in result["macs"])] for key, row in rows.items()],
    )  # fmt: skip


BENCHMARK = Benchmark("latency_runtimes", __doc__, run, {"runtimes": runtimes}, arguments)


def main() -> None:
    BENCHMARK.run()


if __name__ == "__main__":
    main()
