"""Seconds, memory and stages of pruning channels without training, for models of real size.

    python -m benchmarks.real_size [--models resnet20,vww,mobilenetv2] [--against CHECKOUT]
        [--scopes auto,output_error] [--targets 0.5] [--seeds 0,1,2] [--mlperf FOLDER]
        [--resume FILE]

`prune_channels(model, macs=TARGET, data=images, scope=SCOPE)`: the channel counts are selected and
the smaller model is reconstructed, in a process of its own each time. auto is the default: the best
method, or l2 where a comparison would take more than 5 minutes. With --against, the code of another
checkout does the same, in turn. resnet20: the stored ResNet-20, 1,000 images of Fashion-MNIST (28 x
28), which a seed draws; test images evaluate it. mobilenet28 and the others of this end: the nets
of repair_nets.py, likewise. vww: MLPerf Tiny's person detector (96 x 96), 500 of its test images;
the other 500 evaluate it. The others take 128 images of 224 x 224 x 3 of random noise with the
spectrum of photographs; their weights are random, their statistics those of the images, and layer
scales 0.3. For them the output error on 32 further images is shown.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

if __name__ == "__main__" and not __package__:  # a process that measures another checkout
    sys.path.pop(0)

import numpy as np
import numpy.typing as npt

from benchmarks._common import Benchmark, Mean, seed_list, table
from benchmarks._repair import span
from benchmarks._stored import ROOT, Stored

APPLICATIONS = {
    "mobilenetv2": "MobileNetV2", "resnet50": "ResNet50", "efficientnetv2b0": "EfficientNetV2B0",
    "convnexttiny": "ConvNeXtTiny",
}  # fmt: skip
MODELS = ("resnet20", "vww", *APPLICATIONS, "vit")
SMALL = "28"
"""End of the names of nets of repair_nets.py."""
SIZE, IMAGES, EVALUATED = 224, 128, 32
STAGES = {
    "solving behind": "sensitivity: solve", "output error of": "sensitivity: measure",
    "output error without": "blocks", "choices near": "neighbours", "comparing": "methods",
    "repairing": "reconstruction",
}  # fmt: skip
"""Beginnings of progress texts, and the stage that each belongs to."""


def natural(count: int, size: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Return images of noise whose amplitudes fall as 1/f, of mean 0 and deviation 1.

    Shape: (count, size, size, 3), float32.

    Reference:
        Field 1987, "Relations between the statistics of natural images and the response
        properties of cortical cells": the amplitudes of photographs fall as 1/f.
    """
    rng = np.random.default_rng(seed)
    far = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    weight = 1 / np.maximum(far, 1 / size)
    weight[0, 0] = 0
    found = np.empty((count, size, size, 3), np.float32)
    for image in found:  # one at a time: spectra of all would be large
        noise = rng.normal(size=(3, size, size))
        made = np.fft.irfft2(np.fft.rfft2(noise) * weight, (size, size))
        image[:] = np.moveaxis(made / made.std((1, 2), keepdims=True), 0, -1)
    return found


def load_case(name: str, seed: int, mlperf: str) -> tuple[Any, Any, Any, Any]:
    """Return a model, the images that prune it, and images with labels that evaluate it."""
    import keras

    from benchmarks.memory_budget import vit
    from benchmarks.repair_int8 import person_images
    from benchmarks.resnet20 import load_fashion
    from compress.data import sample_inputs
    from compress.model.io import load_model
    from compress.prune.recalibrate import recalibrate

    if name == "resnet20" or name.endswith(SMALL):
        data = load_fashion()
        x = sample_inputs(data, 1000, seed)
        nets = Path(__file__).parent / "nets"  # of this version, with another's code
        (file,) = nets.glob(f"{name.removesuffix(SMALL)}[.-]*keras")
        model = load_model(file)
        return model, x, data.inputs("test"), data.test.y
    if name == "vww":
        x, y = person_images(Path(mlperf))
        return load_model(Path(mlperf) / "vww_96.h5"), x[:500], x[500:], y[500:]
    keras.utils.set_random_seed(0)
    model = vit() if name == "vit" else getattr(keras.applications, APPLICATIONS[name])(
        weights=None)  # fmt: skip
    for layer in model.layers:
        if type(layer).__name__ == "LayerScale":  # 1e-6 would hide what its branch computes
            layer.set_weights([np.full_like(layer.get_weights()[0], 0.3)])
    x = natural(IMAGES + EVALUATED, SIZE)
    recalibrate(model, x[:32], 1)
    return model, x[:IMAGES], x[IMAGES:], None


def measure_case(name: str, scope: str, target: float, seed: int, mlperf: str) -> dict[str, Any]:
    """Prune a model in this process and return its figures."""
    from compress.core.device import silence_tensorflow
    from compress.measure.file_agreement import compute_divergence
    from compress.prune.channels import prune_channels

    silence_tensorflow()
    model, x, evaluated, labels = load_case(name, seed, mlperf)
    steps: list[tuple[float, str]] = []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, cpu = time.perf_counter(), time.process_time()
    found = prune_channels(
        model, macs=target, data=x, scope=scope, seed=seed,
        on_progress=lambda text, _: steps.append((time.perf_counter(), text)),
    )  # fmt: skip
    ended = time.perf_counter()
    figures: dict[str, Any] = {
        "seconds": ended - began, "cpu": time.process_time() - cpu,
        "extra_peak_mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
    }  # fmt: skip
    stages: dict[str, float] = {}
    for (start, text), (stop, _) in zip(steps, [*steps[1:], (ended, "")], strict=True):
        stage = next((name for word, name in STAGES.items() if text.startswith(word)), "other")
        stages[stage] = stages.get(stage, 0.0) + stop - start
    macs = found.report.macs
    assert macs is not None, "sizes are known"
    made = [
        np.asarray(net.predict(evaluated, batch_size=32, verbose=0)) for net in (model, found.model)
    ]
    if labels is None:
        figures["output_error"] = compute_divergence(made[:1], made[1:])
    else:
        figures["accuracy"] = [float(np.mean(side.argmax(1) == labels)) for side in made]
    return {
        **figures, "stages": {**stages, "first": steps[0][0] - began if steps else 0.0},
        "share": macs[1] / macs[0], "method": found.report.criterion,
        "notes": list(found.report.notes),
    }  # fmt: skip


def run_case(
    tree: Path, name: str, scope: str, target: float, seed: int, mlperf: Path | None
) -> dict[str, Any]:
    """Measure a case with the code of a checkout, in a new process."""
    command = [sys.executable, __file__, "--_case", name, scope, str(target), str(seed)]
    command.append(str(mlperf or ""))
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
    )  # fmt: skip
    record: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return record


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""

    def shares(text: str) -> tuple[float, ...]:
        return tuple(float(word) for word in text.split(","))

    parser.add_argument("--models", default=",".join(MODELS), help="with commas")
    parser.add_argument("--against", type=Path, help="a checkout of another version")
    parser.add_argument("--scopes", default="auto", help="with commas")
    parser.add_argument("--targets", type=shares, default=(0.5,), help="shares of the MACs to keep")
    parser.add_argument("--mlperf", type=Path, help="a folder with vww_96.h5 and vww_test.zip")
    seed_list(parser, (0,))


def measure(given: argparse.Namespace, stored: Stored) -> None:
    """Measure what is missing, both versions in turn."""
    rows: dict[str, Any] = stored.result.setdefault("rows", {})
    trees = {"now": ROOT, **({"before": given.against.resolve()} if given.against else {})}
    for name in given.models.split(","):
        if name == "vww" and given.mlperf is None:
            print("vww: not run: no --mlperf", flush=True)
            continue
        cases = itertools.product(given.scopes.split(","), given.targets, given.seeds)
        for (scope, target, seed), version in itertools.product(cases, trees):
            key = f"{name} {scope} {target:g} {version} {seed}"
            if key not in rows:
                mlperf = given.mlperf and given.mlperf.resolve()
                rows[key] = run_case(trees[version], name, scope, target, seed, mlperf)
                print(key, json.dumps(rows[key]), flush=True)
                stored.save(rows=rows)


def costs_table(result: dict[str, Any]) -> str:
    """Return the table of seconds, memory and quality."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for key, row in result["rows"].items():
        groups.setdefault(tuple(key.split()[:-1]), []).append(row)
    rows = []
    for (name, scope, target, version), found in groups.items():
        first = found[0]
        total = sum(first["stages"].values())
        shares = ", ".join(
            f"{stage} {part / total:.0%}"
            for stage, part in sorted(first["stages"].items(), key=lambda item: -item[1])
            if part >= 0.05 * total
        )
        if "output_error" in first:
            quality = f"{np.mean([row['output_error'] for row in found]):.3g}"
        else:
            after = Mean.of([row["accuracy"][1] for row in found])
            quality = f"{100 * first['accuracy'][0]:.2f} -> {after.percent()}"
        rows.append([
            name, scope, f"{target}x", version, span([row["seconds"] for row in found]),
            f"{max(row['extra_peak_mib'] for row in found) * 2**20 / 1e9:.2f} GB",
            ", ".join(dict.fromkeys(row["method"] for row in found)), f"{first['share']:.3f}x",
            quality, shares,
        ])  # fmt: skip
    head = ["model", "scope", "target", "version", "seconds", "added peak memory", "method", "MACs",
            "accuracy or output error", "stages"]  # fmt: skip
    return table(head, rows)


BENCHMARK = Benchmark(
    "real_size", __doc__, measure, {"costs": costs_table}, arguments, resumable=True,
    grows=("models", "scopes", "targets", "seeds", "mlperf", "against"),
)  # fmt: skip


def main() -> None:
    """Run the benchmark, or one case of it in a process of its own."""
    if sys.argv[1:2] == ["--_case"]:
        name, scope, target, seed, mlperf = sys.argv[2:]
        print(json.dumps(measure_case(name, scope, float(target), int(seed), mlperf)))
    else:
        BENCHMARK.run()


if __name__ == "__main__":
    main()
