"""Convolutional networks: stages of plain or depthwise-separable blocks, residual or not."""

from __future__ import annotations

from typing import Any

from compress.data import Dataset
from search.spaces._base import Choice, Chosen, declare_categorical, declare_float, declare_int
from search.spaces._blocks import (
    MIN_STRIDED_SIZE,
    ImageSpace,
    add_shortcut,
    apply_activation,
    apply_classifier,
    apply_conv,
    apply_depthwise,
    find_max_stages,
)

MAX_STAGES = 3
STEM_WIDTHS = (8, 16, 24)
# multiples of 8, because runtimes compute channels in groups and other counts save no time
WIDTHS = ((8, 16, 24, 32), (16, 24, 32, 48, 64), (32, 48, 64, 96))
PLAIN_KERNEL = 3
"""Kernel size of plain convolutions; two of 3 x 3 have the field of 5 x 5 with fewer MACs."""


class CNN(ImageSpace):
    """stem -> stages (all but the first halve the resolution) -> global average -> softmax.

    Choices: number of stages; channels and stride of the stem; per stage the channels, the number
    of blocks (1 or 2) and their kind (plain 3 x 3 convolution, or depthwise of size 3 or 5
    followed by pointwise); residual connections; dropout before the classifier.
    """

    name = "cnn"

    def get_max_stages(self, data: Dataset) -> int:
        """Return the maximum number of stages for the resolution after the stem, 1 to 3."""
        return find_max_stages(data, max(self.list_stem_strides(data)), MAX_STAGES)

    def list_stem_strides(self, data: Dataset) -> tuple[int, ...]:
        """Return the possible strides of the stem at this resolution."""
        return (1, 2) if min(data.input_shape[:2]) >= MIN_STRIDED_SIZE else (1,)

    def baseline(self, data: Dataset) -> dict[str, Any]:
        """Return a plain network of up to two stages, with two blocks each, 32 and 64 channels."""
        stages = min(2, self.get_max_stages(data))
        choices: dict[str, Any] = {
            "stages": stages,
            "residual": False,
            "stem.width": 24,
            "stem.stride": max(self.list_stem_strides(data)),
            "dropout": 0.0,
        }
        for stage, width in enumerate((32, 64)[:stages], start=1):
            choices |= {
                f"stage{stage}.width": width,
                f"stage{stage}.blocks": 2,
                f"stage{stage}.kind": "plain",
            }
        return choices

    def choices(self, data: Dataset) -> tuple[Choice, ...]:
        """See `DeclaredSpace.choices`."""
        stages, strides = self.get_max_stages(data), self.list_stem_strides(data)
        declared = [
            declare_int("stages", 1, stages),
            declare_categorical("residual", (False, True)),
            declare_categorical("stem.width", STEM_WIDTHS),
            declare_categorical("stem.stride", strides, least=max(strides), most=min(strides)),
        ]
        for stage in range(1, stages + 1):
            condition = ("stages", tuple(range(stage, stages + 1)))
            kind = f"stage{stage}.kind"
            declared += [
                declare_categorical(f"stage{stage}.width", WIDTHS[stage - 1], condition),
                declare_int(f"stage{stage}.blocks", 1, 2, condition),
                declare_categorical(
                    kind, ("plain", "separable"), condition, least="separable", most="plain"
                ),
                declare_categorical(f"stage{stage}.kernel", (3, 5), (kind, ("separable",))),
            ]
        return (*declared, declare_float("dropout", 0.4, 0.1))

    def net(self, x: Any, chosen: Chosen, data: Dataset) -> Any:
        """See `DrawnSpace.net`."""
        x = apply_conv(x, "stem", chosen["stem.width"], PLAIN_KERNEL, chosen["stem.stride"])
        for stage in range(1, chosen["stages"] + 1):
            for index in range(chosen[f"stage{stage}.blocks"]):
                x = _apply_block(x, stage, index, chosen)
        return apply_classifier(x, chosen["dropout"], data.task)


def _apply_block(x: Any, stage: int, index: int, chosen: Chosen) -> Any:
    """Apply a block: convolution(s), normalization, the shortcut, ReLU."""
    name, width = f"stage{stage}_block{index + 1}", chosen[f"stage{stage}.width"]
    kernel = chosen.get(f"stage{stage}.kernel", PLAIN_KERNEL)
    stride = 2 if stage > 1 and index == 0 else 1
    y = x
    if chosen[f"stage{stage}.kind"] == "separable":
        y = apply_depthwise(y, f"{name}_depthwise", kernel, stride)
        y = apply_conv(y, name, width, 1, activation="")
    else:
        y = apply_conv(y, name, width, kernel, stride, activation="")
    if chosen["residual"]:
        if x.shape[-1] != width or stride != 1:
            x = apply_conv(x, f"{name}_shortcut", width, 1, stride, activation="")
        y = add_shortcut(x, y, name)
    return apply_activation(y, name, "relu")


SPACE = CNN()
