"""Small networks of six families, untrained: what the benchmarks of repair prune.

All but the autoencoder map images (28, 28, 1) to ten probabilities. Sizes are chosen so that each
trains within minutes on two cores.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

IMAGE = (28, 28, 1)
CLASSES = 10
EPSILON = 1e-6
"""Of layer normalizations, as ConvNeXt and ViT have it."""


INVERTED = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""MobileNetV2's table 2, one row a stage: expansion, width, blocks, stride of the first one. The
second stage keeps its sizes here, where the paper's halves them."""


def mobilenet(alpha: float = 0.5) -> keras.Model:
    """Build MobileNetV2 with four of its five strides: 28 x 28 pixels end in 2 x 2 positions.

    Blocks, expansions and widths are those of `keras.applications.MobileNetV2`, which halves
    small images until a single position is left. Batch normalizations have Keras's default
    momentum, 0.99 (there 0.999), so that their statistics follow a short training.

    Args:
        alpha: Factor on all widths but the last, rounded to multiples of 8.

    Returns:
        A functional model named "mobilenet".

    Reference:
        Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks", table 2.
    """
    import keras

    inputs = keras.Input(IMAGE, name="image")
    x = _convolution(inputs, _eights(32 * alpha), 3, "stem", stride=2)
    x = _activated(x, "stem", top=6.0)
    for stage, (expansion, width, blocks, stride) in enumerate(INVERTED, 1):
        for block in range(1, blocks + 1):
            step = stride if block == 1 else 1
            x = _inverted_block(x, expansion, _eights(width * alpha), step, f"s{stage}b{block}")
    x = _activated(_convolution(x, max(1280, _eights(1280 * alpha)), 1, "last"), "last", top=6.0)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return _classifier(inputs, x, "mobilenet")


def _eights(width: float) -> int:
    """Return the nearest multiple of 8, at least 8 and at least 90 % of `width`."""
    near = max(8, int(width + 4) // 8 * 8)
    return near if near >= 0.9 * width else near + 8


def _inverted_block(x: Any, expansion: int, width: int, stride: int, name: str) -> Any:
    """Add expansion, depthwise convolution and a linear projection; a sum where shapes agree."""
    import keras

    shortcut = x
    if expansion > 1:
        x = _convolution(x, expansion * x.shape[-1], 1, f"{name}_expand")
        x = _activated(x, f"{name}_expand", top=6.0)
    x = keras.layers.DepthwiseConv2D(
        3,
        stride,
        "same",
        use_bias=False,
        depthwise_initializer="he_normal",
        name=f"{name}_depthwise",
    )(x)
    x = _activated(x, f"{name}_depthwise", top=6.0)
    x = _convolution(x, width, 1, f"{name}_project")
    x = keras.layers.BatchNormalization(name=f"{name}_project_bn")(x)
    if shortcut.shape == x.shape:
        x = keras.layers.Add(name=f"{name}_add")([shortcut, x])
    return x


def convnext(widths: Sequence[int] = (24, 48), blocks: int = 2) -> keras.Model:
    """Build a ConvNeXt: large depthwise kernels, layer normalization, scaled residuals.

    For small images: the stem cuts patches of 2 x 2 where the paper's cuts 4 x 4, depthwise
    kernels are 5 x 5 where the paper's are 7 x 7, and the last stage has 7 x 7 positions.

    Args:
        widths: Channels of each stage; every stage but the first begins by halving the sizes.
        blocks: Residual blocks in each stage.

    Returns:
        A functional model named "convnext".

    Reference:
        Liu et al. 2022, "A ConvNet for the 2020s", section 2 and figure 4; the scale of a
        branch: Touvron et al. 2021, "Going deeper with Image Transformers", section 2.
    """
    import keras

    inputs = keras.Input(IMAGE, name="image")
    x = keras.layers.Conv2D(widths[0], 2, 2, name="stem")(inputs)
    x = keras.layers.LayerNormalization(epsilon=EPSILON, name="stem_norm")(x)
    for stage, width in enumerate(widths, 1):
        if stage > 1:
            x = keras.layers.LayerNormalization(epsilon=EPSILON, name=f"s{stage}_norm")(x)
            x = keras.layers.Conv2D(width, 2, 2, name=f"s{stage}_down")(x)
        for block in range(1, blocks + 1):
            x = _convnext_block(x, f"s{stage}b{block}")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    x = keras.layers.LayerNormalization(epsilon=EPSILON, name="norm")(x)
    return _classifier(inputs, x, "convnext")


def _convnext_block(x: Any, name: str) -> Any:
    """Add depthwise convolution, normalization, two Dense at every position, scale and sum."""
    import keras

    # no public name; it is the layer that keras.applications.ConvNeXt* consist of
    from keras.src.applications.convnext import LayerScale

    shortcut, width = x, x.shape[-1]
    x = keras.layers.DepthwiseConv2D(5, padding="same", name=f"{name}_depthwise")(x)
    x = keras.layers.LayerNormalization(epsilon=EPSILON, name=f"{name}_norm")(x)
    x = keras.layers.Dense(4 * width, name=f"{name}_expand")(x)
    x = keras.layers.Activation("gelu", name=f"{name}_gelu")(x)
    x = keras.layers.Dense(width, name=f"{name}_project")(x)
    x = LayerScale(0.1, width, name=f"{name}_scale")(x)
    return keras.layers.Add(name=f"{name}_add")([shortcut, x])


def vit(
    width: int = 48, blocks: int = 3, heads: int = 4, hidden: int = 192, patch: int = 4
) -> keras.Model:
    """Build a vision transformer: patches, learned positions, attention, no class token.

    Positions are averaged in the end, as Beyer et al. 2022 ("Better plain ViT baselines for
    ImageNet-1k") do. The embedding of patches has a bias of its own at every position: it is
    the learned position embedding of the paper's equation 1, z = x E + E_pos.

    Args:
        width: Of a patch's embedding.
        blocks: Of attention and a hidden layer each.
        heads: Attention heads; each is `width` / `heads` wide.
        hidden: Width of the hidden layer.
        patch: Height and width of a patch; the image's are multiples of it.

    Returns:
        A functional model named "vit".

    Reference:
        Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", section 3.1.
    """
    import keras

    side = IMAGE[0] // patch
    inputs = keras.Input(IMAGE, name="image")
    x = keras.layers.Reshape((side, patch, side, patch), name="cut")(inputs)
    x = keras.layers.Permute((1, 3, 2, 4), name="patches")(x)
    x = keras.layers.Reshape((side * side, patch * patch), name="sequence")(x)
    x = keras.layers.EinsumDense(
        "bpi,io->bpo", (side * side, width), bias_axes="po", bias_initializer=_small(), name="embed"
    )(x)
    for block in range(1, blocks + 1):
        x = _transformer_block(x, heads, hidden, f"b{block}")
    x = keras.layers.LayerNormalization(epsilon=EPSILON, name="norm")(x)
    x = keras.layers.GlobalAveragePooling1D(name="pool")(x)
    return _classifier(inputs, x, "vit")


def _small() -> Any:
    """Return the initializer of position embeddings, as in BERT and ViT."""
    import keras

    return keras.initializers.TruncatedNormal(stddev=0.02)


def _transformer_block(x: Any, heads: int, hidden: int, name: str) -> Any:
    """Add attention and a hidden layer, each behind its normalization, each onto its input."""
    import keras

    width = x.shape[-1]
    normed = keras.layers.LayerNormalization(epsilon=EPSILON, name=f"{name}_norm1")(x)
    mixed = keras.layers.MultiHeadAttention(heads, width // heads, name=f"{name}_attention")(
        normed, normed
    )
    x = keras.layers.Add(name=f"{name}_add1")([x, mixed])
    y = keras.layers.LayerNormalization(epsilon=EPSILON, name=f"{name}_norm2")(x)
    y = keras.layers.Dense(hidden, name=f"{name}_expand")(y)
    y = keras.layers.Activation("gelu", name=f"{name}_gelu")(y)
    y = keras.layers.Dense(width, name=f"{name}_project")(y)
    return keras.layers.Add(name=f"{name}_add2")([x, y])


def densenet(growth: int = 12, blocks: int = 3, layers: int = 4) -> keras.Model:
    """Build a DenseNet: every layer of a block reads all that were before it.

    For small images: the stem's pooling leaves 14 x 14 positions to the first block, the last
    has 3 x 3. A transition halves channels and sizes.

    Args:
        growth: Channels that a layer adds.
        blocks: Dense blocks, with a transition between two.
        layers: BN-ReLU-Conv layers in each.

    Returns:
        A functional model named "densenet".

    Reference:
        Huang et al. 2017, "Densely Connected Convolutional Networks", section 3 (theta = 0.5,
        no bottlenecks).
    """
    import keras

    inputs = keras.Input(IMAGE, name="image")
    x = _convolution(inputs, 16, 3, "stem")
    x = keras.layers.MaxPooling2D(2, name="stem_pool")(x)
    for block in range(1, blocks + 1):
        if block > 1:
            x = _activated(x, f"t{block}")
            x = _convolution(x, x.shape[-1] // 2, 1, f"t{block}_conv")
            x = keras.layers.AveragePooling2D(2, name=f"t{block}_pool")(x)
        for layer in range(1, layers + 1):
            name = f"d{block}l{layer}"
            new = _convolution(_activated(x, name), growth, 3, f"{name}_conv")
            x = keras.layers.Concatenate(name=f"{name}_concat")([x, new])
    x = _activated(x, "last")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return _classifier(inputs, x, "densenet")


def separable(widths: Sequence[int] = (12, 20, 28)) -> keras.Model:
    """Build a MobileNetV1 of 2,000 parameters: convolutions by channel, then over channels.

    Args:
        widths: Of the blocks; the first two halve the sizes.

    Returns:
        A functional model named "separable".

    Reference:
        Howard et al. 2017, "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision
        Applications", section 3.
    """
    import keras

    inputs = keras.Input(IMAGE, name="image")
    x = _activated(_convolution(inputs, 8, 3, "stem", stride=2), "stem", top=6.0)
    for block, width in enumerate(widths, 1):
        x = keras.layers.DepthwiseConv2D(
            3, 2 if block < len(widths) else 1, "same", use_bias=False, name=f"b{block}_depthwise"
        )(x)
        x = _activated(x, f"b{block}_depthwise", top=6.0)
        x = _activated(_convolution(x, width, 1, f"b{block}_point"), f"b{block}_point", top=6.0)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return _classifier(inputs, x, "separable")


def _activated(x: Any, name: str, top: float | None = None) -> Any:
    """Add a batch normalization and a ReLU, which cuts at `top`."""
    import keras

    x = keras.layers.BatchNormalization(name=f"{name}_bn")(x)
    return keras.layers.ReLU(top, name=f"{name}_relu")(x)


def _convolution(x: Any, width: int, size: int, name: str, stride: int = 1) -> Any:
    """Add a convolution without bias."""
    import keras

    return keras.layers.Conv2D(
        width, size, stride, "same", use_bias=False, kernel_initializer="he_normal", name=name
    )(x)


def lstm(units: Sequence[int] = (96, 64)) -> keras.Model:
    """Build an LSTM classifier that reads an image row by row, from the top.

    Args:
        units: Of each LSTM layer; all but the last pass on their whole sequence.

    Returns:
        A functional model named "lstm".

    Reference:
        Hochreiter & Schmidhuber 1997, "Long Short-Term Memory"; images as sequences of pixels:
        Le et al. 2015, "A Simple Way to Initialize Recurrent Networks of Rectified Linear
        Units", section 4.2.
    """
    import keras

    inputs = keras.Input(IMAGE, name="image")
    x = keras.layers.Reshape(IMAGE[:2], name="rows")(inputs)
    for place, count in enumerate(units, 1):
        x = keras.layers.LSTM(count, return_sequences=place < len(units), name=f"lstm{place}")(x)
    x = keras.layers.Dense(64, "relu", name="hidden")(x)
    return _classifier(inputs, x, "lstm")


def autoencoder(widths: Sequence[int] = (24, 48), code: int = 8) -> keras.Model:
    """Build a convolutional autoencoder: strided convolutions down, transposed ones up.

    Args:
        widths: Channels of each size; each halves height and width.
        code: Channels of the code in the middle, 7 x 7 positions: half as many numbers as pixels.

    Returns:
        A functional model named "autoencoder": image -> image, no labels.

    Reference:
        Masci et al. 2011, "Stacked Convolutional Auto-Encoders for Hierarchical Feature
        Extraction", section 3; here strides take the place of max-pooling.
    """
    import keras

    options = {"padding": "same", "kernel_initializer": "he_normal"}
    inputs = keras.Input(IMAGE, name="image")
    x = inputs
    for place, width in enumerate(widths, 1):
        x = keras.layers.Conv2D(width, 3, 2, activation="relu", name=f"down{place}", **options)(x)
    x = keras.layers.Conv2D(code, 3, name="code", **options)(x)
    for place, width in reversed(list(enumerate(widths, 1))):
        x = keras.layers.Conv2DTranspose(
            width, 3, 2, activation="relu", name=f"up{place}", **options
        )(x)
    outputs = keras.layers.Conv2D(IMAGE[-1], 3, name="pixels", **options)(x)
    return keras.Model(inputs, outputs, name="autoencoder")


def _classifier(inputs: Any, features: Any, name: str) -> keras.Model:
    """Return the model that ends in Dense and Softmax."""
    import keras

    x = keras.layers.Dense(CLASSES, name="logits")(features)
    return keras.Model(inputs, keras.layers.Softmax(name="softmax")(x), name=name)
