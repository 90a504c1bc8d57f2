"""Rules of raw products that sum over axes: matmul, einsum, tensordot, attention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from compress.prune.channels.coupling.slots import Ids, LayerCall, Slots
from compress.prune.channels.rules._base import (
    convert_like,
    get_arguments,
    has_variable,
    is_symbolic,
    link_axes,
    list_operands,
    operation_rule,
    replace_argument,
    slice_constants,
)

SUMMED = "a product sums over it"
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@operation_rule("Matmul")
def propagate_matmul(call: LayerCall) -> Slots:
    """Propagate (..., m, k) x (..., k, n); leading axes are broadcast."""
    left_rank, right_rank = (np.ndim(value) for value in _list_values(call))
    batch = _LETTERS[: max(left_rank, right_rank, 2) - 2]
    left = batch[len(batch) - max(left_rank - 2, 0) :] + ("mk" if left_rank > 1 else "k")
    right = batch[len(batch) - max(right_rank - 2, 0) :] + ("kn" if right_rank > 1 else "k")
    target = batch + ("m" if left_rank > 1 else "") + ("n" if right_rank > 1 else "")
    return propagate_product(call, [left, right], target)


@operation_rule("Dot")
def propagate_dot(call: LayerCall) -> Slots:
    """Link the last axis of one tensor with the second-to-last axis of the other."""
    left_rank, right_rank = (np.ndim(value) for value in _list_values(call))
    if not left_rank or not right_rank:
        return call.report_unknown("a product with a number")[0]
    left = _LETTERS[:left_rank]
    right = _LETTERS[left_rank : left_rank + right_rank].lower()
    summed_axis = max(right_rank - 2, 0)
    right = right[:summed_axis] + left[-1] + right[summed_axis + 1 :]
    return propagate_product(
        call, [left, right], left[:-1] + right[:summed_axis] + right[summed_axis + 1 :]
    )


@operation_rule("Tensordot")
def propagate_tensordot(call: LayerCall) -> Slots:
    """Link the pairs of axes that a product sums over."""
    left_rank, right_rank = (np.ndim(value) for value in _list_values(call))
    axes = call.layer.axes
    if isinstance(axes, int):
        axes = list(range(left_rank - axes, left_rank)), list(range(axes))
    left, right = (
        list(_LETTERS[:left_rank]),
        list(_LETTERS[left_rank : left_rank + right_rank].lower()),
    )
    pairs = [[entry] if isinstance(entry, int) else list(entry) for entry in axes]
    for first, second in zip(*pairs, strict=True):
        right[second] = left[first]
    summed = {left[axis] for axis in pairs[0]}
    target = [letter for letter in left + right if letter not in summed]
    return propagate_product(call, ["".join(left), "".join(right)], "".join(target))


@operation_rule("Einsum")
def propagate_einsum(call: LayerCall) -> Slots:
    """Propagate one or two tensors by letters; repeated letters within one have no rule."""
    ranks = [np.ndim(value) for value in _list_values(call)]
    sources, target = expand_equation(call.layer.subscripts, ranks)
    if len(sources) > 2 or any(len(set(letters)) < len(letters) for letters in sources):
        return call.report_unknown(
            "only einsums of one or two tensors without diagonals have a rule"
        )[0]
    return propagate_product(call, sources, target)


def _list_values(call: LayerCall) -> list[Any]:
    return (
        list(call.args)
        if type(call.layer).__name__ == "Einsum"
        else list(get_arguments(call).values())
    )


def expand_equation(subscripts: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """Expand the ellipses and the implied output of an einsum.

    Args:
        subscripts: The equation.
        ranks: Ranks of the operands.

    Returns:
        The letters of each operand, and those of the output.
    """
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


def propagate_product(call: LayerCall, sources: Sequence[str], target: str) -> Slots:
    """Return the slots of a product whose axes are named by letters.

    Axes of the same letter are linked; an axis of size 1 is broadcast. A letter that is summed over
    can be pruned only if a factor is zero at its removed entries.

    Args:
        call: The call.
        sources: Letters of each operand.
        target: Letters of the output.
    """
    if has_variable(call):
        return call.report_unknown("a variable outside of layers is an operand")[0]
    values = _list_values(call)
    inputs = list_operands(call, values)
    occurrences_by_letter: dict[str, list[tuple[Slots, int]]] = {}
    for slots, letters in zip(inputs, sources, strict=True):
        for axis, letter in enumerate(letters):
            occurrences_by_letter.setdefault(letter, []).append((slots, axis))
    sizes = {
        letter: max(int(slots.shape[axis] or 1) for slots, axis in occurrences)
        for letter, occurrences in occurrences_by_letter.items()
    }
    # letter -> whether a factor is zero at its removed entries
    is_zero = {
        letter: any(slots.zero and slots.axes[axis] is not None for slots, axis in occurrences)
        for letter, occurrences in occurrences_by_letter.items()
    }
    ids = {
        letter: link_axes(call, occurrences_by_letter[letter], size)
        for letter, size in sizes.items()
    }
    for letter in sizes:
        if letter not in target and not is_zero[letter]:
            call.freeze(ids[letter], SUMMED)
    constants = [pair for pair in zip(values, sources, strict=True) if not is_symbolic(pair[0])]
    slice_constants(
        call, {id(value): [ids[letter] for letter in letters] for value, letters in constants}
    )
    if len(sources) > 1:
        factors = (ids[letter] if ids[letter] is not None else sizes[letter] for letter in sizes)
        call.macs(1, *factors)
    axes = {axis: ids[letter] for axis, letter in enumerate(target)}
    return call.out(axes, zero=all(is_zero[letter] for letter in target if ids[letter] is not None))


@operation_rule("DotProductAttention")
def propagate_attention(call: LayerCall) -> Slots:
    """Propagate (batch, time, heads, features) tensors; the scale is that of the original."""
    values = get_arguments(call)
    query, key, value = list_operands(call, [values[name] for name in ("query", "key", "value")])
    if query.shape[3] != value.shape[3]:
        return call.report_unknown("an attention whose values are not as wide as its query")[0]
    for slots in (query, key, value):
        call.freeze_axes(slots, "attention sums over it", [0, 1])
    heads = _link_heads(call, query, key, value)
    width = call.link(query.axes[3], key.axes[3], SUMMED)
    if width is not None and not (query.zero or key.zero):
        call.freeze(width, SUMMED)
    # Keras gives the result the shape of the query
    out = call.link(query.axes[3], value.axes[3], "an attention's values are as wide as its query")
    for name in ("bias", "mask"):
        _link_mask(call, values, name, heads)
    if values.get("scale") is None:
        scale = 1.0 / math.sqrt(int(key.shape[3] or 1))
        replace_argument(call, "scale", lambda *_: scale)
    positions = int(query.shape[1] or 1) * int(key.shape[1] or 1)
    count = int(query.shape[2] or 1) if heads is None else heads
    call.macs(positions, count, int(query.shape[3] or 1) if width is None else width)
    call.macs(positions, count, int(value.shape[3] or 1) if out is None else out)
    return call.out({2: heads, 3: out}, zero=value.zero)


def _link_heads(call: LayerCall, query: Slots, key: Slots, value: Slots) -> Ids | None:
    """Link heads; key and value heads that serve several query heads are frozen."""
    if key.shape[2] == query.shape[2]:
        return call.link(query.axes[2], call.link(key.axes[2], value.axes[2]))
    for slots in (query, key, value):
        call.freeze(slots.axes[2], "its heads serve several queries")
    return query.axes[2]


def _link_mask(call: LayerCall, values: dict[str, Any], name: str, heads: Ids | None) -> None:
    """Link the heads of a bias or mask (batch, heads or 1, time, time)."""
    value = values.get(name)
    if value is None:
        return
    slots = list_operands(call, [value])[0]
    rank = len(slots.shape)
    call.freeze_axes(
        slots, f"it is an attention's {name}", [a for a in slots.tracked if a != rank - 3]
    )
    if rank < 3 or slots.shape[rank - 3] == 1:
        return
    if is_symbolic(value):
        call.link(heads, slots.axes[rank - 3], f"it meets an attention's {name}")
    elif heads is not None:
        replace_argument(
            call,
            name,
            lambda old, kept: convert_like(
                old, np.take(np.asarray(old), kept(heads), axis=rank - 3)
            ),
        )
