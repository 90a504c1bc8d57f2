"""Peak memory of all processes of a command under `--memory`, sampled every 0.2 s.

    python -m benchmarks.memory_budget [--models mobilenetv2,vit] [--commands shrink,quantize]
        [--memory 4GB] [--macs] [--resume FILE]

Models of 224 x 224 x 3 with random weights and a last layer fitted to random labels (a model that
gives all images one answer is refused), and 400 images of random fields. shrink: `paretune shrink
--latency 0.5x --no-train --formats float32` without labels (with --macs the goal is --macs 0.5x,
which measures no latency table). compress: `paretune compress --channels 0.5x`, one epoch, on
random labels. quantize: `paretune.quantize` with one epoch. Figures are sums of proportional set
sizes (PSS): pages that processes share count once. What occupies twice the budget is killed. A
resumed run repeats what failed.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks._common import Benchmark, table
from benchmarks._stored import ROOT, Stored
from compress.core.quantities import parse_integer

SIZE, CLASSES, IMAGES = 224, 10, 400
MIB = 2**20
DONE = "exit code 0"
ALLOWED = 1.1
"""Times the budget: what must not be exceeded."""
QUANTIZE = """
import sys
import paretune
model, data, memory = sys.argv[1:]
paretune.quantize(
    model, data, epochs=1, learning_rate=1e-6, memory=memory, normalize="symmetric"
)
"""


def vit(patch: int = 16, width: int = 384, depth: int = 12, heads: int = 6) -> Any:
    """Return a ViT-S/16 of Keras's layers, with mean pooling in place of a class token."""
    import keras

    inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Conv2D(width, patch, patch)(inputs)
    x = keras.layers.Reshape(((SIZE // patch) ** 2, width))(x)
    for _ in range(depth):
        y = keras.layers.LayerNormalization(epsilon=1e-6)(x)
        y = keras.layers.MultiHeadAttention(heads, width // heads)(y, y)
        x = keras.layers.Add()([x, y])
        y = keras.layers.LayerNormalization(epsilon=1e-6)(x)
        y = keras.layers.Dense(4 * width, activation="gelu")(y)
        x = keras.layers.Add()([x, keras.layers.Dense(width)(y)])
    x = keras.layers.LayerNormalization(epsilon=1e-6)(x)
    x = keras.layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, activation="softmax")(x), name="vit")


def _application(name: str) -> Callable[[], Any]:
    def make() -> Any:
        import keras

        return getattr(keras.applications, name)(weights=None, classes=CLASSES)

    return make


MODELS: dict[str, Callable[[], Any]] = {
    "mobilenetv2": _application("MobileNetV2"),
    "resnet50": _application("ResNet50"),
    "efficientnetv2b0": _application("EfficientNetV2B0"),
    "vit": vit,
}
COMMANDS = ("shrink", "compress", "quantize")


def command_of(name: str, folder: Path, memory: str, macs: bool) -> list[str]:
    """Return the command that is watched.

    Args:
        name: "vit shrink".
        folder: Holds the model and the images; results go there.
        memory: Of the budget.
        macs: The goal of `shrink` is one of MACs.
    """
    model, kind = name.split()
    file, data = str(folder / f"{model}.keras"), str(folder / "images.npz")
    if kind == "quantize":
        return [sys.executable, "-c", QUANTIZE, file, data, memory]
    words = [
        sys.executable, "-m", "paretune", kind, file, "--data", data, "--normalize", "symmetric",
        "--formats", "float32", "--memory", memory, "--out", str(folder / f"{model}-{kind}"),
    ]  # fmt: skip
    if kind == "shrink":
        goal = ["--macs", "0.5x", "--latency-budget", "0.5"] if macs else ["--latency", "0.5x"]
        return [*words, "--task", "unlabelled", "--no-train", *goal]
    # random weights: at a larger rate, what is left of a larger model diverges
    options = ["--finetune-epochs", "1", "--learning-rate", "1e-5", "--latency-budget", "0.5"]
    return [*words, "--channels", "0.5x", *options]


def _prepare(folder: Path, model: str) -> None:
    """Write a model with random weights and a fitted head, and the images."""
    import keras

    import paretune

    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    # patterns of seven by seven fields: pure noise gives all images the same features
    fields = rng.integers(0, 256, (IMAGES, 7, 7, 3), dtype=np.uint8)
    x = fields.repeat(SIZE // 7, 1).repeat(SIZE // 7, 2)
    y = rng.permutation(IMAGES) % CLASSES
    network = MODELS[model]()
    # at their initial statistics, normalization layers let signals of random weights die out, and
    # a head fitted to such features diverges as soon as the model is changed
    paretune.recalibrate(network, x.astype(np.float32) / 127.5 - 1, 4)
    _fit_head(network, x, y)
    network.save(folder / f"{model}.keras")
    np.savez(folder / "images.npz", x_train=x, y_train=y)


def _fit_head(network: Any, x: Any, y: Any) -> None:
    """Fit the last layer to labels by least squares: no model may answer all images alike."""
    import keras

    head = network.layers[-1]
    features = keras.Model(network.input, head.input)
    values = np.concatenate([
        np.asarray(features(part.astype(np.float32) / 127.5 - 1, training=False))
        for part in np.array_split(x, len(x) // 20)
    ]).astype(np.float64)  # fmt: skip
    mean, spread = values.mean(0), values.std(0) + 1e-12
    scaled = (values - mean) / spread
    wanted = np.eye(CLASSES)[y] - 1 / CLASSES
    # by the examples' products: they are fewer than the features
    products = scaled @ scaled.T + 1e-2 * scaled.shape[1] * np.eye(len(x))
    kernel = 10 * scaled.T @ np.linalg.solve(products, wanted) / spread[:, None]
    head.set_weights([kernel, -mean @ kernel])


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--models", default=",".join(MODELS), help="with commas")
    parser.add_argument("--commands", default=",".join(COMMANDS), help="with commas")
    parser.add_argument("--memory", default="4GB")
    parser.add_argument("--macs", action="store_true", help="shrink to a goal of MACs")


def measure(given: argparse.Namespace, stored: Stored) -> None:
    """Watch each command on each model."""
    budget = parse_integer(given.memory, "memory", least=1, unit="bytes")
    rows: dict[str, Any] = stored.result.setdefault("rows", {})
    for model in given.models.split(","):
        names = [f"{model} {kind}" for kind in given.commands.split(",")]
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            for name in names:
                if name in rows and rows[name]["ended"] == DONE:
                    continue
                if not (folder / f"{model}.keras").exists():
                    _prepare(folder, model)
                command, log = command_of(name, folder, given.memory, given.macs), folder / "log"
                rows[name] = watch_command(command, 2 * budget / MIB, log, cwd=ROOT)
                lines = log.read_text(errors="replace").splitlines()
                if rows[name]["ended"] != DONE:
                    rows[name]["said"] = "\n".join(lines[-5:])
                print(f"{name}: {rows[name]}", flush=True)
                stored.save(rows=rows, budget=budget)


def memory_table(result: dict[str, Any]) -> str | None:
    """Return the table of peaks."""
    most = ALLOWED * result["budget"]
    rows = []
    for name, row in result["rows"].items():
        peak = row["peak"] * MIB
        verdict = "" if row["ended"] == DONE and peak <= most else "no"
        rows.append([
            *name.split(), f"{peak / 1e9:.2f} GB", f"{row['seconds']:,.0f}",
            row["ended"].replace(DONE, "done"), verdict or "yes",
        ])  # fmt: skip
    head = ["model", "command", "peak", "seconds", "end", f"at most {most / 1e9:.1f} GB"]
    return table(head, rows)


def pss(pid: int) -> float:
    """Return a process's proportional set size, MiB: pages that n processes hold count 1/n."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("Pss:"))
    return int(line.split()[1]) / 1024


def family(pid: int) -> list[int]:
    """Return the ids of a process and of all its descendants."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            # behind the name in brackets: state and parent, see proc_pid_stat(5)
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    found = [pid]
    for process in found:
        found += children.get(process, [])
    return found


def family_pss(pid: int) -> float:
    """Return the memory of a process and its descendants, MiB: shared pages count once."""
    total = 0.0
    for process in family(pid):
        with suppress(OSError, ValueError):  # it has just ended
            total += pss(process)
    return total


def watch_command(command: Sequence[str], limit: float, log: Path, **how: Any) -> dict[str, Any]:
    """Run a command and return the peak memory of its processes together.

    Args:
        command: To be run.
        limit: MiB; where the processes occupy more they are killed.
        log: Takes what they print.
        **how: Of `subprocess.Popen`.

    Returns:
        "peak" in MiB, "seconds", and "ended": "exit code 0", or that it was killed.
    """
    began, peak, ended = time.perf_counter(), 0.0, ""
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, **how)
        while process.poll() is None:
            peak = max(peak, family_pss(process.pid))
            if peak > limit:
                for one in family(process.pid):
                    with suppress(OSError):
                        os.kill(one, signal.SIGKILL)
                ended = f"killed beyond {limit:,.0f} MiB"
            time.sleep(0.2)
    seconds = time.perf_counter() - began
    return {"peak": peak, "seconds": seconds, "ended": ended or f"exit code {process.returncode}"}


BENCHMARK = Benchmark(
    "memory_budget", __doc__, measure, {"peaks": memory_table}, arguments, resumable=True,
    grows=("models", "commands"), anywhere=True,
)  # fmt: skip


def main() -> None:
    """Run the benchmark."""
    BENCHMARK.run()


if __name__ == "__main__":
    main()
