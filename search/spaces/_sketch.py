"""Networks drawn without Keras: the same functions that build one count what it would cost.

Functions of `_blocks` that are given a `Sketch` in place of a tensor draw on it. So a candidate's
MACs and parameters are known within microseconds, and there is one description of each network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass
class Tally:
    """What has been drawn so far.

    Attributes:
        macs, params: As `compress.measure.count_macs` counts them.
    """

    macs: int = 0
    params: int = 0


@dataclass(frozen=True)
class Sketch:
    """A tensor that is only a shape.

    Attributes:
        shape: Of one example, channels last.
        tally: Of the whole network.
    """

    shape: tuple[int, ...]
    tally: Tally = field(default_factory=Tally)

    def conv(self, width: int, kernel: int, stride: int, bias: bool) -> Sketch:
        """Draws a convolution with padding, (height, width, channels)."""
        *size, channels = self.shape
        made = [-(-side // stride) for side in size]
        weights = kernel**2 * channels * width
        self._count(math.prod(made) * weights, weights, width if bias else 0)
        return Sketch((*made, width), self.tally)

    def depthwise(self, kernel: int, stride: int) -> Sketch:
        """Draws a depthwise convolution with padding and without a bias."""
        *size, channels = self.shape
        made = [-(-side // stride) for side in size]
        self._count(math.prod(made) * kernel**2 * channels, kernel**2 * channels)
        return Sketch((*made, channels), self.tally)

    def dense(self, width: int, bias: bool) -> Sketch:
        """Draws a matrix."""
        *size, columns = self.shape
        self._count(math.prod(size) * columns * width, columns * width, width if bias else 0)
        return Sketch((*size, width), self.tally)

    def normalize(self, weights: int) -> Sketch:
        """Draws a normalization: so many numbers a channel."""
        self.tally.params += weights * self.shape[-1]
        return self

    def pool(self, stride: int) -> Sketch:
        """Draws a pooling with padding."""
        *size, channels = self.shape
        return Sketch((*(-(-side // stride) for side in size), channels), self.tally)

    def mean(self, *, keep: bool = False) -> Sketch:
        """Draws an average over all positions."""
        *size, channels = self.shape
        return Sketch((*(1 for _ in size if keep), channels), self.tally)

    def flat(self) -> Sketch:
        """Draws the numbers of an example in a row."""
        return Sketch((math.prod(self.shape),), self.tally)

    def _count(self, macs: int, weights: int, biases: int = 0) -> None:
        self.tally.macs += macs
        self.tally.params += weights + biases
