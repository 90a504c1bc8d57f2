"""Pruned and repaired models in int8: whether the file is as good as the model.

    python -m benchmarks.repair_int8 [--nets small,mobilenet,vww] [--target 0.5] [--seeds 0,1,2]
        [--mlperf FOLDER] [--resume FILE]

small: two convolutions of stride 2, a hidden and a last dense layer, trained on 8,000 images of
Fashion-MNIST in [0, 1]. random1 to random10: the same with other kernel sizes, padding, widths,
learning rates and numbers of epochs. The others are those of repair_nets.py. vww: MLPerf Tiny's
person detector (MobileNetV1 0.25, 96 x 96), with its 1,000 official test images cross-fitted: one
half without its labels repairs and calibrates, the other half is evaluated, and the other way
round. Channels are removed by l2 over all layers down to a share of the MACs; 1,000 unlabelled
training images repair the model, and 200 calibrate its LiteRT int8 file. A seed draws both. Test
images evaluate the model and its file; the autoencoder by the share of variance that it explains.
Of the small nets one more file is evaluated: int8 with our ranges and no training.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import numpy.typing as npt

from benchmarks._common import Benchmark, Mean, seed_list, table
from benchmarks._repair import EXAMPLES
from benchmarks._stored import Stored
from benchmarks.quantize_nets import judged, net_of, returned
from benchmarks.repair_models import qualities
from benchmarks.repair_nets import RECIPES, REPAIRED
from benchmarks.resnet20 import load_fashion
from compress.core.device import silence_tensorflow
from compress.data import Dataset, Preprocessing, Split, sample_inputs

if TYPE_CHECKING:
    import keras

RANDOM = tuple(f"random{number}" for number in range(1, 11))
MOBILE = "vww"
SMALL = ("small", *RANDOM)
NETS = (*SMALL, *REPAIRED, MOBILE)
TRAINED = 8_000
"""Images that the small nets are trained on."""
Case = tuple[Any, Dataset, bool]
"""A model, data whose test part evaluates it, and whether it is labelled."""


def small_net(data: Dataset, number: int) -> keras.Model:
    """Return a trained small net; 0: the one of the first row."""
    import keras

    rng, layers = np.random.default_rng(number), keras.layers

    def either(first: Any, *others: Any) -> Any:
        return (first, *others)[rng.integers(1 + len(others))] if number else first

    size, padding = either(3, 5), either("valid", "same")
    widths = either(16, 8, 24), either(32, 16, 48), either(32, 64, 128)
    rate, epochs, batch = either(1e-3, 3e-3, 1e-2), either(5, 1, 2, 15), either(64, 32, 128)
    keras.utils.set_random_seed(number)
    model = keras.Sequential([
        keras.Input(data.input_shape),
        layers.Conv2D(widths[0], size, 2, padding=padding, activation="relu"),
        layers.Conv2D(widths[1], size, 2, padding=padding, activation="relu"),
        layers.Flatten(),
        layers.Dense(widths[2], activation="relu"),
        layers.Dense(data.num_classes, activation="softmax"),
    ])  # fmt: skip
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
    x, y = data.inputs("train")[:TRAINED], data.train.y[:TRAINED]
    model.fit(x, y, batch, epochs, verbose=0)
    return model


def person_images(folder: Path) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return the test images of MLPerf Tiny VWW in [0, 1], and whether each shows a person."""
    from PIL import Image

    with zipfile.ZipFile(folder / "vww_test.zip") as archive:
        rows = [line.split(",") for line in archive.read("labels.csv").decode().split()]
        rows = [row for row in rows if row[0] in archive.namelist()]
        images = [np.asarray(Image.open(io.BytesIO(archive.read(name)))) for name, _ in rows]
    # they are stored with blue first
    x = np.stack(images)[..., ::-1].astype(np.float32) / 255
    order = np.random.default_rng(0).permutation(len(x))
    return x[order], np.array([int(label) for _, label in rows])[order]


def cases(name: str, data: Dataset, plain: Dataset, folder: Path | None) -> Iterator[Case]:
    """Yield a model with each part of the data that evaluates it.

    Args:
        name: Of `NETS`.
        data: Fashion-MNIST as the nets of repair_nets.py take it.
        plain: The same in [0, 1].
        folder: Of MLPerf Tiny's files.
    """
    from compress.model.io import load_model

    if name == MOBILE:
        assert folder is not None
        model = load_model(folder / "vww_96.h5")
        x, y = person_images(folder)
        half = len(x) // 2
        for first, second in ((slice(half), slice(half, None)), (slice(half, None), slice(half))):
            seen, unseen = Split(x[first], y[first]), Split(x[second], y[second])
            yield model, replace(
                plain, train=seen, val=seen, test=unseen, class_names=("no person", "person"),
                preprocess=Preprocessing(), max_value=None,
            ), True  # fmt: skip
    elif name == "resnet20" or name in RECIPES:
        model, labelled = net_of(name)
        yield model, data if labelled else returned(data), labelled
    else:
        yield (
            small_net(plain, 0 if name == "small" else int(name.removeprefix("random"))),
            (plain),
            True,
        )


def evaluated(model: Any, data: Dataset, labelled: bool) -> float:
    """Return the quality of a Keras model on the test part."""
    made = np.asarray(model.predict(data.inputs("test"), batch_size=500, verbose=0))
    return qualities(data.inputs("test"), data.test.y, made, labelled)[0]


def examine(case: Case, target: float, seed: int, ranges: bool) -> dict[str, float]:
    """Prune and repair a model, and evaluate it and its int8 files.

    Args:
        case: The model and its data.
        target: Share of the MACs to keep.
        seed: Of the examples.
        ranges: Also make a file with our ranges.
    """
    from compress.exporting import export
    from compress.prune.channels import prune_channels
    from compress.quantization import quantize

    model, data, labelled = case
    x = sample_inputs(data, EXAMPLES, seed)
    found = prune_channels(
        model, macs=target, data=x, criterion="l2", scope="global", round_to=4, seed=seed
    )
    grown = 0.0
    before = {weight.path: weight for weight in model.weights}
    for weight in found.model.weights:
        old = before.get(weight.path)
        if len(weight.shape) > 1 and old is not None:
            most = float(np.abs(np.asarray(old)).max())
            grown = max(grown, float(np.abs(np.asarray(weight)).max()) / (most or 1.0))
    figures = {
        "original": evaluated(model, data, labelled),
        "float32": evaluated(found.model, data, labelled), "growth": grown,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "pruned.int8.tflite"
        export(found.model, path, format="int8", data=x, seed=seed)
        figures["int8"] = judged(found.model, path, data, labelled)
        if ranges:
            path = Path(place) / "ranges.tflite"
            quantize(found.model, x, epochs=0, seed=seed).export(path)
            figures["ranges"] = judged(found.model, path, data, labelled)
    return figures


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--nets", default=",".join(NETS), help="with commas")
    parser.add_argument("--target", type=float, default=0.5, help="share of the MACs to keep")
    seed_list(parser)
    parser.add_argument("--mlperf", type=Path, help="a folder with vww_96.h5 and vww_test.zip")


def measure(given: argparse.Namespace, stored: Stored) -> None:
    """Prune, export and evaluate what is missing."""
    from compress.data import load_data

    silence_tensorflow()
    data, plain = load_fashion(), load_data("fashion_mnist", normalize="unit")
    runs = stored.result.setdefault("runs", {})
    for name in given.nets.split(","):
        if name == MOBILE and given.mlperf is None:
            print("vww: not run: no --mlperf", flush=True)
            continue
        keys = [f"{name}, seed {seed}" for seed in given.seeds]
        if all(key in runs for key in keys):
            continue
        parts = list(cases(name, data, plain, given.mlperf))
        for key, seed in zip(keys, given.seeds, strict=True):
            if key not in runs:
                rows = [examine(case, given.target, seed, name in SMALL) for case in parts]
                runs[key] = {
                    figure: float(
                        (max if figure == "growth" else np.mean)([r[figure] for r in rows])
                    )
                    for figure in rows[0]
                }
                print(key, json.dumps(runs[key]), flush=True)
                stored.save(runs=runs)


def files_table(result: dict[str, Any]) -> str:
    """Return the table of models and their int8 files."""
    names = list(dict.fromkeys(key.partition(",")[0] for key in result["runs"]))
    rows = []
    for name in names:
        runs = [run for key, run in result["runs"].items() if key.startswith(f"{name},")]
        off = Mean.of([run["int8"] - run["float32"] for run in runs])
        rows.append([
            name, f"{100 * runs[0]['original']:.2f}",
            *(Mean.of([run[side] for run in runs]).percent() for side in ("float32", "int8")),
            f"{100 * off.mean:+.2f}", f"{max(run['growth'] for run in runs):.1f}",
        ])  # fmt: skip
    head = ["model", "original, %", "pruned, float32", "pruned, int8", "int8 - float32, pp",
            "largest weight, pruned/original"]  # fmt: skip
    return table(head, rows)


BENCHMARK = Benchmark(
    "repair_int8", __doc__, measure, {"files": files_table},
    arguments, resumable=True, grows=("nets", "seeds", "mlperf"), anywhere=True,
)  # fmt: skip


def main() -> None:
    """Run the benchmark."""
    BENCHMARK.run()


if __name__ == "__main__":
    main()
