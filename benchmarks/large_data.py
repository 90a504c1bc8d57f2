"""Data larger than memory: what processes hold, how fast they train, what workers share.

    python -m benchmarks.large_data [--limit 2048] [--repeats 5] [--resume FILE]

stream: a generator function of four times the memory limit, and of one time, goes through
`compress_model` (channels repaired, weights pruned while a teacher helps, float32 export, test) in
a memory cgroup of --limit MiB; what the process itself holds (RssAnon + RssShmem) is its peak by
stage. Where there are no cgroups it runs without a limit, and the row says so. file: the same of
an .npz of 0.49 GB. speed: epochs over mapped data by our loop and by `fit` of a tf.data.Dataset of
the same mapped array, in turn. workers: the sum of the workers' proportional set sizes (PSS) in a
search over an .npz of 0.49 GB. Images are random: nothing here is judged.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import numpy.typing as npt

from benchmarks._common import Benchmark, ratio, table, told_ratio
from benchmarks._memory import Peaks, limited, pss
from benchmarks._stored import ROOT, Stored

SHAPE = (64, 64, 3)
BYTES = 4 * int(np.prod(SHAPE))
CLASSES = 4
BATCH = 128
NPZ = 490_000_000
"""Bytes of the file's training examples."""


def images(count: int, seed: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Returns random images whose mean grey value tells their class."""
    rng = np.random.default_rng(seed)
    y = rng.integers(CLASSES, size=count)
    x = rng.random((count, *SHAPE), np.float32)
    x += y[:, None, None, None].astype(np.float32)
    return x, y


def stream(mebibytes: int) -> Any:
    """Returns a generator function of so much data."""

    def batches() -> Iterator[Any]:
        for seed in range(mebibytes * 2**20 // (BYTES * BATCH)):
            yield images(BATCH, seed)

    return batches


def net() -> Any:
    """Returns a small convolutional net, compiled."""
    import keras

    keras.utils.set_random_seed(0)
    inputs = x = keras.Input(SHAPE)
    for width, stride in ((8, 4), (16, 2), (32, 2)):
        x = keras.layers.Conv2D(width, 3, stride, padding="same", activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, activation="softmax")(x), name="small")


def _compress(source: Any, folder: str) -> dict[str, Any]:
    """Compresses the net on data; returns peaks by stage and seconds."""
    from compress import compress_model

    peaks = Peaks()

    def told(text: str, share: float) -> None:
        peaks.stage = text.partition(",")[0]

    began = time.perf_counter()
    with peaks.watching():
        peaks.stage = "reading data"
        compress_model(
            net(), source, channels=0.5, sparsity=0.5, epochs=1, batch_size=BATCH, latency_budget=1,
            formats=["float32"], out=Path(folder) / "out", on_progress=told,
        )  # fmt: skip
    return {"peaks": peaks.found, "seconds": time.perf_counter() - began}


def _speed(mebibytes: int, repeats: int) -> dict[str, Any]:
    """Times epochs by our loop and by `fit`, in turn."""
    import keras
    import tensorflow as tf

    from compress.core.device import setup
    from compress.data.adapters import arrays_of
    from compress.plan import TrainSettings
    from compress.train import train
    from compress.train.given import as_dataset

    device = setup("cpu")
    x, y, *_ = arrays_of(stream(mebibytes))
    held = images(BATCH, 10**6)
    data = as_dataset((x, y), val=held)
    ours, theirs = net(), net()
    settings = TrainSettings(epochs=repeats + 1, batch_size=BATCH, learning_rate=1e-3)
    seconds: dict[str, list[float]] = {"fit": [], "ours": []}

    def fed() -> Any:
        def batches() -> Iterator[Any]:
            order = np.random.default_rng(0).permutation(len(x))
            for start in range(0, len(x) - BATCH + 1, BATCH):
                rows = order[start : start + BATCH]
                yield x[rows], y[rows]

        spec = (tf.TensorSpec((BATCH, *SHAPE), tf.float32), tf.TensorSpec((BATCH,), tf.int64))
        made = tf.data.Dataset.from_generator(batches, output_signature=spec)
        return made.apply(tf.data.experimental.assert_cardinality(len(x) // BATCH)).prefetch(2)

    def beside(epoch: int, epochs: int, record: Any) -> None:
        began = time.perf_counter()
        theirs.fit(fed(), epochs=1, verbose=0)
        if epoch > 1:  # the first ones trace
            seconds["fit"].append(time.perf_counter() - began)
            seconds["ours"].append(record.seconds)

    theirs.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
    train(ours, data, settings, device=device, on_epoch=beside)
    return {**seconds, "examples": len(x)}


def _workers(file: str, count: int, folder: str) -> dict[str, Any]:
    """Runs a search with workers; returns the most that all of them held, MiB."""
    import psutil

    words = [
        "search", "--data", file, "--normalize", "none", "--space", "cnn", "--epochs", "1",
        "--trials", str(2 * count), "--workers", str(count), "--out", str(Path(folder) / "out"),
    ]  # fmt: skip
    code = "from search.cli import main; main()"
    peak = 0.0
    log = Path(folder) / "log.txt"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *words], cwd=ROOT, stdout=out, stderr=out
        )
    whole = psutil.Process(process.pid)
    while process.poll() is None:
        total, working = 0.0, 0
        for child in whole.children(recursive=True):
            try:
                if "search.engines.worker" in " ".join(child.cmdline()):
                    total, working = total + pss(child.pid), working + 1
            except (psutil.Error, OSError, ValueError):
                continue
        peak = max(peak, total) if working == count else peak
        time.sleep(0.2)
    if process.returncode:
        raise RuntimeError(log.read_text()[-2000:])
    return {"pss": peak}


def _child(words: list[str], enter: Any = None) -> Any:
    """Runs a part in a process of its own, perhaps in a cgroup."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.large_data", "--_part", json.dumps(words)], cwd=ROOT,
        capture_output=True, text=True, preexec_fn=enter,
    )  # fmt: skip
    if done.returncode:
        return {"failed": f"exit code {done.returncode}: {done.stderr.strip()[-300:]}"}
    return json.loads(done.stdout.splitlines()[-1])


def _part(words: list[Any]) -> None:
    kind, *rest = words
    with tempfile.TemporaryDirectory() as folder:
        if kind == "stream":
            found = _compress(stream(rest[0]), folder)
        elif kind == "file":
            found = _compress(rest[0], folder)
        elif kind == "speed":
            found = _speed(*rest)
        else:
            found = _workers(rest[0], rest[1], folder)
    print(json.dumps(found))


def _npz(folder: str) -> str:
    count = NPZ // BYTES
    x, y = images(count, 0)
    file = str(Path(folder) / "large.npz")
    np.savez(file, x_train=x, y_train=y)
    return file


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limit", type=int, default=2048, help="of the cgroup, MiB")
    parser.add_argument("--repeats", type=int, default=5, help="epochs of each side of speed")


def run(given: argparse.Namespace, stored: Stored) -> None:
    """Measures what is missing."""
    result = stored.result

    def keep(name: str, measured: Any) -> None:
        print(name, json.dumps(measured), flush=True)
        stored.save(**{name: measured})

    for factor in (1, 4):
        if f"stream {factor}" not in result:
            with limited(given.limit) as enter:
                found = _child(["stream", factor * given.limit], enter)
                keep(f"stream {factor}", {**found, "limited": enter is not None})
    if "speed" not in result:
        keep("speed", _child(["speed", given.limit // 2, given.repeats]))
    if not {"file", "workers 1", "workers 2", "workers 4"} <= result.keys():
        with tempfile.TemporaryDirectory() as folder:
            file = _npz(folder)
            if "file" not in result:
                keep("file", _child(["file", file]))
            for count in (1, 2, 4):
                if f"workers {count}" not in result:
                    keep(f"workers {count}", _child(["workers", file, count]))


def memory(result: dict[str, Any]) -> str | None:
    """The most that the process itself held, by stage."""
    named = {"stream 1": "stream of the limit", "stream 4": "stream of 4x the limit",
             "file": ".npz of 0.49 GB"}  # fmt: skip
    rows = []
    for name, text in named.items():
        found = result.get(name)
        if found is None:
            continue
        if "failed" in found:
            rows.append([text, "failed", found["failed"], "", ""])
            continue
        peaks = found["peaks"]
        stage, most = max(peaks.items(), key=lambda item: item[1]["own"])
        mapped = max(values["RssFile"] for values in peaks.values())
        limit = "" if name == "file" else "yes" if found["limited"] else "no cgroups here"
        rows.append([text, f"{most['own']:.0f} MiB", stage, f"{mapped:.0f} MiB", limit,
                     f"{found['seconds']:.0f}"])  # fmt: skip
    head = ["data", "most that is the process's own", "while", "most of mapped pages",
            "in a cgroup", "seconds"]  # fmt: skip
    return table(head, rows) if rows else None


def speed(result: dict[str, Any]) -> str | None:
    """Epochs of `fit` over ours."""
    found = result.get("speed")
    if found is None or "failed" in found:
        return None
    rates = [[f"{found['examples'] / np.median(found[side]):.0f}"] for side in ("fit", "ours")]
    told = told_ratio(ratio(found["fit"], found["ours"]))
    return table(["examples a second: fit of tf.data", "our loop", "fit's seconds / ours"],
                 [[*rates[0], *rates[1], told]])  # fmt: skip


def workers(result: dict[str, Any]) -> str | None:
    """What all workers hold together."""
    rows = [
        [str(count), f"{found['pss']:.0f} MiB"]
        for count in (1, 2, 4)
        if (found := result.get(f"workers {count}")) is not None and "pss" in found
    ]
    return table(["workers", "sum of their PSS at its peak"], rows) if rows else None


BENCHMARK = Benchmark(
    "large_data", __doc__, run, {"memory": memory, "speed": speed, "workers": workers}, arguments,
    resumable=True,
)  # fmt: skip


def main() -> None:
    if "--_part" in sys.argv:
        _part(json.loads(sys.argv[sys.argv.index("--_part") + 1]))
    else:
        BENCHMARK.run()


if __name__ == "__main__":
    main()
