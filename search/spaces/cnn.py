"""Convolutional networks: stages of plain or depthwise-separable blocks, residual or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compress.data import Dataset
from compress.errors import InputError
from search.spaces._base import head

if TYPE_CHECKING:
    import keras
    import optuna

MAX_STAGES = 3
MIN_SIZE = 4
"""A stage halves the resolution; no stage goes below this many pixels a side."""
STRIDE_FROM = 20
"""Images of at least this many pixels a side may be halved by the stem already."""
STEM_WIDTHS = (8, 16, 24)
# multiples of 8: runtimes compute channels in groups, odd counts cost more than they save
WIDTHS = ((8, 16, 24, 32), (16, 24, 32, 48, 64), (32, 48, 64, 96))
PLAIN_KERNEL = 3
"""Plain convolutions stay at 3 x 3: two of them see as much as 5 x 5 for fewer MACs."""
# statistics follow within about 50 steps; Keras's 0.99 lags behind short trainings
BN_MOMENTUM = 0.9


@dataclass(frozen=True)
class _Block:
    """One convolution block's choices."""

    name: str
    kind: str
    width: int
    kernel: int
    stride: int
    residual: bool


class CNN:
    """stem -> stages (each halves the resolution, but the first) -> global average -> softmax.

    Choices: number of stages; width and stride of the stem; per stage its width, number
    of blocks (1 or 2), kind (plain 3 x 3 convolution, or depthwise of size 3 or 5
    followed by pointwise); residual connections; dropout before the classifier.
    """

    name = "cnn"

    def check(self, data: Dataset) -> None:
        """Requires images of at least 4 x 4 pixels.

        Raises:
            InputError: Other examples.
        """
        shape = data.input_shape
        if len(shape) != 3 or min(shape[:2]) < MIN_SIZE:
            raise InputError(
                f"Space 'cnn' must have images of at least {MIN_SIZE} x {MIN_SIZE} pixels. "
                f"Received: examples of shape {shape} ('{data.name}')."
            )

    def max_stages(self, data: Dataset) -> int:
        """Returns how many stages the resolution after the stem allows, 1 to 3."""
        size = min(data.input_shape[:2])
        stages, size = 1, -(-size // max(self.stem_strides(data)))
        while stages < MAX_STAGES and -(-size // 2) >= MIN_SIZE:
            stages, size = stages + 1, -(-size // 2)
        return stages

    def stem_strides(self, data: Dataset) -> tuple[int, ...]:
        """Returns the strides that the stem may have at this resolution."""
        return (1, 2) if min(data.input_shape[:2]) >= STRIDE_FROM else (1,)

    def baseline(self, data: Dataset) -> dict[str, Any]:
        """Returns a plain network of two stages of two blocks, 32 and 64 channels wide."""
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

    def build(self, trial: optuna.Trial, data: Dataset) -> keras.Model:
        """Builds the network; see `Space.build`."""
        import keras

        stages = trial.suggest_int("stages", 1, self.max_stages(data))
        residual = trial.suggest_categorical("residual", (False, True))
        inputs = keras.Input(data.input_shape, name="image")
        width = trial.suggest_categorical("stem.width", STEM_WIDTHS)
        stride = trial.suggest_categorical("stem.stride", self.stem_strides(data))
        x = _conv(inputs, "stem", width, PLAIN_KERNEL, stride)
        for stage in range(1, stages + 1):
            for block in self._stage(trial, stage, residual):
                x = _block(x, block)
        x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
        dropout = trial.suggest_float("dropout", 0.0, 0.4, step=0.1)
        if dropout:
            x = keras.layers.Dropout(dropout, name="dropout")(x)
        outputs = head(x, data.task)
        return keras.Model(inputs, outputs, name="cnn")

    def _stage(self, trial: optuna.Trial, stage: int, residual: bool) -> list[_Block]:
        width = trial.suggest_categorical(f"stage{stage}.width", WIDTHS[stage - 1])
        blocks = trial.suggest_int(f"stage{stage}.blocks", 1, 2)
        kind = trial.suggest_categorical(f"stage{stage}.kind", ("plain", "separable"))
        kernel = PLAIN_KERNEL
        if kind == "separable":
            kernel = trial.suggest_categorical(f"stage{stage}.kernel", (3, 5))
        return [
            _Block(
                f"stage{stage}_block{index + 1}",
                kind,
                width,
                kernel,
                2 if stage > 1 and index == 0 else 1,
                residual,
            )
            for index in range(blocks)
        ]


def _block(x: Any, block: _Block) -> Any:
    """Applies a block: convolution(s), normalization, the shortcut, ReLU."""
    import keras

    y = x
    if block.kind == "separable":
        y = keras.layers.DepthwiseConv2D(
            block.kernel, block.stride, "same", use_bias=False, name=f"{block.name}_depthwise"
        )(y)
        y = _normalize(y, f"{block.name}_depthwise")
        y = keras.layers.ReLU(name=f"{block.name}_depthwise_relu")(y)
        y = _conv(y, block.name, block.width, 1, relu=False)
    else:
        y = _conv(y, block.name, block.width, block.kernel, block.stride, relu=False)
    if block.residual:
        if x.shape[-1] != block.width or block.stride != 1:
            x = _conv(x, f"{block.name}_shortcut", block.width, 1, block.stride, relu=False)
        y = keras.layers.Add(name=f"{block.name}_add")([x, y])
    return keras.layers.ReLU(name=f"{block.name}_relu")(y)


def _conv(x: Any, name: str, width: int, kernel: int, stride: int = 1, relu: bool = True) -> Any:
    import keras

    x = keras.layers.Conv2D(
        width, kernel, stride, "same", use_bias=False, kernel_initializer="he_normal", name=name
    )(x)
    x = _normalize(x, name)
    return keras.layers.ReLU(name=f"{name}_relu")(x) if relu else x


def _normalize(x: Any, name: str) -> Any:
    import keras

    return keras.layers.BatchNormalization(momentum=BN_MOMENTUM, name=f"{name}_bn")(x)
