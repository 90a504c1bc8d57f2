"""What is missing or wrong is told before TensorFlow, which takes seconds, is imported.

All cases run in one process of their own, in which nothing has imported TensorFlow yet.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from compress.core.module_loading import build_module_environment

INSTALL = "pip install 'paretune[{}]'"
NO_MODEL = "A model file must exist. Received: 'no.keras'"
NO_DATA = "data must be a path that exists"
NO_PLAN = "Cannot read plan 'no.toml'"
COMPRESS = ["compress", "m.keras", "--data", "digits"]
SHRINK = ["shrink", "m.keras", "--data", "digits"]

# words of the command, packages that are missing, what is said
CASES: dict[str, tuple[list[str], list[str], str]] = {
    "compress: model": (["compress", "no.keras", "--data", "digits"], [], NO_MODEL),
    "compress: suffix": (["compress", "m.txt", "--data", "digits"], [], "must end in .keras, .h5"),
    "compress: LiteRT": (["compress", "m.tflite"], [], "'m.tflite', a LiteRT file: a graph"),
    "compress: SavedModel": (
        ["compress", "saved", "--data", "digits"], [], "Give the Keras model that it was made of",
    ),
    "compress: data": (["compress", "m.keras", "--data", "nowhere"], [], NO_DATA),
    "compress: table": (
        ["compress", "m.keras", "--data", "t.csv"], ["pandas"], INSTALL.format("tables"),
    ),
    "compress: label": ([*COMPRESS, "--label", "a"], [], "label goes with tables and TFRecords"),
    "compress: groups": (
        [*COMPRESS, "--group-column", "person"], [], "group_column goes with tables and .npz files",
    ),
    "shrink: both columns": (
        [*SHRINK, "--group-column", "a", "--time-column", "b"], [], "left out beside time_column",
    ),
    "run: time": (["run", "--time-column", "day"], [], "time_column goes with tables and .npz"),
    "compress: teacher": ([*COMPRESS, "--teacher", "no.keras"], [], NO_MODEL),
    "compress: value": ([*COMPRESS, "--sparsity", "2"], [], "sparsity must be in [0, 1)"),
    "compress: channels": ([*COMPRESS, "--channels", "0x"], [], "keep a share in (0, 1]"),
    "compress: multiple": ([*COMPRESS, "--round-to", "-1"], [], "round_to must be at least 0"),
    "compress: task": ([*COMPRESS, "--task", "ranking"], [], "Unknown task 'ranking'"),
    "compress: temperature": ([*COMPRESS, "--temperature", "0"], [], "temperature must be above 0"),
    "compress: hint": ([*COMPRESS, "--feature-losses", "fitnet"], [], "Did you mean 'fitnets'"),
    "compress: no data": (["compress", "m.keras"], [], "data must be named"),
    "compress: plan": ([*COMPRESS, "--plan", "no.toml"], [], NO_PLAN),
    "compress: out": ([*COMPRESS, "--out", "m.keras"], [], "'m.keras' is a file"),
    "compress: GPU": ([*COMPRESS, "--device", "gpu"], [], "device 'gpu' must have a GPU"),
    "compress: onnx": ([*COMPRESS, "--formats", "onnx"], ["tf2onnx"], INSTALL.format("onnx")),
    "compress: int8": (
        [*COMPRESS, "--formats", "onnx_int8"], ["onnxruntime"], INSTALL.format("onnx"),
    ),
    "compress: MNN": ([*COMPRESS, "--runtimes", "litert,mnn"], ["MNN"], INSTALL.format("mnn")),
    "compress: OpenVINO": (
        [*COMPRESS, "--runtimes", "openvino"], ["openvino"], INSTALL.format("openvino"),
    ),
    "shrink: model": (["shrink", "no.keras", "--data", "digits"], [], NO_MODEL),
    "shrink: goal": ([*SHRINK, "--latency", "2x slower"], [], "a time like 3ms"),
    "shrink: both": (
        [*SHRINK, "--max-drop", "1", "--min-metric", "0.9"], [], "left out beside min_metric",
    ),
    "shrink: steps": ([*SHRINK, "--channels", "0.5x"], [], "the goal determines how many are kept"),
    "shrink: formats": ([*SHRINK, "--formats", "onnx,int8"], [], "formats must be among float32"),
    "shrink: runtime": (
        [*SHRINK, "--latency", "3ms", "--runtimes", "mnn"], [], "runtimes must begin with one",
    ),
    "shrink: search": ([*SHRINK, "--max-size", "2MB"], [], "Did you mean '--size'?"),
    "shrink: recipe": ([*SHRINK, "--recipe", "none"], [], "Unknown recipe"),
    "shrink: file": ([*SHRINK, "--save-recipe", "a.json"], [], "ending in .toml"),
    "shrink: budget": ([*SHRINK, "--budget", "soon"], [], "a duration like 90s"),
    "run: data": (["run", "--data", "nowhere"], [], NO_DATA),
    "run: cut file": (["run", "--data", "idx"], [], "images-idx3-ubyte.gz' must be complete"),
    "run: lengths": (["run", "--data", "lengths.npz"], [], "Received: 30 and 29"),
    "run: pickled": (["run", "--data", "pickled.npz"], [], "without pickled objects"),
    "run: labels": (
        ["run", "--data", "range.npz"], [], "in [0, 3) (3 classes). Received: 9",
    ),
    "run: table": (["run", "--data", "t.parquet"], ["pyarrow"], INSTALL.format("tables")),
    "run: hub": (["run", "--data", "tfds:mnist"], ["tensorflow_datasets"], INSTALL.format("tfds")),
    "run: teacher": (["run", "--teacher", "no.keras"], [], NO_MODEL),
    "run: value": (["run", "--trials", "0"], [], "trials must be at least 1. Received: 0"),
    "run: channels": (["run", "--channels", "half"], [], "a count like 12M. Received: 'half'"),
    "run: space": (
        ["run", "--space", "rnn"], [],
        "Unknown space 'rnn'. Did you mean 'cnn'? Choices: cnn, mlp, mobilenet, resnet. ",
    ),
    "run: optimizer": (
        ["run", "--optimizers", "lion"], [], "Unknown optimizer 'lion'. Choices: adagrad",
    ),
    "run: plan value": (["run", "--plan", "bad.toml"], [], "trials must be an integer"),
    "run: plan key": (["run", "--plan", "unknown.toml"], [], "Did you mean 'trials'"),
    "run: read-only": (["run", "--out", "locked/r"], [], "must be writable"),
    "run: plan": (["run", "--plan", "no.toml"], [], NO_PLAN),
    "run: around": (["run", "--space", "around:no.keras"], [], "was removed"),
    "run: replay": (["run", "--warm-start", "no.json"], [], "Cannot read 'no.json'"),
    "run: warm start": (["run", "--warm-start", "no"], [], "warm_start must be"),
    "run: out": (["run", "--out", "other"], [], "must be empty or an earlier run's"),
    "run: GPU": (["run", "--device", "gpu"], [], "device 'gpu' must have a GPU"),
    "run: onnx": (["run", "--formats", "float32,onnx"], ["onnx"], INSTALL.format("onnx")),
    "run: MNN": (["run", "--runtimes", "mnn"], ["MNN"], INSTALL.format("mnn")),
    "search: data": (["search", "--data", "nowhere"], [], NO_DATA),
    "search: teacher": (["search", "--teacher", "no.keras"], [], NO_MODEL),
    "search: value": (["search", "--trials", "0"], [], "trials must be at least 1"),
    "search: sampler": (
        ["search", "--sampler", "x"], [], "Unknown sampler 'x'. Choices: auto, evolution",
    ),
    "search: plan": (["search", "--plan", "no.toml"], [], NO_PLAN),
    "bench: model": (["bench", "no.keras"], [], NO_MODEL),
    "bench: suffix": (["bench", "m.txt"], [], "A model file must end in .keras"),
    "bench: value": (["bench", "m.keras", "--threads", "0"], [], "threads must be at least 1"),
    "bench: runtime": (["bench", "m.keras", "--runtimes", "trt"], [], "Unknown runtime 'trt'"),
    "bench: shape": (["bench", "m.keras", "--input-shape", "a,3"], [], "sizes with commas"),
    "bench: one": (["bench", "m.keras", "--compare", "m"], [], "compare must name two models"),
    "bench: compare": (["bench", "m.keras", "--compare", "m,n"], [], "compare must name models"),
    "bench: plan": (["bench", "m.keras", "--plan", "no.toml"], [], NO_PLAN),
    "bench: MNN": (["bench", "m.keras", "--runtimes", "mnn"], ["MNN"], INSTALL.format("mnn")),
    "inspect: model": (["inspect", "no.keras"], [], NO_MODEL),
    "inspect: ONNX": (["inspect", "m.onnx"], [], "`paretune bench` times .onnx and .mnn files"),
    "inspect: LiteRT": (["inspect", "m.tflite"], [], "Received: an empty file"),
    "inspect: folder": (["inspect", "other"], [], "a folder that holds saved_model.pb"),
    "inspect: profile": (
        ["inspect", "saved", "--profile"], [], "--profile must be of a Keras model",
    ),
    "inspect: signature": (
        ["inspect", "m.keras", "--signature", "a"], [], "signature must be of a SavedModel or a",
    ),
    "inspect: value": (["inspect", "m.keras", "--threads", "0"], [], "threads must be at least 1"),
    "inspect: onnx": (
        ["inspect", "m.keras", "--profile"], ["onnxruntime"], INSTALL.format("onnx"),
    ),
    "report: folder": (["report", "nowhere"], [], "must be the folder of a run"),
    "space: name": (["space", "describe", "rnn"], [], "Unknown space 'rnn'"),
    "space: around": (["space", "describe", "around:no.keras"], [], "was removed"),
    "space: data": (["space", "describe", "cnn", "--data", "nowhere"], [], NO_DATA),
    "storage: port": (
        ["storage", "serve", "--storage", "x", "--port", "-1"], [], "port must be in [0, 65535]",
    ),
}  # fmt: skip

SCRIPT = """
import importlib.util, json, sys
from pathlib import Path
from typer.testing import CliRunner
from search.cli import app

found = importlib.util.find_spec
before = set(Path(".").rglob("*"))
results = {}
for name, (words, missing, _) in json.load(sys.stdin).items():
    importlib.util.find_spec = lambda package, *rest: (
        None if package in missing else found(package, *rest)
    )
    done = CliRunner().invoke(app, words)
    heavy = [module for module in ("tensorflow", "keras", "torch") if module in sys.modules]
    changed = sorted(map(str, before ^ set(Path(".").rglob("*"))))
    results[name] = [done.exit_code, done.stdout, done.stderr, heavy, changed]
print(json.dumps(results))
"""


def write_bad_data(folder: Path) -> None:
    header = bytes([0, 0, 8, 3, 0, 0, 0, 30, 0, 0, 0, 4, 0, 0, 0, 4])
    (folder / "idx").mkdir()
    images = gzip.compress(header + bytes(480))
    (folder / "idx" / "train-images-idx3-ubyte.gz").write_bytes(images[:-9])
    labels = bytes([0, 0, 8, 1, 0, 0, 0, 30]) + bytes(i % 3 for i in range(30))
    (folder / "idx" / "train-labels-idx1-ubyte").write_bytes(labels)
    x, y = np.zeros((30, 8, 8), np.uint8), np.arange(30) % 3
    np.savez(folder / "lengths.npz", x_train=x, y_train=y[:29])
    np.savez(folder / "pickled.npz", x_train=np.array([{}] * 3, object), y_train=y[:3])
    np.savez(folder / "range.npz", x_train=x, y_train=np.where(y == 2, 9, y))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[object]]:
    folder = tmp_path_factory.mktemp("early")
    (folder / "m.keras").write_bytes(b"read by nobody")
    (folder / "saved").mkdir()
    names = ("m.txt", "m.onnx", "m.tflite", "saved/saved_model.pb", "t.csv", "t.parquet")
    for name in names:
        (folder / name).touch()
    (folder / "other").mkdir()
    (folder / "other" / "note.txt").write_text("mine")
    (folder / "locked").mkdir()
    (folder / "locked").chmod(0o555)
    (folder / "bad.toml").write_text("[search]\ntrials = 'many'\n")
    (folder / "unknown.toml").write_text("[search]\ntrails = 3\n")
    write_bad_data(folder)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], input=json.dumps(CASES), capture_output=True, text=True,
        cwd=folder, env=build_module_environment(), check=True,
    )  # fmt: skip
    found: dict[str, list[object]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", CASES)
def test_it_is_told_without_tensorflow(name: str, results: dict[str, list[object]]) -> None:
    code, out, said, heavy, changed = results[name]
    assert isinstance(said, str)
    assert CASES[name][2] in said
    assert said.startswith("paretune: error: ")
    assert said.count("\n") == 1
    assert (code, out) == (2, "")
    assert heavy == []
    assert changed == []
