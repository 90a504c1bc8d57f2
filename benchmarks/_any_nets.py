"""Untrained networks with inputs, outputs and losses of many kinds, and their data.

Labels are exact. Scenes and halves are made of Fashion-MNIST's images, the test part of its test
images alone; characters are those of Python's standard library; series come from files of the
package aeon.
"""

from __future__ import annotations

import io
import keyword
import sysconfig
import tokenize
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError

if TYPE_CHECKING:
    import keras

CLASSES = 10
SIZE = 48
"""Height and width of scenes."""
VISIBLE = 25
"""Grey value, of 255, from which a pixel belongs to a thing."""
KINDS = ("other", "keyword", "name", "number", "string", "comment", "operator")
"""What a character of a program is part of."""
NOISE = 0.09
"""The most that the ground has: less than what is visible."""
WINDOW = 64
"""Characters of an example."""
Array = npt.NDArray[Any]


def unet(widths: tuple[int, ...] = (8, 16, 32)) -> keras.Model:
    """Build a U-Net: scene -> class of each pixel.

    Args:
        widths: Channels of each size, the whole scene's first.

    Reference:
        Ronneberger et al. 2015, "U-Net", figure 1; here padded and with batch normalization.
    """
    import keras

    inputs = x = keras.Input((SIZE, SIZE, 1), name="scene")
    skips = []
    for place, width in enumerate(widths):
        if place:
            x = keras.layers.MaxPooling2D(name=f"down{place}")(x)
        x = _twice(x, width, f"in{place}")
        skips.append(x)
    for place in reversed(range(len(widths) - 1)):
        x = keras.layers.Conv2DTranspose(widths[place], 2, 2, name=f"up{place}")(x)
        x = keras.layers.Concatenate(name=f"skip{place}")([skips[place], x])
        x = _twice(x, widths[place], f"out{place}")
    x = keras.layers.Conv2D(1 + CLASSES, 1, activation="softmax", name="masks")(x)
    return keras.Model(inputs, x, name="unet")


def _twice(x: Any, width: int, name: str) -> Any:
    for number in (1, 2):
        x = _convolved(x, width, f"{name}_{number}")
    return x


def _convolved(x: Any, width: int, name: str, stride: int = 1) -> Any:
    import keras

    x = keras.layers.Conv2D(
        width, 3, stride, padding="same", use_bias=False, kernel_initializer="he_normal", name=name
    )(x)
    x = keras.layers.BatchNormalization(momentum=0.9, name=f"{name}_bn")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x)


def giou_loss(y: Any, made: Any) -> Any:
    """Return 1 - GIoU of boxes (top, left, bottom, right), (n,).

    Reference:
        Rezatofighi et al. 2019, "Generalized Intersection over Union", algorithm 1.
    """
    import tensorflow as tf

    overlap, union = _areas(y, made)
    corner = tf.maximum(y[..., 2:], made[..., 2:]) - tf.minimum(y[..., :2], made[..., :2])
    hull = tf.maximum(tf.reduce_prod(tf.maximum(corner, 0.0), -1), 1e-6)
    return 1.0 - overlap / union + (hull - union) / hull


def box_iou(y: Any, made: Any) -> Any:
    """Return the intersection over union of boxes, (n,)."""
    overlap, union = _areas(y, made)
    return overlap / union


def _areas(y: Any, made: Any) -> tuple[Any, Any]:
    import tensorflow as tf

    y = tf.cast(y, made.dtype)

    def area(box: Any) -> Any:
        return tf.reduce_prod(tf.maximum(box[..., 2:] - box[..., :2], 0.0), -1)

    near = tf.maximum(y[..., :2], made[..., :2])
    far = tf.minimum(y[..., 2:], made[..., 2:])
    overlap = tf.reduce_prod(tf.maximum(far - near, 0.0), -1)
    return overlap, tf.maximum(area(y) + area(made) - overlap, 1e-6)


def detector() -> keras.Model:
    """Build scene -> class of the thing, and its box; compiled with `giou_loss` for the box."""
    import keras

    inputs = x = keras.Input((SIZE, SIZE, 1), name="scene")
    for place, (width, stride) in enumerate([(16, 2), (32, 1), (32, 2), (64, 1), (64, 2)]):
        x = _convolved(x, width, f"conv{place}", stride)
    x = keras.layers.Flatten(name="flat")(x)
    x = keras.layers.Dense(64, activation="relu", name="shared")(x)
    kind = keras.layers.Dense(CLASSES, activation="softmax", name="class")(x)
    box = keras.layers.Dense(64, activation="relu", name="where")(x)
    box = keras.layers.Dense(4, activation="sigmoid", name="box")(box)
    return keras.Model(inputs, {"class": kind, "box": box}, name="detector")


def two_inputs() -> keras.Model:
    """Build (image, table) -> class: a convolutional and a dense branch, then both together."""
    import keras

    image = keras.Input((14, 28, 1), name="image")
    table = keras.Input((28,), name="table")
    x = _convolved(image, 16, "conv0")
    x = _convolved(x, 32, "conv1", 2)
    x = _convolved(x, 32, "conv2", 2)
    x = keras.layers.Flatten(name="flat")(x)
    t = keras.layers.Dense(64, activation="relu", name="table1")(table)
    t = keras.layers.Dense(64, activation="relu", name="table2")(t)
    x = keras.layers.Concatenate(name="both")([x, t])
    x = keras.layers.Dense(64, activation="relu", name="joined")(x)
    x = keras.layers.Dense(CLASSES, activation="softmax", name="class")(x)
    return keras.Model({"image": image, "table": table}, x, name="two_inputs")


def heads() -> keras.Model:
    """Build image -> class, and four numbers: a residual trunk with a head each."""
    import keras

    inputs = x = keras.Input((28, 28, 1), name="image")
    x = _convolved(x, 16, "stem")
    for place, width in enumerate((16, 32)):
        short = x if not place else keras.layers.Conv2D(width, 1, 2, name="short")(x)
        x = _convolved(x, width, f"block{place}_1", 1 + bool(place))
        x = _convolved(x, width, f"block{place}_2")
        x = keras.layers.Add(name=f"sum{place}")([short, x])
    x = _convolved(x, 64, "last", 2)
    kind = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    kind = keras.layers.Dense(CLASSES, activation="softmax", name="class")(kind)
    ink = keras.layers.Flatten(name="flat")(x)
    ink = keras.layers.Dense(32, activation="relu", name="ink1")(ink)
    return keras.Model(
        inputs, {"class": kind, "ink": keras.layers.Dense(4, name="ink")(ink)}, name="heads"
    )


def lstm(steps: int = 29, channels: int = 12, classes: int = 9) -> keras.Model:
    """Build a series -> class by two layers of LSTM."""
    import keras

    inputs = keras.Input((steps, channels), name="series")
    x = keras.layers.LSTM(48, return_sequences=True, name="lstm1")(inputs)
    x = keras.layers.LSTM(48, name="lstm2")(x)
    x = keras.layers.Dense(classes, activation="softmax", name="class")(x)
    return keras.Model(inputs, x, name="lstm")


def conv1d(steps: int = 100, channels: int = 6, classes: int = 4) -> keras.Model:
    """Build a series -> class by three convolutions over time.

    Reference:
        Wang et al. 2017, "Time Series Classification from Scratch", the FCN; here thinner.
    """
    import keras

    inputs = x = keras.Input((steps, channels), name="series")
    for place, (width, kernel) in enumerate([(32, 8), (64, 5), (32, 3)]):
        x = keras.layers.Conv1D(width, kernel, padding="same", name=f"conv{place}")(x)
        x = keras.layers.BatchNormalization(momentum=0.9, name=f"bn{place}")(x)
        x = keras.layers.ReLU(name=f"relu{place}")(x)
    x = keras.layers.GlobalAveragePooling1D(name="pool")(x)
    x = keras.layers.Dense(classes, activation="softmax", name="class")(x)
    return keras.Model(inputs, x, name="conv1d")


def tokens() -> keras.Model:
    """Build the codes of characters -> the kind of each (`KINDS`)."""
    import keras

    inputs = keras.Input((WINDOW,), name="codes")
    x = keras.layers.Embedding(128, 32, name="embedding")(inputs)
    for place, dilation in enumerate((1, 2, 4, 8)):
        x = keras.layers.Conv1D(
            64, 5, padding="same", dilation_rate=dilation, activation="relu", name=f"conv{place}"
        )(x)
    x = keras.layers.Dense(len(KINDS), activation="softmax", name="kinds")(x)
    return keras.Model(inputs, x, name="tokens")


def hub_vit() -> keras.Model:
    """Build KerasHub's ViT classifier for images 28 x 28 in patches of 4."""
    import keras_hub

    backbone = keras_hub.models.ViTBackbone(
        image_shape=(28, 28, 1), patch_size=(4, 4), num_layers=4, num_heads=4, hidden_dim=64,
        mlp_dim=128,
    )  # fmt: skip
    return keras_hub.models.ViTImageClassifier(
        backbone, CLASSES, activation="softmax", name="hub_vit"
    )


def hub_hgnet() -> keras.Model:
    """Build KerasHub's HGNetV2 classifier for images 28 x 28, three stages."""
    import keras_hub

    backbone = keras_hub.models.HGNetV2Backbone(
        image_shape=(28, 28, 1), depths=[1, 1, 1], embedding_size=16, hidden_sizes=[32, 64, 128],
        stem_channels=[1, 16, 16], hidden_act="relu", use_learnable_affine_block=False,
        stackwise_stage_filters=[
            [16, 16, 32, 1, 3, 3], [32, 24, 64, 1, 3, 3], [64, 32, 128, 1, 3, 3],
        ],
        apply_downsample=[False, True, True],
        use_lightweight_conv_block=[False, False, False],
    )  # fmt: skip
    return keras_hub.models.HGNetV2ImageClassifier(
        backbone, None, CLASSES, activation="softmax", name="hub_hgnet"
    )


class Parts(NamedTuple):
    """Training, validation and test part: (x, y) each, as `fit` takes them."""

    train: tuple[Any, Any]
    val: tuple[Any, Any]
    test: tuple[Any, Any]


def fashion(train: int, val: int, seed: int = 0) -> list[tuple[Array, Array]]:
    """Return images (n, 28, 28), uint8, with classes: to train, to select, and all tests."""
    from compress.data import keras_datasets

    raw = keras_datasets.load_keras_dataset("fashion_mnist")
    assert raw.test is not None
    order = np.random.default_rng(seed).permutation(len(raw.train.x))
    chosen = [order[:train], order[train : train + val]]
    parts = [(raw.train.x[rows], raw.train.y[rows]) for rows in chosen]
    return [(x[..., 0], y) for x, y in [*parts, (raw.test.x, raw.test.y)]]


def _each(train: int, val: int, test: int, make: Any) -> Parts:
    """Return the three parts, each made of other images of Fashion-MNIST."""
    found = []
    for seed, ((x, y), count) in enumerate(zip(fashion(20_000, 5_000), (train, val, test),
                                               strict=True)):  # fmt: skip
        found.append(make(x, y, count, np.random.default_rng(seed)))
    return Parts(*found)


def images(train: int = 8_000, val: int = 2_000) -> Parts:
    """Return Fashion-MNIST, (n, 28, 28, 1) in [0, 1], with classes."""
    return Parts(*((_grey(x), y) for x, y in fashion(train, val)))


def returned() -> Parts:
    """Return images as inputs and targets, for an autoencoder."""
    return Parts(*((x, x) for x, _ in images()))


def _grey(x: Array) -> Array:
    return (x[..., None] / 255).astype(np.float32)


def halves(train: int = 8_000, val: int = 2_000) -> Parts:
    """Return the upper half of an image, and the lower one as a table of its columns' means."""
    return Parts(*(
        ({"image": _grey(x[:, :14]), "table": (x[:, 14:].mean(1) / 255).astype(np.float32)}, y)
        for x, y in fashion(train, val)
    ))  # fmt: skip


def traits(train: int = 8_000, val: int = 2_000) -> Parts:
    """Return images with their class, and four numbers to predict.

    Mean and deviation of the grey values, and the row and column of their centre, each less its
    mean over its deviation in the training part.
    """
    parts = fashion(train, val)
    numbers = [_traits_of(x) for x, _ in parts]
    mean, deviation = numbers[0].mean(0), numbers[0].std(0)
    return Parts(*(
        (_grey(x), {"class": y, "ink": ((own - mean) / deviation).astype(np.float32)})
        for (x, y), own in zip(parts, numbers, strict=True)
    ))  # fmt: skip


def _traits_of(x: Array) -> Array:
    values = x / 255
    ink = np.maximum(values.sum((1, 2)), 1e-6)
    places = np.arange(x.shape[1])
    rows, columns = values.sum(2) @ places / ink, values.sum(1) @ places / ink
    return np.stack([values.mean((1, 2)), values.std((1, 2)), rows, columns], axis=1)


def scenes(train: int = 3_000, val: int = 500, test: int = 1_000) -> Parts:
    """Return scenes of two things, which may overlap, and the class of each pixel.

    Shapes: x (n, 48, 48, 1) in [0, 1] with noise; y (n, 48, 48), 0 for the ground, 1 + class.
    """

    def make(x: Array, y: Array, count: int, rng: np.random.Generator) -> tuple[Array, Array]:
        ground = rng.uniform(0, NOISE, (count, SIZE, SIZE))
        labels = np.zeros((count, SIZE, SIZE), np.int64)
        for scene, masks in zip(ground, labels, strict=True):
            for which in rng.integers(len(x), size=2):
                top, left = rng.integers(SIZE - 28 + 1, size=2)
                seen = x[which] >= VISIBLE
                area = (slice(top, top + 28), slice(left, left + 28))
                scene[area][seen] = x[which][seen] / 255
                masks[area][seen] = 1 + y[which]
        return ground[..., None].astype(np.float32), labels

    return _each(train, val, test, make)


def objects(train: int = 8_000, val: int = 1_000, test: int = 3_000) -> Parts:
    """Return scenes of one thing of any size, its class, and its box.

    Shapes: x (n, 48, 48, 1) in [0, 1] with noise; class (n,); box (n, 4): top, left, bottom, right
    as shares of the scene, of the pixels that are seen.
    """
    from PIL import Image

    def make(x: Array, y: Array, count: int, rng: np.random.Generator) -> tuple[Array, Any]:
        ground = rng.uniform(0, NOISE, (count, SIZE, SIZE))
        boxes = np.zeros((count, 4), np.float32)
        chosen = rng.integers(len(x), size=count)
        for place, which in enumerate(chosen):
            size = int(rng.integers(16, 41))
            thing = np.asarray(Image.fromarray(x[which]).resize((size, size)))
            top, left = rng.integers(SIZE - size + 1, size=2)
            seen = thing >= VISIBLE
            area = (slice(top, top + size), slice(left, left + size))
            ground[place][area][seen] = thing[seen] / 255
            rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
            boxes[place] = (
                np.array([top + rows[0], left + columns[0], top + rows[-1] + 1,
                          left + columns[-1] + 1]) / SIZE
            )  # fmt: skip
        return ground[..., None].astype(np.float32), {"class": y[chosen], "box": boxes}

    return _each(train, val, test, make)


def characters(train: int = 8_000, val: int = 1_000, test: int = 3_000) -> Parts:
    """Return windows of Python's standard library, and the kind of each character (`KINDS`).

    The parts are of different files. Shapes: x (n, 64) codes below 128; y (n, 64), see `KINDS`.
    """
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    codes: list[list[Array]] = [[], [], []]
    for place, file in enumerate(files):
        part = (0, 0, 0, 0, 0, 0, 1, 2, 2, 2)[place % 10]
        found = _windows(file.read_text("utf-8"))
        if found is not None:
            codes[part].append(found)
    parts = []
    for seed, (held, count) in enumerate(zip(codes, (train, val, test), strict=True)):
        windows = np.concatenate(held)
        chosen = np.random.default_rng(seed).permutation(len(windows))[:count]
        parts.append((windows[chosen, 0].astype(np.float32), windows[chosen, 1]))
    return Parts(*parts)


def _windows(text: str) -> Array | None:
    """Return codes and kinds of a program's characters, (n, 2, 64); None: it is no program."""
    lines = text.splitlines(keepends=True)
    starts = np.concatenate([[0], np.cumsum([len(line) for line in lines])])
    kinds = np.zeros(len(text), np.int64)
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            begin, end = (int(starts[row - 1]) + column for row, column in (token.start, token.end))
            kinds[begin:end] = _kind(token)
    except (tokenize.TokenError, SyntaxError):
        return None
    codes = np.array([min(ord(character), 127) for character in text], np.int64)
    count = len(text) // WINDOW
    both = np.stack([codes[: count * WINDOW], kinds[: count * WINDOW]])
    return both.reshape(2, count, WINDOW).swapaxes(0, 1)


def _kind(token: tokenize.TokenInfo) -> int:
    if token.type == tokenize.NAME:
        return 1 if keyword.iskeyword(token.string) else 2
    kinds = {
        tokenize.NUMBER: 3, tokenize.STRING: 4, tokenize.COMMENT: 5, tokenize.OP: 6,
        # parts of f-strings are tokens from Python 3.12 on
        getattr(tokenize, "FSTRING_START", -1): 4, getattr(tokenize, "FSTRING_MIDDLE", -1): 4,
        getattr(tokenize, "FSTRING_END", -1): 4,
    }  # fmt: skip
    return kinds.get(token.type, 0)


def series(name: str, seed: int, aeon: str) -> Parts:
    """Return a set of series that aeon brings, split anew: 60 % to train, 15 and 25 %.

    Args:
        name: "JapaneseVowels" or "BasicMotions".
        seed: Of the split, stratified by class.
        aeon: The package's wheel: `pip download aeon --no-deps`.

    Shapes: x (n, steps, channels), shorter ones filled up with zeros; y (n,).
    """
    from sklearn.model_selection import train_test_split

    x, y = _all_series(name, aeon)
    rest, tests = train_test_split(np.arange(len(y)), test_size=0.25, random_state=seed, stratify=y)
    learns, val = train_test_split(rest, test_size=0.2, random_state=seed, stratify=y[rest])
    mean, deviation = x[learns].mean((0, 1)), x[learns].std((0, 1))
    x = ((x - mean) / deviation).astype(np.float32)
    return Parts(*((x[rows], y[rows]) for rows in (learns, val, tests)))


def _all_series(name: str, aeon: str) -> tuple[Array, Array]:
    if not Path(aeon).is_file():
        raise InputError(
            "--aeon must be the wheel of the package aeon, whose files are read. Received: "
            f"'{aeon}'. Get it: pip download aeon --no-deps"
        )
    read, labels = [], []
    with zipfile.ZipFile(aeon) as wheel:
        for part in ("TRAIN", "TEST"):
            text = wheel.read(f"aeon/datasets/data/{name}/{name}_{part}.ts").decode()
            for line in text.splitlines():
                if line and not line.startswith(("@", "#")):
                    *channels, label = line.split(":")
                    read.append(np.array([np.fromstring(one, sep=",") for one in channels]).T)
                    labels.append(label)
    steps = max(map(len, read))
    x = np.stack([np.pad(one, ((0, steps - len(one)), (0, 0))) for one in read])
    return x, np.unique(labels, return_inverse=True)[1].astype(np.int64)
