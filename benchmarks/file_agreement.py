"""How far exported files agree with their Keras models: what thresholds of a healthy file stand on.

    python -m benchmarks.file_agreement

Files of the trained nets in benchmarks/nets, and of small nets that are trained here for other
tasks on the same images (Fashion-MNIST): 200 classes close to each other (twenty clusters of each
class), one class against the others, several labels, numbers, pixels, the image itself. Beside them
a net that is broken in whole numbers: each hidden unit has a weight of 316 on an input that is
always zero. Each file is compared with its model on 2,000 validation examples drawn from every
class.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import numpy.typing as npt

from benchmarks._common import Benchmark, table
from benchmarks._stored import Stored
from benchmarks.resnet20 import load_fashion
from compress.core.errors import RunFailed
from compress.data import Dataset, Preprocessing, Split, draw_stratified

if TYPE_CHECKING:
    import keras

NETS = Path(__file__).parent / "nets"
FORMATS = ("float32", "float16", "dynamic", "int8", "int16x8")
EXAMPLES = 2000
TRAINED = 10_000
"""Examples that the nets made here are trained on, for an epoch: weak ones are wanted."""
CLUSTERS = 20
"""Of each class."""
EXPLODED = 316.0
Array = npt.NDArray[Any]


def stored_nets(data: Dataset) -> Iterator[tuple[str, keras.Model, Dataset]]:
    """Yields the nets of benchmarks/nets."""
    from compress.model.io import load_model

    for path in sorted(NETS.glob("*.keras")):
        yield path.stem.partition("-")[0], load_model(path), data


def small_nets(data: Dataset) -> Iterator[tuple[str, keras.Model, Dataset]]:
    """Yields nets of other tasks, trained for an epoch, and the broken one."""
    import keras

    layers = keras.layers
    pixels = data.inputs("train")[..., 0]
    clusters = _clusters(data)
    softmax = layers.Dense(CLUSTERS * data.num_classes, activation="softmax")
    yield _made("200 classes", data, "multiclass", clusters, _wide(softmax),
                "sparse_categorical_crossentropy")  # fmt: skip
    yield _made("10 classes", data, "multiclass", lambda s: s.y,
                _wide(layers.Dense(10, activation="softmax")),
                "sparse_categorical_crossentropy")  # fmt: skip
    yield _made("shirts or not", data, "binary", lambda s: (s.y == 6).astype(np.int64),
                _wide(layers.Dense(1, activation="sigmoid")), "binary_crossentropy")  # fmt: skip
    yield _made("six labels", data, "multilabel", _divisors,
                _wide(layers.Dense(6, activation="sigmoid")), "binary_crossentropy")  # fmt: skip
    yield _made("three numbers", data, "regression", lambda s: _numbers(data.preprocess(s.x)),
                _wide(layers.Dense(3)), "mse")  # fmt: skip
    edges = np.quantile(pixels, [0.6, 0.85])
    yield _made("three kinds of pixels", data, "segmentation",
                lambda s: np.digitize(data.preprocess(s.x)[..., 0], edges).astype(np.int32),
                [layers.Conv2D(8, 3, padding="same", activation="relu"),
                 layers.Conv2D(3, 1, activation="softmax")],
                "sparse_categorical_crossentropy")  # fmt: skip
    name, model, given = _made("exploded weights", data, "multiclass", lambda s: s.y,
                               _wide(layers.Dense(10, activation="softmax")),
                               "sparse_categorical_crossentropy")  # fmt: skip
    second, hidden = model.layers[1], model.layers[3]
    kernel, bias = second.get_weights()
    kernel[..., 0], bias[0] = 0.0, -1.0
    second.set_weights([kernel, bias])
    kernel, bias = hidden.get_weights()
    kernel[0] = EXPLODED
    hidden.set_weights([kernel, bias])
    yield name, model, given


def _wide(head: keras.Layer) -> list[keras.Layer]:
    """Returns two convolutions of stride 2, a hidden layer and a head."""
    from keras import layers

    return [
        layers.Conv2D(16, 3, 2, activation="relu"), layers.Conv2D(32, 3, 2, activation="relu"),
        layers.Flatten(), layers.Dense(64, activation="relu"), head,
    ]  # fmt: skip


def _made(
    name: str, data: Dataset, kind: str, labels: Any, layers: Sequence[keras.Layer], loss: str
) -> tuple[str, keras.Model, Dataset]:
    """Trains a net for an epoch on labels made of examples."""
    import keras

    parts = {
        part: Split(data.inputs(part), labels(data.split(part)))
        for part in ("train", "val", "test")
    }
    shape = parts["train"].y.shape
    flat = kind in ("multiclass", "binary")
    count = 2 if kind == "binary" else int(parts["train"].y.max()) + 1 if flat else shape[-1]
    if kind == "segmentation":
        count = int(parts["train"].y.max()) + 1
    own = replace(
        data, **parts, kind=kind, class_names=tuple(map(str, range(count))),
        preprocess=Preprocessing(), max_value=None,
    )  # fmt: skip
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input(data.input_shape), *layers])
    model.compile("adam", loss)
    model.fit(own.train.x[:TRAINED], own.train.y[:TRAINED], 128, 1, verbose=0)
    return name, model, own


def _clusters(data: Dataset) -> Any:
    """Returns what gives each example the nearest of twenty clusters of its own class."""
    from sklearn.cluster import KMeans

    x, y = data.inputs("train"), data.train.y
    found = {
        label: KMeans(CLUSTERS, n_init=1, random_state=0).fit(_rows(x[y == label]))
        for label in range(data.num_classes)
    }

    def labels(part: Split) -> Array:
        made = np.zeros(len(part), np.int64)
        for label, means in found.items():
            at = np.flatnonzero(part.y == label)
            made[at] = CLUSTERS * label + means.predict(_rows(data.preprocess(part.x[at])))
        return made

    return labels


def _rows(x: Array) -> Array:
    return np.ascontiguousarray(x.reshape(len(x), -1))


def _divisors(part: Split) -> Array:
    return np.stack([part.y % number == 0 for number in range(2, 8)], 1).astype(np.int64)


def _numbers(x: Array) -> Array:
    grey = x[..., 0]
    across = (grey * np.arange(grey.shape[2])).mean((1, 2)) / 10
    return np.stack([grey.mean((1, 2)), grey.std((1, 2)), across], 1).astype(np.float32)


def run(given: argparse.Namespace, stored: Stored) -> None:
    """Exports each net in each format and compares."""
    data = load_fashion(seed=given.seed)
    rows: list[dict[str, Any]] = []
    for nets in (stored_nets, small_nets):
        for name, model, own in nets(data):
            rows.append({"net": name, "task": own.kind, **_row(model, own, given.seed)})
            print(rows[-1], flush=True)
            stored.save(rows=rows, examples=EXAMPLES)


def _row(model: keras.Model, data: Dataset, seed: int) -> dict[str, Any]:
    """Returns the model's own quality, and what each file agrees on, or why there is none."""
    from compress import export
    from compress.exporting.answering import answered_by_file
    from compress.measure.runtimes import session_for

    drawn = draw_stratified(data.val, EXAMPLES, seed)
    x, labels = data.preprocess(data.val.x[drawn]), data.val.y[drawn]
    expected = model.predict(x, 256, verbose=0)
    threshold = 0.5 if data.task.activation == "sigmoid" else 0.0
    quality = data.task.quality(labels, expected, threshold=threshold)
    agreement, refused = dict[str, float](), dict[str, str]()
    with tempfile.TemporaryDirectory() as folder:
        for kind in FORMATS:
            try:
                (file,) = export(model, Path(folder) / "net", formats=(kind,), data=data, seed=seed)
            except RunFailed as error:
                refused[kind] = str(error).replace(folder, "...")
                continue
            got = answered_by_file(model, session_for(file.path), x)
            agreement[kind] = data.task.agreement(got, expected, threshold=threshold)
    name = data.task.qualities[0]
    return {
        "metric": name, "quality": quality[name], "agreement": agreement, "refused": refused,
    }  # fmt: skip


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=0)


def agreements(result: dict[str, Any]) -> str:
    """What each net's files agree on."""
    head = ["net", "task", "its validation quality", *FORMATS]
    rows = [
        [
            row["net"], row["task"], f"{row['metric']} {row['quality']:.3f}",
            *(f"{row['agreement'][kind]:.4f}" if kind in row["agreement"] else "not made"
              for kind in FORMATS),
        ]
        for row in result["rows"]
    ]  # fmt: skip
    return table(head, rows)


BENCHMARK = Benchmark(
    "file_agreement", __doc__, run, {"agreements": agreements}, arguments, anywhere=True
)


def main() -> None:
    BENCHMARK.run()


if __name__ == "__main__":
    main()
