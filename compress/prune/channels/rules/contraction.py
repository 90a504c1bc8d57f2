"""Raw products that sum over axes: matmul, einsum, tensordot, attention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from compress.prune.channels.coupling.slots import Ids, LayerCall, Slots
from compress.prune.channels.rules._base import (
    CONSTANT,
    alike,
    arguments,
    edit_argument,
    holds_variable,
    operands,
    operation_rule,
    slice_constants,
    symbolic,
)

SUMMED = "a product sums over it"
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@operation_rule("Matmul")
def matmul(call: LayerCall) -> Slots:
    """(..., m, k) x (..., k, n); leading axes are broadcast."""
    one, two = (np.ndim(value) for value in _values(call))
    batch = _LETTERS[: max(one, two, 2) - 2]
    left = batch[len(batch) - max(one - 2, 0) :] + ("mk" if one > 1 else "k")
    right = batch[len(batch) - max(two - 2, 0) :] + ("kn" if two > 1 else "k")
    target = batch + ("m" if one > 1 else "") + ("n" if two > 1 else "")
    return product(call, [left, right], target)


@operation_rule("Dot")
def dot(call: LayerCall) -> Slots:
    """The last axis of one tensor meets the last but one of the other."""
    one, two = (np.ndim(value) for value in _values(call))
    if not one or not two:
        return call.unknown("a product with a number")[0]
    left = _LETTERS[:one]
    right = _LETTERS[one : one + two].lower()
    met = max(two - 2, 0)
    right = right[:met] + left[-1] + right[met + 1 :]
    return product(call, [left, right], left[:-1] + right[:met] + right[met + 1 :])


@operation_rule("Tensordot")
def tensordot(call: LayerCall) -> Slots:
    """Sums over pairs of axes."""
    one, two = (np.ndim(value) for value in _values(call))
    axes = call.layer.axes
    if isinstance(axes, int):
        axes = list(range(one - axes, one)), list(range(axes))
    left, right = list(_LETTERS[:one]), list(_LETTERS[one : one + two].lower())
    pairs = [[each] if isinstance(each, int) else list(each) for each in axes]
    for first, second in zip(*pairs, strict=True):
        right[second] = left[first]
    summed = {left[axis] for axis in pairs[0]}
    target = [letter for letter in left + right if letter not in summed]
    return product(call, ["".join(left), "".join(right)], "".join(target))


@operation_rule("Einsum")
def einsum(call: LayerCall) -> Slots:
    """One or two tensors by letters; repeated letters within one have no rule."""
    ranks = [np.ndim(value) for value in _values(call)]
    sources, target = spelled_out(call.layer.subscripts, ranks)
    if len(sources) > 2 or any(len(set(letters)) < len(letters) for letters in sources):
        return call.unknown("only einsums of one or two tensors without diagonals have a rule")[0]
    return product(call, sources, target)


def _values(call: LayerCall) -> list[Any]:
    return (
        list(call.args) if type(call.layer).__name__ == "Einsum" else list(arguments(call).values())
    )


def spelled_out(subscripts: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """Write out ellipses and the implied output of an einsum."""
    left, arrow, target = subscripts.replace(" ", "").partition("->")
    parts = left.split(",")
    spare = [letter for letter in _LETTERS if letter not in subscripts]
    counts = [
        rank - len(part.replace(".", "")) if "." in part else 0
        for part, rank in zip(parts, ranks, strict=True)
    ]
    filled = "".join(spare[: max(counts)])
    sources = [
        part.replace("...", filled[len(filled) - count :])
        for part, count in zip(parts, counts, strict=True)
    ]
    if not arrow:
        single = [letter for letter in sorted(set(left) - set(",.")) if left.count(letter) == 1]
        target = "..." * ("." in left) + "".join(single)
    return sources, target.replace("...", filled)


def product(call: LayerCall, sources: Sequence[str], target: str) -> Slots:
    """Slots of a product whose axes are named by letters.

    Axes of one letter are tied; one of size 1 is broadcast. A letter that is summed over
    may lose entries where one factor is zero there.
    """
    if holds_variable(call):
        return call.unknown("a variable outside of layers is an operand")[0]
    values = _values(call)
    inputs = operands(call, values)
    places: dict[str, list[tuple[Slots, int]]] = {}
    for slots, letters in zip(inputs, sources, strict=True):
        for axis, letter in enumerate(letters):
            places.setdefault(letter, []).append((slots, axis))
    sizes = {
        letter: max(int(slots.shape[axis] or 1) for slots, axis in found)
        for letter, found in places.items()
    }
    # a letter at whose removed entries a factor is zero
    zero = {
        letter: any(slots.zero and slots.axes[axis] is not None for slots, axis in found)
        for letter, found in places.items()
    }
    ids = {letter: _letter(call, places[letter], size) for letter, size in sizes.items()}
    for letter in sizes:
        if letter not in target and not zero[letter]:
            call.freeze(ids[letter], SUMMED)
    constants = [pair for pair in zip(values, sources, strict=True) if not symbolic(pair[0])]
    slice_constants(
        call, {id(value): [ids[letter] for letter in letters] for value, letters in constants}
    )
    if len(sources) > 1:
        factors = (ids[letter] if ids[letter] is not None else sizes[letter] for letter in sizes)
        call.macs(1, *factors)
    axes = {axis: ids[letter] for axis, letter in enumerate(target)}
    return call.out(axes, zero=all(zero[letter] for letter in target if ids[letter] is not None))


def _letter(call: LayerCall, places: list[tuple[Slots, int]], size: int) -> Ids | None:
    found: Ids | None = None
    fixed = ""
    for slots, axis in places:
        own = slots.axes[axis]
        if slots.shape[axis] == 1 and size != 1:
            call.freeze(own, "its only entry is broadcast")
        elif own is not None:
            found = own if found is None else call.link(found, own)
        elif slots.origin != CONSTANT:
            fixed = fixed or slots.origin or "it meets a fixed axis"
    if fixed:
        call.freeze(found, f"a product with a fixed axis ({fixed})")
    return found


@operation_rule("DotProductAttention")
def attention(call: LayerCall) -> Slots:
    """(batch, time, heads, width) tensors; the scale stays that of the whole width."""
    values = arguments(call)
    query, key, value = operands(call, [values[name] for name in ("query", "key", "value")])
    if query.shape[3] != value.shape[3]:
        return call.unknown("an attention whose values are not as wide as its query")[0]
    for slots in (query, key, value):
        call.barrier(slots, "attention sums over it", [0, 1])
    heads = _heads(call, query, key, value)
    width = call.link(query.axes[3], key.axes[3], SUMMED)
    if width is not None and not (query.zero or key.zero):
        call.freeze(width, SUMMED)
    # the operation says that its result is as wide as the query
    out = call.link(query.axes[3], value.axes[3], "an attention's values are as wide as its query")
    for name in ("bias", "mask"):
        _masked(call, values, name, heads)
    if values.get("scale") is None:
        scale = 1.0 / math.sqrt(int(key.shape[3] or 1))
        edit_argument(call, "scale", lambda *_: scale)
    positions = int(query.shape[1] or 1) * int(key.shape[1] or 1)
    count = int(query.shape[2] or 1) if heads is None else heads
    call.macs(positions, count, int(query.shape[3] or 1) if width is None else width)
    call.macs(positions, count, int(value.shape[3] or 1) if out is None else out)
    return call.out({2: heads, 3: out}, zero=value.zero)


def _heads(call: LayerCall, query: Slots, key: Slots, value: Slots) -> Ids | None:
    """Tie heads; those that serve several query heads stay."""
    if key.shape[2] == query.shape[2]:
        return call.link(query.axes[2], call.link(key.axes[2], value.axes[2]))
    for slots in (query, key, value):
        call.freeze(slots.axes[2], "its heads serve several queries")
    return query.axes[2]


def _masked(call: LayerCall, values: dict[str, Any], name: str, heads: Ids | None) -> None:
    """Biases and masks (batch, heads or 1, time, time)."""
    value = values.get(name)
    if value is None:
        return
    slots = operands(call, [value])[0]
    rank = len(slots.shape)
    call.barrier(slots, f"it is an attention's {name}", [a for a in slots.tracked if a != rank - 3])
    if rank < 3 or slots.shape[rank - 3] == 1:
        return
    if symbolic(value):
        call.link(heads, slots.axes[rank - 3], f"it meets an attention's {name}")
    elif heads is not None:
        edit_argument(
            call,
            name,
            lambda old, kept: alike(old, np.take(np.asarray(old), kept(heads), axis=rank - 3)),
        )
