"""Residual networks as for CIFAR: stages of basic or bottleneck blocks."""

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
    apply_activation,
    apply_bare_conv,
    apply_classifier,
    apply_conv,
    apply_normalization,
    find_max_stages,
    round_channels,
)

MAX_STAGES = 4
MAX_BLOCKS = 4
WIDTHS = (8, 16, 24, 32)
GROWTHS = (1.0, 1.5, 2.0)
"""Factors between the channels of consecutive stages; 2 in the original networks."""
BOTTLENECK = 4
"""Factor by which a bottleneck block reduces the number of channels."""
MIN_POOLED_SIZE = 64
"""Minimum pixels per side of an image for which the stem halves the resolution once or twice."""
REDUCTIONS = {"plain": 1, "strided": 2, "pooled": 4}
"""Factor by which each stem divides the resolution."""


class ResNet(ImageSpace):
    """stem -> stages (all but the first halve the resolution) -> global average -> softmax.

    Choices: number of stages; kind of block (basic: two 3 x 3 convolutions; bottleneck:
    1 x 1, 3 x 3 on a quarter of the channels, 1 x 1); whether blocks normalize and activate
    before their convolutions (pre-activation) or after; stem (3 x 3 convolution, the same
    with stride 2, or the latter and max pooling); channels of the first stage and the factor from
    stage to stage; blocks of each stage (1 to 4); dropout before the classifier.

    Reference:
        He et al. 2016, "Deep Residual Learning for Image Recognition", section 4.2; He et
        al. 2016, "Identity Mappings in Deep Residual Networks", figure 4(e). Deviations:
        shortcuts that change the shape are 1 x 1 convolutions, not padded identities; the
        stride of a bottleneck is at its 3 x 3 convolution; the stem stays 3 x 3.
    """

    name = "resnet"

    def list_stems(self, data: Dataset) -> tuple[str, ...]:
        """Return the suitable stems for this resolution, in ascending order of reduction."""
        size = min(data.input_shape[:2])
        if size >= MIN_POOLED_SIZE:
            return ("strided", "pooled")
        return ("plain", "strided") if size >= MIN_STRIDED_SIZE else ("plain",)

    def get_max_stages(self, data: Dataset) -> int:
        """Return the maximum number of stages for the resolution after the stem, 1 to 4."""
        return find_max_stages(data, REDUCTIONS[self.list_stems(data)[-1]], MAX_STAGES)

    def baseline(self, data: Dataset) -> dict[str, Any]:
        """Return ResNet-14: up to three stages of two basic blocks, with 16, 32, 64 channels."""
        stages = min(3, self.get_max_stages(data))
        choices: dict[str, Any] = {
            "stages": stages,
            "block": "basic",
            "preactivation": False,
            "stem": self.list_stems(data)[-1],
            "width": 16,
            "dropout": 0.0,
        }
        if stages > 1:
            choices["growth"] = 2.0
        return choices | {f"stage{stage}.blocks": 2 for stage in range(1, stages + 1)}

    def choices(self, data: Dataset) -> tuple[Choice, ...]:
        """See `DeclaredSpace.choices`."""
        stages, stems = self.get_max_stages(data), self.list_stems(data)
        declared = [
            declare_int("stages", 1, stages),
            declare_categorical("block", ("basic", "bottleneck"), least="bottleneck", most="basic"),
            # both have the same MACs; without pre-activation, shortcuts have normalization
            # parameters
            declare_categorical("preactivation", (False, True), least=True, most=False),
            declare_categorical("stem", stems, least=stems[-1], most=stems[0]),
            declare_categorical("width", WIDTHS),
        ]
        if stages > 1:
            declared.append(
                declare_categorical("growth", GROWTHS, ("stages", tuple(range(2, stages + 1))))
            )
        for stage in range(1, stages + 1):
            condition = ("stages", tuple(range(stage, stages + 1)))
            declared.append(declare_int(f"stage{stage}.blocks", 1, MAX_BLOCKS, condition))
        return (*declared, declare_float("dropout", 0.4, 0.1))

    def net(self, x: Any, chosen: Chosen, data: Dataset) -> Any:
        """See `DrawnSpace.net`."""
        is_preactivation = chosen["preactivation"]
        x = _apply_stem(x, chosen["stem"], chosen["width"], is_preactivation)
        for stage in range(1, chosen["stages"] + 1):
            width = round_channels(chosen["width"] * chosen.get("growth", 1.0) ** (stage - 1))
            for index in range(chosen[f"stage{stage}.blocks"]):
                stride = 2 if stage > 1 and index == 0 else 1
                name = f"stage{stage}_block{index + 1}"
                apply_block = (
                    _apply_preactivation_block if is_preactivation else _apply_postactivation_block
                )
                x = apply_block(x, name, _list_convolutions(chosen["block"], width, stride), stride)
        if is_preactivation:
            x = apply_activation(apply_normalization(x, "last"), "last", "relu")
        return apply_classifier(x, chosen["dropout"], data.task)


def _apply_stem(inputs: Any, stem: str, width: int, is_preactivation: bool) -> Any:
    """Apply the first convolution, with the stride and the max pooling that the stem has."""
    # the first pre-activation block normalizes its own input
    x = (apply_bare_conv if is_preactivation else apply_conv)(
        inputs, "stem", width, 3, min(2, REDUCTIONS[stem])
    )
    if stem == "pooled":
        if isinstance(x, ShapeTensor):
            return x.apply_pooling(2)

        x = keras.layers.MaxPooling2D(3, 2, "same", name="stem_pool")(x)
    return x


def _list_convolutions(block: str, width: int, stride: int) -> list[tuple[int, int, int]]:
    """Return (channels, kernel, stride) of each convolution of a block."""
    if block == "basic":
        return [(width, 3, stride), (width, 3, 1)]
    inner = round_channels(width / BOTTLENECK)
    return [(inner, 1, 1), (inner, 3, stride), (width, 1, 1)]


def _apply_postactivation_block(
    x: Any, name: str, convolutions: list[tuple[int, int, int]], stride: int
) -> Any:
    """Apply a block of convolution, normalization, ReLU; the last ReLU after the sum."""
    y, last = x, len(convolutions)
    for index, (width, kernel, step) in enumerate(convolutions, start=1):
        activation = "relu" if index < last else ""
        y = apply_conv(y, f"{name}_conv{index}", width, kernel, step, activation)
    if x.shape[-1] != y.shape[-1] or stride != 1:
        x = apply_conv(x, f"{name}_shortcut", y.shape[-1], 1, stride, activation="")
    return apply_activation(add_shortcut(x, y, name), name, "relu")


def _apply_preactivation_block(
    x: Any, name: str, convolutions: list[tuple[int, int, int]], stride: int
) -> Any:
    """Apply a block of normalization, ReLU, convolution; nothing after the sum."""
    y = shared = apply_activation(apply_normalization(x, f"{name}_conv1"), f"{name}_conv1", "relu")
    for index, (width, kernel, step) in enumerate(convolutions, start=1):
        if index > 1:
            y = apply_activation(
                apply_normalization(y, f"{name}_conv{index}"), f"{name}_conv{index}", "relu"
            )
        y = apply_bare_conv(y, f"{name}_conv{index}", width, kernel, step)
    if x.shape[-1] != y.shape[-1] or stride != 1:
        x = apply_bare_conv(shared, f"{name}_shortcut", y.shape[-1], 1, stride)
    return add_shortcut(x, y, name)


SPACE = ResNet()
