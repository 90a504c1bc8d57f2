"""Dense, EinsumDense and embeddings."""

from __future__ import annotations

from typing import Any

from compress.prune.channels.coupling.call import LayerCall
from compress.prune.channels.coupling.slots import Ids, Slots, sizes
from compress.prune.channels.rules._base import layer_rule
from compress.prune.channels.rules._common import activated


@layer_rule("Dense")
def dense(call: LayerCall) -> Slots:
    """Kernel (in, units), applied along the last axis."""
    layer, x = call.layer, call.inputs[0]
    if getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None):
        return call.unknown("LoRA and quantized kernels have no rule")[0]
    ids, out = x.axes[-1], call.new(layer.units)
    call.bind(layer.kernel, 0, ids)
    call.bind(layer.kernel, 1, out)
    call.bind(layer.bias, 0, out)
    call.config("units", out)
    last = len(x.shape) - 1
    others = [x.axes[axis] for axis in x.tracked if axis != last]
    positions = sizes(tuple(x.shape[axis] for axis in range(1, last) if x.axes[axis] is None))
    call.macs(positions, *others, layer.kernel.shape[0] if ids is None else ids, out)
    axes = {**{axis: x.axes[axis] for axis in x.tracked}, last: out}
    # a removed entry of another tracked axis leaves the bias
    zero = not others or (x.zero and layer.bias is None)
    return activated(call, call.out(axes, zero=zero), layer.activation)


@layer_rule("EinsumDense")
def einsum_dense(call: LayerCall) -> Slots:
    """Kernel axes by the equation's letters; each letter is one axis of slots."""
    layer, x = call.layer, call.inputs[0]
    if getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None):
        return call.unknown("LoRA and quantized kernels have no rule")[0]
    source, kernel, target = einsum_letters(layer.equation, len(x.shape), len(call.shapes[0]))
    variable = layer.kernel
    letters: dict[str, Ids | None] = {}
    for letter, ids in zip(source, x.axes, strict=True):
        letters[letter] = ids
    zero = True
    for axis, letter in enumerate(kernel):
        if letter not in letters:
            letters[letter] = call.new(variable.shape[axis])
        call.bind(variable, axis, letters[letter])
    for letter in source:
        if letter not in kernel and letter not in target and not x.zero:
            call.freeze(letters[letter], "an einsum sums over it and its entries are not zero")
    if layer.bias is not None:
        biased = [letter for letter in target if letter in layer.bias_axes]
        for axis, letter in enumerate(biased):
            call.bind(layer.bias, axis, letters[letter])
    for letter in target:
        if letters[letter] is not None and letter not in kernel:
            zero = zero and x.zero and layer.bias is None
    _einsum_config(call, target, letters)
    sized = dict(zip(source, x.shape, strict=True)) | dict(zip(kernel, variable.shape, strict=True))
    call.macs(
        1,
        *[
            ids if (ids := letters[letter]) is not None else int(size or 1)
            for letter, size in sized.items()
        ],
    )
    axes = {axis: letters[letter] for axis, letter in enumerate(target)}
    return activated(call, call.out(axes, zero=zero), layer.activation)


def _einsum_config(call: LayerCall, target: str, letters: dict[str, Ids | None]) -> None:
    def change(config: dict[str, Any], kept: Any) -> None:
        shape = config["output_shape"]
        shape = [shape] if isinstance(shape, int) else list(shape)
        first = len(target) - len(shape)
        for axis, letter in enumerate(target[first:]):
            ids = letters[letter]
            if ids is not None and shape[axis] is not None:
                shape[axis] = kept.count(ids)
        config["output_shape"] = tuple(shape)

    call.edit(change)


def einsum_letters(equation: str, rank: int, output_rank: int) -> tuple[str, str, str]:
    """Splits "ab...,bc->ac..." into letters, an ellipsis written out.

    Returns:
        Letters of the input, the kernel and the output, one an axis.
    """
    left, target = equation.replace(" ", "").split("->")
    source, kernel = left.split(",")
    spare = [letter for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if letter not in equation]
    missing = rank - len(source.replace(".", "")) if "." in source else 0
    filled = "".join(spare[:missing])
    source, target = source.replace("...", filled), target.replace("...", filled)
    if len(source) != rank or len(target) != output_rank:
        raise ValueError(f"equation '{equation}' does not fit ranks {rank} and {output_rank}")
    return source, kernel, target


@layer_rule("Embedding")
def embedding(call: LayerCall) -> Slots:
    """Table (vocabulary, width); looks up rows, so it has no MACs."""
    layer = call.layer
    if getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None):
        return call.unknown("LoRA and quantized tables have no rule")[0]
    call.barrier(call.inputs[0], "it is an index into an embedding")
    out = call.new(layer.output_dim)
    call.bind(layer.embeddings, 1, out)
    call.config("output_dim", out)
    return call.out({len(call.shapes[0]) - 1: out}, zero=True)
