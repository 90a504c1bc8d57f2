"""Raw products that sum over axes: matmul, einsum, tensordot, attention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from compress.prune.channels.coupling.call import Site
from compress.prune.channels.coupling.slots import Ids, Kept, Slots
from compress.prune.channels.rules._base import operation_rule
from compress.prune.channels.rules._broadcast import alike, sliced_constant
from compress.prune.channels.rules._operands import (
    arguments,
    edit_argument,
    holds_variable,
    operands,
    symbolic,
)

SUMMED = "a product sums over it"
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@operation_rule("Matmul")
def matmul(site: Site) -> Slots:
    """(..., m, k) x (..., k, n); leading axes are broadcast."""
    shapes = [np.shape(value) for value in _values(site)]
    one, two = (len(shape) for shape in shapes)
    batch = _LETTERS[: max(one, two, 2) - 2]
    left = batch[len(batch) - max(one - 2, 0) :] + ("mk" if one > 1 else "k")
    right = batch[len(batch) - max(two - 2, 0) :] + ("kn" if two > 1 else "k")
    target = batch + ("m" if one > 1 else "") + ("n" if two > 1 else "")
    return product(site, [left, right], target)


@operation_rule("Dot")
def dot(site: Site) -> Slots:
    """The last axis of one tensor meets the last but one of the other."""
    one, two = (np.ndim(value) for value in _values(site))
    if not one or not two:
        return site.unknown("a product with a number")[0]
    left = _LETTERS[:one]
    right = _LETTERS[one : one + two].lower()
    met = max(two - 2, 0)
    right = right[:met] + left[-1] + right[met + 1 :]
    return product(site, [left, right], left[:-1] + right[:met] + right[met + 1 :])


@operation_rule("Tensordot")
def tensordot(site: Site) -> Slots:
    """Sums over pairs of axes."""
    one, two = (np.ndim(value) for value in _values(site))
    axes = site.layer.axes
    if isinstance(axes, int):
        axes = list(range(one - axes, one)), list(range(axes))
    left, right = list(_LETTERS[:one]), list(_LETTERS[one : one + two].lower())
    pairs = [[each] if isinstance(each, int) else list(each) for each in axes]
    for first, second in zip(*pairs, strict=True):
        right[second] = left[first]
    summed = {left[axis] for axis in pairs[0]}
    target = [letter for letter in left + right if letter not in summed]
    return product(site, ["".join(left), "".join(right)], "".join(target))


@operation_rule("Einsum")
def einsum(site: Site) -> Slots:
    """One or two tensors by letters; repeated letters within one have no rule."""
    ranks = [np.ndim(value) for value in _values(site)]
    sources, target = _spelled_out(site.layer.subscripts, ranks)
    if len(sources) > 2 or any(len(set(letters)) < len(letters) for letters in sources):
        return site.unknown("only einsums of one or two tensors without diagonals have a rule")[0]
    return product(site, sources, target)


def _values(site: Site) -> list[Any]:
    return (
        list(site.args) if type(site.layer).__name__ == "Einsum" else list(arguments(site).values())
    )


def _spelled_out(subscripts: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """Writes out ellipses and the implied output of an einsum."""
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


def product(site: Site, sources: Sequence[str], target: str) -> Slots:
    """Slots of a product whose axes are named by letters.

    Axes of one letter are tied; one of size 1 is broadcast. A letter that is summed over
    may lose entries where one factor is zero there.
    """
    if holds_variable(site):
        return site.unknown("a variable outside of layers is an operand")[0]
    values = _values(site)
    inputs = operands(site, values)
    sizes: dict[str, int] = {}
    for slots, letters in zip(inputs, sources, strict=True):
        for letter, size in zip(letters, slots.shape, strict=True):
            sizes[letter] = max(int(size or 1), sizes.get(letter, 1))
    ids = {
        letter: _letter(site, values, inputs, sources, letter, sizes[letter]) for letter in sizes
    }
    for letter in sizes:
        if letter not in target and not _zero_on(inputs, sources, letter):
            site.freeze(ids[letter], SUMMED)
    _slice_constants(site, values, sources, ids)
    if len(sources) > 1:
        site.macs(
            1, *[size if (axis := ids[letter]) is None else axis for letter, size in sizes.items()]
        )
    zero = all(_zero_on(inputs, sources, letter) for letter in target if ids[letter] is not None)
    return site.out({axis: ids[letter] for axis, letter in enumerate(target)}, zero=zero)


def _letter(
    site: Site,
    values: Sequence[Any],
    inputs: Sequence[Slots],
    sources: Sequence[str],
    letter: str,
    size: int,
) -> Ids | None:
    found: Ids | None = None
    fixed = ""
    for value, slots, letters in zip(values, inputs, sources, strict=True):
        axis = letters.find(letter)
        if axis < 0 or not symbolic(value):
            continue
        own = slots.axes[axis]
        if slots.shape[axis] == 1 and size != 1:
            site.freeze(own, "its only entry is broadcast")
        elif own is None:
            fixed = fixed or slots.origin or "it meets a fixed axis"
        else:
            found = own if found is None else site.link(found, own)
    if found is not None and fixed:
        site.freeze(found, f"a product with a fixed axis ({fixed})")
    return found


def _zero_on(inputs: Sequence[Slots], sources: Sequence[str], letter: str) -> bool:
    """Tells whether a factor is zero at removed entries of a letter."""
    return any(
        slots.zero and slots.axes[letters.index(letter)] is not None
        for slots, letters in zip(inputs, sources, strict=True)
        if letter in letters
    )


def _slice_constants(
    site: Site, values: Sequence[Any], sources: Sequence[str], ids: dict[str, Ids | None]
) -> None:
    axes = {
        id(value): [ids[letter] for letter in letters]
        for value, letters in zip(values, sources, strict=True)
        if not symbolic(value)
    }

    def sliced(value: Any, kept: Kept) -> Any:
        return sliced_constant(value, axes[id(value)], kept) if id(value) in axes else value

    if axes:
        site.edit_call(
            lambda args, kwargs, kept: (
                tuple(sliced(value, kept) for value in args),
                {name: sliced(value, kept) for name, value in kwargs.items()},
            )
        )


@operation_rule("DotProductAttention")
def attention(site: Site) -> Slots:
    """(batch, time, heads, width) tensors; the scale stays that of the whole width."""
    values = arguments(site)
    query, key, value = operands(site, [values[name] for name in ("query", "key", "value")])
    if query.shape[3] != value.shape[3]:
        return site.unknown("an attention whose values are not as wide as its query")[0]
    for slots in (query, key, value):
        site.barrier(slots, "attention sums over it", [axis for axis in slots.tracked if axis < 2])
    heads = _heads(site, query, key, value)
    width = site.link(query.axes[3], key.axes[3], SUMMED)
    if width is not None and not (query.zero or key.zero):
        site.freeze(width, SUMMED)
    # the operation says that its result is as wide as the query
    out = site.link(query.axes[3], value.axes[3], "an attention's values are as wide as its query")
    for name in ("bias", "mask"):
        _masked(site, values, name, heads)
    if values.get("scale") is None:
        scale = 1.0 / math.sqrt(int(key.shape[3] or 1))
        edit_argument(site, "scale", lambda *_: scale)
    positions = int(query.shape[1] or 1) * int(key.shape[1] or 1)
    count = int(query.shape[2] or 1) if heads is None else heads
    site.macs(positions, count, int(query.shape[3] or 1) if width is None else width)
    site.macs(positions, count, int(value.shape[3] or 1) if out is None else out)
    return site.out({2: heads, 3: out}, zero=value.zero)


def _heads(site: Site, query: Slots, key: Slots, value: Slots) -> Ids | None:
    """Ties heads; those that serve several query heads stay."""
    if key.shape[2] == query.shape[2]:
        return site.link(query.axes[2], site.link(key.axes[2], value.axes[2]))
    for slots in (query, key, value):
        site.freeze(slots.axes[2], "its heads serve several queries")
    return query.axes[2]


def _masked(site: Site, values: dict[str, Any], name: str, heads: Ids | None) -> None:
    """Biases and masks (batch, heads or 1, time, time)."""
    value = values.get(name)
    if value is None:
        return
    slots = operands(site, [value])[0]
    rank = len(slots.shape)
    site.barrier(slots, f"it is an attention's {name}", [a for a in slots.tracked if a != rank - 3])
    if rank < 3 or slots.shape[rank - 3] == 1:
        return
    if symbolic(value):
        site.link(heads, slots.axes[rank - 3], f"it meets an attention's {name}")
    elif heads is not None:
        edit_argument(
            site,
            name,
            lambda old, kept: alike(old, np.take(np.asarray(old), kept(heads), axis=rank - 3)),
        )
