"""Dense and EinsumDense: rows are the inputs themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from compress.reconstruction.kinds._base import Array, OwnKernel, Part, Places, at, parts_for


class DensePart(OwnKernel):
    """A kernel (in, out), applied to the last axis."""

    @property
    def features(self) -> tuple[int, ...]:
        """The last axis."""
        return (1,)

    def matrix(self, kernel: Array) -> Array:
        """Adds the axis of systems."""
        return kernel[None]

    def array(self, matrix: Array) -> Array:
        """Takes it off."""
        return np.asarray(matrix[0])

    def positions(self, x: Array, y: Array) -> int:
        """All but the batch and the last axis."""
        return int(np.prod(x.shape[1:-1], dtype=np.int64))

    def rows(self, x: Array, y: Array, places: Places) -> Array:
        """Inputs at the places, (1, rows, in)."""
        return self.outputs(x, places)[None]

    def neighbours(self, x: Array, y: Array) -> npt.NDArray[np.int64] | None:
        """Each position reads itself."""
        return np.arange(self.positions(x, y))[:, None]

    def arranged(self, found: Array) -> Array:
        """Takes the only offset off, and adds the axis of systems."""
        return found[:, 0][None]

    def scattered(self, rows: Array) -> Array:
        """Does it back."""
        return np.asarray(rows[0][:, None])

    def outputs(self, y: Array, places: Places) -> Array:
        """Rows of the last axis."""
        return at(y.reshape(len(y), -1, y.shape[-1]), places)


@parts_for("Dense")
def _dense(layer: Any, _: int) -> list[Part]:
    return [DensePart(layer)]


class EinsumPart(Part):
    """A kernel multiplied by an equation: "abc,cde->abde".

    Labels of the kernel are summed over (also the input's), new (the output's alone), or shared
    by all three: these count systems that share no weights.

    Args:
        layer: `EinsumDense`.
        given, own, made: Labels of input, kernel and output, one letter an axis.
    """

    def __init__(self, layer: Any, given: str, own: str, made: str) -> None:
        super().__init__(layer)
        self.given, self.own, self.made = given, own, made
        self.shared = [x for x in own if x in given and x in made]
        self.new = [x for x in own if x not in given]
        self.summed = [x for x in own if x in given and x not in made]
        self.free = [x for x in given if x not in own]

    @property
    def kernel(self) -> Any:
        """The layer's kernel."""
        return self.layer.kernel

    @property
    def bias(self) -> Any:
        """The layer's bias, where it holds one number for every channel."""
        bias = self.layer.bias
        channels = [self.kernel.shape[axis] for axis in self.features]
        fits = bias is not None and [size for size in bias.shape if size != 1] == [
            size for size in channels if size != 1
        ]
        return bias if fits else None

    @property
    def adds_more(self) -> bool:
        """Whether its bias has an axis of positions."""
        return self.layer.bias is not None and self.bias is None

    @property
    def features(self) -> tuple[int, ...]:
        """Axes of shared labels, then of new ones, in the output's order."""
        return tuple(self.own.index(x) for x in (*self.shared, *self.new))

    def blank_output(self, shape: tuple[int, ...]) -> Array:
        """By labels: the layer knows no size that it was not told."""
        sizes = dict(zip((*self.own, *self.given), (*self.kernel.shape, *shape), strict=True))
        return np.broadcast_to(np.float32(0), tuple(sizes[label] for label in self.made))

    def _order(self) -> list[int]:
        return [self.own.index(x) for x in (*self.shared, *self.summed, *self.new)]

    def matrix(self, kernel: Array) -> Array:
        """Orders axes: shared, summed, new."""
        moved = kernel.transpose(self._order())
        shared, new = len(self.shared), len(self.new)
        systems = int(np.prod(moved.shape[:shared], dtype=np.int64))
        outputs = int(np.prod(moved.shape[moved.ndim - new :], dtype=np.int64))
        return moved.reshape(systems, -1, outputs)

    def array(self, matrix: Array) -> Array:
        """Puts axes back."""
        order = self._order()
        shape = [self.kernel.shape[axis] for axis in order]
        return matrix.reshape(shape).transpose(np.argsort(order))

    def positions(self, x: Array, y: Array) -> int:
        """The axes that the kernel does not know, the batch apart."""
        return int(np.prod([x.shape[self.given.index(label)] for label in self.free[1:]] or [1]))

    def rows(self, x: Array, y: Array, places: Places) -> Array:
        """Inputs at the places, summed axes in a row."""
        order = [self.given.index(label) for label in (*self.free, *self.shared, *self.summed)]
        moved = x.transpose(order)
        free, shared = len(self.free), len(self.shared)
        systems = int(np.prod(moved.shape[free : free + shared], dtype=np.int64))
        flat = moved.reshape(len(x), self.positions(x, y), systems, -1)
        return at(flat, places).transpose(1, 0, 2)

    def outputs(self, y: Array, places: Places) -> Array:
        """Outputs at the places, channels in a row."""
        order = [self.made.index(label) for label in (*self.free, *self.shared, *self.new)]
        moved = y.transpose(order)
        positions = int(np.prod(moved.shape[1 : len(self.free)], dtype=np.int64))
        return at(moved.reshape(len(y), positions, -1), places)


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
