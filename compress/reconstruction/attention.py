"""Joint reconstruction of the queries and keys of attention layers with narrower heads.

Queries and keys affect the output only through the scores Q K' / sqrt(width) of each head. If each
projection were refitted to its own kept columns, the contribution of the removed columns would be
lost. Let Q and K be the queries and keys of the original model, with all D columns of a kept head,
and let X, Y be the inputs of both projections in the pruned model:

    Q^ = [X 1] B, K^ = [Y 1] C           ridge regressions of Q and K, towards the original kernels
    Q^'Q^ = R'R, K^'K^ = S'S             D x D; K^ centred
    R S' = U s V'                        its k largest singular values give the best k columns
    B R^-1 U_k sqrt(s_k) sqrt(k / D)     the new query kernel, with its bias as the last row
    C S^-1 V_k sqrt(s_k)                 the new key kernel

Keys are centred because softmax ignores a constant added to all scores of a query. The factor
sqrt(k / D) compensates for the layer's division by the square root of a smaller width. Heads that
share keys have a common basis: their queries are stacked. For given B and C, this minimizes the
squared error of the scores over all pairs of queries and keys (Eckart & Young 1936). The held-out
error is computed over pairs within the same example.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from compress.model.keras_internals import find_attention_projection, has_attention_of, list_layers
from compress.reconstruction.kernel_parts import Array, KeptIndices, KernelPart
from compress.reconstruction.least_squares import Problem, fit_weights
from compress.reconstruction.matching import CallOrder, Match, report_skipped
from compress.reconstruction.report import KEPT, REPAIRED, LayerRepair, explain_kept
from compress.reconstruction.row_products import Numbers
from compress.reconstruction.sampling import Sampler
from compress.reconstruction.sums import Sample
from compress.reconstruction.tensor_store import Chunks, StoredTensor

MAX_QUERIES, MAX_KEYS = 64, 256
"""Maximum numbers of query and key positions per example at which scores are compared."""
ATTENTION_CLASSES = ("MultiHeadAttention", "GroupQueryAttention")
"""Names of the classes in `keras.layers`."""


Weights = tuple[Numbers, Numbers]
"""Kernel (in, heads, width) and bias (heads, width)."""


class AttentionMatch(Match):
    """A query projection matched with the key projection of the same attention layer.

    `calls` and `parts` have two entries each: first the query, then the key.
    """


def group_narrow_heads(
    model: Any,
    order: CallOrder,
    matches: dict[int, Match],
    kept: KeptIndices,
    mask: Callable[[Any], Any],
) -> list[LayerRepair]:
    """Merge the queries and keys of narrower heads in `matches`, and report those left out.

    Changes `matches` and `order` in place.

    Args:
        model: The pruned model.
        order: Order of its calls.
        matches: Matched layers by id of the layer.
        kept: Returns the kept indices of the original model's weights.
        mask: Returns the positions of a pruned kernel that may differ from zero; None: all.

    Returns:
        Report rows of the projections that cannot be reconstructed.
    """
    skipped = []
    for layer in list_layers(model):
        if not any(has_attention_of(layer, name) for name in ATTENTION_CLASSES):
            continue
        both = [
            matches.get(id(find_attention_projection(layer, name))) for name in ("query", "key")
        ]
        pair = [match for match in both if match is not None]
        narrow = [match for match in pair if kept(match.original_layer.kernel, 2) is not None]
        if not narrow:
            continue
        for match in narrow:
            del matches[id(match.layer)]
        reason = ""
        if len(pair) < 2:
            reason = "the attention's other projection cannot be reconstructed"
        elif any(len(match.calls) > 1 for match in pair):
            reason = "its heads became narrower and it is called several times"
        elif any(mask(match.layer.kernel) is not None for match in pair):
            reason = "its heads became narrower and its weights are masked"
        elif not order.merge_steps([match.calls[0] for match in pair]):
            reason = "its keys depend on its queries"
        if reason:
            skipped += [report_skipped(match.name, match.layer, reason) for match in narrow]
            continue
        query, key = pair
        matches[id(query.layer)] = AttentionMatch(
            query.name,
            query.layer,
            query.original_layer,
            query.calls + key.calls,
            query.original_calls + key.original_calls,
            query.parts + key.parts,
            query.original_parts + key.original_parts,
        )
    return skipped


class _Projection:
    """A query or key projection: regression of the original outputs on the pruned model's inputs.

    Args:
        part, original_part: Projection in the pruned and in the original model.
        pruned_chunks, original_chunks: Inputs of both projections.
        sampler: Draws the positions.

    Attributes:
        original_weights: Original kernel of the kept heads (in, heads, D), with all inputs, and its
            bias.
        kept_weights: The same, restricted to the kept inputs.
        train, held_out: Rows of inputs, with the original outputs of the kept heads as targets.
    """

    def __init__(
        self,
        part: KernelPart,
        original_part: KernelPart,
        pruned_chunks: Chunks,
        original_chunks: Chunks,
        sampler: Sampler,
    ) -> None:
        self.part = part
        kept_inputs, kept_heads = (
            np.arange(original_part.kernel.shape[axis]) if indices is None else indices
            for axis, indices in (
                (axis, sampler.kept(original_part.kernel, axis)) for axis in (0, 1)
            )
        )
        kernel = np.asarray(original_part.kernel.numpy(), np.float64)[:, kept_heads]
        bias = original_part.read_bias().reshape(original_part.kernel.shape[1:])[kept_heads]
        self.original_weights: Weights = kernel, bias
        self.kept_weights: Weights = kernel[kept_inputs], bias
        flat = kernel.reshape(len(kernel), -1).astype(np.float32)
        max_positions = max(1, sampler.max_bytes // (4 * part.columns))
        parts: tuple[list[Sample], list[Sample]] = [], []
        for pruned_value, original_value, is_held_out in zip(
            pruned_chunks, original_chunks, sampler.batches.held_out, strict=True
        ):
            blank = part.create_blank_output(pruned_value.blank.shape)
            positions = sampler.sample_positions(part, pruned_value, blank, max_positions)
            rows = part.extract_rows(pruned_value.array, blank, positions)
            targets = original_part.extract_rows(original_value.array, blank, positions)[0] @ flat
            targets = targets + bias.reshape(-1).astype(np.float32)
            parts[is_held_out].append(Sample(rows.astype(np.float32, copy=False), targets))
        self.train, self.held_out = (Sample.concat(samples) for samples in parts)

    def fit(self) -> tuple[Weights, Weights, float]:
        """Return the weights fitted without and with the held-out rows, and the ridge."""
        kernel, bias = self.kept_weights
        flat, shift = kernel.reshape(1, len(kernel), -1), bias.reshape(1, -1)
        problem = Problem(flat, None, None if self.part.bias is not None else shift)
        solution = fit_weights(problem, self.train, [self.held_out], shift, None)
        if not solution.is_better:
            return self.kept_weights, self.kept_weights, solution.ridge
        trial, constant = problem.solve(self.train.compute_sums(), solution.ridge)
        return (
            (trial.reshape(kernel.shape), constant.reshape(bias.shape)),
            (solution.weights.reshape(kernel.shape), solution.shift.reshape(bias.shape)),
            solution.ridge,
        )


def solve_attention(
    match: AttentionMatch, pruned_inputs: Sequence[Chunks], sampler: Sampler
) -> LayerRepair:
    """Reconstruct the queries and keys of an attention layer with narrower heads.

    The weights are assigned only if the held-out error of the scores decreases.

    Args:
        match: Both projections.
        pruned_inputs: Inputs of the query and of the key projection in the pruned model.
        sampler: Draws the positions.

    Returns:
        The report row of the layer.
    """
    original_inputs = [sampler.original_inputs[id(node)][0] for node in match.original_calls]
    sides = [
        _Projection(*side, sampler)
        for side in zip(
            match.parts, match.original_parts, pruned_inputs, original_inputs, strict=True
        )
    ]
    trial_fits, full_fits, ridges = zip(*(side.fit() for side in sides), strict=True)
    width = match.layer.kernel.shape[2]
    trial, full = _project_heads(sides, trial_fits, width), _project_heads(sides, full_fits, width)
    original = [side.original_weights for side in sides]
    current = [
        (part.kernel.numpy().astype(np.float64), part.read_bias().reshape(part.kernel.shape[1:]))
        for part in match.parts
    ]
    before = after = target_norm = 0.0
    for index in np.flatnonzero(sampler.batches.held_out):
        target = _compute_scores(
            match.original_parts, original, [chunks[index] for chunks in original_inputs]
        )
        x = [chunks[index] for chunks in pruned_inputs]
        target_norm += float((target**2).sum())
        before += float(((_compute_scores(match.parts, current, x) - target) ** 2).sum())
        after += float(((_compute_scores(match.parts, trial, x) - target) ** 2).sum())
    before, after = before / (target_norm or 1.0), after / (target_norm or 1.0)
    is_better = after < before
    if is_better:
        for part, (kernel, bias) in zip(match.parts, full, strict=True):
            part.kernel.assign(kernel)
            if part.bias is not None:
                part.set_bias(bias)
    return LayerRepair(
        match.name, type(match.layer).__name__, REPAIRED if is_better else KEPT,
        before, after if is_better else before, "scores", max(ridges),
        len(sides[0].train) + len(sides[0].held_out),
        "" if is_better else explain_kept(before, after),
    )  # fmt: skip


def _project_heads(
    sides: Sequence[_Projection], fits: Sequence[Weights], width: int
) -> list[Weights]:
    """Return kernels with `width` columns per head that best approximate the scores.

    Args:
        sides: Query and key projection.
        fits: Fitted kernel and bias of each, with all D columns per head.
        width: Columns per head of the pruned model.
    """
    (query, query_bias), (key, key_bias) = fits
    groups, heads_per_group = key.shape[1], query.shape[1] // key.shape[1]
    full = query.shape[2]
    grams = []
    for side, (kernel, bias), centred in zip(sides, fits, (False, True), strict=True):
        flat = kernel.reshape(1, len(kernel), -1)
        outputs = side.train.predict(flat, bias.reshape(1, -1)).reshape(-1, *kernel.shape[1:])
        outputs = outputs - outputs.mean(0) if centred else outputs
        grams.append(np.einsum("rhd,rhe->hde", outputs, outputs, optimize=True).astype(np.float64))
    by_group = grams[0].reshape(groups, heads_per_group, full, full).sum(1)
    bases = [_compute_bases(*pair, width) for pair in zip(by_group, grams[1], strict=True)]
    query_bases = np.repeat(
        np.stack([query_basis for query_basis, _ in bases]), heads_per_group, 0
    ) * np.sqrt(width / full)
    key_bases = np.stack([key_basis for _, key_basis in bases])
    return [
        (np.einsum("ihd,hdk->ihk", kernel, basis), np.einsum("hd,hdk->hk", bias, basis))
        for kernel, bias, basis in (
            (query, query_bias, query_bases), (key, key_bias, key_bases)
        )
    ]  # fmt: skip


def _compute_bases(queries: Numbers, keys: Numbers, width: int) -> tuple[Numbers, Numbers]:
    """Return the projections (D, width) of queries and keys from their Gram matrices."""
    (r, r_inverse), (s, s_inverse) = _factor_gram(queries), _factor_gram(keys)
    u, sizes, v = np.linalg.svd(r @ s.T)
    scale = np.sqrt(sizes[:width])
    return r_inverse @ u[:, :width] * scale, s_inverse @ v[:width].T * scale


def _factor_gram(gram: Numbers) -> tuple[Numbers, Numbers]:
    """Return R with R'R = gram and its pseudo-inverse."""
    sizes, vectors = np.linalg.eigh(gram)
    alive = sizes > 1e-10 * max(float(sizes.max()), 1e-300)
    root = np.sqrt(np.where(alive, sizes, 0.0))
    return root[:, None] * vectors.T, vectors * np.where(alive, 1 / np.where(alive, root, 1), 0)


def _compute_scores(
    parts: Sequence[KernelPart], weights: Sequence[Weights], x: Sequence[StoredTensor]
) -> Array:
    """Return the scores minus their mean over keys, (examples, heads, queries, keys)."""
    projected = []
    for part, (kernel, bias), value, max_positions in zip(
        parts, weights, x, (MAX_QUERIES, MAX_KEYS), strict=True
    ):
        count, y = len(value.blank), part.create_blank_output(value.blank.shape)
        position_count = part.count_positions(y)
        chosen = np.unique(
            np.linspace(0, position_count - 1, min(position_count, max_positions)).astype(int)
        )
        sampled = np.repeat(np.arange(count), len(chosen)), np.tile(chosen, count)
        rows = part.extract_rows(value.array, y, sampled)[0]
        flat = rows @ kernel.reshape(len(kernel), -1).astype(np.float32)
        flat = flat + bias.reshape(-1).astype(np.float32)
        projected.append(flat.reshape(count, len(chosen), *kernel.shape[1:]).transpose(0, 2, 1, 3))
    queries, keys = projected
    keys = np.repeat(keys, queries.shape[1] // keys.shape[1], 1)
    scores = queries @ keys.transpose(0, 1, 3, 2) / np.sqrt(queries.shape[3])
    return np.asarray(scores - scores.mean(-1, keepdims=True))
