"""Call of a layer, as its rule sees it: its values, and the computations that it offers.

Products of activations may be computed in floats, and with them what lies between two of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import tensorflow as tf

from compress.model.layers import class_of
from compress.model.ports import BYTES
from compress.model.program import Node
from compress.quantization.kernels import Affine, Kernel
from compress.quantization.layers import (
    Applied,
    Inside,
    LeakySlopes,
    OffGrid,
    QuantizedKernel,
    WithConstant,
)
from compress.quantization.ranges import FakeQuant, State

Function = Callable[..., Any]
FASTER = "CPUs multiply activations far faster in floats (integer_products: in whole numbers)"
READS_ONE = "it reads the product of activations that is computed in floats"
_NOT_IN_SCOPES = re.compile(r"[^A-Za-z0-9_.-]")


@dataclass(eq=False)
class Value:
    """Tensor of the fake-quantized model.

    Attributes:
        name: Of the call that made it.
        tensor: Symbolic; None as long as it is a sum.
        range: The layer that brought it to its grid; None: it is a float, or no real number.
        sum: What it is before it is brought to a grid.
        plain: The tensor before a range that the runtime prescribes; None: it has no such.
        loose: A float behind a product of activations, that stays one where no kernel reads it.
        whole: Whole numbers or booleans, such as indices: never on a grid.
        real: Of whole numbers that some call reads as real ones: the same on a grid.
        users: How many calls read it, each of the model's outputs counted as one: with what one
            alone reads that one may be fused. What a call makes on its way it reads itself, once.
    """

    name: str
    tensor: Any = None
    range: FakeQuant | None = None
    sum: Sum | None = None
    plain: Any = None
    loose: bool = False
    whole: bool = False
    real: Value | None = None
    users: int = 1

    @property
    def grid(self) -> FakeQuant:
        """The range of a value that is on a grid."""
        assert self.range is not None
        return self.range


@dataclass(frozen=True, eq=False)
class Sum:
    """Result of integer arithmetic before it is brought to a grid: more may be fused with it.

    Attributes:
        make: Returns the symbolic tensor; called once.
        fuses: A ReLU behind it is part of it.
        folds: Takes a scale and an offset by channel and returns the sum with them in its kernel;
            None: it has none.
        fixed: Range that the runtime prescribes.
        cap: Where its range ends at most.
    """

    make: Callable[[], Any]
    fuses: bool = True
    folds: Callable[[Affine], Sum] | None = None
    fixed: tuple[float, float] | None = None
    cap: float | None = None


@dataclass(eq=False)
class Building:
    """State that all calls share.

    Attributes:
        state: Of the model's layers.
        learned: Ranges are trained.
        integer_products: Activations are multiplied by each other in whole numbers too.
        reduced_range: Weights have 7 bits; see `QuantizedKernel`.
        placed: One record a call, in their order.
        ranges: All layers of ranges, in the order in which they were made.
    """

    state: State
    learned: bool = False
    integer_products: bool = False
    reduced_range: bool = False
    placed: list[Placed] = field(default_factory=list)
    ranges: list[FakeQuant] = field(default_factory=list)
    _names: set[str] = field(default_factory=set)

    def name(self, wanted: str) -> str:
        """Return a layer name that no other layer has, and that TensorFlow takes as a scope.

        Names come from users' layers and functions: "<lambda>" or "größe" are no scopes.
        """
        found = wanted = _NOT_IN_SCOPES.sub("_", wanted).lstrip("_-") or "call"
        number = 0
        while found in self._names:
            number += 1
            found = f"{wanted}_{number}"
        self._names.add(found)
        return found

    def range(
        self, name: str, fixed: tuple[float, float] | None = None, **settings: Any
    ) -> FakeQuant:
        """Make the layer of a range; see `FakeQuant` for the settings."""
        made = FakeQuant(
            self.state,
            fixed=fixed,
            learned=self.learned,
            name=self.name(f"{name}_range"),
            **settings,
        )
        self.ranges.append(made)
        return made

    def note(self, layer: str, operation: Any, reason: str = "") -> None:
        """Record how a call is computed."""
        self.placed.append(Placed(layer, type(operation).__name__, reason))


@dataclass(frozen=True)
class Placed:
    """Computation of one call: in integers, or in floats with a reason.

    Attributes:
        layer: Its name, behind those of the models that it is nested in.
        kind: Class of the layer or operation.
        reason: Why it is computed in floats; "": it is computed in whole numbers.
    """

    layer: str
    kind: str
    reason: str = ""


@dataclass(eq=False)
class Call:
    """Call of a layer or operation, and the values of its inputs.

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
        """Shape of the first output, as the model has it, batch axis included."""
        return tuple(self.node.outputs[0].shape)

    def shape_of(self, place: int) -> tuple[int | None, ...]:
        """Return the shape of an input; sizes that the model leaves open may be known here."""
        tensor = self.inputs[place].tensor
        return tuple((self.node.inputs[place] if tensor is None else tensor).shape)

    # -- what a call may make of values ---------------------------------------------------------

    def kernel(self, kernel: Kernel, value: Value, name: str = "") -> Value:
        """Return the output of a kernel for a value, before an activation.

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

        return Value(self.path, sum=summed(()))

    def scaled(self, value: Value, affine: Affine) -> Value:
        """Return a value scaled and shifted by channel: in the kernel before, if it can be."""
        if value.sum is not None and value.sum.folds is not None and value.users == 1:
            return Value(self.path, sum=value.sum.folds(affine))
        if None in self.on_grid(value).tensor.shape[1:]:
            return self.step_in_float(self.applied(affine.of), value, "a size is open")
        return self.kernel(affine, value)

    def rectified(self, value: Value, function: Function, cap: float | None = None) -> Value:
        """Return a value behind a ReLU: fused with the operation before, or on its grid.

        Args:
            value: Its input.
            function: Of a symbolic tensor.
            cap: Where it ends: the range ends there, and the function need not.
        """
        before = value.sum
        if before is not None and before.fuses and value.users == 1:
            fused = Sum(lambda: function(before.make()), fuses=False, cap=cap)
            return Value(self.path, sum=fused)
        if cap is not None:
            return self.summed(function, value, fuses=False, cap=cap)
        return self.same(function, value)[0]

    def summed(
        self, function: Function, *values: Value, fuses: bool = True, **settings: Any
    ) -> Value:
        """Return the result of integer arithmetic on values, with a range of its own.

        Args:
            function: Of symbolic tensors.
            values: Brought to their grids first.
            fuses: A ReLU behind it is part of it.
            settings: Of its range, see `Sum`.
        """
        tensors = [self.on_grid(value).tensor for value in values]
        return Value(self.path, sum=Sum(lambda: function(*tensors), fuses=fuses, **settings))

    def with_constant(
        self, function: Function, value: Value, constant: Callable[[], Any], layer: Any = None
    ) -> Value:
        """Return a value combined with a constant, with a range of its own.

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
        """Return a function of a value, with the range that the runtime prescribes."""
        return self.summed(function, value, fuses=False, fixed=(low, high))

    def leaky(self, value: Value, slope: float) -> Value:
        """Return a value behind a leaky ReLU, with a range of its own."""
        settled, building = self.on_grid(value), self.building
        made = building.range(self.path)
        layer = LeakySlopes(
            building.state, slope, settled.grid, made, name=building.name(self.path)
        )
        return Value(self.path, made(layer(settled.tensor)), made)

    def same(
        self, function: Function, *values: Value, rounds: bool = False, away: bool = False
    ) -> list[Value]:
        """Return the outputs of an operation that keeps the grid of its inputs.

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
            first.tie(other.grid)
        results = []
        for tensor in keras.tree.flatten(function(*[value.tensor for value in settled])):
            layer = self.building.range(self.path, first.fixed, rounds=rounds, away=away)
            first.tie(layer)
            results.append(Value(self.path, layer(tensor), layer))
        return results

    def passed(self, value: Value, function: Function) -> Value:
        """Return a value that inference leaves as it is.

        Args:
            value: Of an input.
            function: What training does with it.
        """
        if value.sum is not None or value.whole:
            value = self.on_grid(value)
        return Value(self.path, function(value.tensor), value.range, loose=value.loose)

    def step_in_float(self, function: Function, value: Value, reason: str) -> Value:
        """Return a function of a value, computed in floats, and record the reason.

        Args:
            function: Of a symbolic tensor.
            value: On its grid, or a float.
            reason: Why it is not computed in whole numbers.
        """
        self.building.note(self.path, self.layer, reason)
        return Value(self.path, function(self._off_grid(value)))

    def in_float(self, reason: str) -> list[Value]:
        """Make the call as it is, in floats, and record the reason."""
        self.building.note(self.path, self.layer, reason)
        made = keras.tree.flatten(self.itself(*map(self._off_grid, self.inputs)))
        loose = "multiplies" in class_of(self.layer).traits or reads_loose(self)
        loose = loose and not self.building.integer_products
        return [
            Value(self.path, tensor, loose=loose and _is_real(tensor), whole=not _is_real(tensor))
            for tensor in made
        ]

    def whole_numbers(self) -> list[Value]:
        """Make the call as it is: it computes shapes, indices or booleans."""
        made = keras.tree.flatten(self.itself(*[self.settled(v).tensor for v in self.inputs]))
        return [Value(self.path, tensor, whole=True) for tensor in made]

    # -- layers of the new model ---------------------------------------------------------------

    def itself(self, *tensors: Any) -> Any:
        """Make the call as the model does, with other tensors for its inputs."""
        args, kwargs = self.node.arguments(tensors)
        operation = self.layer
        name = self.building.name(operation.name)
        if name != operation.name:  # another call of it, or something else of that name
            operation = Inside(operation, name=name)
        return operation(*args, **kwargs)

    def applied(
        self, function: Function, shape: Function | None = None, what: str = ""
    ) -> Function:
        """Return a function of tensors as a layer.

        Args:
            function: Without weights.
            shape: Of its output; default: the first input's.
            what: Ends the layer's name.
        """
        name = self.building.name(f"{self.path}_{what}" if what else self.path)
        return Applied(function, shape=shape, name=name)

    # -- grids ---------------------------------------------------------------------------------

    def settled(self, value: Value) -> Value:
        """Bring a sum to its grid, and leave a float as it is."""
        return self.on_grid(value) if value.sum is not None else value

    def _off_grid(self, value: Value) -> Any:
        """Return the tensor of a value for operations in floats."""
        settled = self.settled(value)
        if settled.range is None:
            return settled.tensor
        return OffGrid(name=self.building.name(f"{self.path}_float"))(settled.tensor)

    def on_grid(self, value: Value) -> Value:
        """Bring a value to a grid of its own, unless it is on one.

        Integers that are read as numbers (pixels) are values on a grid from then on.
        """
        if not value.whole:
            return brought(self.building, value)
        if value.real is None:
            grid = self.building.range(value.name, BYTES.get(str(value.tensor.dtype)))
            value.real = Value(value.name, grid(value.tensor), grid)
        return value.real

    def _own_range(self, value: Value) -> Value:
        """Return a value with a range that can be tied; a prescribed one cannot.

        By an operation: a second range right behind the first is more than the converter knows.
        """
        if value.grid.fixed is None:
            return value
        channels = int(value.tensor.shape[-1])
        kernel = Affine(None, lambda: (tf.ones((channels,)), None))
        return self.on_grid(self.kernel(kernel, value, f"{value.name}_copied"))


def brought(building: Building, value: Value) -> Value:
    """Bring a value to a grid of its own, unless it is on one or holds integers."""
    if value.range is not None or value.whole:
        return value
    fixed, cap = (None, None) if value.sum is None else (value.sum.fixed, value.sum.cap)
    tensor = value.tensor if value.sum is None else value.sum.make()
    value.range = building.range(value.name, fixed, cap=cap)
    value.tensor, value.sum = value.range(tensor), None
    value.plain = tensor if fixed is not None else None
    return value


def reads_loose(call: Call) -> bool:
    """Tell whether a call lies behind a product in floats, and is made in floats as well."""
    loose = "loose" in class_of(call.layer).traits
    return loose and any(value.loose for value in call.inputs)


def _is_real(tensor: Any) -> bool:
    return "float" in str(tensor.dtype)
