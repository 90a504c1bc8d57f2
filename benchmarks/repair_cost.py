"""Costs of a repair: seconds and peak memory, and their growth.

    python -m benchmarks.repair_cost [--nets ResNet50,MobileNetV2] [--examples 64,128,256]
        [--repeats 3] [--resume FILE]

Networks of keras.applications at 224 x 224 x 3 with random weights, whose statistics are those of
what they are fed: images of random noise with the spectrum of photographs (amplitude 1/f). Half of
the MACs leave by l2 over all layers, then the repair alone is measured, in a process of its own
each time: seconds, and by how much the process's memory rises at its peak. Growth: chains of 3 x 3
convolutions with normalization and ReLU at 32 x 32, one thing varied at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import numpy.typing as npt

from benchmarks._common import Benchmark, table
from benchmarks._repair import span
from benchmarks._stored import ROOT, Stored

SIZE = 224
SMALL = 32
"""Height and width of the chains' images."""
CHAINS = {
    "examples": [(count, 8, 64) for count in (64, 128, 256, 512)],
    "depth": [(128, depth, 64) for depth in (4, 8, 16, 32)],
    "width": [(128, 8, width) for width in (32, 64, 128, 256)],
}
"""(examples, convolutions, channels) of what is varied."""


def reset_peak() -> float:
    """Reset the process's peak memory (Linux) and return the current one, MiB."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak() -> float:
    """Return the peak memory since the reset, MiB."""
    return _status("VmHWM")


def _status(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(key))
    return int(line.split()[1]) / 1024


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


def chain(depth: int, width: int) -> Any:
    """Build a chain of convolutions."""
    import keras

    inputs = x = keras.Input((SMALL, SMALL, 3))
    for _ in range(depth):
        x = keras.layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    x = keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, x)


def measure(net: str, examples: int, depth: int = 0, width: int = 0) -> dict[str, Any]:
    """Prune a network and measure its repair, in this process.

    Args:
        net: In keras.applications, or "chain".
        examples: Images.
        depth, width: Of a chain.
    """
    import keras

    from compress.core.device import setup_device, silence_tensorflow
    from compress.prune.channels import prune_channels
    from compress.prune.recalibrate import recalibrate
    from compress.reconstruction import repair

    silence_tensorflow()
    setup_device("cpu")
    keras.utils.set_random_seed(0)
    if net == "chain":
        model, size = chain(depth, width), SMALL
    else:
        model, size = getattr(keras.applications, net)(weights=None), SIZE
    x = natural(examples, size)
    recalibrate(model, x[:32], 1)
    result = prune_channels(model, macs=0.5, data=x, repair=False)
    before = reset_peak()
    began = time.perf_counter()
    report = repair(result.model, model, x, kept=result.kept, examples=examples)
    seconds = time.perf_counter() - began
    top = peak()
    return {
        "seconds": seconds, "extra_peak_mib": top - before, "peak_mib": top,
        "input_mib": x.nbytes / 2**20, "layers": len(report.layers), "repaired": report.repaired,
    }  # fmt: skip


def in_own_process(*words: Any) -> dict[str, Any]:
    """Run `measure` in a new process, which has no freed memory to use again."""
    code = "from benchmarks.repair_cost import measure; import json; "
    command = [sys.executable, "-c", code + f"print(json.dumps(measure(*{words!r})))"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    record: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return record


def arguments(parser: argparse.ArgumentParser) -> None:
    def numbers(text: str) -> tuple[int, ...]:
        return tuple(int(word) for word in text.split(","))

    parser.add_argument("--nets", default="ResNet50,MobileNetV2", help="with commas; may be empty")
    parser.add_argument("--examples", type=numbers, default=(64, 128, 256), help="images")
    parser.add_argument("--repeats", type=int, default=3, help="processes of each")


def run(given: argparse.Namespace, stored: Stored) -> None:
    """Measure the missing cases, all of them once before any is repeated."""
    nets = [(net, count) for net in given.nets.split(",") if net for count in given.examples]
    chains = [("chain", *case) for cases in CHAINS.values() for case in cases]
    runs = stored.result.setdefault("runs", {})
    for repeat in range(given.repeats):
        for words in dict.fromkeys([*nets, *chains]):
            key = key_of(*words)
            if len(runs.setdefault(key, [])) > repeat:
                continue
            runs[key].append(in_own_process(*words))
            print(key, json.dumps(runs[key][-1]), flush=True)
            stored.save(runs=runs)


def key_of(*words: Any) -> str:
    """Return the key of a case: "ResNet50, 64" or "chain, 128, 8, 64"."""
    return ", ".join(map(str, words))


def networks(result: dict[str, Any]) -> str:
    """Return the table of seconds and memory for networks of keras.applications."""
    rows = []
    for key, found in result["runs"].items():
        net, _, count = key.partition(", ")
        if net == "chain":
            continue
        rows.append([
            net, count, span([row["seconds"] for row in found], 1), *_memory(found),
            f"{found[0]['repaired']} of {found[0]['layers']}",
        ])  # fmt: skip
    head = ["network", "images", "seconds of the repair", "memory at its peak, MiB",
            "of these added by the repair", "the images themselves, MiB",
            "layers repaired"]  # fmt: skip
    return table(head, rows)


def _memory(found: list[dict[str, Any]]) -> list[str]:
    return [span([row[key] for row in found]) for key in ("peak_mib", "extra_peak_mib",
                                                         "input_mib")]  # fmt: skip


def growth(result: dict[str, Any]) -> str:
    """Return the table of seconds and memory of chains, of which one size grows at a time."""
    rows = []
    for what, cases in CHAINS.items():
        first = None
        for place, case in enumerate(cases):
            found = result["runs"].get(key_of("chain", *case))
            if not found:
                continue
            seconds = float(np.median([row["seconds"] for row in found]))
            first = seconds if first is None else first
            rows.append([
                what if place == 0 else "", *case, span([row["seconds"] for row in found], 2),
                f"{seconds / first:.2f}x", _memory(found)[1],
            ])  # fmt: skip
    head = ["what grows", "images", "convolutions", "channels", "seconds of the repair",
            "against the first", "memory added at the peak, MiB"]  # fmt: skip
    return table(head, rows)


BENCHMARK = Benchmark(
    "repair_cost", __doc__, run, {"networks": networks, "growth": growth}, arguments,
    resumable=True,
)  # fmt: skip


def main() -> None:
    BENCHMARK.run()


if __name__ == "__main__":
    main()
