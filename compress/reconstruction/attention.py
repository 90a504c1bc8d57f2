"""Attention whose heads became narrower: queries and keys are solved for together.

Scores are all that queries and keys are seen by: the scores of a head are Q K' / sqrt(width).
Refitting each of them to its own kept columns leaves what the removed ones said. With Q and K as
the dense model makes them, all D columns of a head that stays, and X, Y the pruned model's inputs
of both projections:

    Q^ = [X 1] B, K^ = [Y 1] C           ridge regressions of Q and K, towards the dense kernels
    Q^'Q^ = R'R, K^'K^ = S'S             D x D; K^ centred
    R S' = U s V'                        its k largest singular values are the best k columns
    B R^-1 U_k sqrt(s_k) sqrt(k / D)     the new query kernel, its bias below it
    C S^-1 V_k sqrt(s_k)                 the key's

Keys are centred because a softmax does not see what all scores of a query have in common. The
factor sqrt(k / D) is what the layer divides less by. Heads that share keys have one basis: their
queries lie below each other. Of all pairs of queries and keys this is the least squared error of
scores for B and C (Eckart & Young 1936); the judgement, on examples held back, is on pairs of the
same example.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.model.internals import attends_as, attention_part, layers_inside
from compress.reconstruction.kinds import Array, Kept, Part, Places, parts_of
from compress.reconstruction.least_squares import Problem, fitted
from compress.reconstruction.matching import Match, Order, left
from compress.reconstruction.report import KEPT, REPAIRED, LayerRepair
from compress.reconstruction.samples import Sample
from compress.reconstruction.sums import Numbers
from compress.reconstruction.values import Value

QUERIES, KEYS = 64, 256
"""Positions of an example at which scores are judged, at most."""
KINDS = {
    "MultiHeadAttention": "MultiHeadAttention",
    "GroupedQueryAttention": "GroupQueryAttention",
    "GroupQueryAttention": "GroupQueryAttention",
}
"""Class -> what `keras.layers` calls it."""


Weights = tuple[Numbers, Numbers]
"""Kernel (in, heads, width) and bias (heads, width)."""


@dataclass(frozen=True, eq=False)
class Scores(Match):
    """A query projection, and that of the keys that it meets: calls are one of each.

    Attributes:
        key, key_twin: The other projection, in the pruned and in the dense model.
    """

    key: Any
    key_twin: Any


def narrowed(
    model: Any,
    order: Order,
    matches: dict[int, Match],
    kept: Kept,
    mask: Callable[[Any], Any],
) -> list[LayerRepair]:
    """Puts queries and keys of narrower heads together, in `matches` and in `order`.

    Args:
        model: The pruned one.
        order: Of its calls.
        matches: By id of the layer.
        kept: Of the dense model's weights.
        mask: Where the pruned model's kernels may differ from zero.

    Returns:
        Rows of projections that are left.
    """
    rest = []
    for layer in layers_inside(model):
        kind = KINDS.get(type(layer).__name__)
        if kind is None or not attends_as(layer, kind):
            continue
        query, key = (matches.get(id(attention_part(layer, name))) for name in ("query", "key"))
        narrow = [m for m in (query, key) if m is not None and kept(m.twin.kernel, 2) is not None]
        if not narrow:
            continue
        for match in narrow:
            del matches[id(match.layer)]
        reason = "the attention's other projection cannot be solved for"
        if query is not None and key is not None:
            reason = ""
            if len(query.calls) > 1 or len(key.calls) > 1:
                reason = "its heads became narrower and it is called several times"
            elif mask(query.layer.kernel) is not None or mask(key.layer.kernel) is not None:
                reason = "its heads became narrower and its weights are masked"
            elif not order.together((query.calls[0], key.calls[0])):
                reason = "its keys depend on its queries"
        if reason or query is None or key is None:
            rest += [left(match.name, match.layer, reason) for match in narrow]
            continue
        matches[id(query.layer)] = Scores(
            query.name, query.layer, query.twin, (*query.calls, *key.calls),
            (*query.twin_calls, *key.twin_calls), key.layer, key.twin,
        )  # fmt: skip
    return rest


@dataclass(eq=False)
class _Side:
    """Queries or keys: how the dense model's are made of the pruned model's inputs.

    Attributes:
        part, twin: Of the pruned and of the dense projection.
        heads, inputs: Kept heads and inputs of the dense one.
        train, held: Rows of inputs, and what the dense one makes at kept heads.
    """

    part: Part
    twin: Part
    heads: npt.NDArray[np.int64]
    inputs: npt.NDArray[np.int64]
    train: Sample
    held: Sample

    def dense(self) -> Weights:
        """Returns the dense kernel at kept inputs and heads (in, heads, D), and its bias."""
        kernel, bias = self.at_heads()
        return kernel[self.inputs], bias

    def at_heads(self) -> Weights:
        """Returns the dense kernel at kept heads, of all inputs, and its bias."""
        kernel = np.asarray(self.twin.kernel.numpy(), np.float64)
        bias = self.twin.bias_vector().reshape(kernel.shape[1:])
        return kernel[:, self.heads], bias[self.heads]

    def own(self) -> Weights:
        """Returns the pruned kernel, (in, heads, width), and its bias."""
        kernel = np.asarray(self.part.kernel.numpy(), np.float64)
        return kernel, self.part.bias_vector().reshape(kernel.shape[1:])

    def fit(self) -> tuple[tuple[Weights, Weights], float]:
        """Returns weights and bias without and with the rows held back, and the ridge."""
        kernel, bias = self.dense()
        flat, shift = kernel.reshape(1, len(kernel), -1), bias.reshape(1, -1)
        free = self.part.bias is not None
        problem = Problem(flat, None, None if free else shift)
        found, _ = fitted(problem, self.train, [self.held], shift, None)
        if not found.better:
            return ((kernel, bias), (kernel, bias)), found.ridge
        trial = problem.solved(self.train.sums(), found.ridge)
        whole = found.weights, found.shift
        return (_shaped(trial, kernel.shape), _shaped(whole, kernel.shape)), found.ridge

    def assign(self, kernel: Numbers, bias: Numbers) -> None:
        """Assigns both."""
        self.part.kernel.assign(kernel)
        if self.part.bias is not None:
            self.part.set_bias(bias)


def solved(
    match: Scores,
    given: Sequence[Sequence[Value]],
    theirs: Sequence[Sequence[Value]],
    held: Sequence[bool],
    kept: Kept,
    places: Callable[[Part, Value, Array], Places],
) -> LayerRepair:
    """Solves for queries and keys of narrower heads.

    Args:
        match: Both projections.
        given: Inputs of both in the pruned model, chunk by chunk.
        theirs: The same in the dense model.
        held: Whether a chunk is held back.
        kept: Of the dense model's weights.
        places: Draws positions of a chunk.
    """
    began = time.perf_counter()
    layers = (match.layer, match.twin), (match.key, match.key_twin)
    sides = [
        _side(pair, mine, other, held, kept, places)
        for pair, mine, other in zip(layers, given, theirs, strict=True)
    ]
    fits = [side.fit() for side in sides]
    trial, whole = (
        _projected(sides, [both[place] for both, _ in fits], match.layer.kernel.shape[2])
        for place in (0, 1)
    )
    before, after = 0.0, 0.0
    unit = 0.0
    dense = [side.at_heads() for side in sides]
    now = [side.own() for side in sides]
    for index, hold in enumerate(held):
        if hold:
            wanted = _scores(sides, dense, [part[index] for part in theirs], dense=True)
            x = [part[index] for part in given]
            unit += float((wanted**2).sum())
            before += float(((_scores(sides, now, x) - wanted) ** 2).sum())
            after += float(((_scores(sides, trial, x) - wanted) ** 2).sum())
    before, after = before / (unit or 1.0), after / (unit or 1.0)
    better = after < before
    if better:
        for side, (kernel, bias) in zip(sides, whole, strict=True):
            side.assign(kernel, bias)
    reason = f"solved, its error on examples held back would be {after:.3g}, not {before:.3g}"
    return LayerRepair(
        match.name, type(match.layer).__name__, REPAIRED if better else KEPT,
        before, after if better else before, "scores", max(ridge for _, ridge in fits),
        len(sides[0].train) + len(sides[0].held), time.perf_counter() - began,
        "" if better else reason,
    )  # fmt: skip


def _side(
    layers: tuple[Any, Any],
    given: Sequence[Value],
    theirs: Sequence[Value],
    held: Sequence[bool],
    kept: Kept,
    places: Callable[[Part, Value, Array], Places],
) -> _Side:
    rank = len(given[0].blank.shape)
    (part,), (twin,) = (parts_of(layer, rank)[0] for layer in layers)
    inputs, heads = (
        np.arange(twin.kernel.shape[axis]) if found is None else found
        for axis, found in ((axis, kept(twin.kernel, axis)) for axis in (0, 1))
    )
    kernel = twin.kernel.numpy()[:, heads]
    bias = twin.bias_vector().reshape(twin.kernel.shape[1:])[heads].reshape(-1)
    parts: tuple[list[Sample], list[Sample]] = [], []
    for mine, other, hold in zip(given, theirs, held, strict=True):
        where = places(part, mine, part.blank_output(mine.blank.shape))
        rows = part.rows(mine.array, mine.blank, where)
        targets = twin.rows(other.array, other.blank, where)[0] @ kernel.reshape(len(kernel), -1)
        targets = targets + bias.astype(np.float32)
        parts[hold].append(Sample(rows.astype(np.float32, copy=False), targets))
    train, judge = (Sample.joined(some) for some in parts)
    return _Side(part, twin, heads, inputs, train, judge)


def _projected(sides: Sequence[_Side], fits: Sequence[Weights], width: int) -> list[Weights]:
    """Returns kernels and biases of `width` columns a head whose products are the nearest."""
    (query, query_bias), (key, key_bias) = fits
    groups, each = key.shape[1], query.shape[1] // key.shape[1]
    full = query.shape[2]
    grams = []
    for side, (kernel, bias), centred in zip(sides, fits, (False, True), strict=True):
        flat = kernel.reshape(1, len(kernel), -1)
        made = side.train.predicted(flat, bias.reshape(1, -1)).reshape(-1, *kernel.shape[1:])
        made = made - made.mean(0) if centred else made
        grams.append(np.einsum("rhd,rhe->hde", made, made, optimize=True).astype(np.float64))
    by_group = grams[0].reshape(groups, each, full, full).sum(1)
    bases = [_bases(*pair, width) for pair in zip(by_group, grams[1], strict=True)]
    first = np.repeat(np.stack([one for one, _ in bases]), each, 0) * np.sqrt(width / full)
    second = np.stack([other for _, other in bases])
    return [
        (np.einsum("ihd,hdk->ihk", kernel, basis), np.einsum("hd,hdk->hk", bias, basis))
        for kernel, bias, basis in (
            (query, query_bias, first), (key, key_bias, second)
        )
    ]  # fmt: skip


def _bases(queries: Numbers, keys: Numbers, width: int) -> tuple[Numbers, Numbers]:
    """Returns what queries and keys are multiplied by, (D, width), of their products."""
    (r, r_inverse), (s, s_inverse) = _root(queries), _root(keys)
    u, sizes, v = np.linalg.svd(r @ s.T)
    scale = np.sqrt(sizes[:width])
    return r_inverse @ u[:, :width] * scale, s_inverse @ v[:width].T * scale


def _root(gram: Numbers) -> tuple[Numbers, Numbers]:
    """Returns R with R'R = gram, and its inverse where that says anything."""
    sizes, vectors = np.linalg.eigh(gram)
    alive = sizes > 1e-10 * max(float(sizes.max()), 1e-300)
    root = np.sqrt(np.where(alive, sizes, 0.0))
    return root[:, None] * vectors.T, vectors * np.where(alive, 1 / np.where(alive, root, 1), 0)


def _scores(
    sides: Sequence[_Side],
    weights: Sequence[Weights],
    x: Sequence[Value],
    *,
    dense: bool = False,
) -> Array:
    """Returns scores less their means over keys, (examples, heads, queries, keys)."""
    made = []
    for side, (kernel, bias), value, most in zip(sides, weights, x, (QUERIES, KEYS), strict=True):
        part = side.twin if dense else side.part
        count = len(value.blank)
        positions = part.positions(part.blank_output(value.blank.shape))
        chosen = np.unique(np.linspace(0, positions - 1, min(positions, most)).astype(int))
        where = np.repeat(np.arange(count), len(chosen)), np.tile(chosen, count)
        rows = part.rows(value.array, value.blank, where)[0]
        flat = rows @ kernel.reshape(len(kernel), -1).astype(np.float32)
        flat = flat + bias.reshape(-1).astype(np.float32)
        made.append(flat.reshape(count, len(chosen), *kernel.shape[1:]).transpose(0, 2, 1, 3))
    queries, keys = made
    keys = np.repeat(keys, queries.shape[1] // keys.shape[1], 1)
    scores = queries @ keys.transpose(0, 1, 3, 2) / np.sqrt(queries.shape[3])
    return np.asarray(scores - scores.mean(-1, keepdims=True))


def _shaped(both: Weights, shape: tuple[int, ...]) -> Weights:
    return both[0].reshape(shape), both[1].reshape(shape[1:])
