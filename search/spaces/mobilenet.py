"""Mobile networks: inverted residuals with depthwise convolutions and squeeze-excite."""

from __future__ import annotations

from typing import Any

from compress.core.lazy_modules import keras
from compress.data import Dataset
from search.spaces._base import (
    Choice,
    Chosen,
    ShapeTensor,
    declare_categorical,
    declare_float,
    declare_int,
)
from search.spaces._blocks import (
    MIN_STRIDED_SIZE,
    ImageSpace,
    add_shortcut,
    apply_classifier,
    apply_conv,
    apply_depthwise,
    find_max_stages,
    round_channels,
)

WIDTHS = (16, 24, 40, 80, 160)
"""Channels of each stage at width multiplier 1, as in MobileNetV3."""
MAX_STAGES = len(WIDTHS)
MULTIPLIERS = (0.25, 0.5, 0.75, 1.0, 1.5)
EXPANSIONS = (1, 3, 4, 6)
MAX_BLOCKS = 3
TOP_WIDTHS = (0, 64, 128, 256)
"""Channels of the last 1 x 1 convolution; 0: no such convolution."""
SQUEEZE = 4
"""Factor by which squeeze-excite reduces the number of channels."""
ALWAYS_STRIDED_SIZE = 64
"""Minimum pixels per side of an image for which the stem always halves the resolution."""


class MobileNet(ImageSpace):
    """stem -> stages of inverted residuals -> 1 x 1 convolution -> global average -> softmax.

    All stages but the first halve the resolution. Choices: number of stages; width multiplier of
    stem and stages, for 16, 24, 40, 80, 160 channels; activation; squeeze-excite in all blocks or
    none; stride of the stem; per stage the number of blocks (1 to 3), their expansion (1, 3, 4 or
    6) and depthwise kernel (3 or 5); channels of the last 1 x 1 convolution, or none; dropout
    before the classifier.

    Reference:
        Sandler et al. 2018, "MobileNetV2"; Howard et al. 2019, "Searching for MobileNetV3"
        (hard-swish, squeeze-excite with a hard sigmoid). Deviations: one activation for
        all layers; squeeze-excite always reduces to a quarter of the expanded channels.
    """

    name = "mobilenet"

    def list_stem_strides(self, data: Dataset) -> tuple[int, ...]:
        """Return the possible strides of the stem at this resolution."""
        size = min(data.input_shape[:2])
        if size >= ALWAYS_STRIDED_SIZE:
            return (2,)
        return (1, 2) if size >= MIN_STRIDED_SIZE else (1,)

    def get_max_stages(self, data: Dataset) -> int:
        """Return the maximum number of stages for the resolution after the stem, 1 to 5."""
        return find_max_stages(data, max(self.list_stem_strides(data)), MAX_STAGES)

    def baseline(self, data: Dataset) -> dict[str, Any]:
        """Return MobileNetV2-like blocks: expansion 4, 3 x 3, ReLU6, in all possible stages."""
        stages = self.get_max_stages(data)
        choices: dict[str, Any] = {
            "stages": stages,
            "width": 1.0,
            "activation": "relu6",
            "squeeze": False,
            "stem.stride": max(self.list_stem_strides(data)),
            "top.width": 0,
            "dropout": 0.0,
        }
        for stage in range(1, stages + 1):
            choices |= {
                f"stage{stage}.blocks": 1 if stage == 1 else 2,
                f"stage{stage}.expansion": 1 if stage == 1 else 4,
                f"stage{stage}.kernel": 3,
            }
        return choices

    def choices(self, data: Dataset) -> tuple[Choice, ...]:
        """See `DeclaredSpace.choices`."""
        stages, strides = self.get_max_stages(data), self.list_stem_strides(data)
        declared = [
            declare_int("stages", 1, stages),
            declare_categorical("width", MULTIPLIERS),
            # the activation does not affect MACs, so either value is valid as least and most
            declare_categorical("activation", ("relu6", "hard_swish"), least="relu6", most="relu6"),
            declare_categorical("squeeze", (False, True)),
            declare_categorical("stem.stride", strides, least=max(strides), most=min(strides)),
        ]
        for stage in range(1, stages + 1):
            condition = ("stages", tuple(range(stage, stages + 1)))
            declared += [
                declare_int(f"stage{stage}.blocks", 1, MAX_BLOCKS, condition),
                declare_categorical(f"stage{stage}.expansion", EXPANSIONS, condition),
                declare_categorical(f"stage{stage}.kernel", (3, 5), condition),
            ]
        return (
            *declared,
            declare_categorical("top.width", TOP_WIDTHS),
            declare_float("dropout", 0.4, 0.1),
        )

    def net(self, x: Any, chosen: Chosen, data: Dataset) -> Any:
        """See `DrawnSpace.net`."""
        activation = chosen["activation"]
        stem = round_channels(WIDTHS[0] * chosen["width"])
        x = apply_conv(x, "stem", stem, 3, chosen["stem.stride"], activation)
        for stage in range(1, chosen["stages"] + 1):
            for index in range(chosen[f"stage{stage}.blocks"]):
                x = _apply_block(x, stage, index, chosen)
        if chosen["top.width"]:
            x = apply_conv(x, "top", chosen["top.width"], 1, activation=activation)
        return apply_classifier(x, chosen["dropout"], data.task)


def _apply_block(x: Any, stage: int, index: int, chosen: Chosen) -> Any:
    """Apply an inverted residual: expand, depthwise, squeeze-excite, project, add."""
    name, activation = f"stage{stage}_block{index + 1}", chosen["activation"]
    width = round_channels(WIDTHS[stage - 1] * chosen["width"])
    expansion, kernel = chosen[f"stage{stage}.expansion"], chosen[f"stage{stage}.kernel"]
    stride = 2 if stage > 1 and index == 0 else 1
    y = x
    if expansion > 1:
        y = apply_conv(y, f"{name}_expand", x.shape[-1] * expansion, 1, activation=activation)
    y = apply_depthwise(y, f"{name}_depthwise", kernel, stride, activation)
    if chosen["squeeze"]:
        y = _apply_squeeze_excite(y, name)
    y = apply_conv(y, name, width, 1, activation="")
    if stride == 1 and x.shape[-1] == width:
        y = add_shortcut(x, y, name)
    return y


def _apply_squeeze_excite(x: Any, name: str) -> Any:
    """Scale each channel by a factor in [0, 1] that is computed from the means of all channels.

    Reference:
        Hu et al. 2018, "Squeeze-and-Excitation Networks", equations 2 to 4; with a hard sigmoid.
    """
    name, channels = f"{name}_se", x.shape[-1]
    if isinstance(x, ShapeTensor):
        squeezed = x.apply_average(keep_axes=True).apply_conv(
            round_channels(channels / SQUEEZE), 1, 1, bias=True
        )
        squeezed.apply_conv(channels, 1, 1, bias=True)
        return x

    y = keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_pool")(x)  # (B, 1, 1, C)
    y = keras.layers.Conv2D(round_channels(channels / SQUEEZE), 1, name=f"{name}_reduce")(y)
    y = keras.layers.ReLU(name=f"{name}_relu")(y)
    y = keras.layers.Conv2D(channels, 1, name=f"{name}_excite")(y)
    y = keras.layers.Activation("hard_sigmoid", name=f"{name}_gate")(y)
    return keras.layers.Multiply(name=f"{name}_scale")([x, y])


SPACE = MobileNet()
