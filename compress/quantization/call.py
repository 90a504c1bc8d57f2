"""One call of a layer, as its rule sees it: what it may do with values.

Products of activations may be computed in floats, and with them what lies between two of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from compress.model.layers import class_of
from compress.model.ports import BYTES
from compress.quantization.kernels import Affine, AffineKernel
from compress.quantization.layers import (
    Applied,
    Inside,
    LeakySlopes,
    OffGrid,
    QuantizedKernel,
    WithConstant,
)
from compress.quantization.values import Sum, Value

if TYPE_CHECKING:
    from compress.model.program import Node
    from compress.quantization.kernels import Kernel
    from compress.quantization.values import Building

Function = Callable[..., Any]
Shaped = Callable[..., "tuple[int | None, ...]"]
FASTER = "CPUs multiply activations far faster in floats (integer_products: in whole numbers)"
READS_ONE = "it reads the product of activations that is computed in floats"


@dataclass(eq=False)
class Call:
    """A call and the values of its inputs.

    Attributes:
        node: In the model's program.
        path: Its name, behind those of the models that it is nested in.
        inputs: Values.
        building: What the whole model shares.
    """

    node: Node
    path: str
    inputs: list[Value]
    building: Building

    @property
    def layer(self) -> Any:
        """The layer or operation."""
        return self.node.operation

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Of the first output, as the model has it, the batch axis included."""
        return tuple(self.node.outputs[0].shape)

    def shape_of(self, place: int) -> tuple[int | None, ...]:
        """Returns the shape of an input; sizes that the model leaves open may be known here."""
        tensor = self.inputs[place].tensor
        return tuple((self.node.inputs[place] if tensor is None else tensor).shape)

    # -- what a call may make of values ---------------------------------------------------------

    def kernel(self, kernel: Kernel, value: Value, name: str = "") -> Value:
        """Returns what a kernel makes of a value, before an activation.

        Args:
            kernel: Of a layer.
            value: Brought to its grid first.
            name: Of the new layer; default: the call's.
        """
        settled, building, name = self.on_grid(value), self.building, name or self.path

        def made(behind: tuple[Affine, ...]) -> Any:
            layer = QuantizedKernel(
                building.state,
                kernel,
                settled.grid,
                behind,
                reduced_range=building.reduced_range,
                name=building.name(name),
            )
            return layer(settled.tensor)

        def summed(behind: tuple[Affine, ...]) -> Sum:
            return Sum(lambda: made(behind), folds=lambda affine: summed((*behind, affine)))

        return self._made(summed(()))

    def scaled(self, value: Value, affine: Affine) -> Value:
        """Returns a value scaled and shifted by channel: in the kernel before, if it can be."""
        if value.sum is not None and value.sum.folds is not None and value.alone:
            return self._made(value.sum.folds(affine))
        if None in self.on_grid(value).tensor.shape[1:]:
            return self.step_in_float(self.applied(affine.of), value, "a size is open")
        return self.kernel(AffineKernel(affine), value)

    def rectified(self, value: Value, function: Function, cap: float | None = None) -> Value:
        """Returns what a ReLU makes of a value: fused with what comes before, or on its grid.

        Args:
            value: Its input.
            function: Of a symbolic tensor.
            cap: Where it ends: the range ends there, and the function need not.
        """
        before = value.sum
        if before is not None and before.fuses and value.alone:
            return self._made(Sum(lambda: function(before.make()), fuses=False, cap=cap))
        if cap is not None:
            tensor = self.on_grid(value).tensor
            return self._made(Sum(lambda: function(tensor), fuses=False, cap=cap))
        return self.same(function, value)[0]

    def summed(self, function: Function, *values: Value, fuses: bool = True) -> Value:
        """Returns what integer arithmetic makes of values: it has a range of its own.

        Args:
            function: Of symbolic tensors.
            values: Brought to their grids first.
            fuses: A ReLU behind it is part of it.
        """
        tensors = [self.on_grid(value).tensor for value in values]
        return self._made(Sum(lambda: function(*tensors), fuses=fuses))

    def with_constant(
        self, function: Function, value: Value, constant: Callable[[], Any], layer: Any = None
    ) -> Value:
        """Returns what a value and a constant make, with a range of its own.

        Args:
            function: Of both, of the value's shape.
            value: Brought to its grid first.
            constant: Returns the constant, or a weight (graph code).
            layer: Whose weight it is, or None.
        """
        held = self.building.range(f"{self.path}_constant")
        name = self.building.name(f"{self.path}_with_constant")
        return self.summed(WithConstant(function, constant, held, layer, name=name), value)

    def prescribed(self, function: Function, value: Value, low: float, high: float) -> Value:
        """Returns what a function makes of a value, whose range the runtime prescribes."""
        tensor = self.on_grid(value).tensor
        return self._made(Sum(lambda: function(tensor), fuses=False, fixed=(low, high)))

    def leaky(self, value: Value, slope: float) -> Value:
        """Returns what a leaky ReLU makes of a value, with a range of its own."""
        settled, building = self.on_grid(value), self.building
        made = building.range(self.path)
        layer = LeakySlopes(
            building.state, slope, settled.grid, made, name=building.name(self.path)
        )
        return Value(self.path, made(layer(settled.tensor)), made)

    def same(
        self, function: Function, *values: Value, rounds: bool = False, away: bool = False
    ) -> list[Value]:
        """Returns what an operation makes of values that keeps their grid.

        Args:
            function: Of symbolic tensors, to one or a list.
            values: Brought to one grid first: their ranges are tied.
            rounds: The results have to be rounded to that grid anew.
            away: Ties are rounded away from 0 then.
        """
        settled = [self.on_grid(value) for value in values]
        if len({value.grid.fixed for value in settled}) > 1:
            settled = [self._own_range(value) for value in settled]
        first = settled[0].grid
        for other in settled[1:]:
            if first.fixed is None:
                first.tie(other.grid)
        made = function(*[value.tensor for value in settled])
        results = list(made) if isinstance(made, (list, tuple)) else [made]
        found = []
        for tensor in results:
            layer = self.building.range(self.path, first.fixed, rounds=rounds, away=away)
            if first.fixed is None:
                first.tie(layer)
            found.append(Value(self.path, layer(tensor), layer))
        return found

    def passed(self, value: Value, function: Function | None = None) -> Value:
        """Returns a value that inference leaves as it is.

        Args:
            value: Of an input.
            function: What training does with it; default: nothing.
        """
        if function is None:
            return value
        if value.sum is not None or value.whole:
            value = self.on_grid(value)
        return Value(self.path, function(value.tensor), value.range, loose=value.loose)

    def step_in_float(self, function: Function, value: Value, reason: str) -> Value:
        """Returns what a function makes of a value in floats, and says why.

        Args:
            function: Of a symbolic tensor.
            value: On its grid, or a float.
            reason: Why it is not computed in whole numbers.
        """
        self.building.note(self.path, self.layer, reason)
        return Value(self.path, function(self._off_grid(value)))

    def in_float(self, reason: str) -> list[Value]:
        """Makes the call as it is, in floats, and says why."""
        import keras

        self.building.note(self.path, self.layer, reason)
        made = keras.tree.flatten(self.itself(*map(self._off_grid, self.inputs)))
        loose = made_loose(self)
        return [
            Value(self.path, tensor, loose=loose and _is_real(tensor), whole=not _is_real(tensor))
            for tensor in made
        ]

    def whole_numbers(self) -> list[Value]:
        """Makes the call as it is: it computes shapes, indices or booleans."""
        import keras

        made = keras.tree.flatten(self.itself(*[self.settled(v).tensor for v in self.inputs]))
        return [Value(self.path, tensor, whole=True) for tensor in made]

    # -- layers of the new model ---------------------------------------------------------------

    def itself(self, *tensors: Any) -> Any:
        """Makes the call as the model does, with other tensors for its inputs."""
        args, kwargs = self.node.arguments(tensors)
        operation = self.layer
        name = self.building.name(operation.name)
        if name != operation.name:  # another call of it, or something else of that name
            operation = Inside(operation, name=name)
        return operation(*args, **kwargs)

    def applied(self, function: Function, shape: Shaped | None = None, what: str = "") -> Function:
        """Returns a function of tensors as a layer.

        Args:
            function: Without weights.
            shape: Of its output; default: the first input's.
            what: Ends the layer's name.
        """
        name = self.building.name(f"{self.path}_{what}" if what else self.path)
        return Applied(function, shape, name=name)

    # -- grids ---------------------------------------------------------------------------------

    def settled(self, value: Value) -> Value:
        """Brings a sum to its grid; a float stays one."""
        return self.on_grid(value) if value.sum is not None else value

    def _off_grid(self, value: Value) -> Any:
        """Returns the tensor of a value that operations in floats read."""
        if value.whole:
            return value.tensor
        settled = self.settled(value)
        if settled.range is None:
            return settled.tensor
        return OffGrid(name=self.building.name(f"{self.path}_float"))(settled.tensor)

    def on_grid(self, value: Value) -> Value:
        """Brings a value to a grid of its own, unless it is on one.

        Integers that are read as numbers (pixels) are values on a grid from then on.
        """
        if not value.whole:
            return brought(self.building, value)
        if value.real is None:
            grid = self.building.range(value.name, BYTES.get(str(value.tensor.dtype)))
            value.real = Value(value.name, grid(value.tensor), grid)
        return value.real

    def _own_range(self, value: Value) -> Value:
        """Returns a value whose range can be tied: one that is prescribed is brought to another.

        By an operation: a second range right behind the first is more than the converter knows.
        """
        if value.grid.fixed is None:
            return value
        kernel = AffineKernel(Affine(None, partial(_unchanged, int(value.tensor.shape[-1]))))
        return self.on_grid(self.kernel(kernel, value, f"{value.name}_copied"))

    def _made(self, sum: Sum) -> Value:
        return Value(self.path, sum=sum)


def brought(building: Building, value: Value) -> Value:
    """Brings a value to a grid of its own, unless it is on one, or of whole numbers."""
    if value.range is not None or value.whole:
        return value
    fixed, cap = (None, None) if value.sum is None else (value.sum.fixed, value.sum.cap)
    tensor = value.tensor if value.sum is None else value.sum.make()
    value.range = building.range(value.name, fixed, cap=cap)
    value.tensor, value.sum = value.range(tensor), None
    value.plain = tensor if fixed is not None else None
    return value


def made_loose(call: Call) -> bool:
    """Tells whether what a call makes in floats stays one where a kernel does not read it."""
    if call.building.integer_products:
        return False
    return "multiplies" in class_of(call.layer).traits or reads_loose(call)


def reads_loose(call: Call) -> bool:
    """Tells whether a call lies behind a product in floats, and is made in floats as well."""
    loose = "loose" in class_of(call.layer).traits
    return loose and any(value.loose for value in call.inputs)


def _unchanged(channels: int) -> tuple[Any, Any]:
    """Returns a scale and an offset that change nothing."""
    import tensorflow as tf

    return tf.ones((channels,)), None


def _is_real(tensor: Any) -> bool:
    return "float" in str(tensor.dtype)
