"""The law of channel pruning, checked against an independent reference.

*For any kept set, the sliced model equals the original in which every removed entry of every
variable is zero.* Layers that reduce over the channel axis (normalization over channels,
softmax) take their statistics over the kept channels: the reference computes those in NumPy.

*Without blocks, it equals the original in which their operands of the sums are zero.*
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from compress.measure import count_macs
from compress.model.keras_internals import is_graph, list_named_weights, update_derived_state
from compress.model.program import Node, Program
from compress.model.recording import record_program
from compress.prune.channels.analysis import analyze_coupling
from compress.prune.channels.coupling.blocks import Block, list_blocks
from compress.prune.channels.coupling.groups import Coupling, Mask
from compress.prune.channels.selection.costs import CostModel
from compress.prune.channels.surgery import (
    PrunedModelBuilder,
    compute_kept_indices,
)

Array = npt.NDArray[Any]
TOLERANCE = 1e-5
SEEDS = [0, pytest.param(1, marks=pytest.mark.matrix)]
"""Seeds of `check` for each rule; the default tests of random graphs have six others."""
STATISTICS = frozenset(
    [
        "GroupNormalization",
        "LayerNormalization",
        "LogSoftmax",
        "RMSNormalization",
        "Softmax",
        "Sparsemax",
        "UnitNormalization",
        "log_softmax",
        "softmax",
        "sparsemax",
    ]
)
"""Layers, operations and activations that reduce over channels."""


def check(
    model: Any,
    *,
    seed: int = 0,
    keep: float | None = None,
    mask: Mask | None = None,
    inputs: Any = None,
    removes: bool = True,
    input_shape: Any = None,
    dropped: Sequence[int] = (),
) -> tuple[Coupling, Any, Mask]:
    """Slices a model with random weights to random kept sets and checks the law.

    Args:
        model: Its weights are replaced by random ones.
        seed: Of weights, inputs and kept sets.
        keep: Share of the units of each group that stay (at least one); None: random.
        mask: Kept units instead of random ones.
        inputs: Arrays in the model's input structure; default: normal random ones.
        removes: Something must have been removed.
        input_shape: Of a subclassed model.
        dropped: Indices of blocks that leave.

    Returns:
        The coupling, the sliced model, the mask.
    """
    rng = np.random.default_rng(seed)
    randomize(model, rng)
    before = [weight.numpy() for weight in model.weights]
    coupling = analyze_coupling(model, input_shape)
    if mask is None:
        mask = random_mask(coupling, rng, keep)
    assert not removes or not mask.all(), "nothing was removed"
    if inputs is None:
        inputs = random_inputs(coupling.program, rng)
    blocks = [list_blocks(coupling)[index] for index in dropped]
    surgeon = PrunedModelBuilder(coupling, mask, blocks)
    sliced, new = surgeon.build(coupling.program), surgeon.new_weights
    check_slices(coupling, mask, new, blocks)
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value, "the model was modified")
    check_costs(coupling, mask, sliced, blocks)
    compare(reference(coupling, mask, inputs, blocks), outputs_of(sliced, inputs))
    return coupling, sliced, mask


def randomize(model: Any, rng: np.random.Generator) -> None:
    """Fills all weights: kernels by fan-in, statistics and scales far from 0 and 1."""
    for weight in model.weights:
        if "seed_generator" in weight.path or "int" in str(weight.dtype):
            continue
        shape = tuple(weight.shape)
        if any(word in weight.path for word in ("variance", "gamma", "scale")):
            value = 0.5 + rng.random(shape)
        elif len(shape) > 1 and "bias" not in weight.path:
            value = rng.normal(size=shape) * np.sqrt(2.0 / max(1, np.prod(shape[:-1])))
        else:
            value = 0.3 * rng.normal(size=shape)
        weight.assign(value)
    update_derived_state(model)


def random_mask(coupling: Coupling, rng: np.random.Generator, keep: float | None = None) -> Mask:
    """Removes random units of every group, at least one if there are two; one stays."""
    mask = np.ones(coupling.unit_count, bool)
    for group in coupling.groups:
        size = len(group.units)
        count = rng.integers(1, max(2, size)) if keep is None else max(1, round(keep * size))
        mask[rng.permutation(group.units)[count:]] = False
    return mask


def random_inputs(program: Program, rng: np.random.Generator, batch: int = 2) -> Any:
    """Makes normal inputs in the model's structure; small integers for integer inputs."""
    import keras

    def array(tensor: Any) -> Array:
        shape = [
            tensor.shape[0] or batch,
            *(5 if size is None else size for size in tensor.shape[1:]),
        ]
        if "int" in tensor.dtype:
            return rng.integers(0, 5, size=shape).astype(tensor.dtype)
        return rng.normal(size=shape).astype(np.float32)

    return keras.tree.map_structure(array, program.input_structure)


def outputs_of(model: Any, inputs: Any) -> list[Array]:
    """Runs a model in inference mode; returns its outputs, flat."""
    import keras

    outputs = model(keras.tree.map_structure(keras.ops.convert_to_tensor, inputs), training=False)
    return [np.asarray(keras.ops.convert_to_numpy(value)) for value in keras.tree.flatten(outputs)]


def compare(expected: list[Array], received: list[Array], tolerance: float = TOLERANCE) -> float:
    """Asserts that outputs agree to a share of their scale; returns the largest error."""
    assert len(expected) == len(received) > 0
    worst = 0.0
    for one, two in zip(expected, received, strict=True):
        assert one.shape == two.shape
        assert np.all(np.isfinite(one)), "the reference is not finite"
        scale = max(float(np.max(np.abs(one), initial=0.0)), 1e-6)
        worst = max(worst, float(np.max(np.abs(one - two), initial=0.0)) / scale)
    assert worst <= tolerance, f"law broken: {worst:.2e} of the output's scale"
    return worst


def check_slices(
    coupling: Coupling, mask: Mask, new: dict[int, Any], dropped: Sequence[Block] = ()
) -> None:
    """Asserts that surviving weights are exact slices of the original ones.

    The one exception is written down in docs/methods/channels.md: a query projection is multiplied
    by the root of (new / old key width).
    """
    indices = PrunedModelBuilder(coupling, mask, dropped).list_kept_indices()
    scaled = {id(variable) for scales in coupling.graph.scales.values() for variable, _ in scales}
    compared = 0
    for weight in coupling.program.model.weights:
        gone = any(kept is not None and not len(kept) for kept in indices[id(weight)])
        if id(weight) not in new:
            continue
        assert not gone, weight.path
        compared += 1
        expected = weight.numpy()
        for axis, kept in enumerate(indices[id(weight)]):
            expected = expected if kept is None else np.take(expected, kept, axis)
        received = new[id(weight)].numpy()
        if id(weight) in scaled:
            factor = np.linalg.norm(received) / np.linalg.norm(expected)
            assert 0 < factor <= 1
            np.testing.assert_allclose(received, factor * expected, rtol=1e-5)
        else:
            np.testing.assert_array_equal(received, expected, weight.path)
    assert compared > 0 or mask.all(), "no weight was compared"


def check_costs(coupling: Coupling, mask: Mask, sliced: Any, dropped: Sequence[Block] = ()) -> None:
    """Compares costs from channel counts with the counts of the built model."""
    kept = np.array([mask[group.units].sum() for group in coupling.groups])
    present = np.ones(len(list_blocks(coupling)))
    present[[block.index for block in dropped]] = 0
    assert int(CostModel.from_coupling(coupling).params(kept, present)) == sum(
        int(np.prod(weight.shape)) for weight in sliced.weights
    )
    analysis = count_macs(sliced)
    if not analysis.unsupported:
        counted: Counter[str] = Counter()
        for row in analysis.layers:
            counted[row.name] += row.macs or 0
        own = CostModel.from_coupling(coupling).macs.compute_by_layer(kept, present)
        differing = {
            name: (own.get(name, 0.0), macs)
            for name, macs in counted.items()
            if own.get(name, 0.0) != macs
        }
        macs = float(CostModel.from_coupling(coupling).macs(kept, present))
        assert round(macs) == analysis.macs, differing


def reference(
    coupling: Coupling, mask: Mask, inputs: Any, dropped: Sequence[Block] = ()
) -> list[Array]:
    """Outputs of the original with removed entries of its variables, and blocks, set to zero."""
    model = coupling.program.model
    indices = compute_kept_indices(coupling, mask)
    originals = {path: variable.numpy() for path, variable in list_named_weights(model)}
    try:
        for path, variable in list_named_weights(model):
            variable.assign(zeroed(originals[path], indices[path]))
        update_derived_state(model)
        nodes = coupling.program.walk()
        if not dropped and not any(_needs_statistics(node.operation) for node in nodes):
            return outputs_of(model, inputs)
        return _Interpreter(coupling, mask, dropped).run(coupling.program, _flat(inputs))
    finally:
        for path, variable in list_named_weights(model):
            variable.assign(originals[path])
        update_derived_state(model)


def zeroed(value: Array, kept: tuple[Array | None, ...]) -> Array:
    """Sets what is removed to zero."""
    for axis, indices in enumerate(kept):
        if indices is not None:
            flags = np.zeros(value.shape[axis], bool)
            flags[indices] = True
            shape = [-1 if other == axis else 1 for other in range(value.ndim)]
            value = np.where(flags.reshape(shape), value, 0)
    return value


def _flat(inputs: Any) -> list[Array]:
    import keras

    return list(keras.tree.flatten(inputs))


class _Interpreter:
    """Runs a recorded program call by call, layers that reduce over channels in NumPy."""

    def __init__(self, coupling: Coupling, mask: Mask, dropped: Sequence[Block]) -> None:
        self.coupling = coupling
        self.kept = coupling.build_kept_slots(mask)
        self.zero = {(id(block.merge), block.operand) for block in dropped}

    def run(self, program: Program, inputs: list[Any]) -> list[Any]:
        import keras

        values = {
            id(tensor): keras.ops.convert_to_tensor(value)
            for tensor, value in zip(program.inputs, inputs, strict=True)
        }
        for node in program.nodes:
            arguments = [
                keras.ops.zeros_like(values[id(tensor)])
                if (id(node), place) in self.zero
                else values[id(tensor)]
                for place, tensor in enumerate(node.inputs)
            ]
            if node.body is not None:
                results = self.run(node.body, arguments)
            elif _holds_graph(node.operation):
                inside, x = record_program(node.operation.layer), np.asarray(arguments[0])
                steps = [self.run(inside, [x[:, step]])[0] for step in range(x.shape[1])]
                results = [np.stack(steps, axis=1)]
            elif _needs_statistics(node.operation):
                results = [self.special(node, np.asarray(arguments[0]))]
            else:
                args, kwargs = node.fill_arguments(arguments)
                if getattr(node.operation, "_call_has_training_arg", False):
                    kwargs = {**kwargs, "training": False}
                results = keras.tree.flatten(node.operation(*args, **kwargs))
            for tensor, value in zip(node.outputs, results, strict=True):
                values[id(tensor)] = value
        return [np.asarray(values[id(tensor)]) for tensor in program.outputs]

    def special(self, node: Node, x: Array) -> Array:
        """Computes a layer with statistics over kept entries, removed ones zero."""
        layer, steps = node.operation, 0
        if type(layer).__name__ == "TimeDistributed":
            layer, steps = layer.layer, 1  # axes of the layer inside lie behind the steps
        kind = type(layer).__name__
        slots = self.coupling.graph.tensors[id(node.inputs[0])]
        flags = [
            np.ones(size, bool) if ids is None else self.kept.get_flags(ids)
            for size, ids in zip(x.shape, slots.axes, strict=True)
        ]
        if kind in ("Dense", "Conv2D", "Conv1D"):  # softmax as the layer's activation
            linear, layer.activation = layer.activation, None
            try:
                x = np.asarray(layer(x))
            finally:
                layer.activation = linear
            ids = self.coupling.graph.tensors[id(node.outputs[0])].axes[-1]
            flags = [np.ones(size, bool) for size in x.shape]
            flags[-1] = flags[-1] if ids is None else self.kept.get_flags(ids)
            return _scattered(x, flags, lambda part: _softmax(part, (-1,)))
        axis = getattr(layer, "axis", -1)
        axes = tuple(
            steps + index % (x.ndim - steps)
            for index in ([axis] if isinstance(axis, int) else axis)
        )
        if kind == "LayerNormalization":
            parts = [_taken(weight, flags, axes) for weight in (layer.gamma, layer.beta)]

            def normalized(part: Array) -> Array:
                mean = part.mean(axes, keepdims=True)
                variance = ((part - mean) ** 2).mean(axes, keepdims=True)
                result = (part - mean) / np.sqrt(variance + layer.epsilon)
                shape = [part.shape[a] if a in axes else 1 for a in range(part.ndim)]
                result = result if parts[0] is None else result * parts[0].reshape(shape)
                return result if parts[1] is None else result + parts[1].reshape(shape)

            return _scattered(x, flags, normalized)
        if kind == "RMSNormalization":
            scale = _taken(layer.scale, flags, axes)

            def rms(part: Array) -> Array:
                mean = (part**2).mean(axes, keepdims=True)
                shape = [part.shape[a] if a in axes else 1 for a in range(part.ndim)]
                result = part / np.sqrt(mean + layer.epsilon)
                return result if scale is None else result * scale.reshape(shape)

            return _scattered(x, flags, rms)
        if kind == "UnitNormalization":
            return _scattered(
                x,
                flags,
                lambda part: part / np.sqrt(np.maximum((part**2).sum(axes, keepdims=True), 1e-12)),
            )
        if kind == "GroupNormalization" and not steps:
            return self._groups(layer, x, flags, axes[0])
        if kind == "LogSoftmax" or getattr(getattr(layer, "activation", None), "__name__", "") in (
            "log_softmax",
        ):
            return _scattered(x, flags, lambda part: np.log(_softmax(part, axes)))
        if kind == "Sparsemax":
            return _scattered(x, flags, lambda part: np.asarray(layer(part)))
        assert kind in ("Softmax", "Activation"), f"no reference for {kind}"
        return _scattered(x, flags, lambda part: _softmax(part, axes))

    def _groups(self, layer: Any, x: Array, flags: list[Array], axis: int) -> Array:
        count = x.shape[axis] if layer.groups == -1 else layer.groups
        size = x.shape[axis] // count
        result = np.zeros_like(x)
        for group in range(count):
            members = np.arange(group * size, (group + 1) * size)
            members = members[flags[axis][members]]
            if not len(members):
                continue
            part = np.take(x, members, axis)
            over = tuple(range(1, x.ndim))
            mean = part.mean(over, keepdims=True)
            variance = ((part - mean) ** 2).mean(over, keepdims=True)
            part = (part - mean) / np.sqrt(variance + layer.epsilon)
            shape = [-1 if other == axis else 1 for other in range(x.ndim)]
            if layer.gamma is not None:
                part = part * np.asarray(layer.gamma)[members].reshape(shape)
            if layer.beta is not None:
                part = part + np.asarray(layer.beta)[members].reshape(shape)
            place = [slice(None)] * x.ndim
            place[axis] = members  # type: ignore[call-overload]
            result[tuple(place)] = part
        return result


def _needs_statistics(operation: Any) -> bool:
    """Tells whether a layer, or one inside, reduces over the channels that it keeps."""
    if _holds_graph(operation):
        return any(map(_needs_statistics, operation.layer.layers))
    layer = operation.layer if type(operation).__name__ == "TimeDistributed" else operation
    kind, activation = type(layer).__name__, getattr(layer, "activation", None)
    if kind in ("Activation", "Conv1D", "Conv2D", "Dense"):
        kind = getattr(activation, "__name__", "")
    return kind in STATISTICS


def _holds_graph(operation: Any) -> bool:
    return type(operation).__name__ == "TimeDistributed" and is_graph(operation.layer)


def _softmax(x: Array, axes: tuple[int, ...]) -> Array:
    power = np.exp(x - x.max(axes, keepdims=True))
    return np.asarray(power / power.sum(axes, keepdims=True))


def _taken(weight: Any, flags: list[Array], axes: tuple[int, ...]) -> Array | None:
    if weight is None:
        return None
    value = weight.numpy()
    for place, axis in enumerate(axes):
        value = np.compress(flags[axis], value, axis=place)
    return np.asarray(value)


def _scattered(x: Array, flags: list[Array], function: Any) -> Array:
    """Applies a function to the kept entries; the others of the result are zero."""
    place = np.ix_(*[np.flatnonzero(flag) for flag in flags])
    result = np.zeros_like(x)
    result[place] = function(x[place])
    return result


def whole(coupling: Coupling) -> Mask:
    """Returns the mask that keeps all units."""
    return np.ones(coupling.unit_count, bool)
