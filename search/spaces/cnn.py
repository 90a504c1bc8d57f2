"""Convolutional networks: stages of plain or depthwise-separable blocks, residual or not."""

from __future__ import annotations

from typing import Any

from compress.data import Dataset
from search.spaces._base import Choice, Chosen, pick, steps, whole
from search.spaces._blocks import (
    STRIDE_FROM,
    ImageSpace,
    activate,
    add,
    classify,
    conv,
    depthwise,
    stages_within,
)

MAX_STAGES = 3
STEM_WIDTHS = (8, 16, 24)
# multiples of 8: runtimes compute channels in groups, odd counts cost more than they save
WIDTHS = ((8, 16, 24, 32), (16, 24, 32, 48, 64), (32, 48, 64, 96))
PLAIN_KERNEL = 3
"""Plain convolutions stay at 3 x 3: two of them see as much as 5 x 5 for fewer MACs."""


class CNN(ImageSpace):
    """stem -> stages (each halves the resolution, but the first) -> global average -> softmax.

    Choices: number of stages; width and stride of the stem; per stage its width, number
    of blocks (1 or 2), kind (plain 3 x 3 convolution, or depthwise of size 3 or 5
    followed by pointwise); residual connections; dropout before the classifier.
    """

    name = "cnn"

    def max_stages(self, data: Dataset) -> int:
        """Return how many stages the resolution after the stem allows, 1 to 3."""
        return stages_within(data, max(self.stem_strides(data)), MAX_STAGES)

    def stem_strides(self, data: Dataset) -> tuple[int, ...]:
        """Return the strides that the stem may have at this resolution."""
        return (1, 2) if min(data.input_shape[:2]) >= STRIDE_FROM else (1,)

    def baseline(self, data: Dataset) -> dict[str, Any]:
        """Return a plain network of two stages of two blocks, 32 and 64 channels wide."""
        stages = min(2, self.max_stages(data))
        choices: dict[str, Any] = {
            "stages": stages,
            "residual": False,
            "stem.width": 24,
            "stem.stride": max(self.stem_strides(data)),
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
        stages, strides = self.max_stages(data), self.stem_strides(data)
        asked = [
            whole("stages", 1, stages),
            pick("residual", (False, True)),
            pick("stem.width", STEM_WIDTHS),
            pick("stem.stride", strides, least=max(strides), most=min(strides)),
        ]
        for stage in range(1, stages + 1):
            there = ("stages", tuple(range(stage, stages + 1)))
            kind = f"stage{stage}.kind"
            asked += [
                pick(f"stage{stage}.width", WIDTHS[stage - 1], there),
                whole(f"stage{stage}.blocks", 1, 2, there),
                pick(kind, ("plain", "separable"), there, least="separable", most="plain"),
                pick(f"stage{stage}.kernel", (3, 5), (kind, ("separable",))),
            ]
        return (*asked, steps("dropout", 0.4, 0.1))

    def net(self, x: Any, chosen: Chosen, data: Dataset) -> Any:
        """See `DrawnSpace.net`."""
        x = conv(x, "stem", chosen["stem.width"], PLAIN_KERNEL, chosen["stem.stride"])
        for stage in range(1, chosen["stages"] + 1):
            for index in range(chosen[f"stage{stage}.blocks"]):
                x = _block(x, stage, index, chosen)
        return classify(x, chosen["dropout"], data.task)


def _block(x: Any, stage: int, index: int, chosen: Chosen) -> Any:
    """Apply a block: convolution(s), normalization, the shortcut, ReLU."""
    name, width = f"stage{stage}_block{index + 1}", chosen[f"stage{stage}.width"]
    kernel = chosen.get(f"stage{stage}.kernel", PLAIN_KERNEL)
    stride = 2 if stage > 1 and index == 0 else 1
    y = x
    if chosen[f"stage{stage}.kind"] == "separable":
        y = depthwise(y, f"{name}_depthwise", kernel, stride)
        y = conv(y, name, width, 1, activation="")
    else:
        y = conv(y, name, width, kernel, stride, activation="")
    if chosen["residual"]:
        if x.shape[-1] != width or stride != 1:
            x = conv(x, f"{name}_shortcut", width, 1, stride, activation="")
        y = add(x, y, name)
    return activate(y, name, "relu")


SPACE = CNN()
