"""Recurrent layers as one operation of a file, beside the loops that Keras 3 traces them as.

    python -m benchmarks.recurrent_files [--budget 60]

Two layers and a head that read an image row by row (28 steps of 28 features), at three widths, as
LSTMs and as GRUs, with random weights. Of each net there are two files for a runtime: as
`export` makes it, and of the same model traced as it is. All files of a runtime are timed against
each other; outputs are compared with Keras's on 20 random images, one after the other in one
session, so that a state that outlasts an example would show. LiteRT has no operation for a GRU.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks._common import Benchmark, table
from benchmarks._stored import Stored
from compress.core.errors import InputError
from compress.exporting.litert import write_litert
from compress.exporting.onnx import write_onnx
from compress.exporting.traced import SERVED, Traced
from compress.plan import LatencyOptions

if TYPE_CHECKING:
    import keras

STEPS = FEATURES = 28
WIDTHS = ((96, 64), (48, 32), (24, 16))
KINDS = ("LSTM", "GRU")
EXAMPLES = 20
RUNTIMES: dict[str, tuple[str, Callable[..., None]]] = {
    "litert": (".tflite", write_litert),
    "onnx": (".onnx", write_onnx),
    "openvino": (".onnx", write_onnx),
}


class Looped(Traced):
    """A model traced as it is, for every converter."""

    def saved(self, form: str = SERVED) -> Path:
        """Returns the folder of the SavedModel."""
        return super().saved()


def net(kind: str, widths: tuple[int, int]) -> keras.Model:
    """Returns two recurrent layers and a head."""
    import keras

    layer = getattr(keras.layers, kind)
    inputs = keras.Input((STEPS, FEATURES))
    x = layer(widths[1])(layer(widths[0], return_sequences=True)(inputs))
    return keras.Model(inputs, keras.layers.Dense(10, activation="softmax")(x))


def run(given: argparse.Namespace, stored: Stored) -> None:
    """Makes all files, then times those of a runtime together."""
    import keras

    from compress.measure import measure_latency
    from compress.measure.quality import outputs_of
    from compress.measure.runtimes import RUNTIMES as KNOWN

    keras.utils.set_random_seed(given.seed)
    x = np.random.default_rng(given.seed).uniform(size=(EXAMPLES, STEPS, FEATURES))
    x = x.astype(np.float32)
    nets = {(kind, widths): net(kind, widths) for kind in KINDS for widths in WIDTHS}
    rows: list[dict[str, Any]] = []
    refused: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for runtime, (suffix, write) in RUNTIMES.items():
            files: dict[str, Path] = {}
            worst = {}
            for (kind, widths), model in nets.items():
                wanted = model.predict(x, verbose=0)
                for way, traced_as in (("loop", Looped), ("one", Traced)):
                    name = f"{kind} {widths[0]}-{widths[1]} {way}"
                    path = Path(folder) / f"{runtime} {name}{suffix}"
                    with traced_as(model) as traced:
                        write(traced, path)
                    try:
                        got = outputs_of(KNOWN[runtime].prepare(path, 1), [x])[0]
                    except InputError as error:
                        refused[f"{runtime} {name}"] = str(error).replace(folder, "...")
                        continue
                    files[name], worst[name] = path, float(np.abs(got - wanted).max())
            loops = {name: name.rpartition(" ")[0] + " loop" for name in files}
            found = measure_latency(
                files, LatencyOptions(precision=0.01, budget=given.budget), runtime=runtime,
                baselines={name: loop if loop in files else name for name, loop in loops.items()},
            )  # fmt: skip
            for (kind, widths), model in nets.items():
                start = f"{kind} {widths[0]}-{widths[1]}"
                loop, one = found.get(f"{start} loop"), found[f"{start} one"]
                rows.append({
                    "runtime": KNOWN[runtime].describe(), "kind": kind, "widths": widths,
                    "params": model.count_params(), "one_ms": one.median_ms,
                    "one_error": worst[f"{start} one"],
                    "one_bytes": files[f"{start} one"].stat().st_size,
                    **({} if loop is None else {
                        "loop_ms": loop.median_ms, "ratio": one.ratio, "ratio_low": one.ratio_low,
                        "ratio_high": one.ratio_high, "loop_error": worst[f"{start} loop"],
                        "loop_bytes": files[f"{start} loop"].stat().st_size,
                    }),
                })  # fmt: skip
            stored.save(rows=rows, refused=refused)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--budget", type=float, default=60.0, help="seconds of timing a runtime")
    parser.add_argument("--seed", type=int, default=0)


def times(result: dict[str, Any]) -> str:
    """Times of both files of each net, and how far their outputs are from Keras's."""
    rows = [
        [
            row["runtime"], f"{row['kind']} {' and '.join(map(str, row['widths']))}",
            f"{row['params']:,}",
            f"{1000 * row['loop_ms']:.0f} us" if "loop_ms" in row else "cannot be run",
            f"{1000 * row['one_ms']:.0f} us",
            f"{row['ratio']:.2f}x [{row['ratio_low']:.2f}, {row['ratio_high']:.2f}]"
            if "ratio" in row else "",
            f"{row['loop_bytes'] / 1000:.0f} -> {row['one_bytes'] / 1000:.0f} kB"
            if "loop_bytes" in row else f"{row['one_bytes'] / 1000:.0f} kB",
            f"{row['one_error']:.0e}",
        ]
        for row in result["rows"]
    ]  # fmt: skip
    head = ["runtime", "layers", "parameters", "as a loop", "as exported", "old/new", "file",
            "largest difference from Keras"]  # fmt: skip
    return table(head, rows)


BENCHMARK = Benchmark("recurrent_files", __doc__, run, {"times": times}, arguments)


def main() -> None:
    BENCHMARK.run()


if __name__ == "__main__":
    main()
