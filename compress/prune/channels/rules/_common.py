"""What several rule families need: channel axes, positions, activations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from compress.prune.channels.coupling.call import LayerCall
from compress.prune.channels.coupling.slots import Shape, Slots, sizes

# activations with f(0) = 0, entry by entry
_ZERO = frozenset(
    [
        "linear",
        "relu",
        "relu6",
        "leaky_relu",
        "elu",
        "celu",
        "selu",
        "gelu",
        "silu",
        "swish",
        "hard_silu",
        "hard_swish",
        "tanh",
        "hard_tanh",
        "hard_shrink",
        "soft_shrink",
        "tanh_shrink",
        "softsign",
        "mish",
    ]
)
# entry by entry, f(0) is another number
_NONZERO = frozenset(
    [
        "sigmoid",
        "hard_sigmoid",
        "sparse_sigmoid",
        "softplus",
        "sparse_plus",
        "squareplus",
        "exponential",
        "log_sigmoid",
        "threshold",
    ]
)
_OVER_LAST_AXIS = frozenset(["softmax", "log_softmax", "sparsemax"])


def channel_axis(layer: Any, rank: int) -> int:
    """Returns the axis of the channels in the layer's data format."""
    return 1 if getattr(layer, "data_format", None) == "channels_first" else rank - 1


def spatial_positions(shape: Shape, axis: int) -> int:
    """Returns the number of positions: every size but the batch and `axis`."""
    return sizes(tuple(size for index, size in enumerate(shape) if index not in (0, axis)))


def channels_only(call: LayerCall, slots: Slots, axis: int, what: str) -> Slots:
    """Freezes what is tracked beside the channel axis and the batch."""
    others = [other for other in slots.tracked if other != axis]
    if not others:
        return slots
    call.barrier(slots, f"{what} runs along it", others)
    kept = tuple(ids if index == axis else None for index, ids in enumerate(slots.axes))
    return Slots(slots.shape, kept, slots.zero, slots.origin)


def activated(call: LayerCall, slots: Slots, function: Any) -> Slots:
    """Returns the slots behind an activation function."""
    if function is None:
        return slots
    name = getattr(function, "__name__", type(function).__name__)
    if not getattr(function, "__module__", "").startswith("keras."):
        name = ""
    if name in _ZERO:
        return slots
    if name in _NONZERO:
        return Slots(slots.shape, slots.axes, False, slots.origin)
    if name in _OVER_LAST_AXIS:
        return over_axes(call, slots, (len(slots.shape) - 1,), exact=name == "softmax")
    pointwise, zero = _probe(function)
    if pointwise:
        return Slots(slots.shape, slots.axes, slots.zero and zero, slots.origin)
    text = f"activation {name or function!r} mixes channels"
    call.barrier(slots, text)
    return Slots(slots.shape, (None,) * len(slots.shape), origin=f"layer '{call.name}': {text}")


def over_axes(call: LayerCall, slots: Slots, axes: Sequence[int], *, exact: bool = True) -> Slots:
    """Slots behind a layer whose statistics are those of the kept entries on `axes`.

    Args:
        call: The call.
        slots: Its input.
        axes: Reduced axes.
        exact: Removed entries of its output are zero.
    """
    for axis in axes:
        call.statistics(slots.axes[axis])
    return Slots(slots.shape, slots.axes, exact, slots.origin)


def halved(call: LayerCall, slots: Slots, axis: int) -> Slots:
    """Slots behind a gate that multiplies the first half of an axis by the second."""
    ids = slots.axes[axis]
    shape = list(slots.shape)
    size = shape[axis]
    shape[axis] = None if size is None else size // 2
    half = None if ids is None else call.columns(ids, 2)
    axes = tuple(half if index == axis else old for index, old in enumerate(slots.axes))
    return Slots(tuple(shape), axes, slots.zero, slots.origin)


def _probe(function: Any) -> tuple[bool, bool]:
    """Finds by trial whether a function acts entry by entry and maps 0 to 0."""
    import keras

    x = np.linspace(-2.0, 2.0, 10, dtype=np.float32).reshape(2, 5)
    try:
        whole = np.asarray(keras.ops.convert_to_numpy(function(keras.ops.array(x))))
        part = keras.ops.convert_to_numpy(function(keras.ops.array(x[:1, 1:3])))
        zero = keras.ops.convert_to_numpy(function(keras.ops.array(x * 0)))
    except Exception:  # user code: then nothing is known about it
        return False, False
    same = whole.shape == x.shape and np.allclose(whole[:1, 1:3], part, atol=1e-6)
    return bool(same), bool(np.all(zero == 0))
