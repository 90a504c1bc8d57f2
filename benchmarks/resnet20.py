"""The CIFAR ResNet-20 on Fashion-MNIST: a network and data that benchmarks share."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from benchmarks._stored import ROOT, revision
from compress import load_data
from compress.core.device import Device
from compress.data import Dataset, Split
from compress.plan import DistillOptions, TrainSettings, WeightOptions

if TYPE_CHECKING:
    import keras


DENSE = TrainSettings(
    epochs=6, optimizer="momentum", learning_rate=0.1, batch_size=128, weight_decay=5e-3
)
"""How the net that is compressed was trained, over `with_flips`: twelve epochs with flips."""
TRAIN, VAL = 10_000, 5_000
"""Examples of `load_small`."""
RECIPE = TrainSettings(epochs=1, optimizer="momentum", learning_rate=0.02, batch_size=128)
"""Two epochs with flips: one over `with_flips`."""
PEER = Path(__file__).parent / "peers" / "tfmot_resnet20.py"


class Dense(NamedTuple):
    """A trained net that benchmarks compress.

    Attributes:
        model: The net.
        file: Where it lies.
        sha256: Of the file: results of the same net can be told.
    """

    model: keras.Model
    file: Path
    sha256: str


def dense_net(given: Path | None, data: Dataset, device: Device) -> Dense:
    """Return the net of a file, or the one that this commit trains (20 minutes on two cores).

    Args:
        given: A trained net of `build`; None: the one in runs/benchmarks, made where missing.
        data: Fashion-MNIST, for training.
        device: What it trains on.
    """
    import keras

    from compress.model.io import load_model, save_model
    from compress.train import train

    commit, _ = revision()
    file = given or ROOT / "runs" / "benchmarks" / f"resnet20-{(commit or 'unknown')[:7]}.keras"
    if not given and not file.exists():
        keras.utils.set_random_seed(0)
        model = build()
        train(model, with_flips(data), DENSE, device=device)
        file.parent.mkdir(parents=True, exist_ok=True)
        save_model(model, file)
    return Dense(load_model(file), file, hashlib.sha256(file.read_bytes()).hexdigest())


def build(
    widths: Sequence[int] = (16, 32, 64),
    input_shape: tuple[int, int, int] = (28, 28, 1),
    classes: int = 10,
    blocks: int = 3,
) -> keras.Model:
    """Build a ResNet of 2 * `blocks` * stages + 2 layers (20 by default), untrained.

    Unlike the paper's CIFAR networks, whose shortcuts pad with zero channels (its option
    A), a shortcut that changes shape is a strided 1x1 convolution (its option B).

    Args:
        widths: Channels of each stage; every stage but the first begins with stride 2.
        input_shape: (height, width, channels).
        classes: Number of classes.
        blocks: Basic blocks of two convolutions in each stage.

    Returns:
        A functional model named "resnet20" (or its depth) that ends in Dense and Softmax.
        Layers are `conv0`, `bn0`, then `s{stage}b{block}_conv1`, `..._bn1`, ...

    Reference:
        He et al. 2016, "Deep Residual Learning for Image Recognition", section 4.2.
    """
    import keras

    inputs = keras.Input(input_shape, name="image")
    x = _normalized(inputs, widths[0], 3, 1, "conv0", "bn0")
    x = keras.layers.ReLU(name="relu0")(x)
    for stage, width in enumerate(widths, 1):
        for block in range(1, blocks + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            x = _basic_block(x, width, stride, f"s{stage}b{block}")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    x = keras.layers.Dense(classes, kernel_initializer="he_normal", name="logits")(x)
    outputs = keras.layers.Softmax(name="softmax")(x)
    return keras.Model(inputs, outputs, name=f"resnet{2 * blocks * len(widths) + 2}")


def _basic_block(x: Any, width: int, stride: int, name: str) -> Any:
    """Add two convolutions and a shortcut: the identity, or a projection on a new shape."""
    import keras

    shortcut = x
    if stride != 1 or x.shape[-1] != width:
        shortcut = _normalized(x, width, 1, stride, f"{name}_proj", f"{name}_proj_bn")
    x = _normalized(x, width, 3, stride, f"{name}_conv1", f"{name}_bn1")
    x = keras.layers.ReLU(name=f"{name}_relu1")(x)
    x = _normalized(x, width, 3, 1, f"{name}_conv2", f"{name}_bn2")
    x = keras.layers.Add(name=f"{name}_add")([x, shortcut])
    return keras.layers.ReLU(name=f"{name}_relu2")(x)


def _normalized(x: Any, width: int, size: int, stride: int, conv: str, norm: str) -> Any:
    """Add a convolution without bias and its batch normalization, named `conv` and `norm`."""
    import keras

    x = keras.layers.Conv2D(
        width, size, stride, "same", use_bias=False, kernel_initializer="he_normal", name=conv
    )(x)
    return keras.layers.BatchNormalization(name=norm)(x)


def load_small() -> Dataset:
    """Return 10,000 training and 5,000 validation images, always the same ones.

    As a data source: `--data benchmarks.resnet20:load_small`.
    """
    whole = load_data("fashion_mnist", seed=0)
    # the split is shuffled and stratified already: the first ones are a sample of each part
    return replace(
        whole,
        name="fashion_small",
        train=whole.train.take(np.arange(TRAIN)),
        val=whole.val.take(np.arange(VAL)),
        notes=(*whole.notes, f"{TRAIN:,} training and {VAL:,} validation images"),
    )


def load_fashion(source: str = "fashion_mnist", seed: int = 0) -> Dataset:
    """Load Fashion-MNIST: 51,000 examples train, 9,000 validate, 10,000 test.

    Args:
        source: "fashion_mnist" takes the files of Debian's package where they are
            installed, else Keras's cache or download; or a folder of IDX files.
        seed: Seed of the split into training and validation.
    """
    return load_data(source, seed=seed)


def with_flips(data: Dataset) -> Dataset:
    """Return the data with its training part followed by its mirror images, left to right.

    An epoch over the result has as many steps as two epochs of random flips over `data`,
    and shows every example once each way: it stands for these two epochs. So an epoch
    count E here compares to 2 E epochs with the usual augmentation.

    Args:
        data: Images, `x` of shape (n, height, width, channels).
    """
    x, y = data.train.x, data.train.y
    doubled = Split(np.concatenate([x, x[:, :, ::-1]]), np.concatenate([y, y]))
    return replace(data, train=doubled, notes=(*data.notes, "training part doubled by flips"))


class Variants:
    """Fashion-MNIST, the device and the trained ResNet-20 that all variants of it share."""

    def __init__(self, dense: Path | None) -> None:
        from compress.core.device import setup_device, silence_tensorflow

        silence_tensorflow()
        self.device = setup_device("cpu")
        self.data = load_fashion()
        self.flipped = with_flips(self.data)
        self.net = dense_net(dense, self.data, self.device)
        self.dense = self.net.model

    def ours(
        self,
        options: WeightOptions,
        seed: int,
        *,
        taught: bool,
        start: Any = None,
        schedule: Any = None,
    ) -> tuple[Any, float]:
        """Prune while training on labels or with the dense net as teacher.

        Args:
            options: Sparsity and times.
            seed: Of the order of examples.
            taught: By the dense net.
            start: What the training begins with; default: the dense net.
            schedule: Of the sparsity; default: polynomial.
        """
        from compress.distillation import distill
        from compress.model.copies import copy_model
        from compress.prune.weights import WeightPruner
        from compress.train import train

        student, pruner = copy_model(start or self.dense), WeightPruner(options, schedule=schedule)
        if taught:
            distill(
                student, self.dense, self.flipped, DistillOptions(), finetune=RECIPE,
                device=self.device, seed=seed, hooks=[pruner],
            )  # fmt: skip
        else:
            train(student, self.flipped, RECIPE, device=self.device, seed=seed, hooks=[pruner])
        return student, pruner.strip().sparsity

    def handed_over(self, options: WeightOptions, seed: int, folder: Path, **more: float) -> None:
        """Write the inputs of a peer in tf_keras: weights, data, recipe, schedule.

        Args:
            options: Sparsity and times.
            seed: Of the recipe.
            folder: Of the files.
            **more: Numbers of the recipe.
        """
        from compress.prune.weights.schedules import compute_update_times, create_schedule

        steps = len(self.flipped.train) // RECIPE.batch_size
        schedule: Any = create_schedule(options, compute_update_times(options, steps))
        record = {
            "schedule": schedule.get_config()["config"],
            "learning_rate": RECIPE.learning_rate, "batch": RECIPE.batch_size,
            "seed": seed, **more,
        }  # fmt: skip
        (folder / "recipe.json").write_text(json.dumps(record), "utf-8")
        weights = {
            f"{layer.name}/{place}": array
            for layer in self.dense.layers
            for place, array in enumerate(layer.get_weights())
        }
        np.savez(folder / "weights.npz", **weights)
        inputs = self.flipped.preprocess(self.flipped.train.x)
        np.savez(folder / "data.npz", x=inputs, y=self.flipped.train.y)

    def theirs(self, options: WeightOptions, seed: int, folder: Path) -> tuple[Any, float]:
        """Prune the same weights with tfmot by the same schedule; return the net and its zeros."""
        from compress.model.copies import copy_model

        self.handed_over(options, seed, folder)
        subprocess.run([sys.executable, str(PEER), str(folder)], check=True)
        model = copy_model(self.dense)
        with np.load(folder / "pruned.npz") as stored:
            for layer in model.layers:
                count = len(layer.get_weights())
                layer.set_weights([stored[f"{layer.name}/{place}"] for place in range(count)])
        kernels = [w.numpy() for w in model.weights if w.path.endswith("/kernel")][1:-1]
        zeros = sum(int((kernel == 0).sum()) for kernel in kernels)
        return model, zeros / sum(k.size for k in kernels)

    def accuracy(self, model: Any, part: str) -> float:
        """Return the accuracy on a part of the data."""
        from compress.train.predict import predict_logits

        truth = self.data.split(part).y
        return self.data.task.quality(truth, predict_logits(model, self.data, part))["accuracy"]

    def as_wide(self, variant: dict[str, Any]) -> Any:
        """Return a net with the channel counts of one that Torch-Pruning made.

        Its weights are slices of the dense net.
        """
        from compress.prune.channels.analysis import analyze_coupling
        from compress.prune.channels.surgery import build_pruned_model

        coupling = analyze_coupling(self.dense)
        mask = np.ones(coupling.unit_count, bool)
        for group in coupling.groups:
            mask[group.units[variant["channels"][group.name] :]] = False
        return build_pruned_model(coupling, mask)
