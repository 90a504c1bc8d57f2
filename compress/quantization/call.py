"""Call of a layer as rules see it: its values, and the computations a rule can use.

Products of activations stay in float, together with the operations between two of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from compress.model.layers import find_layer_class
from compress.model.ports import PIXEL_RANGES
from compress.model.program import Node
from compress.quantization.kernels import Affine, Kernel
from compress.quantization.layers import (
    FloatBoundary,
    FunctionLayer,
    LeakySlopes,
    QuantizedKernel,
    RenamedLayer,
    WithConstant,
)
from compress.quantization.values import Function, Sum, TwinBuilder, Value, bring_to_grid

FASTER = "CPUs multiply activations far faster in floats"
READS_ONE = "it reads the product of activations that is computed in floats"


@dataclass(eq=False)
class Call:
    """Call of a layer or operation, and the values of its inputs.

    Attributes:
        node: Node in the model's program.
        path: Name of the call, after the names of enclosing models.
        inputs: Values of the inputs.
        builder: State that all calls share.
    """

    node: Node
    path: str
    inputs: list[Value]
    builder: TwinBuilder

    @property
    def layer(self) -> Any:
        """The layer or operation."""
        return self.node.operation

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Shape of the first output in the original model, batch axis included."""
        return tuple(self.node.outputs[0].shape)

    def get_input_shape(self, index: int) -> tuple[int | None, ...]:
        """Return the shape of an input; sizes that are open in the model may be known here.

        Args:
            index: Index of the input.
        """
        tensor = self.inputs[index].tensor
        return tuple((self.node.inputs[index] if tensor is None else tensor).shape)

    # -- computations for rules -----------------------------------------------------------------

    def apply_kernel(self, kernel: Kernel, value: Value, name: str = "") -> Value:
        """Return the output of a kernel for a value, before an activation.

        Args:
            kernel: Kernel of a layer.
            value: Input; it is rounded to its grid first.
            name: Name of the new layer; default: the name of the call.
        """
        quantized, builder, name = self.to_grid(value), self.builder, name or self.path

        def build_output(affines: tuple[Affine, ...]) -> Any:
            layer = QuantizedKernel(
                builder.state,
                kernel,
                quantized.grid,
                affines,
                reduced_range=builder.reduced_range,
                name=builder.reserve_name(name),
            )
            return layer(quantized.tensor)

        def build_sum(affines: tuple[Affine, ...]) -> Sum:
            return Sum(
                lambda: build_output(affines),
                fold_affine=lambda affine: build_sum((*affines, affine)),
            )

        return Value(self.path, sum=build_sum(()))

    def apply_affine(self, value: Value, affine: Affine) -> Value:
        """Scale and shift a value per channel, folded into the preceding kernel if possible.

        Otherwise it is a depthwise kernel, or a float operation if a size of the value is open.

        Args:
            value: Input.
            affine: Scale and offset per channel.
        """
        if value.sum is not None and value.sum.fold_affine is not None and value.users == 1:
            return Value(self.path, sum=value.sum.fold_affine(affine))
        if None in self.to_grid(value).tensor.shape[1:]:
            return self.apply_in_float(self.wrap_function(affine.apply), value, "a size is open")
        return self.apply_kernel(affine, value)

    def rectified(self, value: Value, function: Function, cap: float | None = None) -> Value:
        """Apply a ReLU to a value, fused with the preceding operation or on the value's grid.

        Args:
            value: Input of the ReLU.
            function: The ReLU, a function of a symbolic tensor.
            cap: Upper limit of the ReLU. The range ends there, so the function need not clip.
        """
        unfinished_sum = value.sum
        if unfinished_sum is not None and unfinished_sum.fuses and value.users == 1:
            fused_sum = Sum(lambda: function(unfinished_sum.build()), fuses=False, cap=cap)
            return Value(self.path, sum=fused_sum)
        if cap is not None:
            return self.apply_with_range(function, value, fuses=False, cap=cap)
        return self.apply_on_grid(function, value)[0]

    def apply_with_range(
        self, function: Function, *values: Value, fuses: bool = True, **settings: Any
    ) -> Value:
        """Return the result of integer arithmetic on values, with its own range.

        Args:
            function: Function of symbolic tensors.
            values: Inputs; they are rounded to their grids first.
            fuses: Whether a following ReLU can be fused.
            settings: Settings of its range, see `Sum`.
        """
        tensors = [self.to_grid(value).tensor for value in values]
        return Value(self.path, sum=Sum(lambda: function(*tensors), fuses=fuses, **settings))

    def combine_with_constant(
        self, function: Function, value: Value, constant: Callable[[], Any], layer: Any = None
    ) -> Value:
        """Combine a value with a constant; the result has its own range.

        Args:
            function: Function of the value and the constant, with the value's shape.
            value: Input; it is rounded to its grid first.
            constant: Function that returns the constant or a weight (graph code).
            layer: Layer that holds the weight, or None.
        """
        constant_range = self.builder.add_range(f"{self.path}_constant")
        name = self.builder.reserve_name(f"{self.path}_with_constant")
        return self.apply_with_range(
            WithConstant(function, constant, constant_range, layer, name=name), value
        )

    def apply_with_fixed_range(
        self, function: Function, value: Value, low: float, high: float
    ) -> Value:
        """Return a function of a value, with the range that the runtime prescribes.

        Args:
            function: Function of a symbolic tensor.
            value: Input; it is rounded to its grid first.
            low, high: The range.
        """
        return self.apply_with_range(function, value, fuses=False, fixed=(low, high))

    def apply_leaky_relu(self, value: Value, slope: float) -> Value:
        """Apply a leaky ReLU to a value; the result has its own range.

        Args:
            value: Input; it is rounded to its grid first.
            slope: Slope for negative values.
        """
        quantized, builder = self.to_grid(value), self.builder
        output_range = builder.add_range(self.path)
        layer = LeakySlopes(
            builder.state, slope, quantized.grid, output_range, name=builder.reserve_name(self.path)
        )
        return Value(self.path, output_range(layer(quantized.tensor)), output_range)

    def apply_on_grid(
        self, function: Function, *values: Value, rounds: bool = False, away: bool = False
    ) -> list[Value]:
        """Return the outputs of an operation that keeps the grid of its inputs.

        Args:
            function: Function of symbolic tensors that returns one tensor or a list.
            values: Inputs; they are rounded to one grid first, with tied ranges.
            rounds: Whether the results must be rounded to that grid again.
            away: Whether ties are then rounded away from 0.
        """
        quantized = [self.to_grid(value) for value in values]
        if len({value.grid.fixed for value in quantized}) > 1:
            quantized = [self._copy_prescribed(value) for value in quantized]
        first = quantized[0].grid
        for other in quantized[1:]:
            first.tie(other.grid)
        results = []
        for tensor in keras.tree.flatten(function(*[value.tensor for value in quantized])):
            layer = self.builder.add_range(self.path, first.fixed, rounds=rounds, away=away)
            first.tie(layer)
            results.append(Value(self.path, layer(tensor), layer))
        return results

    def pass_through(self, value: Value, function: Function) -> Value:
        """Return a value that inference does not change.

        Args:
            value: Value of an input.
            function: Function that training applies to it.
        """
        if value.sum is not None or value.is_integer:
            value = self.to_grid(value)
        return Value(self.path, function(value.tensor), value.range, loose=value.loose)

    def apply_in_float(self, function: Function, value: Value, reason: str) -> Value:
        """Return a function of a value, computed in float, and record the reason.

        Args:
            function: Function of a symbolic tensor.
            value: The input; a sum is rounded to its grid first.
            reason: Reason why it is not computed in integers.
        """
        self.builder.record_call(self.path, self.layer, reason)
        return Value(self.path, function(self._take_float(value)))

    def keep_in_float(self, reason: str) -> list[Value]:
        """Compute the unchanged call in float, and record the reason.

        Args:
            reason: Reason why it is not computed in integers.
        """
        self.builder.record_call(self.path, self.layer, reason)
        outputs = keras.tree.flatten(self.itself(*map(self._take_float, self.inputs)))
        loose = "multiplies" in find_layer_class(self.layer).traits or should_stay_float(self)
        return [
            Value(
                self.path, tensor, loose=loose and _is_real(tensor), is_integer=not _is_real(tensor)
            )
            for tensor in outputs
        ]

    def compute_integers(self) -> list[Value]:
        """Compute the unchanged call on shapes, indices or booleans."""
        outputs = keras.tree.flatten(self.itself(*[self.finish_sum(v).tensor for v in self.inputs]))
        return [Value(self.path, tensor, is_integer=True) for tensor in outputs]

    # -- layers of the new model ---------------------------------------------------------------

    def itself(self, *tensors: Any) -> Any:
        """Apply the layer or operation of the call to other tensors."""
        args, kwargs = self.node.fill_arguments(tensors)
        operation = self.layer
        name = self.builder.reserve_name(operation.name)
        if name != operation.name:  # another layer has this name, or it is called again
            operation = RenamedLayer(operation, name=name)
        return operation(*args, **kwargs)

    def wrap_function(
        self, function: Function, shape: Function | None = None, suffix: str = ""
    ) -> Function:
        """Return a function of tensors as a layer.

        Args:
            function: Function without weights.
            shape: Function that returns its output shape; default: the shape of the first input.
            suffix: Suffix of the layer's name.
        """
        name = self.builder.reserve_name(f"{self.path}_{suffix}" if suffix else self.path)
        return FunctionLayer(function, shape=shape, name=name)

    # -- grids ---------------------------------------------------------------------------------

    def finish_sum(self, value: Value) -> Value:
        """Round a sum to its grid; a float is returned unchanged.

        Args:
            value: A sum or a finished value.
        """
        return self.to_grid(value) if value.sum is not None else value

    def _take_float(self, value: Value) -> Any:
        """Return the tensor of a value for operations in floats."""
        finished = self.finish_sum(value)
        if finished.range is None:
            return finished.tensor
        return FloatBoundary(name=self.builder.reserve_name(f"{self.path}_float"))(finished.tensor)

    def to_grid(self, value: Value) -> Value:
        """Round a value to its own grid, unless it is on one.

        Integers that are read as real values (pixels) get a quantized version, which is kept.

        Args:
            value: A value on a grid, a sum, a float or integers.
        """
        if not value.is_integer:
            return bring_to_grid(self.builder, value)
        if value.real_value is None:
            grid = self.builder.add_range(value.name, PIXEL_RANGES.get(str(value.tensor.dtype)))
            value.real_value = Value(value.name, grid(value.tensor), grid)
        return value.real_value

    def _copy_prescribed(self, value: Value) -> Value:
        """Return a value with a range that can be tied, which prescribed ranges cannot.

        The value is copied by an operation, because the converter does not support a second range
        directly after the first.
        """
        if value.grid.fixed is None:
            return value
        channels = int(value.tensor.shape[-1])
        kernel = Affine(None, lambda: (tf.ones((channels,)), None))
        return self.to_grid(self.apply_kernel(kernel, value, f"{value.name}_copied"))


def should_stay_float(call: Call) -> bool:
    """Return whether a call follows a float product of activations and therefore stays float.

    Args:
        call: The call.
    """
    loose = "loose" in find_layer_class(call.layer).traits
    return loose and any(value.loose for value in call.inputs)


def _is_real(tensor: Any) -> bool:
    return "float" in str(tensor.dtype)
