"""Small layers that a fake-quantized model needs beside ranges and kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from compress.quantization.layers.ranges import FakeQuant

_NOTHING = 1e-30
"""Less than any difference of two values on a grid."""


class Inside(keras.layers.Layer):  # type: ignore[misc]
    """Calls a layer under another name: nested models may hold layers of equal names.

    Args:
        layer: Built.
    """

    def __init__(self, layer: Any, **settings: Any) -> None:
        super().__init__(**settings)
        self.layer = layer
        self.built = True

    def call(self, *inputs: Any, **settings: Any) -> Any:
        """Calls it."""
        return self.layer(*inputs, **settings)

    def compute_output_spec(self, *inputs: Any, **settings: Any) -> Any:
        """Says what the layer makes."""
        return self.layer.compute_output_spec(*inputs, **settings)


class Applied(keras.layers.Layer):  # type: ignore[misc]
    """Applies a function without weights.

    Args:
        function: Of tensors.
        shape: Of its output for the shapes of its inputs; default: that of the first input.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        shape: Callable[..., tuple[int | None, ...]] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.function, self.shape = function, shape
        self.built = True

    def call(self, *inputs: Any) -> Any:
        """Applies it."""
        return self.function(*inputs)

    def compute_output_spec(self, *inputs: Any) -> Any:
        """Says what shape comes of it."""
        shapes = [tuple(tensor.shape) for tensor in inputs]
        made = shapes[0] if self.shape is None else self.shape(*shapes)
        return keras.KerasTensor(made, inputs[0].dtype)


class OffGrid(keras.layers.Layer):  # type: ignore[misc]
    """Hands a value of a grid to operations in floats.

    The converter computes the mean of a value that lies on a grid in whole numbers, on that same
    grid, whatever reads it: the mean of a layer normalization would be rounded. So a file adds
    a number that changes nothing, and that no converter takes for 0.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.for_file = False
        self.built = True

    def call(self, inputs: Any) -> Any:
        """Returns them; for a file, by an operation in floats."""
        return inputs + _NOTHING if self.for_file else inputs

    def compute_output_spec(self, inputs: Any) -> Any:
        """Says that shapes stay."""
        return keras.KerasTensor(inputs.shape, inputs.dtype)


class WithConstant(keras.layers.Layer):  # type: ignore[misc]
    """Combines values with a constant, or a weight, that is rounded to a grid of its own.

    Args:
        function: Of values and the constant.
        constant: Returns it (graph code).
        range: Of the constant.
        layer: Whose weight it is, or None.
    """

    def __init__(
        self,
        function: Callable[[Any, Any], Any],
        constant: Callable[[], Any],
        range: FakeQuant,
        layer: Any = None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.function, self.constant, self.range, self.layer = function, constant, range, layer
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Combines them."""
        return self.function(inputs, self.range(self.constant(), training=training))

    def compute_output_spec(self, inputs: Any, training: bool | None = None) -> Any:
        """Says that shapes stay."""
        return keras.KerasTensor(inputs.shape, inputs.dtype)


class QuantizedTable(keras.layers.Layer):  # type: ignore[misc]
    """Looks rows up in a table of whole numbers.

    Args:
        layer: A `keras.layers.Embedding`.
        range: Of the table's entries, and so of what is looked up.
    """

    def __init__(self, layer: Any, range: FakeQuant, **settings: Any) -> None:
        super().__init__(**settings)
        self.layer, self.range = layer, range
        self.built = True

    def call(self, indices: Any, training: bool | None = None) -> Any:
        """Looks up."""
        table = tf.convert_to_tensor(self.layer.embeddings.value)
        return tf.gather(self.range(table, training=training), tf.cast(indices, tf.int32))

    def compute_output_spec(self, indices: Any, training: bool | None = None) -> Any:
        """Says what shape comes of it."""
        width = self.layer.output_dim
        return keras.KerasTensor((*indices.shape, width), self.layer.compute_dtype)
