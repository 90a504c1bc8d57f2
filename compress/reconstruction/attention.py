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
from typing import Any

import numpy as np

from compress.model.internals import attends_as, attention_part, layers_inside
from compress.reconstruction.kinds import Array, Kept, Part
from compress.reconstruction.least_squares import Problem, fitted
from compress.reconstruction.matching import Match, Order, left
from compress.reconstruction.report import KEPT, REPAIRED, LayerRepair, explain_kept
from compress.reconstruction.sampling import Sampler
from compress.reconstruction.sums import Numbers, Sample
from compress.reconstruction.values import Chunks, Value

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


class Scores(Match):
    """A query projection, and that of the keys that it meets: calls and parts are one of each."""


def narrowed(
    model: Any,
    order: Order,
    matches: dict[int, Match],
    kept: Kept,
    mask: Callable[[Any], Any],
) -> list[LayerRepair]:
    """Put queries and keys of narrower heads together, in `matches` and in `order`.

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
        both = [matches.get(id(attention_part(layer, name))) for name in ("query", "key")]
        pair = [match for match in both if match is not None]
        narrow = [match for match in pair if kept(match.twin.kernel, 2) is not None]
        if not narrow:
            continue
        for match in narrow:
            del matches[id(match.layer)]
        reason = ""
        if len(pair) < 2:
            reason = "the attention's other projection cannot be solved for"
        elif any(len(match.calls) > 1 for match in pair):
            reason = "its heads became narrower and it is called several times"
        elif any(mask(match.layer.kernel) is not None for match in pair):
            reason = "its heads became narrower and its weights are masked"
        elif not order.together([match.calls[0] for match in pair]):
            reason = "its keys depend on its queries"
        if reason:
            rest += [left(match.name, match.layer, reason) for match in narrow]
            continue
        query, key = pair
        matches[id(query.layer)] = Scores(
            query.name, query.layer, query.twin, query.calls + key.calls,
            query.twin_calls + key.twin_calls, query.parts + key.parts, query.twins + key.twins,
        )  # fmt: skip
    return rest


class _Side:
    """Queries or keys: how the dense model's are made of the pruned model's inputs.

    Args:
        part, twin: Of the pruned and of the dense projection.
        given, theirs: What they are given.
        sampler: Draws positions.

    Attributes:
        whole: The dense kernel at kept heads (in, heads, D), of all inputs, and its bias.
        dense: The same at kept inputs.
        train, held: Rows of inputs, and what the dense one makes at kept heads.
    """

    def __init__(
        self, part: Part, twin: Part, given: Chunks, theirs: Chunks, sampler: Sampler
    ) -> None:
        self.part = part
        inputs, heads = (
            np.arange(twin.kernel.shape[axis]) if found is None else found
            for axis, found in ((axis, sampler.kept(twin.kernel, axis)) for axis in (0, 1))
        )
        kernel = np.asarray(twin.kernel.numpy(), np.float64)[:, heads]
        bias = twin.bias_vector().reshape(twin.kernel.shape[1:])[heads]
        self.whole: Weights = kernel, bias
        self.dense: Weights = kernel[inputs], bias
        flat = kernel.reshape(len(kernel), -1).astype(np.float32)
        most = max(1, sampler.bytes // (4 * part.columns))
        parts: tuple[list[Sample], list[Sample]] = [], []
        for mine, other, hold in zip(given, theirs, sampler.batches.held, strict=True):
            made = part.blank_output(mine.blank.shape)
            where = sampler.places(part, mine, made, most)
            rows = part.rows(mine.array, made, where)
            targets = twin.rows(other.array, made, where)[0] @ flat
            targets = targets + bias.reshape(-1).astype(np.float32)
            parts[hold].append(Sample(rows.astype(np.float32, copy=False), targets))
        self.train, self.held = (Sample.joined(some) for some in parts)

    def fit(self) -> tuple[Weights, Weights, float]:
        """Return weights and bias without and with the rows held back, and the ridge."""
        kernel, bias = self.dense
        flat, shift = kernel.reshape(1, len(kernel), -1), bias.reshape(1, -1)
        problem = Problem(flat, None, None if self.part.bias is not None else shift)
        found = fitted(problem, self.train, [self.held], shift, None)
        if not found.better:
            return self.dense, self.dense, found.ridge
        trial, constant = problem.solved(self.train.sums(), found.ridge)
        return (
            (trial.reshape(kernel.shape), constant.reshape(bias.shape)),
            (found.weights.reshape(kernel.shape), found.shift.reshape(bias.shape)),
            found.ridge,
        )


def solved(match: Scores, given: Sequence[Chunks], sampler: Sampler) -> LayerRepair:
    """Solve for queries and keys of narrower heads.

    Args:
        match: Both projections.
        given: Inputs of both in the pruned model.
        sampler: Draws positions.
    """
    began = time.perf_counter()
    theirs = [sampler.given[id(node)][0] for node in match.twin_calls]
    sides = [
        _Side(*side, sampler) for side in zip(match.parts, match.twins, given, theirs, strict=True)
    ]
    trials, wholes, ridges = zip(*(side.fit() for side in sides), strict=True)
    width = match.layer.kernel.shape[2]
    trial, whole = _projected(sides, trials, width), _projected(sides, wholes, width)
    dense = [side.whole for side in sides]
    now = [
        (part.kernel.numpy().astype(np.float64), part.bias_vector().reshape(part.kernel.shape[1:]))
        for part in match.parts
    ]
    before = after = unit = 0.0
    for index in np.flatnonzero(sampler.batches.held):
        wanted = _scores(match.twins, dense, [chunks[index] for chunks in theirs])
        x = [chunks[index] for chunks in given]
        unit += float((wanted**2).sum())
        before += float(((_scores(match.parts, now, x) - wanted) ** 2).sum())
        after += float(((_scores(match.parts, trial, x) - wanted) ** 2).sum())
    before, after = before / (unit or 1.0), after / (unit or 1.0)
    better = after < before
    if better:
        for part, (kernel, bias) in zip(match.parts, whole, strict=True):
            part.kernel.assign(kernel)
            if part.bias is not None:
                part.set_bias(bias)
    return LayerRepair(
        match.name, type(match.layer).__name__, REPAIRED if better else KEPT,
        before, after if better else before, "scores", max(ridges),
        len(sides[0].train) + len(sides[0].held), time.perf_counter() - began,
        "" if better else explain_kept(before, after),
    )  # fmt: skip


def _projected(sides: Sequence[_Side], fits: Sequence[Weights], width: int) -> list[Weights]:
    """Return kernels and biases of `width` columns a head whose products are the nearest."""
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
    """Return what queries and keys are multiplied by, (D, width), of their products."""
    (r, r_inverse), (s, s_inverse) = _root(queries), _root(keys)
    u, sizes, v = np.linalg.svd(r @ s.T)
    scale = np.sqrt(sizes[:width])
    return r_inverse @ u[:, :width] * scale, s_inverse @ v[:width].T * scale


def _root(gram: Numbers) -> tuple[Numbers, Numbers]:
    """Return R with R'R = gram, and its inverse where that says anything."""
    sizes, vectors = np.linalg.eigh(gram)
    alive = sizes > 1e-10 * max(float(sizes.max()), 1e-300)
    root = np.sqrt(np.where(alive, sizes, 0.0))
    return root[:, None] * vectors.T, vectors * np.where(alive, 1 / np.where(alive, root, 1), 0)


def _scores(parts: Sequence[Part], weights: Sequence[Weights], x: Sequence[Value]) -> Array:
    """Return scores less their means over keys, (examples, heads, queries, keys)."""
    made = []
    for part, (kernel, bias), value, most in zip(parts, weights, x, (QUERIES, KEYS), strict=True):
        count, y = len(value.blank), part.blank_output(value.blank.shape)
        positions = part.positions(y)
        chosen = np.unique(np.linspace(0, positions - 1, min(positions, most)).astype(int))
        where = np.repeat(np.arange(count), len(chosen)), np.tile(chosen, count)
        rows = part.rows(value.array, y, where)[0]
        flat = rows @ kernel.reshape(len(kernel), -1).astype(np.float32)
        flat = flat + bias.reshape(-1).astype(np.float32)
        made.append(flat.reshape(count, len(chosen), *kernel.shape[1:]).transpose(0, 2, 1, 3))
    queries, keys = made
    keys = np.repeat(keys, queries.shape[1] // keys.shape[1], 1)
    scores = queries @ keys.transpose(0, 1, 3, 2) / np.sqrt(queries.shape[3])
    return np.asarray(scores - scores.mean(-1, keepdims=True))
