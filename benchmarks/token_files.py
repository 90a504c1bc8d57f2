"""Transformers that take tokens, in every file format: accuracy of each file beside its model.

    python -m benchmarks.token_files [--models encoder,bert] [--seeds 0,1,2] [--resume FILE]

encoder: two pre-norm transformer layers of Keras's layers over an embedding, one integer input.
bert: KerasHub's BertBackbone (two layers, 32 wide; three integer inputs, a padding mask), with a
classifier on its pooled output; skipped where keras_hub is not installed. Both are trained on
sequences of 10 to 24 tokens of 200, whose class is how often low and high tokens occur in them.
Each is evaluated as it is and at half of its MACs (`prune_channels` with 1,000 unlabelled
examples, not trained). A seed draws data, weights and examples. Files are evaluated on 2,000 test
examples; the figure is the difference from the model's own accuracy.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import numpy.typing as npt

from benchmarks._common import Benchmark, Mean, seed_list, table
from benchmarks._stored import Stored
from compress.core.device import silence_tensorflow
from compress.core.errors import ParetuneError
from compress.data import Dataset, Split, sample_inputs

VOCABULARY, LENGTH, WIDTH = 200, 24, 32
TRAIN, TEST, CALIBRATION = 6000, 2000, 1000
MODELS = ("encoder", "bert")
FORMATS = ("float32", "float16", "dynamic", "int8", "int8-mixed", "int16x8", "onnx", "onnx_int8")
QUANTIZED = ("int8-qat", "onnx_int8-qat")
"""Of the model with our ranges, not trained."""
KEPT = 0.5


def draw_sequences(count: int, seed: int) -> tuple[dict[str, npt.NDArray[np.int32]], Any]:
    """Return sequences with their padding, and their classes 0 to 2."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(2, VOCABULARY, (count, LENGTH)).astype(np.int32)
    lengths = rng.integers(10, LENGTH + 1, count)
    mask = (np.arange(LENGTH) < lengths[:, None]).astype(np.int32)
    tokens *= mask
    low = ((tokens > 1) & (tokens < 60)).sum(1) / lengths > 0.3
    high = (tokens > 150).sum(1) / lengths > 0.25
    x = {"token_ids": tokens, "segment_ids": np.zeros_like(tokens), "padding_mask": mask}
    return x, low.astype(np.int64) + high


def encoder() -> Any:
    """Return an untrained transformer of Keras's layers."""
    import keras

    layers = keras.layers
    inputs = keras.Input((LENGTH,), dtype="int32", name="token_ids")
    x = layers.Embedding(VOCABULARY, WIDTH)(inputs)
    for _ in range(2):
        y = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.MultiHeadAttention(2, WIDTH // 2)(y, y)])
        y = layers.Dense(2 * WIDTH, activation="gelu")(layers.LayerNormalization()(x))
        x = layers.Add()([x, layers.Dense(WIDTH)(y)])
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(x), name="encoder")


def bert() -> Any:
    """Return an untrained classifier on KerasHub's BERT."""
    import keras
    import keras_hub

    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=VOCABULARY, num_layers=2, num_heads=2, hidden_dim=WIDTH,
        intermediate_dim=2 * WIDTH, max_sequence_length=LENGTH,
    )  # fmt: skip
    names = ("token_ids", "segment_ids", "padding_mask")
    inputs = {name: keras.Input((LENGTH,), dtype="int32", name=name) for name in names}
    pooled = backbone(inputs)["pooled_output"]
    outputs = keras.layers.Dense(3, activation="softmax", name="head")(pooled)
    return keras.Model(inputs, outputs, name="bert")


def trained(name: str, seed: int) -> tuple[Any, Dataset]:
    """Return a trained model and its data."""
    import keras

    from compress.train.dataset_loading import as_dataset

    keras.utils.set_random_seed(seed)
    model = {"encoder": encoder, "bert": bert}[name]()
    parts = [draw_sequences(count, 3 * seed + place)
             for place, count in enumerate((TRAIN, TEST, TEST))]  # fmt: skip
    if name == "encoder":
        parts = [(x["token_ids"], y) for x, y in parts]  # type: ignore[misc]
    model.compile(keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy")
    model.fit(*parts[0], 64, 20, verbose=0)
    data = as_dataset(parts[0], val=parts[1], model=model)
    return model, replace(data, test=Split(*parts[2]))


def accuracy(answers: Any, data: Dataset) -> float:
    """Return the share of test examples whose class is answered."""
    return float((np.asarray(answers).argmax(-1) == data.test.y).mean())


def files_of(model: Any, data: Dataset, seed: int) -> dict[str, Any]:
    """Return the accuracy of the model and of each of its files, or why there is none."""
    from compress.exporting import export
    from compress.exporting.file_checks import predict_examples
    from compress.measure.file_agreement import prepare_sessions
    from compress.quantization import quantize

    found: dict[str, Any] = {"model": accuracy(model.predict(data.inputs("test"), verbose=0), data)}
    few = sample_inputs(data, CALIBRATION, seed)
    whole: dict[str, Any] = {}
    for name in (*FORMATS, *QUANTIZED):
        suffix = ".onnx" if name.startswith("onnx") else ".tflite"
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"file{suffix}"
            try:
                if name in QUANTIZED:
                    if name not in whole:
                        whole[name] = quantize(model, few, epochs=0, format=name, seed=seed)
                    whole[name].export(path)
                else:
                    export(model, path, format=name, data=few, seed=seed)
                answers = predict_examples(
                    model, prepare_sessions(path, 2), data.test.x, data.preprocess
                )
                found[name] = accuracy(answers, data)
            except ParetuneError as error:
                found[name] = {"not run": str(error).replace(folder, "")}
    return found


def measure(given: argparse.Namespace, stored: Stored) -> None:
    """Train, prune, export and evaluate what is missing."""
    from compress.prune.channels import prune_channels

    silence_tensorflow()
    runs = stored.result.setdefault("runs", {})
    for name in given.models.split(","):
        if name == "bert" and importlib.util.find_spec("keras_hub") is None:
            print("bert: not run: keras_hub is not installed", flush=True)
            continue
        for seed in given.seeds:
            if f"{name}, {KEPT:g}x, seed {seed}" in runs:
                continue
            model, data = trained(name, seed)
            few = sample_inputs(data, CALIBRATION, seed)
            small = prune_channels(model, macs=KEPT, data=few, round_to=4, seed=seed).model
            for label, each in (("1x", model), (f"{KEPT:g}x", small)):
                key = f"{name}, {label}, seed {seed}"
                runs[key] = files_of(each, data, seed)
                print(key, json.dumps(runs[key]), flush=True)
            stored.save(runs=runs)


def files_table(result: dict[str, Any]) -> str:
    """Return the table of differences between files and their models, in percentage points."""
    rows = []
    for name in dict.fromkeys(key.rpartition(", ")[0] for key in result["runs"]):
        runs = [run for key, run in result["runs"].items() if key.startswith(f"{name}, seed")]
        cells = []
        for kind in (*FORMATS, *QUANTIZED):
            off = [run[kind] - run["model"] for run in runs if not isinstance(run[kind], dict)]
            cells.append("refused" if len(off) < len(runs) else
                         _points(Mean.of([100 * value for value in off])))  # fmt: skip
        rows.append([name, Mean.of([run["model"] for run in runs]).percent(), *cells])
    return table(["model", "accuracy", *FORMATS, *QUANTIZED], rows)


def _points(mean: Mean) -> str:
    return f"{mean.mean:+.2f}" + ("" if mean.error is None else f" +- {mean.error:.2f}")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--models", default=",".join(MODELS), help="with commas")
    seed_list(parser)


BENCHMARK = Benchmark(
    "token_files", __doc__, measure, {"files": files_table}, arguments, resumable=True,
    grows=("models", "seeds"), anywhere=True,
)  # fmt: skip


def main() -> None:
    """Run the benchmark."""
    BENCHMARK.run()


if __name__ == "__main__":
    main()
