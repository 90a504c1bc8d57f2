"""Attention in whole numbers or in floats: times of int8 files, and what they answer.

    python -m benchmarks.quantize_attention [--seeds 0,1,2] [--resume FILE]

Nothing is trained. Files in whole numbers of three transformers of images are made with products of
activations in floats (the default), and in whole numbers too (`integer_products`); the first are
timed against the float32 file, those of a runtime together, on one thread. The ViT (repair_nets.py)
is judged by the 10,000 test images of Fashion-MNIST, and by how far its file's probabilities are
from the model's it was made of, in steps of 1/256; a seed draws the training examples that
calibrate. The other two, of more and of wider tokens, are not trained: their times alone are shown.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks._common import Benchmark, Mean, seed_list, table
from benchmarks._latency import told_latency
from benchmarks._stored import Stored
from benchmarks.quantize_nets import judged, net_of
from benchmarks.resnet20 import load_fashion
from compress.core.device import quiet_tensorflow
from compress.data import Dataset
from compress.plan import LatencyOptions

WAYS = {"integer": "in whole numbers", "float": "in floats"}
SIZES = {"256 tokens of 128": (64, 8, 128, 4, 4), "196 tokens of 192": (224, 16, 192, 3, 3)}
"""Of nets that are not trained: image, patch, width, heads, blocks."""
RUNTIMES = {"litert": ".tflite", "onnx": ".onnx", "openvino": ".onnx"}
TIMING = LatencyOptions(precision=0.01, budget=30.0)
STEP = 1 / 256


def untrained(image: int, patch: int, width: int, heads: int, blocks: int) -> Any:
    """Returns a transformer of images, normalization first, as ViTs are."""
    import keras

    layers = keras.layers
    keras.utils.set_random_seed(0)
    inputs = keras.Input((image, image, 3))
    x = layers.Conv2D(width, patch, strides=patch)(inputs)
    x = layers.Reshape((-1, width))(x)
    for _ in range(blocks):
        y = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.MultiHeadAttention(heads, width // heads)(y, y)])
        y = layers.Dense(4 * width, activation="gelu")(layers.LayerNormalization()(x))
        x = layers.Add()([x, layers.Dense(width)(y)])
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras.Model(inputs, layers.Dense(100, activation="softmax")(x))


def whole(model: Any, data: Any, way: str, seed: int) -> Any:
    """Returns a net in whole numbers, calibrated."""
    from compress import quantize

    return quantize(model, data, epochs=0, integer_products=way == "integer", seed=seed)


def steps_away(quantized: Any, path: Path, data: Dataset) -> float:
    """Returns how far a file's probabilities are from its model's, in steps, in the mean."""
    from compress.measure.quality import outputs_of, sessions_for

    inputs = data.inputs("test")[:1000]
    (made,) = outputs_of(sessions_for(path, 2), [inputs])
    return float(np.abs(made - quantized.predict(inputs, verbose=0)).mean() / STEP)


def timed(model: Any, made: dict[str, Any], data: Any) -> dict[str, Any]:
    """Times the files of a net; by runtime and way the latency."""
    from compress import export
    from compress.measure import measure_latency

    found = {}
    with tempfile.TemporaryDirectory() as place:
        for runtime, suffix in RUNTIMES.items():
            format = "float32" if suffix == ".tflite" else "onnx"
            paths = {way: Path(place) / f"{way}{suffix}" for way in ("float32", *made)}
            if not paths["float32"].exists():
                export(model, paths["float32"], format=format, data=data)
                for way, result in made.items():
                    result.export(paths[way])
            times = measure_latency(paths, TIMING, runtime=runtime)
            found[runtime] = {way: item.to_json() for way, item in times.items()}
            print(runtime, {way: item.median_ms for way, item in times.items()}, flush=True)
    return found


def run(given: argparse.Namespace, stored: Stored) -> None:
    """Judges the ViT and times all nets, what is missing."""
    quiet_tensorflow()
    runs, times = (stored.result.setdefault(key, {}) for key in ("runs", "times"))
    data, (model, _) = load_fashion(), net_of("vit")
    for seed in given.seeds:
        if f"integer, seed {seed}" in runs and "vit" in times:
            continue
        made = {way: whole(model, data, way, seed) for way in WAYS}
        for way, result in made.items():
            with tempfile.TemporaryDirectory() as place:
                path = result.export(Path(place) / "m.tflite")[0].path
                runs[f"{way}, seed {seed}"] = {
                    "quality": judged(model, path, data, True),
                    "steps": steps_away(result.quantized, path, data),
                    "bytes": path.stat().st_size,
                }
            print(way, json.dumps(runs[f"{way}, seed {seed}"]), flush=True)
        if "vit" not in times:
            times["vit"] = timed(model, made, data)
        stored.save(runs=runs, times=times)
    for name, size in SIZES.items():
        if name not in times:
            net = untrained(*size)
            x = np.random.default_rng(0).random((64, *net.input_shape[1:]), np.float32)
            times[name] = timed(net, {way: whole(net, x, way, 0) for way in WAYS}, x)
            stored.save(times=times)


def qualities(result: dict[str, Any]) -> str:
    """What the ViT's files answer."""
    rows = []
    for way, text in WAYS.items():
        found = [row for key, row in result["runs"].items() if key.startswith(f"{way}, ")]
        rows.append([
            text, Mean.of([100 * row["quality"] for row in found]).number(2),
            Mean.of([row["steps"] for row in found]).number(3),
            f"{found[0]['bytes'] / 1e3:.1f} kB",
        ])  # fmt: skip
    head = ["products of activations", "test accuracy, %", "steps between file and model", "size"]
    return table(head, rows)


def latencies(result: dict[str, Any]) -> str:
    """What files take, by net and runtime."""
    rows = []
    for name, runtimes in result["times"].items():
        for found in runtimes.values():
            cells = [cell for way in WAYS for cell in told_latency(found[way])]
            rows.append([name, found["float32"]["runtime"],
                         told_latency(found["float32"])[0], *cells])  # fmt: skip
    head = ["net", "runtime", "float32"]
    return table([*head, *(cell for text in WAYS.values() for cell in (text, "faster"))], rows)


BENCHMARK = Benchmark(
    "quantize_attention", __doc__, run, {"qualities": qualities, "times": latencies}, seed_list,
    resumable=True,
)  # fmt: skip


def main() -> None:
    BENCHMARK.run()


if __name__ == "__main__":
    main()
