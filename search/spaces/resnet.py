"""Residual networks as for CIFAR: stages of basic or bottleneck blocks."""

from __future__ import annotations

from typing import Any

from compress.core.lazy_modules import keras
from compress.data import Dataset
from search.spaces._base import Choice, Chosen, Sketch, pick, steps, whole
from search.spaces._blocks import (
    STRIDE_FROM,
    ImageSpace,
    activate,
    add,
    bare_conv,
    classify,
    conv,
    multiple_of_8,
    normalize,
    stages_within,
)

MAX_STAGES = 4
MAX_BLOCKS = 4
WIDTHS = (8, 16, 24, 32)
GROWTHS = (1.0, 1.5, 2.0)
"""Factors between the widths of neighbouring stages; the originals double."""
BOTTLENECK = 4
"""A bottleneck's inner width is this many times smaller than its outer one."""
POOL_FROM = 64
"""Images of at least this many pixels a side are halved by the stem, or halved twice."""
REDUCTIONS = {"plain": 1, "strided": 2, "pooled": 4}
"""By how much each stem divides the resolution."""


class ResNet(ImageSpace):
    """stem -> stages (each halves the resolution, but the first) -> global average -> softmax.

    Choices: number of stages; kind of block (basic: two 3 x 3 convolutions; bottleneck:
    1 x 1, 3 x 3 on a quarter of the channels, 1 x 1); whether blocks normalize and activate
    before their convolutions (pre-activation) or after; stem (3 x 3 convolution, the same
    with stride 2, or followed by max pooling); width of the first stage and the factor from
    stage to stage; blocks of each stage (1 to 4); dropout before the classifier.

    Reference:
        He et al. 2016, "Deep Residual Learning for Image Recognition", section 4.2; He et
        al. 2016, "Identity Mappings in Deep Residual Networks", figure 4(e). Deviations:
        shortcuts that change the shape are 1 x 1 convolutions, not padded identities; the
        stride of a bottleneck is at its 3 x 3 convolution; the stem stays 3 x 3.
    """

    name = "resnet"

    def stems(self, data: Dataset) -> tuple[str, ...]:
        """Return the stems that make sense at this resolution, least reduction first."""
        size = min(data.input_shape[:2])
        if size >= POOL_FROM:
            return ("strided", "pooled")
        return ("plain", "strided") if size >= STRIDE_FROM else ("plain",)

    def max_stages(self, data: Dataset) -> int:
        """Return how many stages the resolution after the stem allows, 1 to 4."""
        return stages_within(data, REDUCTIONS[self.stems(data)[-1]], MAX_STAGES)

    def baseline(self, data: Dataset) -> dict[str, Any]:
        """Return ResNet-14: up to three stages of two basic blocks, 16, 32, 64 wide."""
        stages = min(3, self.max_stages(data))
        choices: dict[str, Any] = {
            "stages": stages,
            "block": "basic",
            "preactivation": False,
            "stem": self.stems(data)[-1],
            "width": 16,
            "dropout": 0.0,
        }
        if stages > 1:
            choices["growth"] = 2.0
        return choices | {f"stage{stage}.blocks": 2 for stage in range(1, stages + 1)}

    def choices(self, data: Dataset) -> tuple[Choice, ...]:
        """See `DeclaredSpace.choices`."""
        stages, stems = self.max_stages(data), self.stems(data)
        asked = [
            whole("stages", 1, stages),
            pick("block", ("basic", "bottleneck"), least="bottleneck", most="basic"),
            # no MACs between them; normalized shortcuts give the other one more parameters
            pick("preactivation", (False, True), least=True, most=False),
            pick("stem", stems, least=stems[-1], most=stems[0]),
            pick("width", WIDTHS),
        ]
        if stages > 1:
            asked.append(pick("growth", GROWTHS, ("stages", tuple(range(2, stages + 1)))))
        for stage in range(1, stages + 1):
            there = ("stages", tuple(range(stage, stages + 1)))
            asked.append(whole(f"stage{stage}.blocks", 1, MAX_BLOCKS, there))
        return (*asked, steps("dropout", 0.4, 0.1))

    def net(self, x: Any, chosen: Chosen, data: Dataset) -> Any:
        """See `DrawnSpace.net`."""
        early = chosen["preactivation"]
        x = _stem(x, chosen["stem"], chosen["width"], early)
        for stage in range(1, chosen["stages"] + 1):
            width = multiple_of_8(chosen["width"] * chosen.get("growth", 1.0) ** (stage - 1))
            for index in range(chosen[f"stage{stage}.blocks"]):
                stride = 2 if stage > 1 and index == 0 else 1
                name = f"stage{stage}_block{index + 1}"
                make = _early if early else _late
                x = make(x, name, _convolutions(chosen["block"], width, stride), stride)
        if early:
            x = activate(normalize(x, "last"), "last", "relu")
        return classify(x, chosen["dropout"], data.task)


def _stem(inputs: Any, stem: str, width: int, early: bool) -> Any:
    # the first pre-activation block normalizes by itself
    x = (bare_conv if early else conv)(inputs, "stem", width, 3, min(2, REDUCTIONS[stem]))
    if stem == "pooled":
        if isinstance(x, Sketch):
            return x.pool(2)

        x = keras.layers.MaxPooling2D(3, 2, "same", name="stem_pool")(x)
    return x


def _convolutions(block: str, width: int, stride: int) -> list[tuple[int, int, int]]:
    """Return (width, kernel, stride) of each convolution of a block."""
    if block == "basic":
        return [(width, 3, stride), (width, 3, 1)]
    inner = multiple_of_8(width / BOTTLENECK)
    return [(inner, 1, 1), (inner, 3, stride), (width, 1, 1)]


def _late(x: Any, name: str, convolutions: list[tuple[int, int, int]], stride: int) -> Any:
    """Apply a block of convolution, normalization, ReLU; the last ReLU after the sum."""
    y, last = x, len(convolutions)
    for index, (width, kernel, step) in enumerate(convolutions, start=1):
        activation = "relu" if index < last else ""
        y = conv(y, f"{name}_conv{index}", width, kernel, step, activation)
    if x.shape[-1] != y.shape[-1] or stride != 1:
        x = conv(x, f"{name}_shortcut", y.shape[-1], 1, stride, activation="")
    return activate(add(x, y, name), name, "relu")


def _early(x: Any, name: str, convolutions: list[tuple[int, int, int]], stride: int) -> Any:
    """Apply a block of normalization, ReLU, convolution; nothing after the sum."""
    y = shared = activate(normalize(x, f"{name}_conv1"), f"{name}_conv1", "relu")
    for index, (width, kernel, step) in enumerate(convolutions, start=1):
        if index > 1:
            y = activate(normalize(y, f"{name}_conv{index}"), f"{name}_conv{index}", "relu")
        y = bare_conv(y, f"{name}_conv{index}", width, kernel, step)
    if x.shape[-1] != y.shape[-1] or stride != 1:
        x = bare_conv(shared, f"{name}_shortcut", y.shape[-1], 1, stride)
    return add(x, y, name)


SPACE = ResNet()
