"""Networks of many kinds, untrained: several inputs, several outputs, losses of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks._any_data import KINDS, SIZE, WINDOW

if TYPE_CHECKING:
    import keras

CLASSES = 10


def unet(widths: tuple[int, ...] = (8, 16, 32)) -> keras.Model:
    """Builds a U-Net: scene -> class of each pixel.

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
    """Returns 1 - GIoU of boxes (top, left, bottom, right), (n,).

    Reference:
        Rezatofighi et al. 2019, "Generalized Intersection over Union", algorithm 1.
    """
    import tensorflow as tf

    overlap, union = _areas(y, made)
    corner = tf.maximum(y[..., 2:], made[..., 2:]) - tf.minimum(y[..., :2], made[..., :2])
    hull = tf.maximum(tf.reduce_prod(tf.maximum(corner, 0.0), -1), 1e-6)
    return 1.0 - overlap / union + (hull - union) / hull


def box_iou(y: Any, made: Any) -> Any:
    """Returns the intersection over union of boxes, (n,)."""
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
    """Builds scene -> class of the thing, and its box; compiled with `giou_loss` for the box."""
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
    """Builds (image, table) -> class: a convolutional and a dense branch, then both together."""
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
    """Builds image -> class, and four numbers: a residual trunk with a head each."""
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
    """Builds a series -> class by two layers of LSTM."""
    import keras

    inputs = keras.Input((steps, channels), name="series")
    x = keras.layers.LSTM(48, return_sequences=True, name="lstm1")(inputs)
    x = keras.layers.LSTM(48, name="lstm2")(x)
    x = keras.layers.Dense(classes, activation="softmax", name="class")(x)
    return keras.Model(inputs, x, name="lstm")


def conv1d(steps: int = 100, channels: int = 6, classes: int = 4) -> keras.Model:
    """Builds a series -> class by three convolutions over time.

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
    """Builds the codes of characters -> what each is part of."""
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
    """Builds KerasHub's ViT classifier for images 28 x 28 in patches of 4."""
    import keras_hub

    backbone = keras_hub.models.ViTBackbone(
        image_shape=(28, 28, 1), patch_size=(4, 4), num_layers=4, num_heads=4, hidden_dim=64,
        mlp_dim=128,
    )  # fmt: skip
    return keras_hub.models.ViTImageClassifier(
        backbone, CLASSES, activation="softmax", name="hub_vit"
    )


def hub_hgnet() -> keras.Model:
    """Builds KerasHub's HGNetV2 classifier for images 28 x 28, three stages."""
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
