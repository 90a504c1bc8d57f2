"""A pruned ResNet-20 trained in whole numbers: paretune beside tfmot's collaborative pipeline.

    python -m benchmarks.quantize_pruned [--seeds 0,1,2] [--resume FILE]

Every way begins with one dense net (benchmarks/nets), trains two epochs of Fashion-MNIST with flips
while it is pruned (SGD with momentum, a cosine from 0.02, batch 128), then two more as its file of
whole numbers computes (Adam, a cosine from 1e-4): one epoch each over the training part doubled by
its mirror images. tfmot (benchmarks/peers/tfmot_pqat.py, in tf_keras) prunes 80 % of all kernels
but the first and the last, and keeps the zeros by `Default8BitPrunePreserveQuantizeScheme`; ours
prunes the same kernels by the same schedule, on labels as tfmot does, and with the dense net as
teacher. The last way removes channels to half the MACs, repairs, and is taught for as long. Files
are judged by the 10,000 test images; those of the first seed are timed together.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks._common import Benchmark, Mean, seed_list, table
from benchmarks._latency import told_latency
from benchmarks._peers import not_run
from benchmarks._stored import ROOT, Stored, was_run
from benchmarks.prune_resnet20 import RECIPE
from benchmarks.quantize_nets import judged
from benchmarks.weights_resnet20 import Variants
from compress.plan import LatencyOptions, QuantizeOptions, WeightOptions

PEER = Path(__file__).parent / "peers" / "tfmot_pqat.py"
NET = ROOT / "benchmarks" / "nets" / "resnet20.keras"
SPARSITY, SHARE = 0.8, 0.5
WHOLE = QuantizeOptions(epochs=1)
WAYS = {
    "float32": "dense, float32",
    "int8": "dense, int8 by the converter",
    "tfmot": "tfmot, 80 % zeros, on labels",
    "labels": "paretune, 80 % zeros, on labels",
    "taught": "paretune, 80 % zeros, taught",
    "channels": "paretune, channels to half the MACs, taught",
}
ONCE = ("float32", "int8")


class Maker:
    """Makes the file of each way.

    Args:
        variants: Data, device and dense net.
    """

    def __init__(self, variants: Variants) -> None:
        self.variants = variants
        self.options = WeightOptions(sparsity=SPARSITY, scope="layer")

    def file(self, way: str, seed: int, folder: Path) -> Path:
        """Returns the file of a way."""
        from compress import export

        path = folder / f"{way}.tflite"
        if way in ONCE:
            dense, data = self.variants.dense, self.variants.data
            return export(dense, path, format=way, data=data, seed=seed)[0].path
        if way == "tfmot":
            return self._theirs(seed, folder)
        if way == "channels":
            return self._whole(self._narrower(seed), seed, path, taught=True)
        taught = way == "taught"
        student, _ = self.variants.ours(self.options, seed, taught=taught)
        return self._whole(student, seed, path, taught=taught)

    def _whole(self, student: Any, seed: int, path: Path, *, taught: bool) -> Path:
        """Trains on in whole numbers; the teacher is the net as it was pruned."""
        from compress import quantize

        made = quantize(
            student, self.variants.flipped, WHOLE, finetune=replace(RECIPE, optimizer="adam"),
            distill=None if taught else False, device=self.variants.device, seed=seed,
        )  # fmt: skip
        return made.export(path)[0].path

    def _narrower(self, seed: int) -> Any:
        from compress.distillation import distill
        from compress.prune.channels import prune_channels

        own = self.variants
        student = prune_channels(
            own.dense, macs=SHARE, data=own.data, repair=True, seed=seed
        ).model  # fmt: skip
        distill(student, own.dense, own.flipped, finetune=RECIPE, device=own.device, seed=seed)
        return student

    def _theirs(self, seed: int, folder: Path) -> Path:
        self.variants.handed_over(self.options, seed, folder, whole_rate=WHOLE.learning_rate)
        subprocess.run([sys.executable, str(PEER), str(folder)], check=True)
        return folder / "pqat.tflite"


def zeros_of(path: Path) -> float:
    """Returns the share of zeros among the int8 kernels of a file, biases left out."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(path.read_bytes(), 0))
    zeros = total = 0
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            data = model.buffers[tensor.buffer].data
            if data is not None and tensor.type == schema.TensorType.INT8 and len(tensor.shape) > 1:
                values = np.frombuffer(bytes(data), np.int8)
                zeros, total = zeros + int((values == 0).sum()), total + values.size
    return zeros / total if total else 0.0


def arguments(parser: argparse.ArgumentParser) -> None:
    seed_list(parser)


def run(given: argparse.Namespace, stored: Stored) -> None:
    """Makes, judges and times what is missing."""
    from compress.measure import measure_latency
    from compress.measure.footprint import file_sizes

    maker, state = Maker(Variants(NET)), stored.provenance["peers"]["tfmot"]
    runs = stored.result.setdefault("runs", {})
    stored.save(tfmot=not_run(state))
    for seed in given.seeds:
        first = seed == given.seeds[0]
        with tempfile.TemporaryDirectory() as place:
            paths: dict[str, Path] = {}
            for way in WAYS:
                key = f"{way}, seed {seed}"
                wanted = first or way not in ONCE
                missing = key not in runs or (first and "latency" not in stored.result)
                if not wanted or not missing or (way == "tfmot" and not was_run(state)):
                    continue
                path = paths[way] = maker.file(way, seed, Path(place))
                runs[key] = {
                    "test": judged(maker.variants.dense, path, maker.variants.data, True),
                    "zeros": zeros_of(path), **asdict(file_sizes(path)),
                }  # fmt: skip
                print(key, runs[key], flush=True)
                stored.save(runs=runs)
            if first and "latency" not in stored.result:
                timed = measure_latency(paths, LatencyOptions(precision=0.01, budget=60.0))
                stored.save(latency={way: one.to_json() for way, one in timed.items()})


def qualities(result: dict[str, Any]) -> str:
    """Test accuracy, zeros, bytes and time of each way, and ours less tfmot's by seed."""
    rows = []
    theirs = _of(result, "tfmot")
    for way, text in WAYS.items():
        found = _of(result, way)
        if not found:
            reason = (result.get("tfmot") or {}).get("not run", "-")
            rows.append([text, f"not run: {reason}", *[""] * 6])
            continue
        pairs = [
            100 * (row["test"] - theirs[seed]["test"])
            for seed, row in found.items()
            if seed in theirs and way not in (*ONCE, "tfmot")
        ]
        tests = Mean.of([100 * row["test"] for row in found.values()])
        some = next(iter(found.values()))
        rows.append([
            text, tests.number(2), Mean.of(pairs).number(2) if pairs else "",
            f"{100 * np.mean([row['zeros'] for row in found.values()]):.1f} %",
            f"{some['size'] / 1e3:.0f} kB", f"{some['gzip'] / 1e3:.0f} kB",
            *told_latency(result.get("latency", {}).get(way)),
        ])  # fmt: skip
    head = ["way", "test accuracy, %", "less tfmot's, by seed", "zeros of int8 kernels", "file",
            "gzipped", "time", "faster"]  # fmt: skip
    return table(head, rows)


def _of(result: dict[str, Any], way: str) -> dict[str, dict[str, Any]]:
    start = f"{way}, seed "
    return {
        key.removeprefix(start): row for key, row in result["runs"].items() if key.startswith(start)
    }


BENCHMARK = Benchmark(
    "quantize_pruned", __doc__, run, {"qualities": qualities}, arguments, peers=("tfmot",),
    resumable=True, grows=("seeds",),
)  # fmt: skip


def main() -> None:
    BENCHMARK.run()


if __name__ == "__main__":
    main()
