"""Dense and EinsumDense: rows are the inputs themselves."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.reconstruction.kinds._base import Array, Part, Places, parts_for


class DensePart(Part):
    """A kernel (in, out), applied to the last axis."""

    def grid(self, y: Array) -> tuple[int, ...]:
        """All but the batch and the last axis, in a row."""
        return (math.prod(y.shape[1:-1]),)

    def rows(self, x: Array, y: Array, places: Places) -> Array:
        """Inputs at the places, (1, rows, in)."""
        return self.outputs(x, places)[None]

    def neighbours(self, x: Array, y: Array) -> npt.NDArray[np.int64] | None:
        """Each position reads itself."""
        return np.arange(self.positions(y))[:, None]


@parts_for("Dense")
def _dense(layer: Any, _: int) -> list[Part]:
    return [DensePart(layer, layer.kernel, layer.bias)]


class EinsumPart(Part):
    """A kernel multiplied by an equation: "abc,cde->abde".

    Labels of the kernel are summed over (also the input's), new (the output's alone), or shared
    by all three: these count systems that share no weights.

    Args:
        layer: `EinsumDense`.
        given, own, made: Labels of input, kernel and output, one letter an axis.
    """

    def __init__(self, layer: Any, given: str, own: str, made: str) -> None:
        self.given, self.own, self.made = given, own, made
        self.shared = [x for x in own if x in given and x in made]
        self.new = [x for x in own if x not in given]
        self.summed = [x for x in own if x in given and x not in made]
        self.free = [x for x in given if x not in own]
        features = [own.index(x) for x in (*self.shared, *self.new)]
        sizes = [layer.kernel.shape[axis] for axis in features]
        channels = [size for size in sizes if size != 1]
        bias = layer.bias
        # a bias of which an axis is that of positions stays
        self.adds_more = bias is not None and [n for n in bias.shape if n != 1] != channels
        systems = math.prod(sizes[: len(self.shared)])
        super().__init__(layer, layer.kernel, None if self.adds_more else bias, features, systems)

    def blank_output(self, shape: tuple[int, ...]) -> Array:
        """By labels: the layer knows no size that it was not told."""
        sizes = dict(zip((*self.own, *self.given), (*self.kernel.shape, *shape), strict=True))
        return np.broadcast_to(np.float32(0), tuple(sizes[label] for label in self.made))

    def _order(self) -> list[int]:
        return [self.own.index(x) for x in (*self.shared, *self.summed, *self.new)]

    def matrix(self, kernel: Array) -> Array:
        """Orders axes: shared, summed, new."""
        moved = kernel.transpose(self._order())
        return moved.reshape(self.systems, -1, self.width // self.systems)

    def array(self, matrix: Array) -> Array:
        """Puts axes back."""
        order = self._order()
        shape = [self.kernel.shape[axis] for axis in order]
        return matrix.reshape(shape).transpose(np.argsort(order))

    def last(self, y: Array) -> Array:
        """Axes that the kernel does not know, then channels in a row."""
        moved = y.transpose([self.made.index(x) for x in (*self.free, *self.shared, *self.new)])
        return moved.reshape(*moved.shape[: len(self.free)], -1)

    def rows(self, x: Array, y: Array, places: Places) -> Array:
        """Inputs at the places, summed axes in a row."""
        moved = x.transpose([self.given.index(x) for x in (*self.free, *self.shared, *self.summed)])
        columns = math.prod(moved.shape[len(self.free) + len(self.shared) :])
        flat = moved.reshape(len(x), -1, self.systems, columns)
        return np.asarray(flat[places].transpose(1, 0, 2))


@parts_for("EinsumDense")
def _einsum(layer: Any, rank: int) -> list[Part]:
    given, rest = layer.equation.replace(" ", "").split(",")
    own, made = rest.split("->")
    if "..." in given:
        spare = [x for x in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if x not in layer.equation]
        dots = "".join(spare[: rank - len(given.replace("...", ""))])
        given, made = given.replace("...", dots), made.replace("...", dots)
    plain = (
        len(set(given)) == len(given)
        and len(set(own)) == len(own)
        and set(made) == (set(given) | set(own)) - {x for x in own if x in given and x not in made}
        and given[0] not in own
        and made[0] == given[0]
        and all(x in made for x in given if x not in own)
    )
    return [EinsumPart(layer, given, own, made)] if plain else []
