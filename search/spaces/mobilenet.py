"""Mobile networks: inverted residuals with depthwise convolutions and squeeze-excite."""

from __future__ import annotations

from typing import Any

from compress.core.lazy_modules import keras
from compress.data import Dataset
from search.spaces._base import Choice, Chosen, Sketch, pick, steps, whole
from search.spaces._blocks import (
    STRIDE_FROM,
    ImageSpace,
    add,
    classify,
    conv,
    depthwise,
    multiple_of_8,
    stages_within,
)

WIDTHS = (16, 24, 40, 80, 160)
"""Channels of each stage at width 1, as in MobileNetV3."""
MAX_STAGES = len(WIDTHS)
MULTIPLIERS = (0.25, 0.5, 0.75, 1.0, 1.5)
EXPANSIONS = (1, 3, 4, 6)
MAX_BLOCKS = 3
TOPS = (0, 64, 128, 256)
"""Channels of the last 1 x 1 convolution; 0: there is none."""
SQUEEZE = 4
"""Squeeze-excite looks at this many times fewer numbers than there are channels."""
STRIDED_FROM = 64
"""Images of at least this many pixels a side are always halved by the stem."""


class MobileNet(ImageSpace):
    """stem -> stages of inverted residuals -> 1 x 1 convolution -> global average -> softmax.

    Each stage but the first halves the resolution. Choices: number of stages; width of
    all layers as a factor on 16, 24, 40, 80, 160 channels; activation; squeeze-excite in
    all blocks or none; stride of the stem; per stage the number of blocks (1 to 3), their
    expansion (1, 3, 4 or 6) and depthwise kernel (3 or 5); width of the last 1 x 1
    convolution, or none; dropout before the classifier.

    Reference:
        Sandler et al. 2018, "MobileNetV2"; Howard et al. 2019, "Searching for MobileNetV3"
        (hard-swish, squeeze-excite with a hard sigmoid). Deviations: one activation for
        all layers; the squeeze is a quarter of the expanded channels everywhere.
    """

    name = "mobilenet"

    def stem_strides(self, data: Dataset) -> tuple[int, ...]:
        """Return the strides that the stem may have at this resolution."""
        size = min(data.input_shape[:2])
        if size >= STRIDED_FROM:
            return (2,)
        return (1, 2) if size >= STRIDE_FROM else (1,)

    def max_stages(self, data: Dataset) -> int:
        """Return how many stages the resolution after the stem allows, 1 to 5."""
        return stages_within(data, max(self.stem_strides(data)), MAX_STAGES)

    def baseline(self, data: Dataset) -> dict[str, Any]:
        """Return MobileNetV2-like blocks: expansion 4, 3 x 3, ReLU6, as deep as possible."""
        stages = self.max_stages(data)
        choices: dict[str, Any] = {
            "stages": stages,
            "width": 1.0,
            "activation": "relu6",
            "squeeze": False,
            "stem.stride": max(self.stem_strides(data)),
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
        stages, strides = self.max_stages(data), self.stem_strides(data)
        asked = [
            whole("stages", 1, stages),
            pick("width", MULTIPLIERS),
            # costs nothing that is counted as MACs; either stands for both
            pick("activation", ("relu6", "hard_swish"), least="relu6", most="relu6"),
            pick("squeeze", (False, True)),
            pick("stem.stride", strides, least=max(strides), most=min(strides)),
        ]
        for stage in range(1, stages + 1):
            there = ("stages", tuple(range(stage, stages + 1)))
            asked += [
                whole(f"stage{stage}.blocks", 1, MAX_BLOCKS, there),
                pick(f"stage{stage}.expansion", EXPANSIONS, there),
                pick(f"stage{stage}.kernel", (3, 5), there),
            ]
        return (*asked, pick("top.width", TOPS), steps("dropout", 0.4, 0.1))

    def net(self, x: Any, chosen: Chosen, data: Dataset) -> Any:
        """See `DrawnSpace.net`."""
        activation = chosen["activation"]
        stem = multiple_of_8(WIDTHS[0] * chosen["width"])
        x = conv(x, "stem", stem, 3, chosen["stem.stride"], activation)
        for stage in range(1, chosen["stages"] + 1):
            for index in range(chosen[f"stage{stage}.blocks"]):
                x = _block(x, stage, index, chosen)
        if chosen["top.width"]:
            x = conv(x, "top", chosen["top.width"], 1, activation=activation)
        return classify(x, chosen["dropout"], data.task)


def _block(x: Any, stage: int, index: int, chosen: Chosen) -> Any:
    """Apply an inverted residual: expand, depthwise, squeeze-excite, project, add."""
    name, activation = f"stage{stage}_block{index + 1}", chosen["activation"]
    width = multiple_of_8(WIDTHS[stage - 1] * chosen["width"])
    expansion, kernel = chosen[f"stage{stage}.expansion"], chosen[f"stage{stage}.kernel"]
    stride = 2 if stage > 1 and index == 0 else 1
    y = x
    if expansion > 1:
        y = conv(y, f"{name}_expand", x.shape[-1] * expansion, 1, activation=activation)
    y = depthwise(y, f"{name}_depthwise", kernel, stride, activation)
    if chosen["squeeze"]:
        y = _squeeze_excite(y, name)
    y = conv(y, name, width, 1, activation="")
    if stride == 1 and x.shape[-1] == width:
        y = add(x, y, name)
    return y


def _squeeze_excite(x: Any, name: str) -> Any:
    """Scale each channel by a number in [0, 1] that all channels' means decide.

    Reference:
        Hu et al. 2018, "Squeeze-and-Excitation Networks", equations 2 to 4; a hard sigmoid.
    """
    name, channels = f"{name}_se", x.shape[-1]
    if isinstance(x, Sketch):
        squeezed = x.mean(keep=True).conv(multiple_of_8(channels / SQUEEZE), 1, 1, bias=True)
        squeezed.conv(channels, 1, 1, bias=True)
        return x

    y = keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_pool")(x)  # (B, 1, 1, C)
    y = keras.layers.Conv2D(multiple_of_8(channels / SQUEEZE), 1, name=f"{name}_reduce")(y)
    y = keras.layers.ReLU(name=f"{name}_relu")(y)
    y = keras.layers.Conv2D(channels, 1, name=f"{name}_excite")(y)
    y = keras.layers.Activation("hard_sigmoid", name=f"{name}_gate")(y)
    return keras.layers.Multiply(name=f"{name}_scale")([x, y])


SPACE = MobileNet()
